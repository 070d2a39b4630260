"""Chapter 7's report: our numbers, the thesis's, proofs to read; nothing runs."""

import json

import pytest
from helpers import lean_stages
from helpers.lean_stages import ALL, HALF, NONE
from helpers.report_pages import Page, check_report

from research.intervals import Resamples
from research.lean_star import pages, tables, thesis
from research.lean_star.formats import Format
from research.lean_star.names import short
from research.lean_star.passk import mcnemar, wilson
from research.lean_star.report import write_report
from research.lean_star.results import title
from research.lean_star.settings import BestFirst, Sampled
from research.report import Interval, Text
from research.stages import RunInfo

EVIL = "<script>alert(1)</script>"
STATE = f"h : {EVIL}\n⊢ p"
OUTPUT = f"So {EVIL}.\n---\nNext tactic:\n---\n```lean4\nexact h\n```\n---"
STEPS = ({"state": STATE, "output": OUTPUT, "tactic": "exact h"},)
BASE = ("sft", "cot", "sft-data", "sft-tokens", "cot-longer")
CHAINS = ("star-joint-1", "star-joint-2", "ei-joint-1", "ei-joint-2")
PLUS = ("star-continue-1", "ei-continue-1")


def call(state, tactic, result, detail="", name="test0"):
    return {
        "name": name, "trajectory": 0, "state": state, "output": "", "tactic": tactic,
        "result": result, "detail": detail,
    }  # fmt: skip


CALLS = [
    call("⊢ s", "exact h", "proved"),
    call("⊢ s", "ring", "illegal", "elaboration: no\nreally not"),
    call("⊢ s", "ring", "illegal", "elaboration: no\nreally not"),
    call("⊢ s", f"exact {EVIL}", "timeout"),
    call("⊢ t", "intro x", "progress"),
    call("⊢ u", "ring", "illegal", "elaboration: no", "test1"),
]


def written(folder, systems, seeds=(0,), known=True, published=None):
    """The report of such stages, as JSON."""
    stages = lean_stages.made(
        folder, systems, seeds=seeds, known=known, steps=STEPS, calls=CALLS,
        searches={"sft mean": HALF, "cot mean": NONE},
    )  # fmt: skip
    out = folder / "report"
    out.mkdir()
    write_report(
        out,
        data=lean_stages.data(folder / "data", known),
        **stages,
        sampled=Sampled(trajectories=2, tactics=4, stop_all_on_first=False),
        best_first=BestFirst(expansions=2, candidates=4),
        seeds=seeds,
        counts=(1, 2),
        run_info=RunInfo(),
        published=published,
    )
    return out, json.loads((out / "report.json").read_text())["report"]


def table(report, beginning: str) -> dict:
    """Rows of the table whose caption begins so, by their first cells and columns."""
    found = [
        block
        for section in report["sections"]
        for block in section["blocks"]
        if block["kind"] == "Table" and block["caption"].startswith(beginning)
    ]
    (one,) = found
    names = [column["name"] for column in one["columns"]]
    return {row[0]: dict(zip(names, row, strict=True)) for row in one["rows"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    systems = dict.fromkeys([*BASE, *CHAINS], HALF) | {"star-joint-2": ALL}
    return written(tmp_path_factory.mktemp("base"), systems, seeds=(0, 1))


def test_the_report_is_one_page_with_one_set_of_numbers(base):
    """HTML, Markdown and JSON agree; verdicts are legal; nothing is requested."""
    out, report = base
    check_report(out, "Lean-STaR in miniature")
    assert [s["title"] for s in report["sections"]] == [
        "In short", "What holds", "Proofs by sampling", "Expert iteration",
        "More trajectories", "Best-first search", "By difficulty",
        "What lies behind it", "Theorems that training has with other numbers",
        "Proofs to read", "What it cost", "The data",
    ]  # fmt: skip


def test_the_thesis_stands_beside_our_numbers(base):
    """Table 7.1's and 7.3's numbers, at the systems that have them."""
    _, report = base
    first, third = table(report, "Table 7.1"), table(report, "Table 7.3")
    beside = {
        "sft": ("29.5%", "30.6%"), "cot": ("32.8%", "35.6%"),
        "star-joint-1": ("34.0%", "38.4%"), "star-joint-2": ("34.8%", "39.4%"),
        "sft-data": (None, None),
    }  # fmt: skip
    for system, (minif2f, leandojo) in beside.items():
        row = first[short(system)]
        assert row["thesis: miniF2F, K = 32"] == minif2f
        assert row["thesis: LeanDojo"] == leandojo
        share = 1.0 if system == "star-joint-2" else 0.5
        assert row["held-out proved"]["value"] == row["novel proved"]["value"] == share
    both = {"sft": "29.5 41.3", "cot": "32.8 43.4", "star-joint-1": "34.0 45.5",
            "ei-joint-1": "30.7 43.0"}  # fmt: skip
    for system, numbers in both.items():
        row = third[short(system)]
        found = (row["thesis: base"], row["thesis: plus"])
        assert found == tuple(f"{x}%" for x in numbers.split())
    assert third[short("star-joint-2")]["thesis: base"] is None
    search = table(report, "Best-first")
    assert search["SFT, mean"]["thesis: miniF2F"] == "30.7%"


def test_costs_and_single_seeds_are_told(base):
    """Updates and tokens of training; Wilson's interval and McNemar's p of a seed."""
    _, report = base
    cost = table(report, "Training")["SFT"]
    assert (cost["updates"], cost["tokens read"], cost["places"]) == (7, 700, 800)
    written = table(report, "What was written")["SFT"]
    assert written["tactics that fail"] == pytest.approx(1 - 16 / 40)
    solved = table(report, "held-out problems solved by seed 0")
    n, right = 8 * lean_stages.EACH, 4 * lean_stages.EACH
    row = solved["SFT"]
    assert row["solved"] == right and row["p, against SFT"] is None
    share = row["share"]
    assert (share["low"], share["high"]) == pytest.approx(wilson(right, n))
    best = solved[short("star-joint-2")]
    assert best["p, against SFT"] == pytest.approx(
        mcnemar([True] * n, [m == "2" for m in HALF[:8] for _ in range(4)])
    )


def test_a_published_model_has_its_own_tables(tmp_path):
    """Table 7.2 of the plus model, K = 2 here; of problems without proof no level."""
    systems = dict.fromkeys(["untuned", *BASE, *PLUS], HALF)
    out, report = written(tmp_path, systems, known=False, published="plus")
    check_report(out, "Lean-STaR")
    rows = table(report, "Table 7.2")
    assert rows[short("untuned")]["thesis: miniF2F, K = 32"] == "40.9%"
    assert rows[short("star-continue-1")]["thesis: miniF2F, K = 32"] == "45.4%"
    assert rows["SFT"]["miniF2F-test proved"]["value"] == 0.5
    third = table(report, "Table 7.3")
    assert third[short("star-continue-1")]["thesis: plus"] == "45.5%"
    assert third[short("untuned")]["thesis: plus"] == "40.9%"
    assert table(report, "Training")[short("untuned")]["updates"] is None
    assert table(report, "LeanDojo problems proved, by")["SFT"]["medium (16)"]


def test_rounds_of_both_regimes_have_the_number_of_their_model(tmp_path):
    """The thesis's base model learns jointly, its plus model continues."""
    rounds = ("star-joint-1", "ei-joint-1", "star-continue-1", "ei-continue-1")
    systems = dict.fromkeys(("sft", "cot", *rounds), "2" * 12)
    third = tables.table_7_3(lean_stages.results(tmp_path, systems), Resamples(0))
    shown = {row[0]: tuple(row[2:]) for row in third.rows}
    assert shown == {
        "SFT": ("29.5%", "41.3%"),
        "Lean-CoT": ("32.8%", "43.4%"),
        short("star-joint-1"): ("34.0%", None),
        short("star-continue-1"): (None, "45.5%"),
        short("ei-joint-1"): ("30.7%", None),
        short("ei-continue-1"): (None, "43.0%"),
    }


def test_k_of_the_thesis_is_shown_where_it_was_run(tmp_path):
    """Of 64 trajectories the table has the estimate for 32, and 64 beside."""
    systems = {"sft": "2" * 12, "cot": "2" * 12}
    results = lean_stages.results(tmp_path, systems, published="base")
    results.counts = (1, 2, 32, 64)
    assert results.k == 32 and results.era == "base"
    results.counts = (1, 2)
    assert results.k == 2
    assert thesis.minif2f("base", "star-joint-2", 64) == "36.1%"
    assert thesis.minif2f("base", "sft", 64) is None
    section = tables.sampling(results, Resamples(0))
    cited = {b.caption: b for b in section.blocks}["Table 7.1, others: as the thesis "
                                                   "cites them"]  # fmt: skip
    assert ["ReProver", "50 / 1 / 64", "26.5%"] in [list(row) for row in cited.rows]


# --- proofs to read -----------------------------------------------------------------


def test_a_proof_is_written_as_it_is_read():
    """State, thought, tactic, next state; at the end no goals."""
    two = [*STEPS, {"state": "⊢ q", "output": "x", "tactic": "ring"}]
    assert pages.written(two, Format("base", "cot")).split("\n") == [
        f"h : {EVIL}", "⊢ p", f"        “So {EVIL}.”", "        ▸ exact h", "",
        "⊢ q", "        ▸ ring", "", "no goals",
    ]  # fmt: skip
    assert "“" not in pages.written(two, Format("base", "sft"))
    plus = "Think.\n\nHere is the predicted next tactic:\n```lean\nring\n```<|im_end|>"
    step = {"state": "s", "output": plus, "tactic": "ring"}
    assert "“Think.”" in pages.written([step], Format("plus", "cot"))


def test_failed_tactics_are_folded_and_counted():
    """By state, equal ones together, the most frequent first; a reason's first line."""
    own = [one for one in CALLS if one["name"] == "test0"]
    (block,) = pages.failures(own)
    assert isinstance(block, Text) and block.folded and block.verbatim
    assert block.caption == "Failed: 3 tactics, on 1 states"
    assert block.text.split("\n") == [
        "⊢ s", "        1 tactics applied", "        ✕ 2 × ring   (elaboration: no)",
        f"        ✕ 1 × exact {EVIL}   (timeout)",
    ]  # fmt: skip
    assert pages.failures([one for one in own if one["state"] == "⊢ t"]) == []


def test_pages_fold_and_escape_what_models_write(base):
    """Failures are behind their caption; no tag of a model's text is the page's."""
    out, report = base
    text = (out / "report.html").read_text()
    assert EVIL not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<details><summary>Failed: 3 tactics, on 1 states</summary><pre>⊢ s" in text
    page = Page()
    page.feed(text)
    assert "script" not in page.tags and EVIL in page.text
    (section,) = [s for s in report["sections"] if s["title"] == "Proofs to read"]
    captions = [block["caption"] for block in section["blocks"]]
    # The one of which every tactic was kept comes first, for both systems.
    best = title("star-joint-2")
    assert captions[0] == f"{best}: theorem test0 : p" and captions[1][:6] == "Failed"
    assert sum(c.startswith("SFT: ") for c in captions) == pages.PROOFS


def test_intervals_are_paired_over_seeds_and_problems(tmp_path):
    """A seed that proves all and one that proves nothing: half, anywhere between."""
    systems = {"sft": (ALL, NONE), "cot": (ALL, NONE)}
    results = lean_stages.results(tmp_path, systems, seeds=(0, 1))
    row = tables.sampling(results, Resamples(0)).blocks[0].rows[0]
    assert row[1] == Interval(0.5, 0.0, 1.0)
    from research.lean_star import claims

    told = claims.compared(
        "c", results.passed("cot"), results.passed("sft"), "x", Resamples(0)
    )
    assert told.status == "no difference" and "+0.0 [+0.0, +0.0]" in told.evidence
