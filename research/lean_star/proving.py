"""Stages that ask a model to prove theorems, or to predict a known tactic."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax

from data.records import write_jsonl
from research.easy_to_hard.weights import load
from research.lean_star import best_first, star
from research.lean_star.embedded import EmbeddedEnvironment
from research.lean_star.formats import Format
from research.lean_star.outcomes import total
from research.lean_star.search import sample
from research.lean_star.settings import SPLITS, BestFirst, Drawn, Iteration, Sampled
from research.lean_star.stages import ERA
from research.lean_star.world import read_rows, theorem_of
from research.lean_star.writer import Codec, ModelWriter
from research.stages import StageResult
from train.keys import purpose_key
from train.progress import Progress

SHOWN = 6  # theorems of which every tactic that was tried is kept
CALLS = 600  # of each, at most


def prove(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult,
    kind: str,
    sampled: Sampled,
    drawn: Drawn,
    dtype: str,
    seed: int,
) -> dict:
    """Stage: the problems of the test and the novel ones, by sampling.

    Leaves outcomes.jsonl (see `outcomes.Outcome.row`) in the order of the problems, and
    calls.jsonl: of a few problems of the test, every tactic that was tried.
    """
    rows = read_rows(data, SPLITS)
    writer = _writer(model, kind, drawn, dtype, seed, "prove")
    found = _run(sample, writer, rows, sampled, calls=True)
    write_jsonl(folder / "outcomes.jsonl", [o.row() for o in found.outcomes])
    tests = [o for o in found.outcomes if o.theorem.split == "test"]
    shown = tests[:: max(1, len(tests) // SHOWN)]
    calls = [
        {"name": o.theorem.name, **call._asdict()}
        for o in shown
        for call in o.calls[:CALLS]
    ]
    write_jsonl(folder / "calls.jsonl", calls)
    return {
        "rules": dataclasses.asdict(sampled) | dataclasses.asdict(drawn),
        "counts": dict(total(found.outcomes)),
        "throughput": found.throughput.row(),
        "cut": writer.cut,
    }


def best_first_search(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult,
    kind: str,
    score: str,
    rules: BestFirst,
    drawn: Drawn,
    dtype: str,
    seed: int,
) -> dict:
    """Stage: the same problems by best-first search, candidates ranked by `score`.

    Leaves outcomes.jsonl ({name, split, solved, ..}), each with its tree of states.
    """
    rows = read_rows(data, SPLITS)
    if rules.beam:
        drawn = dataclasses.replace(drawn, temperature=0.0)
    writer = _writer(model, kind, drawn, dtype, seed, "search")
    found = _run(best_first.search, writer, rows, rules, score=score)
    write_jsonl(folder / "outcomes.jsonl", [o.row() for o in found.outcomes])
    return {
        "rules": dataclasses.asdict(rules) | dataclasses.asdict(drawn),
        "counts": dict(total(found.outcomes)),
        "throughput": found.throughput.row(),
        "cut": writer.cut,
    }


def predict(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult,
    kind: str,
    drawn: Drawn,
    dtype: str,
    seed: int,
) -> dict:
    """Stage: on every state of the known proofs of the problems, one greedy completion.

    Leaves predicted.jsonl ({name, split, step, tactic, right}): whether it is the known
    tactic, to the letter.
    """
    drawn = dataclasses.replace(drawn, temperature=0.0)
    writer = _writer(model, kind, drawn, dtype, seed, "predict")
    asked = [
        (row, step, state, tactic)
        for row in read_rows(data, SPLITS)
        for step, (state, tactic) in enumerate(
            zip(row["states"], row["proof"], strict=True)
        )
    ]
    states = [state for _, _, state, _ in asked]
    written = dict(writer.write(states, range(len(states))))
    found = [
        {
            "name": row["name"],
            "split": row["split"],
            "step": step,
            "tactic": written[i].tactic,
            "right": written[i].tactic == tactic,
        }
        for i, (row, step, _, tactic) in enumerate(asked)
    ]
    write_jsonl(folder / "predicted.jsonl", found)
    return {"states": len(found), "right": sum(row["right"] for row in found)}


def gather(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult,
    kind: str,
    iteration: Iteration,
    drawn: Drawn,
    dtype: str,
    seed: int,
    number: int,
) -> dict:
    """Stage: a round of expert iteration: statements tried, proofs made examples.

    Leaves examples.jsonl ({theorem, state, output, tactic}).
    """
    rows = read_rows(data, ("statements",))
    writer = _writer(model, kind, drawn, dtype, seed, f"gather {number}")
    found = _run(sample, writer, rows, iteration.sampled)
    made = star.harvest(
        found.outcomes,
        most=iteration.most,
        per_head=iteration.per_head,
        seed=seed,
    )
    write_jsonl(folder / "examples.jsonl", [e._asdict() for e in made.examples])
    tokens = [len(writer.codec.tokenizer.encode(e.output)) for e in made.examples]
    return {
        **made.notes,
        "output_tokens": sum(tokens) / max(1, len(tokens)),
        "counts": dict(total(found.outcomes)),
        "throughput": found.throughput.row(),
    }


def _writer(model, kind: str, drawn: Drawn, dtype, seed: int, purpose: str):
    cfg, params, tokenizer, _ = load(model, dtype)
    key = purpose_key(jax.random.key(seed), purpose)
    codec = Codec(tokenizer, Format(ERA, kind))
    return ModelWriter(cfg, params, codec, drawn, key)


def _run(method, writer, rows: Sequence[dict], rules, **more):
    """What a method of proof search finds; says how fast it was."""
    env = EmbeddedEnvironment()
    theorems = [theorem_of(row) for row in rows]
    with Progress(len(rows), unit="theorem") as bar:
        found = method(writer, env, theorems, rules, on_round=bar.update, **more)
    print(found.throughput)
    env.close()
    return found
