"""Chapter 6, easy-to-hard generalization.

demo: generators and a process model, from scratch, on chains of modular equations.

    python -m research.run --config=configs/ch6_easy_to_hard.py:demo \
        --workdir=runs/ch6_demo

    Two CPU cores: 282 and 328 s in clean clones, made ready. Expect, of hard
    problems, 32% right greedily, 34% by a majority of 16 and 68% by a vote weighted by
    the process model; of easy ones, 97%, 97% and 100%. One seed.

mini: the whole chapter with one seed: generators of two sizes, in-context learning,
evaluators, re-ranking, ReST-EM, iterative DPO, PPO, and programs.

    python -m research.run --config=configs/ch6_easy_to_hard.py:mini \
        --workdir=runs/ch6

report: the same with three seeds, more updates of evaluators, more solutions to learn
from; in the same folder it takes from mini what it shares. About 90 minutes, mini 18.

    What to expect is in docs/results/ch6.

paper: the whole chapter with Llemma-7B on PRM800K, but for the programs.

    python -m research.run --config=configs/ch6_easy_to_hard.py:paper \
        --config.published.checkpoint=DIR --workdir=runs/ch6_paper
        --config.large_checkpoint=DIR   with Llemma-34B as a second generator and
                                        evaluator, beside the others

    Reads the published files in the folder `published` (see `paper` below), MATH500
    too. Models are split over all devices (`mesh`). Time is not measured. Expect, of
    MATH500, 19.8% greedily and 31.6% by a majority of 16 (Table 6.1), 41.3% by votes
    of 256 that the mixed evaluator weighs, and 29.4% greedily after PPO (Table 6.2).

    What is trained is in float32 (`train_dtype`), as in the thesis on MetaMath; on
    PRM800K it trains in bfloat16, in which DPO's updates of 2e-6 change few weights.

paper_faithful: paper with the original code's rules for PRM800K and validation. Its
PPO is a run of `paper` anyway, `ppo-faithful`.

paper_34b: its generators and evaluators with Llemma-34B, which the thesis does not
train further. Expect 24.8% and 40.8%.

paper_metamath, paper_metamath_34b: the same on MetaMath, with step labels from
Math-Shepherd. Expect 30.0% and 38.6%, with 34B 32.2% and 42.6%.

paper_apps, paper_apps_34b: Code Llama on APPS (Table 6.3).

    python -m research.run --config=configs/ch6_easy_to_hard.py:paper_apps \
        --config.apps.checkpoint=DIR --workdir=runs/ch6_apps

    Expect that the best of 16 programs solves 7.4% of all problems, with 34B 13.0%,
    and greedy ones 4.0% and 8.0%.

Each is planned without a checkpoint for the chips of one host, all that research.run
takes: four of v5p for 7B, as

    python -m train.plan --config=configs/ch6_easy_to_hard.py:paper \
        --topology=v5p:2x2x1 --model=llemma-7b       (of programs: codellama-7b)

and the _34b with --topology=tpu7x:2x2x1 --model=llemma-34b (codellama-34b).
"""

from ml_collections import config_dict

MATH = ("paper", "paper_faithful", "paper_34b", "paper_metamath", "paper_metamath_34b")
APPS = ("paper_apps", "paper_apps_34b")
VARIANTS = ("mini", "demo", "report", *MATH, *APPS)


def get_config(variant="mini"):
    c = config_dict.ConfigDict()
    c.experiment = "research.easy_to_hard.experiment:experiment"
    variants = {"demo": demo, "mini": mini, "report": report}
    variants |= dict(zip(MATH, MATH_VARIANTS, strict=True))
    variants |= dict(zip(APPS, APPS_VARIANTS, strict=True))
    return variants[variant](c)


def adamw(lr, weight_decay=0.1, **changed):
    """AdamW with a short warm-up and a linear end."""
    return dict(
        lr=lr,
        warmup=0.1,
        end_factor=0.05,
        weight_decay=weight_decay,
        b2=0.98,
        **changed,
    )


def demo(c):
    """The generators and the process model."""
    c.seeds = (0,)
    c.jobs = 2  # stages at once
    c.dtype = "float32"
    c.miniature = dict(
        world=dict(
            modulus=11,
            steps=((1, 2), (2, 4), (3, 6), (3, 6), (4, 6)),
            rare_share=(0.0, 0.01, 0.02, 0.35, 0.55),
            rare_fraction=1 / 3,
            scale_rare=0.7,
            scale_common=0.3,
        ),
        sizes=dict(train=(400, 800, 800, 250, 250), development=500, test=500),
        facts=20000,
        wrong_share=0.35,
        scale_share=0.4,
    )
    c.model = dict(
        d_model=96, n_layers=3, n_heads=3, n_kv_heads=3, d_ff=256, init_std=0.1
    )
    c.pretrain = dict(epochs=5.0, batch_size=32, length=64, optimizer=adamw(3e-3))
    c.sft = dict(epochs=6.0, batch_size=16, length=128, optimizer=adamw(3e-3))
    c.sampled = dict(
        votes=16, counts=(1, 2, 4, 8, 16), temperature=0.7, top_k=20,
        max_new_tokens=112, slots=256, repeats=20,
    )  # fmt: skip
    c.evaluators = dict(
        kinds=("prm",),
        drawn=dict(samples=5, temperature=1.2, top_k=0, max_new_tokens=112, slots=256),
        training=dict(
            steps=1100,
            batch_size=16,
            length=160,
            where="end",
            held_out=0.1,
            eval_every=100,
            optimizer=adamw(2e-3, 0.01),
        ),
    )
    return c


def mini(c):
    """The whole chapter, one seed."""
    demo(c)
    c.miniature.sizes.train = (400, 800, 800, 800, 800)
    c.evaluators.kinds = ("orm", "prm", "oprm")
    c.evaluators.drawn.samples = 8
    # Evaluators learn suddenly: at 2e-3, or with fewer updates, more seeds stay under
    # an AUC of 0.9 on held-out easy problems. More do not fit into 20 minutes.
    c.evaluators.training.update(
        steps=500, batch_size=32, eval_every=250, optimizer=adamw(1e-3, 0.01)
    )  # two micro-batches, as what fits into the caches is a tenth faster
    c.evaluators.update(large_steps=400, accum=2)
    c.large = dict(
        d_model=128, n_layers=3, n_heads=4, n_kv_heads=4, d_ff=352, init_std=0.087,
        lr_scale=2 / 3,
    )  # fmt: skip
    c.icl = dict(count=4, length=512)
    drawn = dict(top_k=0, max_new_tokens=112, slots=256)
    c.policies = dict(
        rest=dict(drawn=dict(samples=3, temperature=1.0, **drawn), most=2, rounds=2),
        dpo=dict(
            drawn=dict(samples=4, temperature=1.0, **drawn),
            gap=1.0,
            most=1,
            rounds=2,
            epochs=1.0,
            batch_size=32,
            length=160,
            beta=0.1,
            optimizer=adamw(3e-5, 0.0),
        ),
        ppo=dict(
            drawn=dict(samples=1, temperature=0.7, **drawn),
            critic="orm",
            ppo=dict(
                iterations=12,
                prompts=128,
                minibatch=32,
                lam=0.95,
                value_coef=1.0,
                fit_critic=512,
                kl=dict(coef=0.01),
            ),
            optimizer=dict(lr=3e-4, warmup=0.05, end_factor=0.1, b2=0.98, eps=1e-5),
            eval_every=4,
        ),
    )
    c.coding = programs()
    return c


def programs():
    """The coding domain: a base, two generators and an outcome model of its own."""
    return dict(
        model=dict(
            d_model=64, n_layers=2, n_heads=2, n_kv_heads=2, d_ff=160, init_std=0.1
        ),
        world=dict(
            clauses=((1, 3), (2, 4), (3, 5), (3, 5), (4, 6)),
            rare_share=(0.1, 0.1, 0.45, 0.5, 0.55),
        ),
        facts=16000,
        wrong_share=0.5,
        sizes=dict(train=(3000, 1600, 600, 600, 600), development=600, test=500),
        pretrain=dict(epochs=4.0, batch_size=32, length=64, optimizer=adamw(3e-3)),
        sft=dict(epochs=5.0, batch_size=16, length=128, optimizer=adamw(3e-3)),
        reward=dict(
            epochs=2.0, batch_size=32, length=128, eval_every=25, optimizer=adamw(1e-3)
        ),
        sampled=dict(
            votes=16,
            counts=(1, 4, 16),
            temperature=0.7,
            top_k=20,
            max_new_tokens=64,
            slots=256,
            repeats=20,
        ),
        reward_samples=8,
        reward_temperature=1.0,
    )


def report(c):
    """The whole chapter, three seeds; evaluators and further training have more."""
    mini(c)
    c.seeds = (0, 1, 2)
    # With these an AUC of 0.9 on held-out steps of easy problems for each seed; with
    # 800 updates one process model has 0.86.
    c.evaluators.update(accum=1, large_steps=None)
    c.evaluators.training.update(steps=800, eval_every=200)
    c.evaluators.prm_training = c.evaluators.training.copy_and_resolve_references()
    c.evaluators.prm_training.steps = 600
    c.policies.rest.drawn.samples = 4
    c.policies.dpo.drawn.samples = 8
    c.policies.ppo.ppo.iterations = 16
    return c


# The paper's Tables A4 and its appendix B; the original code where they are silent.
EPOCHS = 3.0  # of fine-tuning
PARTS = ("embed/*", "lm_head/*", "*norm/scale")  # that stay as they are
SCORED_PARTS = ("decoder/embed/*", "*norm*")  # of evaluators and critics
FOLDER = "published"


def paper_adamw(lr, epochs, frozen=PARTS):
    """AdamW, warmed up over a fifth of the first epoch; a cosine down to 1%."""
    return dict(
        lr=lr, warmup=0.2 / epochs, end_factor=0.01, weight_decay=0.0, frozen=frozen
    )


def paper_math(c, lr, accum):
    """What all runs on MATH share: the files, answers, evaluators, in-context ones."""
    c.seeds = (42,)
    c.dtype = "bfloat16"
    c.train_dtype = "bf16_compute"  # parameters in float32
    c.remat = "full"
    c.mesh = dict(data=1, fsdp=-1, tensor=1, sequence=1)  # all devices
    c.published = dict(
        checkpoint=config_dict.placeholder(str),
        math_train=f"{FOLDER}/prm800k/math_splits/train.jsonl",
        math_test=f"{FOLDER}/prm800k/math_splits/test.jsonl",
        on_bad_row="skip",  # counted in the result of the data stages
    )
    c.sft = dict(epochs=EPOCHS, batch_size=128, length=768, accum=accum)
    c.sampled = dict(
        votes=256, counts=(1, 16, 256), temperature=0.7, top_k=20, max_new_tokens=768,
        slots=256, repeats=20,
    )  # fmt: skip
    c.icl = dict(count=4, length=2048)  # their number is not in the thesis
    c.evaluators = dict(
        kinds=("orm", "prm", "oprm"),
        start="base",
        epochs=2.0,
        accum=accum,
        drawn=drawn(samples=32, temperature=0.7, top_k=20),
        training=judged(1024, lr),
        prm_training=judged(768, lr),
    )
    return c


def judged(length, lr):
    return dict(
        batch_size=128,
        length=length,
        where="all",
        held_out=0.02,
        eval_every=200,
        optimizer=paper_adamw(lr, 2.0, SCORED_PARTS),
    )


def drawn(**rules):
    return dict(max_new_tokens=768, slots=256, **rules)


def on_prm800k(c, lr, accum=2):
    """Steps that people rated, to imitate and to judge."""
    paper_math(c, lr, accum)
    c.published.prm800k = tuple(
        f"{FOLDER}/prm800k/data/phase{i}_train.jsonl" for i in (1, 2)
    )
    c.sft.optimizer = paper_adamw(lr, EPOCHS)
    c.evaluators.voting = "product"
    return c


def on_metamath(c, lr, sft_lr, length, accum=2):
    """MetaMath's solutions to imitate, Math-Shepherd's steps to judge."""
    paper_math(c, lr, accum)
    c.published.metamath = f"{FOLDER}/MetaMathQA-395K.json"
    c.published.math_shepherd = f"{FOLDER}/math-shepherd.jsonl"
    c.sft.length = length
    c.sft.optimizer = paper_adamw(sft_lr, EPOCHS)
    c.evaluators.voting = "min"
    return c


def further(c, temperature, rest_temperature, lr, minibatch, kl):
    """ReST-EM, iterative DPO and PPO."""
    c.policies = dict(
        rest=dict(
            drawn=drawn(samples=32, temperature=rest_temperature, top_k=40),
            most=10,
            rounds=2,
        ),
        dpo=dict(
            drawn=drawn(samples=8, temperature=1.0, top_k=20),
            gap=1.0,
            most=3,
            rounds=5,
            epochs=1.0,
            batch_size=64,
            length=768,
            beta=0.1,
            optimizer=paper_adamw(2e-6, 1.0),
        ),
        ppo=dict(
            drawn=drawn(samples=1, temperature=temperature, top_k=50),
            faithful_read=3,
            faithful_spread=2,
            ppo=dict(
                iterations=500,
                prompts=512,
                minibatch=minibatch,
                accum=minibatch // 64,
                epochs=1,
                gamma=1.0,
                lam=1.0,
                value_coef=0.1,
                fit_critic=512,  # a logit is no return
                whiten_rewards=True,
                kl=dict(coef=kl),
            ),
            optimizer=dict(
                lr=lr, warmup=0.01, end_factor=0.01, b2=0.95, eps=1e-5, frozen=PARTS
            ),
            eval_every=10,
        ),
        value_frozen=SCORED_PARTS,
        dpo_accum=2,
    )
    return c


def paper(c):
    on_prm800k(c, 2e-5)
    c.large_checkpoint = config_dict.placeholder(str)
    c.large_lr_scale = 0.5  # of 34B to 7B, as in Table A4
    return further(c, 0.7, 1.0, lr=2e-5, minibatch=64, kl=0.01)


def paper_faithful(c):
    """Hard answers in development.jsonl; here too, easy ones choose checkpoints."""
    paper(c)
    c.published.select_on = "all"
    c.published.keep_validation = True
    c.published.prm800k_rules = dict(
        duplicates="text", at_empty="stop", unlisted="keep"
    )
    return c


def paper_34b(c):
    return on_prm800k(c, 1e-5, accum=4)


def paper_metamath(c):
    on_metamath(c, 2e-5, 8e-6, 1024)
    return further(c, 1.2, 1.2, lr=5e-6, minibatch=256, kl=0.002)


def paper_metamath_34b(c):
    # The paper has no process model of this kind and size; as PRM800K's.
    return on_metamath(c, 1e-5, 5e-6, 768, accum=4)


def paper_apps(c, lr=2e-5, accum=4):
    """Nothing but the sizes of the test is in the thesis; the rest is as on MATH."""
    c.experiment = "research.easy_to_hard.apps_chapter:experiment"
    c.seeds = (42,)
    c.apps = dict(
        checkpoint=config_dict.placeholder(str),
        train=f"{FOLDER}/apps/train.jsonl",
        test=f"{FOLDER}/apps/test.jsonl",
        on_bad_row="skip",  # counted in the result of apps-data
        test_sizes=(100, 300, 100),
        held_out=0.05,
        sft=dict(
            epochs=EPOCHS,
            batch_size=128,
            length=2048,
            accum=accum,
            optimizer=paper_adamw(lr, EPOCHS),
        ),
        reward=dict(
            epochs=2.0,
            batch_size=128,
            length=2048,
            accum=accum,
            eval_every=25,  # at most 5% of the programs are held out
            optimizer=paper_adamw(lr, 2.0, SCORED_PARTS),
        ),
        reward_samples=32,
        reward_ratio=3,
        sampled=dict(
            votes=16,
            counts=(1, 4, 16),
            temperature=0.7,
            top_k=20,
            max_new_tokens=1024,
            slots=256,
            repeats=20,
        ),
        prompt_tokens=1024,
        workers=8,
        dtype="bfloat16",
        train_dtype="bf16_compute",
        remat="full",
        mesh=dict(data=1, fsdp=-1, tensor=1, sequence=1),
    )
    return c


def paper_apps_34b(c):
    return paper_apps(c, 1e-5, accum=8)


MATH_VARIANTS = (paper, paper_faithful, paper_34b, paper_metamath, paper_metamath_34b)
APPS_VARIANTS = (paper_apps, paper_apps_34b)
