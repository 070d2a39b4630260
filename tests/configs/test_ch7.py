"""Every variant of chapter 7 runs to its end, made tiny."""

import json

import pytest
from helpers import lean_files
from helpers.config_runs import overrides, shipped
from helpers.entry import call
from helpers.lean_oracle import endpoint
from helpers.report_pages import check_report

from models.pretrained import from_pretrained
from research import run as research_run

# Of all variants the same, so that stages of one folder run once.
TINY = (
    "seeds=(0,) miniature.known=60 miniature.statements=12 miniature.held_out=12 "
    "miniature.novel=6 model.d_model=32 model.n_layers=1 model.n_heads=2 "
    "model.n_kv_heads=2 model.d_ff=32 sft.epochs=2.0 sft.batch_size=4 cot.epochs=1.0 "
    "cot.batch_size=4 sampled.trajectories=2 "
    "sampled.tactics=2 counts=(1,2) iteration.sampled.trajectories=2 "
    "iteration.sampled.tactics=2 best_first.expansions=2 best_first.candidates=2 "
    "drawn.slots=8 thought_drawn.slots=8 drawn.max_new_tokens=24 "
    "thought_drawn.max_new_tokens=24 drawn.prompt_tokens=64 "
    "thought_drawn.prompt_tokens=64"
)
CONTINUED = " star.epochs=1.0 star.batch_size=4"
# Trained until some of four theorems are proved.
TRAINED = " ".join(
    f"{name}.epochs={epochs} {name}.batch_size=2 {name}.accum=1 {name}.length=256 "
    f"{name}.optimizer.lr=1e-2"
    for name, epochs in (("sft", 30.0), ("cot", 30.0), ("star", 2.0))
)
PAPER = (
    f"{TRAINED} dtype=float32 published.train_dtype=float32 published.remat=none "
    "published.mesh.tensor=1 drawn.max_new_tokens=8 drawn.prompt_tokens=320 "
    "drawn.slots=8 thought_drawn.max_new_tokens=40 thought_drawn.prompt_tokens=128 "
    "thought_drawn.slots=8 sampled.trajectories=2 sampled.tactics=3 counts=(1,2) "
    "iteration.sampled.trajectories=2 iteration.sampled.tactics=3 "
    "best_first.expansions=2 best_first.candidates=2 published.leandojo.statements=4 "
    "published.leandojo.problems=2"
)


def claims_of(work) -> list[str]:
    report = json.loads((work / "report.json").read_text())["report"]
    return [
        block["claim"]
        for section in report["sections"]
        for block in section["blocks"]
        if block["kind"] == "Verdict"
    ]


def run(command, work, title):
    """To a report, and a second time with nothing to do."""
    done = call(research_run, *command, "--jobs=1", f"--workdir={work}")
    assert done.code == 0, done.err
    check_report(work, title)
    assert {claim[:2] for claim in claims_of(work)} == {f"{i}." for i in range(1, 7)}
    again = call(research_run, *command, "--jobs=1", f"--workdir={work}")
    assert again.code == 0 and "running" not in again.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "variant"),
    shipped(lambda name: name.startswith("ch7_") and ":paper" not in name),
)
def test_every_variant_runs(path, variant, tmp_path):
    """Exit code 0, a report with proofs' parts, and a second run with nothing to do."""
    work = tmp_path.parent / ("smoke" if variant == "smoke" else "ch7")
    tiny = {"smoke": "", "mini": TINY}.get(variant, TINY + CONTINUED)
    settings = overrides(tiny)
    run([f"--config={path}:{variant}", *settings], work, "Lean-STaR in miniature")
    last = ("star-joint-1",) if variant == "mini" else ("star-joint-2", "ei-continue-2")
    for name in ("sft", "cot", *last):
        (model,) = work.glob(f"stages/{name}-0/*/hf")
        from_pretrained(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "variant"),
    shipped(lambda name: name.startswith("ch7_") and ":paper" in name),
)
def test_every_paper_variant_runs(path, variant, tmp_path):
    """On a tiny checkpoint, small files, an endpoint and the stand-in of Lean.

    Both regimes end in a model; something is proved, and learned from; the models that
    were trained are of the checkpoint's architecture.
    """
    files = lean_files.write_lean(tmp_path / "files")
    model = lean_files.checkpoint(tmp_path / "model")
    given = {
        "checkpoint": model,
        "leandojo.train": files.train,
        "leandojo.test": files.test,
        "minif2f.file": files.minif2f,
    }
    for group in ("leandojo", "minif2f"):
        prover = {"command": lean_files.repl(), "project": files.project}
        prover |= {"workers": 1, "at_once": 3}
        given |= {f"{group}.prover.{key}": value for key, value in prover.items()}
    work = tmp_path / "run"
    with endpoint() as (url, asked):
        given["thoughts.url"] = url
        settings = [f"--config.published.{key}={value}" for key, value in given.items()]
        command = [f"--config={path}:{variant}", *overrides(PAPER), *settings]
        run(command, work, "Lean-STaR")
    assert len(asked) == 5  # once for each of the different steps
    rounds = 2 if variant == "paper_base" else 1
    before = from_pretrained(model).cfg
    for name in (f"star-joint-{rounds}", f"ei-continue-{rounds}"):
        (trained,) = work.glob(f"stages/{name}-42/*/hf")
        assert from_pretrained(trained).cfg == before
    harvests = [
        json.loads(path.read_text())["value"]
        for path in work.glob("stages/gather-*/*/result.json")
    ]
    assert len(harvests) == 2 + 4 * (rounds - 1)
    assert any(value["solved"] and value["examples"] for value in harvests)
