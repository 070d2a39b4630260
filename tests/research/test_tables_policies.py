"""Claim 6 both ways, the rows of Table 6.2, and reward against truth."""

import dataclasses

import pytest
from helpers import chapter_stages as made

from research.easy_to_hard import tables_hacking, tables_policies
from research.easy_to_hard.claims import Judges
from research.easy_to_hard.settings import Policies, PPORuns
from research.easy_to_hard.trained import Trained
from research.intervals import Resamples
from research.report import Figure, Interval, Table
from train.ppo_config import PPOConfig, Quirks

# A piece of each claim, in the order of the report; whether the process model rewards.
CLAIMS = {
    "ppo > rest": ("PPO beats ReST-EM on the same", False),
    "prm > rest": ("PPO with the process reward on all questions beats ReST", True),
    "dpo > rest": ("Iterative DPO, whose pairs", True),
    "prm > sft": ("the generator it starts from on hard problems", True),
    "prm > easy": ("beats PPO on final answers of easy problems", True),
    "prm > all": ("beats PPO on the final answers of all problems", True),
    "prm > full": ("beats SFT on solutions of all levels", True),
}
NAMES = ("full", "sft", "rest", "dpo", "ppo-easy", "ppo-all", "ppo-prm")
YES, NO, UNSURE = "reproduced", "not reproduced", "too noisy to tell"
UNTESTED = "not tested here"
STRONG = Judges({"prm": 0.95}, 0.9)


def trained(root, **shares):
    """{name: [[round]]} of one seed; shares by name, 0.5 else."""
    stages = {}
    for name in NAMES:
        folder = root / name
        folder.mkdir()
        share = shares.get(name.replace("-", "_"), 0.5)
        stages[name] = [[made.policy(folder, share)]]
    return stages


def verdicts(stages, judges=STRONG):
    """{claim: verdict}"""
    read = Trained(stages, "exact")
    found = tables_policies.verdicts(read, judges, Resamples(0))
    for v, (piece, _) in zip(found, CLAIMS.values(), strict=True):
        assert piece in v.claim
    return dict(zip(CLAIMS, found, strict=True))


@pytest.mark.parametrize(
    ("shares", "settled"),
    [
        ({}, {}),
        ({"rest": 0.1}, {"ppo > rest": YES, "prm > rest": YES, "dpo > rest": YES}),
        ({"rest": 0.9}, {"ppo > rest": NO, "prm > rest": NO, "dpo > rest": NO}),
        ({"dpo": 0.9}, {"dpo > rest": YES}),
        ({"dpo": 0.1}, {"dpo > rest": NO}),
        ({"ppo_easy": 0.9}, {"ppo > rest": YES, "prm > easy": NO}),
        ({"ppo_easy": 0.1}, {"ppo > rest": NO, "prm > easy": YES}),
        ({"ppo_all": 0.9}, {"prm > all": NO}),
        ({"ppo_all": 0.1}, {"prm > all": YES}),
        ({"full": 0.9}, {"prm > full": NO}),
        ({"full": 0.1}, {"prm > full": YES}),
        ({"sft": (0.5, 0.9)}, {"prm > sft": NO}),
        ({"sft": (0.5, 0.1)}, {"prm > sft": YES}),
        ({"sft": (0.1, 0.5)}, {}),  # it is about hard problems
        ({"ppo_prm": 0.9}, {c: YES for c in CLAIMS if c.startswith("prm")}),
        ({"ppo_prm": 0.1}, {c: NO for c in CLAIMS if c.startswith("prm")}),
    ],
)
def test_each_verdict_is_the_side_of_its_difference(tmp_path, shares, settled):
    """Closed form: all is equal but for what is said; the other claims stay open."""
    found = verdicts(trained(tmp_path, **shares))
    assert {claim: v.status for claim, v in found.items()} == {
        claim: settled.get(claim, UNSURE) for claim in CLAIMS
    }


@pytest.mark.parametrize("auc", [0.85, None])
def test_a_weak_process_model_tests_nothing_that_it_rewards(tmp_path, auc):
    """Closed form: in the miniature; on published problems its AUC is shown instead."""
    stages = trained(tmp_path, rest=0.1)
    weak = verdicts(stages, Judges({"prm": auc}, 0.9))
    shown = verdicts(stages, Judges({"prm": auc}, None))
    strong = verdicts(stages)
    text = "PRM –" if auc is None else "PRM 0.850"
    for claim, (_, rewarded) in CLAIMS.items():
        assert (weak[claim].status == UNTESTED) == rewarded
        assert shown[claim].status == strong[claim].status
        assert (text in weak[claim].evidence) == rewarded
        assert (text in shown[claim].evidence) == rewarded
        assert "AUC" not in strong[claim].evidence


def test_a_method_s_round_is_the_earliest_best_on_easy_problems(tmp_path):
    """Closed form: the second of three rounds is judged, not the last."""
    stages = trained(tmp_path)
    rounds = []
    for i, (easy, right) in enumerate([(0.6, 0.5), (0.8, 0.1), (0.8, 0.9)]):
        folder = tmp_path / f"rest-{i}"
        folder.mkdir()
        rounds.append(made.policy(folder, right, easy, selected=10 + i))
    stages["rest"] = [rounds]
    assert verdicts(stages)["ppo > rest"].status == YES
    table = tables_policies.rounds_table(Trained(stages, "exact"))
    assert [row[1:] for row in table.rows] == [
        [1, 10.0, 0.6, 0.2, 0],
        [2, 11.0, 0.8, 0.2, 1],
        [3, 12.0, 0.8, 0.2, 0],
    ]


def test_table_6_2_has_the_thesis_s_rows_and_names_every_quirk(tmp_path):
    """Closed form: rows of dashes where we have none; levels add up to all."""
    stages = trained(tmp_path)
    (tmp_path / "faithful").mkdir()
    stages["ppo-faithful"] = [[made.policy(tmp_path / "faithful")]]
    read = Trained(stages, "exact")
    table = tables_policies.table_6_2(read, Resamples(0))
    rows = {tuple(row[:5]): row[5:] for row in table.rows}
    dpo = ("iterative DPO", "all", "easy", "yes")
    assert rows["here", *dpo] == [None] * 3
    assert rows["MetaMath", *dpo] == pytest.approx([0.496, 0.107, 0.292])
    quoted = ("earlier RL (Math-Shepherd)", "", "", "")
    assert rows["here", *quoted] == [None] * 3
    assert rows["MetaMath", *quoted] == [None, None, pytest.approx(0.33)]
    assert rows["here", "PPO", "easy", "easy", ""][2].value == 0.5
    fields = {field.name for field in dataclasses.fields(Quirks)}
    assert set(tables_policies.QUIRKS) == fields
    for quirk in (*tables_policies.QUIRKS.values(), *tables_policies.OTHER_QUIRKS):
        assert quirk in table.note
    del stages["ppo-faithful"]
    assert "quirks" not in tables_policies.note(Trained(stages, "exact"))


def test_the_thesis_table_agrees_with_itself():
    """Closed form: 238 easy and 262 hard problems; full MetaMath is printed so."""
    for source, lines in tables_policies.THESIS.items():
        for name, (easy, hard, whole) in lines.items():
            if easy is not None and (source, name) != ("MetaMath", "full"):
                assert abs((238 * easy + 262 * hard) / 500 - whole) < 0.11


def test_what_answers_everything_is_beaten_by_nothing(tmp_path):
    """Closed form: not tested where the other method is right everywhere."""
    found = verdicts(trained(tmp_path, full=1.0, rest=0.9))
    assert found["prm > full"].status == UNTESTED
    assert (
        "full SFT answers 100.0%: nothing can beat it." in found["prm > full"].evidence
    )
    assert found["prm > rest"].status == NO


def test_costs_are_what_was_drawn_and_updated(tmp_path):
    """Closed form: rounds x texts, or iterations x prompts and the critic's rollout."""
    cfg = PPOConfig(iterations=5, prompts=8, minibatch=4, epochs=2, fit_critic=16)
    settings = Policies(ppo=PPORuns(ppo=cfg))
    stages = trained(tmp_path)
    stages["rest"] = [stages["rest"][0] * 2]
    stages["ppo-faithful"] = stages["ppo-prm"]
    table = tables_policies.costs(Trained(stages, "exact"), settings)
    rows = {name.partition(" (")[0]: numbers for name, *numbers in table.rows}
    assert rows["ReST-EM"] == [24, 14] and rows["iterative DPO"] == [12, 7]
    assert rows["PPO"] == [5 * 8 + 16, 5 * 4]
    assert rows["PPO with the original's quirks"] == [5 * 8, 5 * 4]
    assert "clipping does not act" not in table.note
    one = PPORuns(ppo=dataclasses.replace(cfg, minibatch=8, epochs=1))
    table = tables_policies.costs(Trained(stages, "exact"), Policies(ppo=one))
    assert "clipping does not act" in table.note


# --- reward against truth -----------------------------------------------------------


def curve(process, easy, hard, kl):
    """Rows of curve.jsonl at iterations 8, 16 and 24, with others between."""
    rows = []
    for i, (p, e, h, k) in enumerate(zip(process, easy, hard, kl, strict=True), 1):
        rows.append({"step": 8 * i - 4, "reward": 9.0, "process": 9.0, "kl": 9.0})
        rows.append({"step": 8 * i, "reward": p + 1, "process": p, "kl": k,
                     "unfinished": 0.0, "easy": e, "hard": h})  # fmt: skip
    return rows


def runs_of(root, prm=0.5, free=0.5, faithful=0.5, parts=True):
    """Two seeds of the three runs; without `parts`, no process reward was kept."""
    stages = {}
    for name, share in (
        ("ppo-prm", prm),
        ("ppo-free", free),
        ("ppo-faithful", faithful),
    ):
        stages[name] = []
        for seed in range(2):
            folder = root / f"{name}-{seed}"
            folder.mkdir(parents=True)
            rows = curve(
                (0.1 + 0.2 * seed, 0.4, 0.6), (0.7, 0.9, 0.8), (0.3, 0.3, 0.1 + seed),
                (0.5, 1.0, 4.0),
            )  # fmt: skip
            if not parts:
                rows = [{k: v for k, v in r.items() if k != "process"} for r in rows]
            stages[name].append([made.ppo(folder, rows, 16, share)])
    return stages


def test_moments_are_means_over_seeds_at_evaluations(tmp_path):
    """Closed form: the first, the kept and the last evaluation of two seeds."""
    read = Trained(runs_of(tmp_path), "exact")
    blocks = tables_hacking.blocks(read, Resamples(0))
    assert [type(b) for b in blocks] == [Figure] * 3 + [Table] * 2
    assert "process reward" in blocks[0].caption
    table = blocks[3]
    assert "without the final answer" in table.note
    rows = {tuple(row[:2]): row[2:] for row in table.rows}
    for run in tables_hacking.RUNS.values():
        assert rows[run, "first"] == pytest.approx([8, 0.2, 0.5, 0.7, 0.3])
        assert rows[run, "best"] == pytest.approx([16, 0.4, 1.0, 0.9, 0.3])
        assert rows[run, "last"] == pytest.approx([24, 0.6, 4.0, 0.8, 0.6])


def test_an_older_curve_shows_the_total_and_says_what_it_contains(tmp_path):
    """Without the process model's part the total reward is drawn, under its name."""
    read = Trained(runs_of(tmp_path, parts=False), "exact")
    blocks = tables_hacking.blocks(read, Resamples(0))
    assert "process with" not in blocks[0].caption
    assert ": reward of a response" in blocks[0].caption
    assert "true final answers" in blocks[3].note
    assert blocks[3].rows[0][3] == pytest.approx(1.2)


def test_a_curve_without_hard_answers_has_none(tmp_path):
    """At paper size hard development problems have no answers: easy ones are drawn."""
    stages = runs_of(tmp_path)
    for runs in stages.values():
        for (stage,) in runs:
            path = stage.folder / "curve.jsonl"
            rows = curve((0.1,), (0.7,), (None,), (0.5,))
            made.write_jsonl(path, [
                {k: v for k, v in row.items() if v is not None} for row in rows
            ])  # fmt: skip
    read = Trained(stages, "exact")
    blocks = tables_hacking.blocks(read, Resamples(0))
    assert "easy development problems" in blocks[1].caption
    rows = {tuple(row[:2]): row[2:] for row in blocks[3].rows}
    assert rows["KL penalty", "last"][3:] == [pytest.approx(0.7), None]
    assert rows["KL penalty", "best"] == [None] * 5  # no row at iteration 16


@pytest.mark.parametrize(
    ("shares", "penalty", "mended"),
    [
        ({}, 0, 0),
        ({"free": (0.5, 0.1)}, 1, 0),
        ({"free": (0.5, 0.9)}, -1, 0),
        ({"free": (0.1, 0.5)}, 0, 0),  # it is measured on hard problems
        ({"faithful": 0.1}, 0, 1),
        ({"faithful": 0.9}, 0, -1),
    ],
)
def test_changes_are_with_minus_without(tmp_path, shares, penalty, mended):
    """Closed form: signs of two differences in points; neither is a verdict."""
    read = Trained(runs_of(tmp_path, **shares), "exact")
    table = tables_hacking.changes(read, Resamples(0))
    (_, hard, first), (_, whole, second) = table.rows
    assert (hard, whole) == ("hard", "all")
    for interval, sign in ((first, penalty), (second, mended)):
        assert isinstance(interval, Interval)
        assert interval.value == pytest.approx(40 * sign)
        assert (interval.low > 0, interval.high < 0) == (sign > 0, sign < 0)
