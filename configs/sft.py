"""Supervised fine-tuning of a Hugging Face checkpoint on conversations in a file.

default: any small checkpoint on one machine, one epoch.
  python -m train.sft --config=configs/sft.py --config.checkpoint=DIR \
      --config.data=FILE.jsonl --workdir=runs/sft
mini: the same in 20 short steps, to see that a checkpoint and a data file work.
  python -m train.sft --config=configs/sft.py:mini --config.checkpoint=DIR \
      --config.data=FILE.jsonl --workdir=runs/sft_mini
  Two CPU cores, under a minute for a model of 5M parameters. Expect a training loss
  that falls, `eval/perplexity` in runs/sft_mini/metrics.jsonl, a model in its hf/.
paper: a 7B Llama on 52k Alpaca rows, batch 128, 3 epochs (the recipe of Alpaca).
  python -m train.sft --config=configs/sft.py:paper --config.checkpoint=DIR \
      --config.data=alpaca.json --workdir=runs/sft_paper
  TPU v5p, 8 chips: a quarter of an hour by its FLOPs at 40% of the peak; not measured
  yet. Expect a training loss near 1.0.
qlora: adapters of rank 64 beside a base in 4 bits (Dettmers et al. 2023).
  python -m train.sft --config=configs/sft.py:qlora --config.checkpoint=DIR \
      --config.data=FILE.jsonl --workdir=runs/sft_qlora
  Not measured yet. Expect adapter/, which PEFT loads, and hf/, in which it is merged.
Add --show_batch to any of them to see the first batch, token by token, and stop.
"""

from ml_collections import config_dict

VARIANTS = ("default", "mini", "paper", "qlora")


def get_config(variant="default"):
    c = config_dict.ConfigDict()
    c.checkpoint = config_dict.placeholder(str)
    c.data = config_dict.placeholder(str)
    c.eval_data = config_dict.placeholder(str)
    c.eval_fraction = 0.05
    c.template = config_dict.placeholder(str)  # None: the checkpoint's own
    c.row_shape = config_dict.placeholder(str)  # None: that of the first row
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
        warmup=0.03,
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
    c.loop.update(log_every=5, eval_every=10, checkpoint_every=10)
    return c


def paper(c):
    c.length = 512
    c.buckets = (128, 256, 512)
    c.on_long = "truncate"
    c.batch_size = 128
    c.packing = False
    c.epochs = 3.0
    c.eval_fraction = 0.01
    c.template = "alpaca"
    c.dtype = "bf16_compute"
    c.remat = "dots"
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
    c.length = 1024
    c.on_long = "truncate"
    c.dtype = "bfloat16"
    c.remat = "full"
    c.optimizer.lr = 1e-4
    return c
