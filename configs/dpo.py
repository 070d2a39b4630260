"""Preference optimisation (DPO and its kin) of a Hugging Face checkpoint on pairs.

default: any small checkpoint on one machine, one epoch.
  python -m train.dpo --config=configs/dpo.py --config.checkpoint=DIR \
      --config.data=FILE.jsonl --workdir=runs/dpo
  FILE: rows {"prompt", "chosen", "rejected"}, the prompt a text or a list of messages.
mini: the same in 20 short steps, to see that a checkpoint and a data file work.
  python -m train.dpo --config=configs/dpo.py:mini --config.checkpoint=DIR \
      --config.data=FILE.jsonl --workdir=runs/dpo_mini
  Two CPU cores, about a minute for a model of 5M parameters. Expect a training loss
  that falls from 0.693, and `train/accuracy` that rises from 0.5.
paper: one iteration of chapter 6's iterative DPO: Llemma 7B, batch 64, one epoch on at
  most 3 pairs of a problem, whose scores differ by more than 1 (appendix B.3 of the
  paper). Its checkpoint is the last iteration's; at most 5 iterations.
  python -m train.dpo --config=configs/dpo.py:paper --config.checkpoint=DIR \
      --config.data=pairs.jsonl --workdir=runs/dpo_paper
  TPU v5p, 8 chips; about ten minutes for 10k pairs of 768 tokens, by its FLOPs
  at 40% of the peak; not measured yet. The thesis: 19.8% to 26.4% of MATH500 in five
  iterations, on the easy problems of PRM800K.
qlora: adapters of rank 64 at every linear layer (the thesis's, of chapters 2, 3 and 5)
  over a base in 4 bits, which is the reference as well.
  python -m train.dpo --config=configs/dpo.py:qlora --config.checkpoint=DIR \
      --config.data=pairs.jsonl --workdir=runs/dpo_qlora
  Not measured yet. Expect adapter/, which PEFT loads, and hf/, in which it is merged.
Add --show_batch to any of them to see the first pairs, token by token, and stop.
"""

from ml_collections import config_dict

VARIANTS = ("default", "mini", "paper", "qlora")


def get_config(variant="default"):
    c = config_dict.ConfigDict()
    c.checkpoint = config_dict.placeholder(str)  # the start, and the reference
    c.data = config_dict.placeholder(str)
    c.eval_data = config_dict.placeholder(str)
    c.eval_fraction = 0.05
    c.template = config_dict.placeholder(str)  # None: the checkpoint's own
    c.label = 1.0  # probability that a label is right, of rows without "label"
    c.offset = 0.0  # taken from the margin, of rows without "offset"
    c.on_bad_row = "error"
    c.on_long = "error"
    c.length = 512
    c.buckets = config_dict.placeholder(tuple)
    c.batch_size = 16
    c.accum = 1
    c.epochs = 1.0
    c.steps = config_dict.placeholder(int)  # None: from epochs
    c.seed = 0
    c.dtype = "float32"
    c.remat = "none"
    c.export_dtype = config_dict.placeholder(str)  # None: that of training
    c.preference = dict(
        loss="sigmoid",
        beta=0.1,
        average=False,
        reference_free=False,
        nll=0.0,
    )
    c.optimizer = dict(
        kind="adamw",
        lr=1e-6,
        schedule="cosine",
        warmup=0.1,
        end_factor=0.0,
        clip_norm=1.0,
        weight_decay=0.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        frozen=(),
    )
    c.loop = dict(
        log_every=10,
        eval_every=100,
        eval_start=False,
        checkpoint_every=100,
        keep_last=2,
        keep_best=False,
        best="eval/loss",
        best_is="lowest",
        use_best=False,
        patience=config_dict.placeholder(int),  # evaluations without a new best
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
    c.optimizer.lr = 1e-4
    c.loop.update(log_every=5, eval_every=10, checkpoint_every=10)
    return c


def paper(c):
    c.length = 768
    c.buckets = (256, 512, 768)
    c.on_long = "drop"  # a cut solution has no answer: no preference left to learn
    c.batch_size = 64
    c.epochs = 1.0
    c.eval_fraction = 0.0  # the iteration is chosen by validation accuracy
    c.template = "plain"
    c.dtype = "bf16_compute"
    c.remat = "full"
    c.export_dtype = "bfloat16"
    # 20% of an epoch, then down to 1%; embeddings, norms and output matrix stay.
    c.optimizer.update(lr=2e-6, warmup=0.2, end_factor=0.01)
    c.optimizer.frozen = ("embed/*", "lm_head/*", "*norm/scale")
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
    c.length = 1024
    c.on_long = "drop"
    c.batch_size = 64
    c.dtype = "bfloat16"
    c.remat = "full"
    c.optimizer.update(lr=2e-5, clip_norm=0.3)
    return c
