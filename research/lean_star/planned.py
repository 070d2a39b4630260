"""What the chapter's stages compute, for `research.plan`: runs, and how many steps.

The same settings as the stages hand on, without the files. Counts are upper bounds:
every trajectory asks for all its tactics, every expansion is made, every completion
goes on to its budget, every example fills a row (packing puts several into one), and of
every statement as many proofs are learned as may be kept, of as many steps as may be
tried. How many steps the known proofs of a miniature have is not known before they are
made: `--examples` stands for them. Left out are the prover, the oracle, copying and
saving.
"""

import dataclasses
import math
from collections.abc import Iterator

from models.config import DecoderConfig
from research.lean_star import (
    proving,
    published,
    report,
    stages,
    vocabulary,
    world,
)
from research.plan import Facts, Stage, Work
from research.plan_work import mesh_of, sft, updates
from research.stages import Handle
from research.training import small_decoder
from train.plan_sampling import SampleRun
from train.ppo_run import SamplingSettings

BEAM = "the beams of best-first search: their program (models.beam) is in no plan"
# Traced tactics of LeanDojo Benchmark 4, novel premises, and steps with a thought; the
# problems of miniF2F-test.
PAIRS, THOUGHTS, MINIF2F = 231_240, {"base": 52_438, "plus": 140_000}, 244


def architecture(source: Handle | str, facts: Facts) -> DecoderConfig:
    """Of a checkpoint, or of the model that a stage trained or used."""
    if isinstance(source, str):
        return facts.model(source)
    inputs = source.inputs
    if source.fn is stages.pretrain:
        words = vocabulary.tokenizer().vocab_size
        return small_decoder(inputs["model"], words, "float32")
    return architecture(inputs["start" if "start" in inputs else "model"], facts)


def problems(data: Handle) -> int:
    """Those that proof search is asked for, of the test and novel ones."""
    if data.fn is published.read_theorems:
        return MINIF2F + data.inputs["leandojo"].problems
    task = data.inputs["task"]
    return task.held_out + task.novel


def statements(data: Handle) -> int:
    """Those that expert iteration tries."""
    if data.fn is published.read_theorems:
        return data.inputs["leandojo"].statements
    return data.inputs["task"].statements


def known(stage: Handle, facts: Facts) -> int | None:
    """Known steps that a stage learns: counted, or as many as were published."""
    data = stage.inputs["data"]
    if data.fn is not published.read_theorems:
        return facts.examples
    counted = facts.counts(data)
    if stage.inputs.get("annotated", True):
        return counted.get("thoughts", THOUGHTS[stage.inputs["era"]])
    return counted.get("pairs", PAIRS)


def learned(stage: Handle, facts: Facts) -> int | None:
    """Examples of a stage that trains; None where they are not known."""
    inputs = stage.inputs
    found = known(stage, facts) if inputs.get("known", True) else 0
    if found is None:
        return None
    for harvest in inputs.get("harvests", ()):
        given = harvest.inputs
        rules = given["iteration"]
        proofs = 1 if rules.sampled.stop_all_on_first else rules.most
        found += statements(given["data"]) * proofs * rules.sampled.tactics
    return found


def _updates(stage: Handle, facts: Facts) -> int | None:
    # Of equal tokens as many updates: rows are taken to be full.
    other = stage.inputs.get("updates_of") or stage.inputs.get("tokens_of")
    if other is not None:
        return _updates(other, facts)
    return updates(stage.inputs["training"], learned(stage, facts))


def _train(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    model, remat = architecture(stage, facts), i.get("remat", "none")
    made = sft(model, i["training"], i["dtype"], remat, mesh_of(i), None)
    yield made._replace(steps=_updates(stage, facts))


def _written(
    stage: Handle, facts: Facts, completions: int | None, greedy: bool = False
) -> Work:
    """So many completions, each behind a prompt of its own."""
    rules = stage.inputs["drawn"]
    sampling = SamplingSettings(
        temperature=0.0 if greedy else rules.temperature, slots=rules.slots
    )
    run = SampleRun(
        max_new_tokens=rules.max_new_tokens,
        sampling=sampling,
        dtype=stage.inputs["dtype"],
        mesh=mesh_of(stage.inputs),
    )
    steps = None if completions is None else math.ceil(completions / rules.slots)
    model = architecture(stage, facts)
    return Work(run, model, steps, prompt_length=rules.prompt_tokens)


def _prove(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    rules = stage.inputs["sampled"]
    asked = rules.trajectories * rules.tactics * rules.repeat
    yield _written(stage, facts, problems(stage.inputs["data"]) * asked)


def _gather(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    rules = stage.inputs["iteration"].sampled
    asked = rules.trajectories * rules.tactics * rules.repeat
    yield _written(stage, facts, statements(stage.inputs["data"]) * asked)


def _predict(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    yield _written(stage, facts, None, greedy=True)


def _search(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    rules = stage.inputs["rules"]
    if rules.beam:
        yield BEAM
        return
    asked = problems(stage.inputs["data"]) * rules.expansions * rules.candidates
    work = _written(stage, facts, asked)
    yield work._replace(run=dataclasses.replace(work.run, samples=rules.candidates))


STAGES: dict[object, Stage | None] = {
    stages.pretrain: _train,
    stages.finetune: _train,
    proving.prove: _prove,
    proving.gather: _gather,
    proving.predict: _predict,
    proving.best_first_search: _search,
    # Nothing on a device.
    world.make_world: None,
    published.write_thoughts: None,
    published.read_theorems: None,
    report.write_report: None,
}
