"""A reward model from a Hugging Face checkpoint and judgements in a file.

default: any small checkpoint on one machine, one epoch, keeping the best evaluation.
  python -m train.reward --config=configs/reward.py --config.checkpoint=DIR \
      --config.data=FILE.jsonl --workdir=runs/reward
mini: the same in 20 short steps, to see that a checkpoint and a data file work.
  python -m train.reward --config=configs/reward.py:mini --config.checkpoint=DIR \
      --config.data=FILE.jsonl --workdir=runs/reward_mini
  Two CPU cores, under a minute for a model of 5M parameters. Expect `eval/auc` (of
  pairs: `eval/accuracy`) in runs/reward_mini/metrics.jsonl, a model in its hf/.
paper: the 7B process, outcome and mixed evaluators of the easy-to-hard chapter; which
  one is a matter of the rows. A process model alone has rows of 768 tokens
  (--config.length=768); a 34B model has half the rate (--config.optimizer.lr=1e-5).
  python -m train.reward --config=configs/reward.py:paper --config.checkpoint=DIR \
      --config.data=steps.jsonl --workdir=runs/reward_paper
  TPU v5p, 8 chips; not measured yet. The thesis trains in bfloat16 throughout; here
  parameters and moments are float32 (--config.dtype=bfloat16 stores parameters as it
  did), and evaluation and early stopping are on held-out rows, where it has none.
qlora: the reward model of chapter 3 (SALMON): adapters of rank 64 at every linear layer
  of LLaMA-2-70B, which stays in 4 bits, 64 pairs an update, one epoch.
  python -m train.reward --config=configs/reward.py:qlora --config.checkpoint=DIR \
      --config.data=pairs.jsonl --workdir=runs/reward_qlora
  Its pre-training on preferences of people has --config.optimizer.lr=5e-5,
  --config.optimizer.warmup=0.01 and --config.length=1024. Not measured yet. Expect
  adapter/, which PEFT loads as a sequence classifier with one label, and hf/, in which
  it is merged.
Rows: {"prompt", "steps", "labels"}, {"prompt", "completion", "label"}, or
{"prompt", "chosen", "rejected"}; the first two may share a file.
"""

from ml_collections import config_dict

VARIANTS = ("default", "mini", "paper", "qlora")


def get_config(variant="default"):
    c = config_dict.ConfigDict()
    c.checkpoint = config_dict.placeholder(str)
    c.data = config_dict.placeholder(str)
    c.eval_data = config_dict.placeholder(str)
    c.eval_fraction = 0.05  # of the prompts
    c.where = "all"  # every token of a step learns its label; "end": its last
    c.template = config_dict.placeholder(str)  # of preferences
    c.on_bad_row = "error"
    c.on_long = "error"
    c.length = 512
    c.packing = True
    c.buckets = config_dict.placeholder(tuple)  # lengths, where rows are not packed
    c.batch_size = 16
    c.accum = 1
    c.epochs = 1.0
    c.steps = config_dict.placeholder(int)  # None: from epochs
    c.seed = 0
    c.dtype = "float32"
    c.remat = "none"
    c.export_dtype = config_dict.placeholder(str)  # None: that of training
    c.optimizer = dict(
        kind="adamw",
        lr=2e-5,
        schedule="cosine",
        warmup=0.1,
        end_factor=0.01,
        clip_norm=1.0,
        weight_decay=0.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        frozen=("decoder/embed/*", "*norm*"),
    )
    c.loop = dict(
        log_every=10,
        eval_every=100,
        eval_start=False,
        checkpoint_every=100,
        keep_last=2,
        keep_best=True,
        best="eval/loss",
        best_is="lowest",
        use_best=True,
        patience=config_dict.placeholder(int),  # evaluations; None: no early stopping
        profile=config_dict.placeholder(tuple),  # first and last step of a trace
        tensorboard=True,
        progress=True,
    )
    c.mesh = dict(data=1, fsdp=-1, tensor=1, sequence=1)
    variants = {"mini": mini, "paper": paper, "qlora": qlora}
    return {"default": lambda c: c, **variants}[variant](c)


def mini(c):
    c.length = 128
    c.batch_size = 8
    c.on_long = "truncate"
    c.steps = 20
    c.optimizer.lr = 1e-3
    c.loop.update(log_every=5, eval_every=5, checkpoint_every=5, patience=3)
    return c


def paper(c):
    c.length = 1024
    c.on_long = "drop"
    c.batch_size = 128
    c.packing = False
    c.buckets = (256, 512, 768, 1024)
    c.epochs = 2.0
    c.eval_fraction = 0.01
    c.seed = 42
    c.optimizer.warmup = 0.1  # 20% of one of the two epochs
    c.loop.patience = 5
    c.dtype = "bf16_compute"
    c.remat = "full"
    c.export_dtype = "bfloat16"
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
    c.length = 1280
    c.on_long = "drop"  # the score is read behind the last token
    c.batch_size = 64
    c.packing = False
    c.buckets = (256, 512, 768, 1024, 1280)
    c.eval_fraction = 0.01
    c.seed = 42
    c.dtype = "bfloat16"
    c.remat = "full"
    c.optimizer.update(lr=3e-5, warmup=0.03, end_factor=0.0, clip_norm=0.3, frozen=())
    c.loop.update(eval_every=20, checkpoint_every=20)
    return c
