"""Claim 6 both ways, the rows of Table 6.2, and reward against truth."""

import dataclasses

import pytest
from helpers import chapter_stages as made

from research.easy_to_hard import tables_hacking, tables_policies
from research.easy_to_hard.claims import Judges
from research.easy_to_hard.settings import Policies, PPORuns
from research.easy_to_hard.trained import Trained
from research.intervals import Resamples
from research.report import Figure, Interval, Table, Text
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
YES, NO, SAME = "reproduced", "not reproduced", "no difference"
UNTESTED = "not tested here"
STRONG = Judges({"prm": 0.95}, least=0.9)
ONE_UPDATE = PPOConfig(prompts=8, minibatch=8)


def trained(root, **shares):
    """{name: [[round]]} of one seed; shares by name, 0.5 else."""
    stages = {}
    for name in NAMES:
        folder = root / name
        folder.mkdir()
        share = shares.get(name.replace("-", "_"), 0.5)
        stage = made.ppo if name.startswith("ppo") else made.policy
        stages[name] = [[stage(folder, right=share)]]
    return stages


def verdicts(stages, judges=STRONG):
    """{claim: finding}"""
    read = Trained(stages, "exact")
    spent = tables_policies.costs(read, Policies())
    found = tables_policies.verdicts(read, judges, Resamples(0), spent, True)
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
        claim: settled.get(claim, SAME) for claim in CLAIMS
    }


@pytest.mark.parametrize("auc", [0.85, None])
def test_a_weak_process_model_tests_nothing_that_it_rewards(tmp_path, auc):
    """Closed form: in the miniature; on published problems its AUC is shown instead."""
    stages = trained(tmp_path, rest=0.1)
    weak = verdicts(stages, Judges({"prm": auc}, least=0.9))
    shown = verdicts(stages, Judges({"prm": auc}))
    strong = verdicts(stages)
    text = "PRM on steps –" if auc is None else "PRM on steps 0.850"
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
    runs = PPORuns(faithful_read=3, faithful_spread=2)
    table = tables_policies.table_6_2(read, Resamples(0), runs)
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
    assert "last 3 tokens" in table.note and "last 2 tokens" in table.note
    assert "tokens" not in tables_policies.note(read, PPORuns()).split("quirks:")[1]
    assert "is not a candidate" in table.note
    del stages["ppo-faithful"]
    assert "quirks" not in tables_policies.note(Trained(stages, "exact"), runs)


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
    (reason,) = found["prm > full"].reasons
    assert reason.startswith("full SFT, all problems, answers 100.0%, which leaves 0.0")
    assert found["prm > rest"].status == NO


def test_costs_are_what_was_drawn_and_updated(tmp_path):
    """Closed form: rounds x texts, or iterations x prompts and the critic's rollout."""
    cfg = PPOConfig(iterations=5, prompts=8, minibatch=4, epochs=2, fit_critic=16)
    settings = Policies(ppo=PPORuns(ppo=cfg))
    stages = trained(tmp_path)
    stages["rest"] = [stages["rest"][0] * 2]
    for name in ("ppo-easy", "ppo-all", "ppo-prm"):
        stages[name][0][0] = made.ppo(tmp_path / name, [{"step": 3}, {"step": 5}])
    stages["ppo-faithful"] = stages["ppo-prm"]
    spent = tables_policies.costs(Trained(stages, "exact"), settings)
    table = tables_policies.costs_table(spent, settings)
    rows = {name.partition(" (")[0]: numbers for name, *numbers in table.rows}
    assert rows["ReST-EM"] == [24, 14] and rows["iterative DPO"] == [12, 7]
    assert rows["PPO"] == [5 * 8 + 16, 5 * 4]
    assert rows["PPO with the original's quirks"] == [5 * 8, 5 * 4]
    assert "clipping cannot act" not in table.note
    one = PPORuns(ppo=dataclasses.replace(cfg, minibatch=8, epochs=1))
    table = tables_policies.costs_table(spent, Policies(ppo=one))
    assert "clipping cannot act" in table.note


def test_unequal_costs_stand_beside_the_verdict(tmp_path):
    """Closed form: both costs where they differ, none where they are the same."""
    stages = trained(tmp_path)
    found = verdicts(stages)
    cfg = PPORuns().ppo
    of_ppo = f"{8 * cfg.responses + cfg.fit_critic:,} responses drawn"
    rest = "against ReST-EM (easy questions, easy answers): 12 responses drawn, 7 upd"
    assert of_ppo in found["ppo > rest"].evidence
    assert rest in found["ppo > rest"].evidence
    assert of_ppo in found["prm > sft"].evidence
    assert "against" not in found["prm > sft"].evidence
    for claim in ("dpo > rest", "prm > easy", "prm > all"):
        assert "Cost" not in found[claim].evidence
        assert "responses" not in found[claim].claim
    assert found["ppo > rest"].claim == (
        f"PPO beats ReST-EM on the same questions and answers, at {of_ppo}, "
        f"{8 * cfg.updates} updates against 12 responses drawn, 7 updates."
    )
    assert "responses" not in found["prm > sft"].claim  # only one side trains further


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
    blocks = tables_hacking.blocks(read, Resamples(0), ONE_UPDATE)
    assert [type(b) for b in blocks] == [Figure] * 3 + [Table, Text, Table]
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
    blocks = tables_hacking.blocks(read, Resamples(0), ONE_UPDATE)
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
    blocks = tables_hacking.blocks(read, Resamples(0), ONE_UPDATE)
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
    table = tables_hacking.changes(read, Resamples(0), ONE_UPDATE)
    (_, hard, first), (_, whole, second) = table.rows
    assert (hard, whole) == ("hard", "all")
    for interval, sign in ((first, penalty), (second, mended)):
        assert isinstance(interval, Interval)
        assert interval.value == pytest.approx(40 * sign)
        assert (interval.low > 0, interval.high < 0) == (sign > 0, sign < 0)


@pytest.mark.parametrize(
    ("process", "hard", "said"),
    [
        # two seeds; reward and accuracy at the first and at the last evaluation
        (((0.1, 0.3), (0.2, 0.3)), ((0.5, 0.4), (0.5, 0.3)), "this is reward hacking"),
        (((0.1, 0.3), (0.2, 0.3)), ((0.5, 0.6), (0.5, 0.2)), "is not settled"),
        (((0.1, 0.3), (0.2, 0.3)), ((0.5, 0.6), (0.5, 0.5)), "no reward hacking"),
        (((0.3, 0.1), (0.3, 0.2)), ((0.5, 0.4), (0.5, 0.3)), "no reward hacking"),
    ],
)
def test_hacking_is_reward_that_rises_while_accuracy_falls(process, hard, said):
    """Closed form: in all seeds, in the mean only, or not; what lies between is not."""
    seeds = [
        [
            {"step": 8, "process": p[0], "hard": h[0]},
            {"step": 16, "process": 9.0, "hard": 0.0},
            {"step": 24, "process": p[1], "hard": h[1]},
        ]
        for p, h in zip(process, hard, strict=True)
    ]
    found = tables_hacking.hacking({"ppo-prm": seeds}, "process")
    first, chance = found.split("\n\n")
    assert first.startswith("With the KL penalty, from iteration 8 to 24")
    assert first.endswith(f"{said}.") or f": {said}" in first
    assert chance.endswith("1 in 4.")
    short = tables_hacking.hacking(
        {"ppo-free": [rows[:1] for rows in seeds]}, "process"
    )
    assert short.startswith("Without a KL penalty: fewer than two evaluations")


def test_what_one_update_cannot_show_stands_beside_the_quirks(tmp_path):
    """Closed form: said at one update in an iteration, and only of those quirks."""
    read = Trained(runs_of(tmp_path), "exact")
    two = PPOConfig(prompts=8, minibatch=4)
    for cfg, said in ((ONE_UPDATE, True), (two, False)):
        note = tables_hacking.changes(read, Resamples(0), cfg).note
        assert ("clipping cannot act" in note) == said
    del read.stages["ppo-faithful"]
    note = tables_hacking.changes(read, Resamples(0), ONE_UPDATE).note
    assert "clipping" not in note
