"""Every variant of chapter 7 runs to its end, made tiny."""

import json

import pytest
from helpers.config_runs import overrides, shipped
from helpers.entry import call
from helpers.report_pages import check_report

from models.pretrained import from_pretrained
from research import run as research_run

# Of all variants the same, so that stages of one folder run once.
TINY = (
    "seeds=(0,) miniature.known=60 miniature.statements=12 miniature.held_out=12 "
    "miniature.novel=6 model.d_model=32 model.n_layers=1 model.n_heads=2 "
    "model.n_kv_heads=2 model.d_ff=32 sft.epochs=2.0 sft.batch_size=4 cot.epochs=1.0 "
    "cot.batch_size=4 star.epochs=1.0 star.batch_size=4 sampled.trajectories=2 "
    "sampled.tactics=2 counts=(1,2) iteration.sampled.trajectories=2 "
    "iteration.sampled.tactics=2 best_first.expansions=2 best_first.candidates=2 "
    "drawn.slots=8 thought_drawn.slots=8 drawn.max_new_tokens=24 "
    "thought_drawn.max_new_tokens=24 drawn.prompt_tokens=64 "
    "thought_drawn.prompt_tokens=64"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "variant"), shipped(lambda name: name.startswith("ch7_"))
)
def test_every_variant_runs(path, variant, tmp_path):
    """Exit code 0, a report with proofs' parts, and a second run with nothing to do."""
    work = tmp_path.parent / ("smoke" if variant == "smoke" else "ch7")
    settings = overrides(TINY if variant != "smoke" else "")
    command = [f"--config={path}:{variant}", "--jobs=1", *settings]
    done = call(research_run, *command, f"--workdir={work}")
    assert done.code == 0, done.err
    for name in ("sft", "cot", "star-joint-2", "ei-continue-2"):
        (model,) = work.glob(f"stages/{name}-0/*/hf")
        from_pretrained(model)
    check_report(work, "Lean-STaR in miniature")
    report = json.loads((work / "report.json").read_text())["report"]
    claims = [
        block["claim"]
        for section in report["sections"]
        for block in section["blocks"]
        if block["kind"] == "Verdict"
    ]
    assert {claim[:2] for claim in claims} == {f"{i}." for i in range(1, 7)}
    again = call(research_run, *command, f"--workdir={work}")
    assert again.code == 0 and "running" not in again.out
