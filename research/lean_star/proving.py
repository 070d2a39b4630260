"""Stages that ask a model to prove theorems, or to predict a known tactic.

What a model draws for a theorem depends on the seed, the stage's purpose and the
theorem's place among the problems. Outcomes are kept as they come (see `tried`), so a
stage that was interrupted goes on with the theorems that are left, to the same end.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
from research.lean_star.tried import FILE, Tried
from research.lean_star.world import read_rows, theorem_of
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

    def kept(one: Outcome) -> Outcome:
        calls = one.calls[:CALLS] if one.theorem.name in shown else ()
        return one._replace(proofs=one.proofs and (one.first,), calls=calls)

    writer = _writer(model, kind, drawn, dtype, seed, "prove", era, mesh)
    found = _run(folder, sample, writer, rows, sampled, provers, kept, calls=True)
    write_jsonl(folder / "outcomes.jsonl", [o.row() for o in found.outcomes])
    calls = [
        {"name": o.theorem.name, **call._asdict()}
        for o in found.outcomes
        for call in o.calls
    ]
    write_jsonl(folder / "calls.jsonl", calls)
    return {
        "rules": dataclasses.asdict(sampled) | dataclasses.asdict(drawn),
        **_told(found),
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
    writer = _writer(model, kind, drawn, dtype, seed, "search", era, mesh)
    found = _run(folder, best_first.search, writer, rows, rules, provers, score=score)
    write_jsonl(folder / "outcomes.jsonl", [o.row() for o in found.outcomes])
    return {
        "rules": dataclasses.asdict(rules) | dataclasses.asdict(drawn),
        **_told(found),
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

    Leaves predicted.jsonl ({name, split, step, output, tactic, right}): what was
    written, and whether its tactic is the known one, to the letter.
    """
    drawn = dataclasses.replace(drawn, temperature=0.0)
    writer = _writer(model, kind, drawn, dtype, seed, "predict", era, mesh)
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
            "output": written[i].output,
            "tactic": written[i].tactic,
            "right": written[i].tactic == tactic,
        }
        for i, (row, step, _, tactic) in enumerate(asked)
    ]
    write_jsonl(folder / "predicted.jsonl", found)
    return {
        "states": len(found),
        "right": sum(row["right"] for row in found),
        "prompts": len(found),
        "cut": sum(written[i].cut for i in range(len(found))),
    }


predict.version = 2  # its rows have the output


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

    Leaves examples.jsonl ({theorem, state, output, tactic, script}).
    """
    rows = read_rows(data, ("statements",))
    purpose = f"gather {number}"
    writer = _writer(model, kind, drawn, dtype, seed, purpose, era, mesh)
    found = _run(folder, sample, writer, rows, iteration.sampled, provers)
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
        "most": iteration.most,
        "output_tokens": sum(tokens) / max(1, len(tokens)),
        **_told(found),
    }


def _writer(
    model, kind: str, drawn: Drawn, dtype, seed: int, purpose: str, era, mesh
) -> ModelWriter:
    """A model's writer, all of whose draws depend on the seed and the purpose."""
    loaded = load(model, dtype, mesh=devices(mesh))
    codec = Codec(loaded.tokenizer, Format(era, kind))
    key = purpose_key(jax.random.key(seed), purpose)
    return ModelWriter(loaded.cfg, loaded.params, codec, drawn, key)


def _run(
    folder: Path,
    method,
    writer: ModelWriter,
    rows: Sequence[dict],
    rules,
    provers: Mapping[str, Prover] | None,
    kept: Callable[[Outcome], Outcome] = lambda outcome: outcome,
    **more,
) -> Searched:
    """What a method of proof search finds, in the order of the rows, now or before.

    kept: of an outcome, what is kept. Says how fast it was.
    """
    with Tried(folder / FILE, [theorem_of(row) for row in rows]) as tried:
        done = len(tried.outcomes)
        with Progress(len(rows), done, unit="theorem") as bar:

            def on_done(place: int, outcome: Outcome) -> None:
                tried.add(place, kept(outcome))
                bar.update(len(tried.outcomes))

            for part in parts(rows, provers, tried.outcomes):
                found = method(
                    writer,
                    part.env,
                    part.theorems,
                    rules,
                    places=part.places,
                    on_done=on_done,
                    **more,
                )
                tried.spend(found.throughput)
    outcomes = [tried.outcomes[place] for place in range(len(rows))]
    throughput = Throughput(*map(sum, zip(*tried.spent, strict=True)))
    print(throughput)
    return Searched(outcomes, throughput)


def _told(found: Searched) -> dict:
    """Numbers of a search for the stage's value.

    prompts: that the model was given; cut: those without their beginning. out_of_time:
    theorems of which a limit of time ended an attempt. throughput: of the parts that
    were not interrupted.
    """
    counts = total(found.outcomes)
    return {
        "counts": dict(counts),
        "throughput": found.throughput.row(),
        "prompts": counts["expansions"] or counts["tactics"],
        "cut": counts["cut"],
        "out_of_time": sum(o.counts["out_of_time"] > 0 for o in found.outcomes),
    }
