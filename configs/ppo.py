"""PPO of a policy on its own responses, rewarded by answers and by a reward model.

default: the method as the thesis describes it, for a small checkpoint on one machine.
  python -m train.ppo --config=configs/ppo.py --config.policy=DIR \
      --config.reward_model=DIR --config.prompts=FILE.jsonl --workdir=runs/ppo
mini: three short iterations, to see that checkpoints and prompts work.
  python -m train.ppo --config=configs/ppo.py:mini --config.policy=DIR \
      --config.reward_model=DIR --config.prompts=FILE.jsonl --workdir=runs/ppo_mini
  Two CPU cores, a minute for models of 5M parameters. Expect `train/reward` and
  `train/kl/response` in runs/ppo_mini/metrics.jsonl, a policy in its hf/.
prm800k, metamath: Llemma-7B at the thesis's settings (chapter 6; appendix of the
  paper), 500 iterations of 512 responses.
  python -m train.ppo --config=configs/ppo.py:prm800k --config.policy=DIR \
      --config.reward_model=DIR --config.prompts=FILE.jsonl \
      --config.validation=FILE.jsonl --workdir=runs/ppo_prm800k
  For 64 chips of TPU v5e, as README ("Pods") launches it; not run yet. Planned by
  python -m train.plan --config=configs/ppo.py:prm800k --topology=v5e:8x8 \
      --model=llemma-7b
  Expect `eval/accuracy` near 0.29 on MATH500. Answers are compared by MATH's rules
  (`rewards.equal`).
faithful: prm800k with the quirks of the original code, but for its penalty of the
  form: there, up to 1 is taken off where the solution before "# Answer" does not
  state the answer, in a box, as $answer$ (half) or as it is (a quarter left). Here, as
  in prm800k, only responses that were cut at their budget pay.
qlora: policy, critic and reward model as adapters of rank 64 over one base in 4 bits,
  which is the reference; the reward model is the adapter/ of a run of train.reward.
  python -m train.ppo --config=configs/ppo.py:qlora --config.policy=DIR \
      --config.reward_model=DIR/adapter --config.prompts=FILE.jsonl \
      --workdir=runs/ppo_qlora
  Sizes are those of chapter 3: 70B, 256 tokens in, 1,024 out, for 16 chips of TPU v5e
  (on fewer devices set mesh.tensor). Not run yet. Planned by
  python -m train.plan --config=configs/ppo.py:qlora --topology=v5e:4x4 \
      --model=llama2-70b
  (with or without --config.reward_model=DIR/adapter).
"""

from ml_collections import config_dict

VARIANTS = ("default", "mini", "prm800k", "metamath", "faithful", "qlora")
MATH = "research.grading.equivalence:equivalent"  # \frac{1}{2} is \frac12 and 0.5


def get_config(variant="default"):
    c = config_dict.ConfigDict()
    c.policy = config_dict.placeholder(str)
    c.policy_adapter = config_dict.placeholder(str)  # with lora: it starts from these
    c.reward_model = config_dict.placeholder(str)
    c.prompts = config_dict.placeholder(str)
    c.validation = config_dict.placeholder(str)  # prompts with answers
    c.dtype = "float32"
    c.remat = "none"
    c.export_dtype = config_dict.placeholder(str)  # None: that of training
    c.rewards = dict(  # weights, and what the rewards are made of
        answer=1.0,
        unavailable=0.25,
        marker="# Answer",
        equal=config_dict.placeholder(str),  # "module:function"; None: the same words
        process=1.0,
        scheme="min",
        upper=0.5,
        bonus=0.25,
        read=1,
        spread=1,
        separator="\n\n",
        model=0.0,
        at="eos",  # where `model` is read; "answer": before it, for outcome models
        missing_eos=1.0,
        length=0.0,
    )
    c.sampling = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, slots=64)
    c.ppo = dict(
        iterations=100,
        prompts=64,
        samples=1,
        max_new_tokens=256,
        minibatch=16,
        accum=1,
        epochs=1,
        estimator="gae",
        gamma=1.0,
        lam=1.0,
        clip=0.2,
        value_clip=0.2,
        value_coef=0.1,
        fit_critic=0,  # responses whose returns the critic's head first learns
        entropy_coef=0.0,
        divide="tokens",
        whiten_rewards=False,
        whiten_advantages=True,
        seed=0,
        kl=dict(
            coef=0.01,
            estimator="k1",
            control="fixed",
            target=config_dict.placeholder(float),  # nats per response
            horizon=10_000,
        ),
        quirks=dict(
            kl_clamp=False,
            eos_outside=False,
            pad_whitening=False,
            shift_rewards=False,
            pad_means=False,
            full_softmax=False,
            unshuffled=False,
        ),
    )
    c.optimizer = dict(  # of the policy; of the critic but for `frozen`
        kind="adamw",
        lr=2e-5,
        schedule="cosine",
        warmup=0.01,
        end_factor=0.01,
        clip_norm=1.0,
        weight_decay=0.0,
        b1=0.9,
        b2=0.95,
        eps=1e-5,
        frozen=(),
    )
    c.value_frozen = ()  # of the critic's parameters
    c.loop = dict(
        log_every=1,
        eval_every=10,
        eval_start=True,  # the policy as it was may be the best
        checkpoint_every=10,
        keep_last=2,
        keep_best=False,
        best="eval/error",
        best_is="lowest",
        use_best=False,
        patience=config_dict.placeholder(int),  # evaluations; None: no early stopping
        profile=config_dict.placeholder(tuple),  # first and last iteration of a trace
        tensorboard=True,
        progress=True,
    )
    c.mesh = dict(data=1, fsdp=-1, tensor=1, sequence=1)
    variants = {"mini": mini, "prm800k": prm800k, "metamath": metamath}
    variants |= {"faithful": faithful, "qlora": qlora}
    return {"default": lambda c: c, **variants}[variant](c)


def mini(c):
    c.ppo.update(iterations=3, prompts=8, max_new_tokens=48, minibatch=8)
    c.optimizer.lr = 1e-4
    c.sampling.slots = 8
    c.loop.update(eval_every=1, checkpoint_every=1)
    return c


def prm800k(c):
    c.dtype = "bf16_compute"
    c.remat = "dots"
    c.export_dtype = "bfloat16"
    c.rewards.equal = MATH
    c.sampling.update(temperature=0.7, top_k=50, slots=512)
    c.ppo.update(iterations=500, prompts=512, max_new_tokens=768, minibatch=64)
    c.ppo.update(whiten_rewards=True, fit_critic=512)
    c.optimizer.frozen = ("*embed/*", "*norm*", "lm_head/*")
    c.value_frozen = ("*embed/*", "*norm*")
    c.loop.keep_best = True
    return c


def metamath(c):
    c = prm800k(c)
    c.sampling.temperature = 1.2
    c.ppo.minibatch = 256
    c.ppo.accum = 4
    c.ppo.kl.coef = 0.002
    c.optimizer.lr = 5e-6
    return c


def faithful(c):
    c = prm800k(c)
    c.ppo.quirks.update({name: True for name in c.ppo.quirks})
    c.ppo.fit_critic = 0  # its critic starts with the reward model's head
    c.rewards.update(read=3, spread=2)
    return c


def qlora(c):
    c.lora = dict(
        rank=64,
        alpha=16.0,
        dropout=0.0,
        targets=("layers/attn/*", "layers/mlp/*"),
        use_rslora=False,
        base="nf4",
        seed=0,
    )
    c.dtype = "bfloat16"
    c.remat = "full"
    c.rewards.update(answer=0.0, process=0.0, model=1.0)
    c.sampling.update(temperature=0.7, slots=144)
    c.ppo.update(prompts=576, max_new_tokens=1024, minibatch=288, accum=144, epochs=2)
    c.mesh.update(fsdp=-1, tensor=8)
    c.ppo.fit_critic = 576
    return c
