"""PPO iterations of tunix: an answer, a line of JSON, for each line of input.

    python tunix_ppo.py WORK

Runs in an environment of its own, see research/benchmarks/ppo.py, and needs nothing of
this project. WORK is that module's `work_of` as JSON. The learner asks for the next
prompts when it is done with an iteration: the clock runs from there to there.
"""

import json
import os
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"


class Ids:
    """A tokenizer whose texts are ids: neither padding nor EOS is in the vocabulary."""

    def encode(self, text, **_):
        return [int(word) for word in str(text).split()]

    def decode(self, ids, **_):
        return " ".join(map(str, ids))

    def bos_id(self):
        return None

    def eos_id(self):
        return -2

    def pad_id(self):
        return -1


class Turns:
    """The prompts of iteration after iteration, each when a line is read."""

    def __init__(self, prompts, answers):
        self.prompts, self.answers = prompts, answers
        self.learner = None

    def __iter__(self):
        import jax
        import numpy as np
        from flax import nnx

        print("{}", file=self.answers, flush=True)
        cluster = self.learner.rl_cluster
        trainers = cluster.actor_trainer, cluster.critic_trainer
        for _ in sys.stdin:
            updates = cluster.actor_trainer.train_steps
            began, cpu = time.perf_counter(), time.process_time()
            yield {"prompts": np.array(self.prompts)}
            jax.block_until_ready([nnx.state(t.model) for t in trainers])
            ended = time.perf_counter()
            answer = {
                "seconds": ended - began,
                "cpu": time.process_time() - cpu,
                "tokens": self.tokens,
                "updates": cluster.actor_trainer.train_steps - updates,
                "parts": {
                    "rollout": self.drawn - began,
                    "scoring": self.scored - self.drawn,
                    "update": ended - self.scored,
                },
            }
            print(json.dumps(answer), file=self.answers, flush=True)

    def watch(self, learner):
        """Marks the ends of the rollout and of scoring, counts tokens."""
        self.learner = learner
        draw = learner.rl_cluster.generate
        score = learner._generate_and_compute_advantage

        def watched_draw(*arguments, **options):
            rollout = draw(*arguments, **options)
            self.drawn = time.perf_counter()
            self.tokens = sum(map(len, rollout.tokens))
            return rollout

        def watched_score(*arguments, **options):
            example = score(*arguments, **options)  # it reads the advantages
            self.scored = time.perf_counter()
            return example

        learner.rl_cluster.generate = watched_draw
        learner._generate_and_compute_advantage = watched_score


def models(work):
    """Policy, reference, reward model, critic."""
    from flax import nnx
    from tunix.models.llama3.model import Llama3, ModelConfig
    from tunix.rl.utils import create_critic_model

    class Llama(Llama3):
        """In 0.1.7 the PPO scores with `segment_ids`, which this model does not take.

        Its mask says as much: tunix's own Gemma 4 drops them in the same way.
        """

        def __call__(self, *arguments, segment_ids=None, **options):
            return super().__call__(*arguments, **options)

    sizes = work["model"]
    config = ModelConfig(
        num_layers=sizes["layers"],
        vocab_size=sizes["vocab"],
        embed_dim=sizes["width"],
        hidden_dim=sizes["ffn"],
        num_heads=sizes["heads"],
        head_dim=sizes["width"] // sizes["heads"],
        num_kv_heads=sizes["heads"],
        rope_theta=10_000,
        norm_eps=1e-6,
    )
    policy, reference = (Llama(config, rngs=nnx.Rngs(0)) for _ in range(2))
    return policy, reference, create_critic_model(policy), create_critic_model(policy)


def main() -> None:
    work = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed
    import jax
    import numpy as np
    import optax
    from tunix.rl import rl_cluster
    from tunix.rl.ppo import ppo_learner
    from tunix.rl.rollout.base_rollout import RolloutConfig

    prompts, micro = work["prompts"], work["micro"]
    texts = [" ".join(map(str, prompt)) for prompt in prompts]
    device = np.array(jax.devices()[:1]).reshape(1, 1)
    mesh = jax.sharding.Mesh(device, ("fsdp", "tp"))
    training = rl_cluster.RLTrainingConfig(
        actor_optimizer=optax.adamw(work["lr"]),
        critic_optimizer=optax.adamw(work["lr"]),
        eval_every_n_steps=1_000_000,
        max_steps=1_000_000,
        mini_batch_size=work["minibatch"],
        train_micro_batch_size=micro,
        rollout_micro_batch_size=len(prompts),
        compute_logps_micro_batch_size=micro,
    )
    rollout = RolloutConfig(
        max_tokens_to_generate=work["new"],
        max_prompt_length=len(prompts[0]),
        kv_cache_size=len(prompts[0]) + work["new"],
        temperature=1.0,
        top_p=1.0,
        top_k=None,
    )
    policy, reference, reward, critic = models(work)
    cluster = rl_cluster.RLCluster(
        actor=policy,
        critic=critic,
        reference=reference,
        reward=reward,
        tokenizer=Ids(),
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh={role: mesh for role in rl_cluster.Role},
            training_config=training,
            rollout_config=rollout,
        ),
    )
    learner = ppo_learner.PPOLearner(
        cluster,
        ppo_learner.PPOConfig(
            num_iterations=work["epochs"],
            gae_lambda=work["lam"],
            beta=work["kl"],
            epsilon=work["clip"],
            clip_range_value=work["clip"],
            kl_method="kl",
        ),
    )
    turns = Turns(texts, answers)
    turns.watch(learner)
    learner.train(turns)


if __name__ == "__main__":
    main()
