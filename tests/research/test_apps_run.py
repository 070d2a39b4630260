"""Programs of APPS are judged by what they print or return, in the sandbox."""

import dataclasses
import weakref

import pytest

from data.records import read_records, write_jsonl
from data.sets import apps as published
from data.sets.apps import AppsProblem, completion_of
from research.easy_to_hard import apps
from research.easy_to_hard.outcome import OutcomeTraining
from research.easy_to_hard.settings import Sampled
from research.sandbox.launch import SandboxUnavailable
from research.sandbox.limits import Limits, ProgramResult
from research.stages import Plan, StageResult
from research.training import Training

LIMITS = Limits(cpu_seconds=2, wall_seconds=5.0)


def problem(tests, function=None, **changes):
    base = AppsProblem(
        7, "Add one.", (), tuple(tests), function, "introductory", "", "http://x"
    )
    return base._replace(**changes)


PRINTS = problem([("1\n", "2\n"), (["2", ""], ["3"]), ("5", "7")])
CALLS = problem([([1], 2), ([[4]], [5]), ([{"1": 2}], {"1": 3})], "next_one")


def shares(problem, *sources):
    try:
        return apps.judge(problem, [completion_of(s) for s in sources], LIMITS)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def test_printing_programs_pass_by_their_output_up_to_white_space():
    """Closed form: two of three tests; lists of lines are joined; errors pass none."""
    good = "print(int(input()) + 1)"
    spaced = "print(' ', int(input()) + 1, end='\\n\\n')"
    assert shares(PRINTS, good, spaced, "print(3)", "1/0", "this is no program") == (
        [2 / 3, 2 / 3, 1 / 3, 0.0, 0.0]
    )


FUNCTION = """\
def next_one(x):
    print("noise")
    if isinstance(x, list):
        return tuple(next_one(v) for v in x)
    if isinstance(x, dict):
        return {k: v + 1 for k, v in x.items() if k == 1}
    return x + 1
"""
METHOD = "class Solution:\n    def next_one(self, x):\n        return x + 1\n"


def test_called_functions_pass_by_what_they_return():
    """Closed form: noise is ignored, tuples are lists, keys that are integers are."""
    guarded = FUNCTION + "if __name__ == '__main__':\n    print(input())\n"
    assert shares(CALLS, FUNCTION, METHOD, guarded, "x = 1") == [1.0, 1 / 3, 1.0, 0.0]


def test_a_call_may_return_the_only_thing_in_the_expected_list():
    """Closed form: expected [x] accepts [x] and x, not [[x]]; and [x, y] not x.

    APPS's own checker accepts x for [x, y], too.
    """
    wrapped = problem([([1], [2])], "f")
    assert shares(
        wrapped,
        "f = lambda x: x + 1",
        "f = lambda x: [x + 1]",
        "f = lambda x: [[x + 1]]",
        "f = lambda x: x + 1.0",
        "f = lambda x: True",
    ) == [1.0, 1.0, 0.0, 1.0, 0.0]
    several = problem([([1], [1, 2, 3]), ([2], [])], "f")
    assert shares(several, "f = lambda x: 1", "f = lambda x: [1, 2, 3]") == [0.0, 0.5]


def test_a_program_cannot_read_or_forge_what_is_expected():
    """Invariance: nothing in the sandbox holds the expected result."""
    reader = (
        "import os, sys\n"
        "def f(x):\n"
        "    seen = ''.join(open(n).read() for n in os.listdir('.'))\n"
        "    return '31337' in seen or any('31337' in str(v) for v in sys.argv)\n"
        "f2 = f\n"
    )
    secret = problem([([1], [31337, True])], "f")
    assert shares(secret, reader, "import os\nprint(2)\nos._exit(0)") == [0.0, 0.0]


def fake(answers):
    """Stands in for `run_many`: source -> result; counts what it ran."""
    ran = []

    def run(jobs, limits, workers):
        ran.extend(jobs)
        return [answers(job) for job in jobs]

    return run, ran


def ok(stdout):
    return ProgramResult("ok", 0, stdout, "", 0.1)


def test_equal_programs_run_once_and_only_the_first_cases():
    """Closed form: 2 programs x 2 cases are 4 runs for 4 responses."""
    run, ran = fake(lambda job: ok(str(int(job.stdin.split()[0]) + 1)))
    responses = [completion_of("a"), completion_of("a"), "prose", completion_of("b")]
    got = apps.judge(PRINTS, responses, LIMITS, cases=2, run=run)
    assert got == [1.0, 1.0, 0.0, 1.0]
    assert [(j.source, j.stdin) for j in ran] == [
        (s, i) for s in "ab" for i in ("1\n", "2\n")
    ]


def test_results_are_let_go_once_they_are_judged():
    """Closed form: no more results than workers are alive, of 60 runs."""
    alive, most = weakref.WeakSet(), []

    class Text(str):
        """One that can be referred to weakly."""

    def run(jobs, limits, workers):
        results = []
        for job in jobs:
            text = Text(int(job.stdin) + 1)
            alive.add(text)
            most.append(len(alive))
            results.append(ok(text))
            del text
        return results

    asked = problem([(str(i), str(i + 1)) for i in range(20)])
    responses = [completion_of(source) for source in "abc"]
    assert apps.judge(asked, responses, LIMITS, workers=2, run=run) == [1.0] * 3
    assert len(most) == 60 and max(most) <= 4  # one judged, one on its way, of each


@pytest.mark.parametrize(
    ("status", "stdout"),
    [("timeout", "2"), ("error", "2"), ("memory", "2"), ("killed", "2"), ("ok", "{")],
)
def test_only_a_run_that_ended_well_can_pass(status, stdout):
    """Closed form: the right output with another status passes nothing."""
    run, _ = fake(lambda job: ProgramResult(status, 0, stdout, "", 0.1))
    for asked in (PRINTS, CALLS):
        assert apps.judge(asked, [completion_of("a")], LIMITS, run=run) == [0.0]


def test_a_problem_without_tests_says_so():
    """Closed form: the message names the problem."""
    with pytest.raises(ValueError, match="problem 7: has no tests"):
        apps.judge(problem([]), ["x"], LIMITS)


# --- the flow -----------------------------------------------------------------------

TINY = Training(epochs=1.0, batch_size=2, length=64)


def rows(count, difficulty="introductory", start=0):
    return [
        published.published_row(
            problem(
                [("1", "2")],
                problem_id=start + i,
                question=f"Q {start + i}",
                solutions=("print(2)", f"print({i} * 0 + 2)"),
                difficulty=difficulty,
            )
        )
        for i in range(count)
    ]


def settings(folder, **changes):
    write_jsonl(folder / "train.jsonl", rows(6) + rows(2, "interview", 6))
    tests = [*rows(2, start=50), *rows(2, "interview", 60), *rows(2, "competition", 70)]
    write_jsonl(folder / "test.jsonl", tests)
    given = {
        "checkpoint": str(folder / "base"),
        "train": str(folder / "train.jsonl"),
        "test": str(folder / "test.jsonl"),
        "sft": TINY,
        "reward": OutcomeTraining(**vars(TINY)),
        "sampled": Sampled(votes=2, counts=(1, 2), max_new_tokens=4, slots=4),
        "test_sizes": (1, 2, 1),
        "held_out": 0.34,
        "dtype": "float32",
    }
    return apps.Apps(**{**given, **changes})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The problems as stages see them, and a tiny checkpoint of characters."""
    import jax

    from data.tokenizers import char_tokenizer
    from models import decoder
    from models.config import DecoderConfig
    from models.pretrained import save_pretrained

    folder = tmp_path_factory.mktemp("apps")
    alphabet = "\n" + "".join(map(chr, range(32, 127)))
    tokenizer = char_tokenizer(alphabet)
    cfg = DecoderConfig(
        vocab_size=tokenizer.vocab_size, d_model=16, n_layers=1, n_heads=2,
        n_kv_heads=2, head_dim=8, d_ff=32, max_position=512, tie_embeddings=True,
        dtype="float32",
    )  # fmt: skip
    params = decoder.init_params(cfg, jax.random.key(3))
    files = tokenizer.files.contents
    save_pretrained(folder / "base", cfg, params, tokenizer_files=files)
    task = settings(folder)
    data = StageResult(folder / "data", apps.read_problems(folder / "data", task=task,
                                                           seed=0))  # fmt: skip
    return folder, task, data


def read(path):
    return [record.row for record in read_records(path)]


def test_held_out_problems_are_in_no_training_file(prepared):
    """Invariance: heldout is disjoint from train, labelled a part of its easy ones."""
    _, _, data = prepared
    ids = {
        name: {row["problem_id"] for row in read(data.folder / f"{name}.jsonl")}
        for name in ("train", "labelled", "heldout", "test")
    }
    assert not ids["heldout"] & ids["train"]
    assert ids["labelled"] == {i for i in ids["train"] if i < 6}
    assert len(ids["heldout"]) == 2 and ids["train"] | ids["heldout"] == set(range(8))
    assert sorted(i // 10 for i in ids["test"]) == [5, 6, 6, 7]


def written(prepared, monkeypatch, split, **changes):
    """(result, rows, bounds on tests) of a split's programs, none of which is run."""
    folder, task, data = prepared
    generator, bounds = folder / "gen", []
    generator.mkdir(exist_ok=True)
    if not (generator / "hf").exists():
        (generator / "hf").symlink_to(folder / "base")

    def judge(problem, responses, limits, cases, workers):
        bounds.append(cases)
        return [0.25] * len(responses)

    monkeypatch.setattr(apps, "judge", judge)
    out = folder / "programs" / split
    told = apps.write_programs(
        out, data=data, task=settings(folder, **changes), split=split,
        generator=StageResult(generator, {}), sampled=task.sampled, seed=0,
    )  # fmt: skip
    return told, read(out / "programs.jsonl"), bounds


def test_programs_are_written_and_judged_for_a_split(prepared, monkeypatch):
    """Closed form: a row per problem, a share per program; cut prompts are counted."""
    told, found, _ = written(prepared, monkeypatch, "test", prompt_tokens=20)
    assert told["problems"] == told["cut_prompts"] == len(found) == 4
    for row in found:
        assert len(row["programs"]) == len(row["passed"]) == 2
        assert len(row["prompt"]) == 20 and row["prompt"].endswith("# Solution\n\n")
        assert all(row["programs"]) and row["greedy"]


def test_a_problem_that_cannot_be_read_is_an_error_or_counted(prepared, tmp_path):
    """By on_bad_row: the message names file and line; else the others are kept."""
    folder, _, data = prepared
    for name in ("train", "test"):
        good = read(folder / f"{name}.jsonl")
        bad = {**good[0], "difficulty": "odd", "problem_id": 99}
        write_jsonl(tmp_path / f"{name}.jsonl", [good[0], bad, *good[1:]])
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}
    task = dataclasses.replace(settings(folder), **paths)
    with pytest.raises(ValueError, match=r"train\.jsonl:2: difficulty"):
        apps.read_problems(tmp_path / "a", task=task, seed=0)
    task = dataclasses.replace(task, on_bad_row="skip")
    told = apps.read_problems(tmp_path / "b", task=task, seed=0)
    assert told["bad_rows"] == 2 and "test.jsonl:2: difficulty" in told["bad"][1]
    assert told["counts"] == data.value["counts"] and data.value["bad_rows"] == 0
    for split in told["counts"]:
        rows = (read(f / f"{split}.jsonl") for f in (tmp_path / "b", data.folder))
        assert next(rows) == next(rows)


def test_only_test_programs_run_all_tests(prepared, monkeypatch):
    """Closed form: `cases` bounds what the outcome model sees, and no answer."""
    for split, bound in (("test", None), ("labelled", 2), ("heldout", 2)):
        told, rows, bounds = written(prepared, monkeypatch, split, cases=2)
        assert bounds == [bound] * len(rows) and rows
        assert told["cut_prompts"] == 0


def test_every_stage_is_declared_with_what_it_needs(prepared):
    """Closed form: two generators, four sets of programs, a model, a result a seed."""
    _, task, _ = prepared
    plan = Plan()
    results = apps.declare(plan, task, (1, 2))
    names = [h.name for h in plan.handles]
    assert len(names) == 1 + 2 * 8 and [r.name for r in results] == [
        "apps-results-1", "apps-results-2",
    ]  # fmt: skip


def test_impossible_settings_say_what_they_expect(prepared):
    """Closed form: the message names field, file and numbers."""
    folder, _, _ = prepared
    with pytest.raises(ValueError, match="test_sizes: expected 3"):
        settings(folder, test_sizes=(1, 2))
    with pytest.raises(ValueError, match=r"held_out, 0\.01; there are 6"):
        apps.read_problems(
            folder / "none", task=settings(folder, held_out=0.01), seed=0
        )
