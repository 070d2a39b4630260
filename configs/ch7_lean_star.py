"""Chapter 7, Lean-STaR: thoughts interleaved with tactics, in an embedded prover.

mini: every method, one seed.

    python -m research.run --config=configs/ch7_lean_star.py:mini --workdir=runs/ch7

report: mini with three seeds; in the same folder it goes on from mini.
smoke: everything, tiny, in seconds; proofs are luck.

The sizes of mini are guesses from a pilot, still to be tuned; its time is not measured.
(The pilot: 0.83M parameters, 1,000 updates of 32 rows on 2,400 propositional theorems,
in 7 to 9 minutes; then 71% of 150 held-out ones proved by 8 trajectories of 20 tactics,
with thoughts 76%, in 2 to 4 minutes of sampling.)
"""

from ml_collections import config_dict

VARIANTS = ("mini", "report", "smoke")


def get_config(variant="mini"):
    c = config_dict.ConfigDict()
    c.experiment = "research.lean_star.experiment:experiment"
    return {"mini": mini, "report": report, "smoke": smoke}[variant](c)


def adamw(lr, warmup=0.1):
    return dict(lr=lr, warmup=warmup, end_factor=0.05, weight_decay=0.1, b2=0.98)


def mini(c):
    """One seed."""
    c.seeds = (0,)
    c.jobs = 2  # stages at once
    c.dtype = "float32"
    c.miniature = dict(
        known=2000, annotated=1.0, statements=600, held_out=244, novel=60
    )
    c.model = dict(
        d_model=128, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=352, init_std=0.06
    )
    c.sft = dict(epochs=4.0, batch_size=16, length=256, optimizer=adamw(2e-3))
    c.cot = dict(epochs=4.0, batch_size=16, length=256, optimizer=adamw(1e-3))
    c.star = dict(epochs=2.0, batch_size=16, length=256, optimizer=adamw(5e-4))
    c.drawn = dict(temperature=0.7, max_new_tokens=32, prompt_tokens=192, slots=256)
    c.thought_drawn = dict(
        temperature=0.7, max_new_tokens=80, prompt_tokens=192, slots=256
    )
    c.sampled = dict(trajectories=32, tactics=8, stop_all_on_first=False)
    c.counts = (1, 2, 4, 8, 16, 32)
    c.controls = ("shuffled", "filler")
    c.iteration = dict(
        sampled=dict(trajectories=8, tactics=8, stop_all_on_first=False),
        rounds=2,
        regimes=("joint", "continue"),
        most=3,
    )
    c.best_first = dict(
        expansions=16, candidates=8, beam=True, scores=("mean", "sum", "tactic")
    )
    return c


def report(c):
    """Three seeds."""
    mini(c)
    c.seeds = (0, 1, 2)
    return c


def smoke(c):
    """Everything, tiny."""
    mini(c)
    c.jobs = 1
    c.miniature.update(known=60, statements=12, held_out=12, novel=6)
    c.model.update(d_model=32, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=64)
    c.sft.update(epochs=4.0, batch_size=4)
    c.cot.update(epochs=2.0, batch_size=4)
    c.star.update(epochs=1.0, batch_size=4)
    for drawn in (c.drawn, c.thought_drawn):  # few shapes to compile
        drawn.update(slots=8, max_new_tokens=24, prompt_tokens=64)
    c.sampled.update(trajectories=4, tactics=2)
    c.iteration.sampled.update(trajectories=4, tactics=2)
    c.best_first.update(expansions=2, candidates=4)
    c.counts = (1, 2, 4)
    return c
