"""Stages that ask a model to prove theorems, or to predict a known tactic."""

import dataclasses
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import jax

from data.records import write_jsonl
from research.lean_star import best_first, star
from research.lean_star.formats import Format
from research.lean_star.outcomes import Outcome, Throughput, total
from research.lean_star.provers import parts
from research.lean_star.search import Searched, sample
from research.lean_star.settings import (
    SPLITS,
    BestFirst,
    Drawn,
    Iteration,
    Prover,
    Sampled,
)
from research.lean_star.stages import ERA
from research.lean_star.world import read_rows
from research.lean_star.writer import Codec, ModelWriter
from research.stages import StageResult
from research.weights import devices, load
from train.commands import MeshConfig
from train.keys import purpose_key
from train.progress import Progress

SHOWN = 6  # theorems of which every tactic that was tried is kept
CALLS = 600  # of each, at most


def prove(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult | str,
    kind: str,
    sampled: Sampled,
    drawn: Drawn,
    dtype: str,
    seed: int,
    era: str = ERA,
    mesh: MeshConfig | None = None,
    provers: Mapping[str, Prover] | None = None,
) -> dict:
    """Stage: the problems of the test and the novel ones, by sampling.

    Leaves outcomes.jsonl (see `outcomes.Outcome.row`) in the order of the problems, and
    calls.jsonl: of a few problems of the test, every tactic that was tried.
    """
    rows = read_rows(data, SPLITS)
    tests = [row["name"] for row in rows if row["split"] == "test"]
    shown = set(tests[:: max(1, len(tests) // SHOWN)])
    writers = _Writers(model, kind, drawn, dtype, seed, "prove", era, mesh)
    found = _run(sample, writers, rows, sampled, provers, shown, calls=True)
    write_jsonl(folder / "outcomes.jsonl", [o.row() for o in found.outcomes])
    calls = [
        {"name": o.theorem.name, **call._asdict()}
        for o in found.outcomes
        for call in o.calls[:CALLS]
    ]
    write_jsonl(folder / "calls.jsonl", calls)
    return {
        "rules": dataclasses.asdict(sampled) | dataclasses.asdict(drawn),
        "counts": dict(total(found.outcomes)),
        "throughput": found.throughput.row(),
        "cut": writers.cut,
    }


def best_first_search(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult | str,
    kind: str,
    score: str,
    rules: BestFirst,
    drawn: Drawn,
    dtype: str,
    seed: int,
    era: str = ERA,
    mesh: MeshConfig | None = None,
    provers: Mapping[str, Prover] | None = None,
) -> dict:
    """Stage: the same problems by best-first search, candidates ranked by `score`.

    Leaves outcomes.jsonl ({name, split, solved, ..}), each with its tree of states.
    """
    rows = read_rows(data, SPLITS)
    if rules.beam:
        drawn = dataclasses.replace(drawn, temperature=0.0)
    writers = _Writers(model, kind, drawn, dtype, seed, "search", era, mesh)
    found = _run(best_first.search, writers, rows, rules, provers, score=score)
    write_jsonl(folder / "outcomes.jsonl", [o.row() for o in found.outcomes])
    return {
        "rules": dataclasses.asdict(rules) | dataclasses.asdict(drawn),
        "counts": dict(total(found.outcomes)),
        "throughput": found.throughput.row(),
        "cut": writers.cut,
    }


def predict(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult | str,
    kind: str,
    drawn: Drawn,
    dtype: str,
    seed: int,
    era: str = ERA,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: on every state of the known proofs of the problems, one greedy completion.

    Leaves predicted.jsonl ({name, split, step, tactic, right}): whether it is the known
    tactic, to the letter.
    """
    drawn = dataclasses.replace(drawn, temperature=0.0)
    writers = _Writers(model, kind, drawn, dtype, seed, "predict", era, mesh)
    asked = [
        (row, step, state, tactic)
        for row in read_rows(data, SPLITS)
        for step, (state, tactic) in enumerate(
            zip(row["states"], row["proof"], strict=True)
        )
    ]
    states = [state for _, _, state, _ in asked]
    written = dict(writers.next().write(states, range(len(states))))
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
    model: StageResult | str,
    kind: str,
    iteration: Iteration,
    drawn: Drawn,
    dtype: str,
    seed: int,
    number: int,
    era: str = ERA,
    mesh: MeshConfig | None = None,
    provers: Mapping[str, Prover] | None = None,
) -> dict:
    """Stage: a round of expert iteration: statements tried, proofs made examples.

    Leaves examples.jsonl ({theorem, state, output, tactic}).
    """
    rows = read_rows(data, ("statements",))
    purpose = f"gather {number}"
    writers = _Writers(model, kind, drawn, dtype, seed, purpose, era, mesh)
    found = _run(sample, writers, rows, iteration.sampled, provers)
    made = star.harvest(
        found.outcomes,
        most=iteration.most,
        per_head=iteration.per_head,
        seed=seed,
    )
    write_jsonl(folder / "examples.jsonl", [e._asdict() for e in made.examples])
    tokens = [len(writers.codec.tokenizer.encode(e.output)) for e in made.examples]
    return {
        **made.notes,
        "output_tokens": sum(tokens) / max(1, len(tokens)),
        "counts": dict(total(found.outcomes)),
        "throughput": found.throughput.row(),
    }


class _Writers:
    """Writers of one model, one for every part of the theorems.

    What the first draws depends on the seed and the purpose, the others' draws on their
    number, too. cut: prompts that lost their beginning.
    """

    def __init__(
        self, model, kind: str, drawn: Drawn, dtype, seed: int, purpose: str, era, mesh
    ):
        loaded = load(model, dtype, mesh=devices(mesh))
        self.codec = Codec(loaded.tokenizer, Format(era, kind))
        self._loaded, self._drawn = loaded, drawn
        self._key = purpose_key(jax.random.key(seed), purpose)
        self._made: list[ModelWriter] = []

    def next(self) -> ModelWriter:
        """The writer of the next part."""
        number, key = len(self._made), self._key
        if number:
            key = jax.random.fold_in(key, number)
        cfg, params = self._loaded[:2]
        self._made.append(ModelWriter(cfg, params, self.codec, self._drawn, key))
        return self._made[-1]

    @property
    def cut(self) -> int:
        return sum(writer.cut for writer in self._made)


def _run(
    method,
    writers: _Writers,
    rows: Sequence[dict],
    rules,
    provers: Mapping[str, Prover] | None,
    shown: Container[str] = (),
    **more,
) -> Searched:
    """What a method of proof search finds; says how fast it was.

    shown: names of the theorems of which the tactics that were tried are kept.
    """
    outcomes: list[Outcome] = []
    spent: list[Throughput] = []
    with Progress(len(rows), unit="theorem") as bar:
        for env, theorems in parts(rows, provers):
            done = len(outcomes)
            found = method(
                writers.next(),
                env,
                theorems,
                rules,
                on_round=lambda n, done=done: bar.update(done + n),
                **more,
            )
            outcomes += [
                one if one.theorem.name in shown else one._replace(calls=())
                for one in found.outcomes
            ]
            spent.append(found.throughput)
    throughput = Throughput(*map(sum, zip(*spent, strict=True)))
    print(throughput)
    return Searched(outcomes, throughput)
