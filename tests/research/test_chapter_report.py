"""The chapter's report from what stages leave: its order, and what it says is true."""

import json

import pytest
from helpers import chapter_stages as made

from research import intervals, plots
from research.easy_to_hard.report import write_report
from research.easy_to_hard.settings import Policies
from research.easy_to_hard.summary import bare
from research.report import Column, Interval, Section, Table, Text
from research.stages import RunInfo

SEEDS = (0, 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No pictures, which have tests of their own, and fewer resamples."""
    monkeypatch.setattr(intervals, "RESAMPLES", 400)
    for name in ("lines", "grouped_bars"):
        monkeypatch.setattr(plots, name, lambda *_, **__: "<svg/>")


def inputs(root, prm_auc=0.95, outcome_auc=0.95):
    """Stages of two seeds of everything."""

    def folder(name):
        (root / name).mkdir(parents=True)
        return root / name

    given = {"answers": {}, "scores": {}, "evaluators": {}, "policies": {}}
    given |= {"programs": [], "program_judges": []}
    for seed in SEEDS:
        for name in ("full", "easy", "large", "icl-full", "icl-hard", "icl-easy"):
            path = folder(f"answers-{name}-{seed}")
            given["answers"][f"{name}-{seed}"] = made.answers(path)
        for kind in ("orm", "prm", "oprm", "large"):
            auc = prm_auc if kind == "prm" else 0.95
            path = folder(f"{kind}-{seed}")
            given["evaluators"][f"{kind} {seed}"] = made.evaluator(path, kind, auc)
            # All tell right answers to easy problems; the mixed one is better on
            # hard ones.
            hard = 0.9 if kind == "oprm" else 0.5
            shares = (0.5, (1.0, hard), (1.0, 0.5))
            path = folder(f"score-easy-{kind}-{seed}")
            stage = made.scores(path, kind, *shares)
            given["scores"][f"easy {kind} {seed}"] = stage
        for kind in ("oprm", "large"):
            path = folder(f"score-large-{kind}-{seed}")
            given["scores"][f"large {kind} {seed}"] = made.scores(
                path, kind, 0.5, (1.0, 0.5), (1.0, 0.5)
            )
        names = ("full", "sft", "rest", "dpo", "ppo-easy", "ppo-all", "ppo-prm",
                 "ppo-free", "ppo-faithful")  # fmt: skip
        for name in names:
            stage = made.ppo(folder(f"{name}-{seed}"))
            given["policies"].setdefault(name, []).append([stage])
        given["programs"].append(made.programs(folder(f"programs-{seed}"), 0.5))
        judge = {"auc": outcome_auc, "auc_within": 0.9, "mixed_problems": 2}
        judge = made.StageResult(folder(f"coding-orm-{seed}"), judge)
        given["program_judges"].append(judge)
    return given


def report(folder, given, miniature=True, rules="exact"):
    folder.mkdir()
    write_report(
        folder, **given, seeds=SEEDS, sampled=made.SAMPLED, miniature=miniature,
        run_info=RunInfo(), rules=rules, further=Policies(),
    )  # fmt: skip
    return json.loads((folder / "report.json").read_text())["report"]


def verdicts(section):
    return [b for b in section["blocks"] if b["kind"] == "Verdict"]


def test_all_seven_claims_stand_at_the_top_and_nowhere_else(tmp_path):
    """Closed form: the order of the sections, and of the claims in the second."""
    found = report(tmp_path / "report", inputs(tmp_path))
    titles = [s["title"].partition(" (")[0] for s in found["sections"]]
    assert titles == [
        "At a glance", "What holds", "Accuracy", "Re-ranking", "Further training",
        "Programs", "By level", "More votes", "Transcripts",
    ]  # fmt: skip
    glance, top, *others = found["sections"]
    assert not any(map(verdicts, [glance, *others]))
    claims = [v["claim"] for v in verdicts(top)]
    wanted = (
        "beats greedy decoding: full SFT",
        "falls short of one that saw all levels",
        "beats full ICL",
        "raises accuracy on hard ones",
        "In points, re-ranking",
        "better than the PRM",
        "Weighted voting beats best-of-n",
        "A larger evaluator helps a smaller generator",
        "PPO beats ReST-EM",
        "best of 16 beats its greedy programs",
    )
    places = [next(i for i, c in enumerate(claims) if w in c) for w in wanted]
    assert places[0] == 0 and places[-1] == len(claims) - 1
    status = {v["claim"]: v["status"] for v in verdicts(top)}
    assert status[claims[places[3]]] == status[claims[-1]] == "reproduced"


def test_weak_evaluators_settle_nothing_in_the_miniature_only(tmp_path):
    """Closed form: statuses of what the PRM and the outcome model are asked about."""
    given = inputs(tmp_path, prm_auc=0.85, outcome_auc=0.8)
    pieces = ("than the PRM", "Iterative DPO", "best of 16 beats its greedy")
    for miniature in (True, False):
        found = report(tmp_path / f"report-{miniature}", given, miniature)
        top = verdicts(found["sections"][1])
        for piece in pieces:
            (verdict,) = (v for v in top if piece in v["claim"])
            assert (verdict["status"] == "not tested here") == miniature
            assert "0.8" in verdict["evidence"]
        (stays,) = (v for v in top if "raises accuracy on hard" in v["claim"])
        assert stays["status"] == "reproduced"


def test_the_introduction_says_what_evaluators_learned_from(tmp_path):
    """Closed form: the miniature labels its own solutions, published data are rated."""
    given = inputs(tmp_path)
    mini = report(tmp_path / "mini", given)
    assert "the easy generator's solutions of easy problems." in mini["intro"]
    assert "in miniature" in mini["title"]
    published = report(tmp_path / "published", given, miniature=False)
    assert "published labels of steps" in published["intro"]
    none = given | {"scores": {}, "evaluators": {}, "policies": {}}
    assert "valuators" not in report(tmp_path / "none", none)["intro"]


@pytest.mark.parametrize(("rules", "right"), [("exact", 0.5), ("math", 0.0)])
def test_the_rules_say_where_a_process_model_is_read(tmp_path, rules, right):
    """Closed form: of joined steps and answers the answer's score decides."""
    given = inputs(tmp_path)
    for seed in SEEDS:
        stage = given["scores"][f"easy prm {seed}"]
        rows = []
        for good in made.rights(0.5):
            logits = [3.0] * 3 + [-3.0] * 2
            # Read at the answer, every problem gets its wrong one.
            answer = [-x for x in logits] if good else logits
            rows.append({"steps": [[x] for x in logits], "answer": answer})
        made.write_jsonl(stage.folder / "scores.jsonl", rows)
    found = report(tmp_path / "report", given, rules=rules)
    (table,) = (
        b
        for b in found["sections"][3]["blocks"]
        if b.get("caption", "").startswith("Re-ranking 5 answers")
    )
    (row,) = (r for r in table["rows"] if r[:3] == ["small", "PRM, voting", "here"])
    assert value(row[5]) == pytest.approx(right)


def value(cell):
    return cell["value"] if isinstance(cell, dict) else cell


@pytest.mark.parametrize("miniature", [True, False])
def test_the_first_table_has_every_claim_and_the_second_every_gap(tmp_path, miniature):
    """Equality with the verdicts: claims, statuses, differences; all that lack one."""
    given = inputs(tmp_path, prm_auc=0.85, outcome_auc=0.8)
    found = report(tmp_path / "report", given, miniature)
    blocks = found["sections"][0]["blocks"]
    made_verdicts = verdicts(found["sections"][1])
    rows = blocks[0]["rows"]
    assert [row[:2] for row in rows] == [
        [v["claim"].rstrip("."), v["status"]] for v in made_verdicts
    ]
    for (_, _, difference), v in zip(rows, made_verdicts, strict=True):
        assert f": {difference}." in v["evidence"]
    untested = [v for v in made_verdicts if v["status"] == "not tested here"]
    tested = len(made_verdicts) - len(untested)
    assert f"Each of the {tested} tested claims" in blocks[0]["note"]
    assert f"not tested here: {len(untested)}." in blocks[0]["note"]
    assert f"about {0.05 * tested:.1f} of them" in blocks[0]["note"]
    if miniature:
        assert [row[0] for row in blocks[1]["rows"]] == [
            v["claim"].rstrip(".") for v in untested
        ]
        for (_, why), v in zip(blocks[1]["rows"], untested, strict=True):
            assert v["evidence"].endswith(f"Not tested: {why}.")
        assert any("PRM on steps 0.850" in row[1] for row in blocks[1]["rows"])
        assert any("outcome model" in row[1] for row in blocks[1]["rows"])
    else:
        assert not untested and blocks[1]["kind"] == "Text"


def test_an_interval_of_no_width_is_a_number():
    """Closed form: up to rounding; others, and other blocks, stay as they are."""
    flat, wide = Interval(1.0, 1.0, 1.0 + 1e-12), Interval(0.5, 0.4, 0.6)
    table = Table([Column("a"), Column("b")], [[flat, wide], [None, "x"]], "caption")
    text = Text("text")
    found = bare(Section("title", [table, text]))
    assert found.blocks[0].rows == [[1.0, wide], [None, "x"]]
    assert found.blocks[1] == text
