"""Chapter 4, RECITE: recite a passage, then answer.

mini: a model from scratch reads an encyclopedia and answers questions about it in every
way of the chapter, one seed.

    python -m research.run --config=configs/ch4_recite.py:mini --workdir=runs/ch4_mini

report: mini with three seeds, which are three worlds; in the same folder it continues.
smoke: a tiny world and model, seconds, to see that everything runs; answers are noise.
"""

from ml_collections import config_dict

VARIANTS = ("mini", "report", "smoke")


def get_config(variant="mini"):
    c = config_dict.ConfigDict()
    c.experiment = "research.recite.experiment:experiment"
    return {"mini": mini, "report": report, "smoke": smoke}[variant](c)


def adamw(lr, warmup=0.05):
    return dict(lr=lr, warmup=warmup, end_factor=0.05, weight_decay=0.1, b2=0.98)


def mini(c):
    """One world, one model."""
    c.seeds = (0,)
    c.jobs = 2  # stages at once
    c.dtype = "float32"
    c.tasks = (
        dict(name="one_hop", hops=1),
        dict(name="two_hop", hops=2),
    )
    c.miniature = dict(
        world=dict(persons=240, paraphrases=2),
        one_hop=300,
        two_hop=150,
        reading_rounds=8,
        rounds=10,
        repeats=3,
        readings=400,
        exemplars=3,
    )
    c.model = dict(
        d_model=128, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=352, init_std=0.05
    )
    c.pretrain = dict(epochs=1.0, batch_size=16, length=256, optimizer=adamw(2e-3))
    c.tune = dict(epochs=1.0, batch_size=16, length=256, optimizer=adamw(1e-3))
    c.methods = dict(
        shots=2,
        length=512,
        paths=20,
        temperature=0.7,
        top_k=40,
        recitation_tokens=80,
        answer_tokens=12,
        slots=256,
        counts=(1, 2, 3, 5, 10, 15, 20),
        repeats=5,
        exemplar_seeds=5,
        robust_questions=150,
        robust_paths=5,
    )
    c.hinted = dict(
        training=dict(epochs=3.0, batch_size=16, length=256, optimizer=adamw(5e-4)),
        passages=930,
        each=2,
    )
    return c


def report(c):
    """Three worlds."""
    mini(c)
    c.seeds = (0, 1, 2)
    return c


def smoke(c):
    """Everything, tiny."""
    mini(c)
    c.jobs = 1
    c.miniature.update(
        world=dict(persons=24, towns=6, firms=4, schools=4, medals=4, rivers=4,
                   countries=4, first_names=8, paraphrases=1),
        one_hop=12, two_hop=6, reading_rounds=1, rounds=1, repeats=1, readings=12,
    )  # fmt: skip
    c.model.update(d_model=32, n_layers=2, n_heads=2, n_kv_heads=2, d_ff=64)
    c.methods.update(
        paths=3, counts=(1, 2, 3), recitation_tokens=40, robust_questions=6,
        robust_paths=2, exemplar_seeds=2, slots=16,
    )  # fmt: skip
    c.hinted.update(passages=20, each=1)
    c.hinted.training.epochs = 1.0
    return c
