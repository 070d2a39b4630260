"""PPO iterations of TRL: an answer, a line of JSON, for each line of input.

    python trl_ppo.py WORK

Runs in an environment of its own, see research/benchmarks/ppo.py, and needs nothing of
this project. WORK is that module's `work_of` as JSON. The clock of an iteration starts
when a line is read and stops when the trainer reports the end of the step.
"""

import contextlib
import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"


def models(work):
    """Policy, reference, reward model, value model."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers import LlamaForSequenceClassification as Scored

    sizes = work["model"]
    config = LlamaConfig(
        vocab_size=sizes["vocab"],
        hidden_size=sizes["width"],
        intermediate_size=sizes["ffn"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        num_labels=1,
        attn_implementation="sdpa",
    )
    policy = LlamaForCausalLM(config)
    reference = LlamaForCausalLM(config)
    reference.load_state_dict(policy.state_dict())
    return policy, reference, Scored(config), Scored(config)


def tokenizer(vocab: int):
    """A word for each id; the ids of padding and of EOS are outside of the model's."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {str(i): i for i in range(vocab)} | {"[PAD]": vocab, "[EOS]": vocab + 1}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="0")),
        pad_token="[PAD]",
        eos_token="[EOS]",
    )


class Clock:
    """Times of one iteration's parts, and how much was done."""

    def __init__(self, answers):
        self.answers = answers

    def start(self):
        if not sys.stdin.readline():
            self.answers.close()
            os._exit(0)
        self.began, self.cpu = time.perf_counter(), time.process_time()
        self.drawn = self.scored = None
        self.tokens = self.updates = 0

    def stop(self):
        ended = time.perf_counter()
        answer = {
            "seconds": ended - self.began,
            "cpu": time.process_time() - self.cpu,
            "tokens": self.tokens,
            "updates": self.updates,
            "parts": {
                "rollout": self.drawn - self.began,
                "scoring": self.scored - self.drawn,
                "update": ended - self.scored,
            },
        }
        print(json.dumps(answer), file=self.answers, flush=True)


def watch(clock: Clock, module, trainer) -> None:
    """Marks the ends of the rollout and of scoring, counts tokens and updates."""
    draw, accumulate = module.batch_generation, trainer.accelerator.accumulate
    torch_optimizer = trainer.optimizer.optimizer
    step = torch_optimizer.step

    def watched_draw(model, queries, *rest):
        responses, logits = draw(model, queries, *rest)
        clock.drawn = time.perf_counter()
        clock.tokens = responses[:, queries.shape[1] :].numel()
        return responses, logits

    @contextlib.contextmanager
    def watched_accumulate(*models):
        if clock.scored is None:
            clock.scored = time.perf_counter()
        with accumulate(*models):
            yield

    def watched_step(*arguments, **options):
        clock.updates += 1
        return step(*arguments, **options)

    module.batch_generation = watched_draw
    trainer.accelerator.accumulate = watched_accumulate
    torch_optimizer.step = watched_step


def main() -> None:
    work = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    torch.set_num_threads(work["cores"])
    torch.manual_seed(0)
    clock = Clock(answers)

    class Turns(TrainerCallback):
        def on_train_begin(self, *arguments, **options):
            print("{}", file=answers, flush=True)
            clock.start()

        def on_step_end(self, *arguments, **options):
            clock.stop()
            clock.start()

    policy, reference, reward, value = models(work)
    prompts, micro = work["prompts"], work["micro"]
    settings = PPOConfig(
        output_dir=work["folder"],
        total_episodes=len(prompts) * 1_000_000,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=work["minibatch"] // micro,
        num_mini_batches=1,
        num_ppo_epochs=work["epochs"],
        local_rollout_forward_batch_size=len(prompts),
        response_length=work["new"],
        temperature=1.0,
        learning_rate=work["lr"],
        kl_coef=work["kl"],
        lam=work["lam"],
        cliprange=work["clip"],
        vf_coef=work["value_coef"],
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1_000_000,
    )
    trainer = PPOTrainer(
        settings,
        processing_class=tokenizer(work["model"]["vocab"]),
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        # Many times over: at the end of its data accelerate does not accumulate.
        train_dataset=Dataset.from_dict({"input_ids": prompts * 1000}),
        callbacks=[Turns()],
    )
    watch(clock, ppo_trainer, trainer)
    trainer.train()


if __name__ == "__main__":
    main()
