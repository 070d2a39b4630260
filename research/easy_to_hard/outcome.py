"""An outcome reward model for programs, and the best of n by its score.

Programs come as a stage's programs.jsonl, one row per problem:

    {difficulty, prompt, greedy, greedy_passed, programs, passed}

`programs` are the sampled responses as the model wrote them, `passed` the share of the
problem's tests that each passes. A program is right when it passes all.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.records import read_records, write_jsonl
from data.steps import LabelledSteps, encode_steps, text_encoder
from data.tokenizers import Tokenizer, load_tokenizer
from models import reward_model
from research.stages import StageResult
from research.training import Training
from research.weights import devices, load
from train.calibration import auc
from train.commands import MeshConfig
from train.loop import LoopConfig
from train.reward import train_reward
from train.settings import positive

DIFFICULTIES = ("introductory", "interview", "competition")


@dataclasses.dataclass(frozen=True)
class OutcomeTraining(Training):
    """How an outcome model is trained: at most `epochs`, as held-out programs say.

    Every `eval_every` updates they are looked at, and the model of the least loss on
    them is kept: introductory programs are few, and soon learned by heart.
    """

    eval_every: int = positive(25)

    @property
    def rest(self) -> Training:
        """What it shares with the training of others."""
        kept = {f.name: getattr(self, f.name) for f in dataclasses.fields(Training)}
        return Training(**kept)


def train_outcome(
    folder: Path,
    *,
    base: StageResult | str,
    labelled: StageResult,
    held_out: StageResult,
    training: OutcomeTraining,
    ratio: int,
    where: str,
    dtype: str,
    seed: int,
    remat: str = "none",
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: the outcome reward model, from the base; leaves `hf`.

    `base` is a stage that left `hf`, or the path of a Hugging Face folder. Programs
    that are too long for a row of training are left out. The model kept is that of the
    least loss, at the programs' ends, on held-out programs: balanced as those that it
    learns from, or all of them where no problem has both kinds (`mixed_problems` 0).
    Raises DataError where no training problem has both, or no program fits.

    Returns the update that it is of (`step`), and its AUC on held-out introductory
    problems, over all programs (`auc`) and within a problem (`auc_within`, the mean
    over problems with both kinds): of problems that chose the update, so a little too
    good. What a claim rests on is measured on test problems.
    """
    mesh = devices(mesh)
    loaded = load(base, dtype, remat, mesh)
    tokenizer = loaded.tokenizer
    encode = text_encoder(tokenizer)
    problems = [r.row for r in read_records(held_out.folder / "programs.jsonl")]
    learned = [r.row for r in read_records(labelled.folder / "programs.jsonl")]

    def drawn(several: Sequence[dict], purpose: int) -> list[LabelledSteps]:
        rng = np.random.default_rng([seed, purpose])
        return [row for p in several for row in balanced(p, ratio, rng)]

    rows = drawn(learned, 30)
    if not rows:
        raise DataError(
            f"{labelled.folder}: every problem has programs of one kind only, all "
            "right or all wrong; an outcome model needs both"
        )
    held = drawn(problems, 32) or [row for p in problems for row in labelled_rows(p)]

    def encoded(rows, where):
        made = [encode_steps(encode, row, where) for row in rows]
        return [e for e in made if len(e.tokens) <= training.length]

    fitting, judged = encoded(rows, where), encoded(held, "end")
    for stage, kept in ((labelled, fitting), (held_out, judged)):
        if not kept:
            raise DataError(
                f"{stage.folder}: no program fits into reward.length, "
                f"{training.length} tokens"
            )
    fitted = train_reward(
        loaded.cfg,
        reward_model.init(loaded.cfg, loaded.params),
        fitting,
        judged,
        length=training.length,
        pad_id=tokenizer.pad_id,
        batch_size=training.batch_size,
        epochs=training.epochs,
        seed=seed,
        optimizer=training.optimizer,
        accum=training.accum,
        loop=LoopConfig(
            log_every=50,
            eval_every=training.eval_every,
            checkpoint_every=training.eval_every,
            keep_best=True,
            use_best=True,
        ),
        workdir=folder,
        mesh=mesh,
        consume=True,
    )
    reward_model.save_reward_model(
        folder / "hf",
        loaded.cfg,
        fitted.state.params,
        loaded.hf_config,
        tokenizer_files=tokenizer.files.contents,
        pad_id=tokenizer.pad_id,
    )
    scores = final_scores(loaded.cfg, fitted.state.params, tokenizer, problems)
    right = [[share == 1 for share in row["passed"]] for row in problems]
    return {
        "rows": len(rows),
        "dropped": len(rows) - len(fitting),
        "positive": sum(row.labels[0] for row in rows) / len(rows),
        "step": int(fitted.state.step),
        "steps": max((row["step"] for row in fitted.rows), default=0),
        **ranking(scores, right),
    }


# Stored results of the first version are of models whose last update was kept.
train_outcome.version = 2


def score_programs(
    folder: Path,
    *,
    answers: dict[str, StageResult],
    orm: StageResult,
    counts: Sequence[int],
    dtype: str,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: what every way to answer achieves; leaves results.jsonl.

    Rows {difficulty, average: {way: value}, strict: {way: value}} for the ways
    "full-greedy", "easy-greedy" and "best-of-<n>"; and "pass-at-<n>", strict, which
    bounds the latter. Returns means by difficulty.
    """
    rows = {
        name: [r.row for r in read_records(stage.folder / "programs.jsonl")]
        for name, stage in answers.items()
    }
    path = orm.folder / "hf"
    cfg, params, _ = reward_model.load_reward_model(path, dtype, devices(mesh))
    tokenizer = load_tokenizer(path)
    scores = final_scores(cfg, params, tokenizer, rows["easy"])
    results = []
    for full, easy, score in zip(rows["full"], rows["easy"], scores, strict=True):
        if full["prompt"] != easy["prompt"]:
            raise DataError(f"{folder}: generators answered different problems")
        average = {"full-greedy": full["greedy_passed"]}
        average |= {"easy-greedy": easy["greedy_passed"]}
        strict = {way: float(share == 1) for way, share in average.items()}
        right = [float(share == 1) for share in easy["passed"]]
        for n in counts:
            average[f"best-of-{n}"] = best_of(easy["passed"], score, n)
            strict[f"best-of-{n}"] = best_of(right, score, n)
            strict[f"pass-at-{n}"] = best_of(right, right, n)
        results.append(
            {"difficulty": easy["difficulty"], "average": average, "strict": strict}
        )
    write_jsonl(folder / "results.jsonl", results)
    groups = {d: {d} for d in DIFFICULTIES}
    groups |= {"hard": {"interview", "competition"}, "all": set(DIFFICULTIES)}
    means, ranks = {}, {}
    for name, members in groups.items():
        kept = [i for i, r in enumerate(results) if r["difficulty"] in members]
        means[name] = {
            metric: {
                way: float(np.mean([results[i][metric][way] for i in kept]))
                for way in results[0][metric]
            }
            for metric in ("average", "strict")
            if kept
        }
        right = [[share == 1 for share in rows["easy"][i]["passed"]] for i in kept]
        ranks[name] = ranking([scores[i] for i in kept], right)
    return {"means": means, "ranking": ranks}


# --- pure parts ---------------------------------------------------------------------


def balanced(row: dict, ratio: int, rng: np.random.Generator) -> list[LabelledSteps]:
    """A problem's different programs, labelled, at most `ratio` of a kind to one.

    A program is right when it passes all tests. Problems with one kind give nothing,
    as in the thesis.
    """
    kinds: dict[bool, list[LabelledSteps]] = {True: [], False: []}
    for made in labelled_rows(row):
        kinds[made.labels[0] == 1].append(made)
    least = min(map(len, kinds.values()))
    return [
        kind[i]
        for kind in kinds.values()
        for i in rng.permutation(len(kind))[: ratio * least]
    ]


def labelled_rows(row: dict) -> list[LabelledSteps]:
    """A problem's different programs, each with its outcome as one label."""
    shares = dict(zip(row["programs"], row["passed"], strict=True))
    return [
        LabelledSteps(row["prompt"], (program,), (float(share == 1),))
        for program, share in shares.items()
    ]


def final_scores(
    cfg, params, tokenizer: Tokenizer, rows: Sequence[dict]
) -> list[np.ndarray]:
    """For each problem the score, float32 [N], at the last token of its N programs."""
    encode = text_encoder(tokenizer)
    tokens = [
        encode_steps(
            encode, LabelledSteps(row["prompt"], (program,), (0.0,)), "end"
        ).tokens
        for row in rows
        for program in row["programs"]
    ]
    ends = [[len(row) - 1] for row in tokens]
    found = reward_model.score_places(cfg, params, tokens, ends)
    flat = iter(np.concatenate(found) if found else [])
    return [np.array([next(flat) for _ in row["programs"]]) for row in rows]


def best_of(values: Sequence[float], scores: Sequence[float], n: int) -> float:
    """The expected value of the best-scored of n, over all sub-samples of the pool.

    Exact: the item of rank r (from 0) among N is chosen with probability
    C(N - 1 - r, n - 1) / C(N, n). Equal scores go to the one sampled first.
    """
    total = len(values)
    if not 1 <= n <= total:
        raise ValueError(f"n: expected 1 to {total}, the size of the pool, got {n}")
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    chances = [math.comb(total - 1 - r, n - 1) for r in range(total)]
    ranked = np.asarray(values, float)[order]
    return float(np.dot(chances, ranked) / math.comb(total, n))


def ranking(scores: Sequence[Sequence[float]], right: Sequence[Sequence[bool]]) -> dict:
    """AUC over all programs, and its mean within problems; None where undefined."""
    pairs = [
        (s, r) for s, r in zip(scores, right, strict=True) if any(r) and not all(r)
    ]
    whole = within = None
    if pairs:
        whole = auc(np.concatenate(scores), np.concatenate(right).astype(float))
        within = float(np.mean([auc(s, np.asarray(r, float)) for s, r in pairs]))
    return {"auc": whole, "auc_within": within, "mixed_problems": len(pairs)}
