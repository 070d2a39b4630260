"""Table 6.3 at paper size: Code Llama on APPS, programs run in the sandbox.

A program passes a test when what it prints is what is expected, or, where the problem
asks for a function, when the call returns it. Expected results never enter the sandbox.
Programs may use the standard library and numpy; other packages are not there.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from data.chat import load_template
from data.errors import DataError
from data.formats import Completion
from data.packing import fit as fit_length
from data.records import write_jsonl
from data.sets import apps
from data.sets.apps import AppsProblem
from data.tokenizers import Tokenizer, load_tokenizer, save_tokenizer
from models.config import DType, Remat
from models.sampler import generate
from models.sampling import Sampling
from research.easy_to_hard.outcome import (
    OutcomeTraining,
    score_programs,
    train_outcome,
)
from research.easy_to_hard.published import BadRows
from research.easy_to_hard.settings import Sampled
from research.sandbox.limits import Limits
from research.sandbox.run import Job, passes, run_many
from research.stages import Handle, Plan, StageResult
from research.training import Training, train
from research.weights import devices, load
from train.commands import MeshConfig
from train.keys import purpose_key
from train.progress import Progress
from train.settings import fraction, positive

TEMPLATE = "plain"
GENERATORS = {"full": apps.DIFFICULTIES, "easy": apps.EASY}
# Runs inside the sandbox, beside the program in solution.py. What the program itself
# prints goes to standard error; the result is all that standard output gets.
DRIVER = """\
import importlib.util, json, os, sys
sys.dont_write_bytecode = True
out, sys.stdout = sys.stdout, sys.stderr
given = json.loads(sys.stdin.read())
path = os.path.abspath("solution.py")
spec = importlib.util.spec_from_file_location("solution", path)
solution = sys.modules["solution"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solution)
owner = solution.Solution() if hasattr(solution, "Solution") else solution
arguments = [
    {int(k): v for k, v in a.items()}
    if isinstance(a, dict) and a and all(k.lstrip("-").isdigit() for k in a)
    else a
    for a in given["arguments"]
]
result = getattr(owner, given["name"])(*arguments)
out.write(json.dumps(result))
out.flush()
"""


@dataclasses.dataclass(frozen=True)
class Apps:
    """The settings of the coding domain at paper size.

    `train` and `test` are APPS in either published form, `checkpoint` a Hugging Face
    folder. `test_sizes` problems of each difficulty are answered. `held_out` of the
    introductory training problems, with tests, judge the outcome model; it learns
    from at most `reward_problems` others, none of `held_out` being trained on at all.
    `cases` bounds the tests that are run for a program that the outcome model learns
    from or is measured on, `solutions` those that are trained on per problem; answers
    to test problems run all tests. The thesis gives neither, nor the sampling rules.
    `train_dtype` is that of training, if it has its own. Problems that cannot be read
    are an error, or with `on_bad_row` "skip" left out and counted.
    """

    checkpoint: str
    train: str
    test: str
    sft: Training
    reward: OutcomeTraining
    sampled: Sampled
    test_sizes: tuple[int, ...] = apps.TEST_SIZES
    held_out: float = fraction(0.05)
    reward_problems: int = positive(2000)
    reward_samples: int = positive(16)
    reward_ratio: int = positive(3)
    reward_where: str = "all"
    solutions: int = positive(8)
    cases: int = positive(16)
    prompt_tokens: int = positive(1536)
    limits: Limits = Limits()
    workers: int = positive(8)
    dtype: DType = "bfloat16"
    train_dtype: DType | None = None
    remat: Remat = "full"
    mesh: MeshConfig = MeshConfig()
    on_bad_row: Literal["error", "skip"] = "error"

    def __post_init__(self):
        if len(self.test_sizes) != len(apps.DIFFICULTIES):
            raise ValueError(
                f"test_sizes: expected {len(apps.DIFFICULTIES)}, one per difficulty, "
                f"got {self.test_sizes}"
            )
        if not 0 < self.held_out < 1:
            raise ValueError(
                f"held_out: expected over 0 and under 1, got {self.held_out}"
            )
        if self.reward_where not in ("all", "end"):
            raise ValueError(
                f"reward_where: expected 'all' or 'end', got {self.reward_where!r}"
            )


def declare(plan: Plan, cfg: Apps, seeds: Sequence[int]) -> list[Handle]:
    """Declares the stages, `apps-<what>-<seed>`; returns the results, one per seed."""
    data = plan.stage("apps-data", read_problems, task=cfg, seed=seeds[0])
    pool = dataclasses.replace(cfg.sampled, votes=cfg.reward_samples, counts=(1,))
    results = []
    for seed in seeds:
        trained = {
            name: plan.stage(
                f"apps-sft-{name}-{seed}",
                finetune,
                data=data,
                task=cfg,
                difficulties=difficulties,
                seed=seed,
            )
            for name, difficulties in GENERATORS.items()
        }

        def write(what, generator, split, sampled, seed=seed):
            return plan.stage(
                f"apps-{what}-{seed}",
                write_programs,
                data=data,
                task=cfg,
                generator=generator,
                split=split,
                sampled=sampled,
                seed=seed,
            )

        orm = plan.stage(
            f"apps-orm-{seed}",
            train_outcome,
            base=cfg.checkpoint,
            labelled=write("labelled", trained["easy"], "labelled", pool),
            held_out=write("heldout", trained["easy"], "heldout", cfg.sampled),
            training=cfg.reward,
            ratio=cfg.reward_ratio,
            where=cfg.reward_where,
            dtype=cfg.train_dtype or cfg.dtype,
            seed=seed,
            remat=cfg.remat,
            mesh=cfg.mesh,
        )
        answers = {
            "full": write(
                "answers-full",
                trained["full"],
                "test",
                dataclasses.replace(cfg.sampled, votes=1, counts=(1,)),
            ),
            "easy": write("answers-easy", trained["easy"], "test", cfg.sampled),
        }
        results.append(
            plan.stage(
                f"apps-results-{seed}",
                score_programs,
                answers=answers,
                orm=orm,
                counts=cfg.sampled.counts,
                dtype=cfg.dtype,
                mesh=cfg.mesh,
            )
        )
    return results


# --- stages -------------------------------------------------------------------------


def read_problems(folder: Path, *, task: Apps, seed: int) -> dict:
    """Stage: checks the files and leaves train, labelled, heldout and test.jsonl.

    `labelled` are introductory problems whose samples the outcome model learns from,
    a part of train; `heldout` are no part of it. Returns the numbers of problems, and
    of those that could not be read.
    """
    bad = BadRows(task.on_bad_row)
    everything = list(apps.read_apps(task.train, bad.report))
    rng = np.random.default_rng([seed, 63])
    easy = [p for p in everything if p.difficulty in apps.EASY and p.tests]
    easy = [easy[i] for i in rng.permutation(len(easy))]
    count = round(task.held_out * len(easy))
    held = {p.problem_id for p in easy[:count]}
    if not count or count == len(easy):
        raise DataError(
            f"{task.train}: expected introductory problems with tests on both sides of "
            f"held_out, {task.held_out}; there are {len(easy)}"
        )
    splits = {
        "train": [p for p in everything if p.problem_id not in held],
        "labelled": easy[count : count + task.reward_problems],
        "heldout": easy[:count],
        "test": apps.subsample(task.test, seed, task.test_sizes, bad.report),
    }
    for name, problems in splits.items():
        write_jsonl(folder / f"{name}.jsonl", map(apps.published_row, problems))
    save_tokenizer(load_tokenizer(task.checkpoint), folder / "tokenizer")
    counts = {name: len(problems) for name, problems in splits.items()}
    return {"counts": counts, **bad.result()}


def finetune(
    folder: Path,
    *,
    data: StageResult,
    task: Apps,
    difficulties: Sequence[str],
    seed: int,
) -> dict:
    """Stage: SFT of the checkpoint on the solutions of some difficulties."""
    mesh = devices(task.mesh)
    dtype = task.train_dtype or task.dtype
    loaded = load(task.checkpoint, dtype, task.remat, mesh)
    chat = load_template(TEMPLATE, loaded.tokenizer)
    problems = apps.read_apps(data.folder / "train.jsonl")
    examples = [
        chat.encode(Completion(row["prompt"], row["completion"]))
        for row in apps.sft_rows(problems, difficulties, task.solutions)
    ]
    fitted = fit_length(examples, task.sft.length, "drop")
    result = train(
        folder,
        loaded.cfg,
        loaded.params,
        fitted.examples,
        task.sft,
        seed,
        loaded.tokenizer,
        loaded.hf_config,
        mesh,
    )
    return {**result, "dropped": fitted.dropped}


def write_programs(
    folder: Path,
    *,
    data: StageResult,
    task: Apps,
    generator: StageResult,
    split: str,
    sampled: Sampled,
    seed: int,
) -> dict:
    """Stage: programs for the problems of a split, and the share of tests they pass.

    Leaves programs.jsonl as `outcome` describes it. A prompt of more than
    `prompt_tokens` is cut at its start, and counted as `cut_prompts`.
    """
    loaded = load(generator, task.dtype, mesh=devices(task.mesh))
    tokenizer = loaded.tokenizer
    chat = load_template(TEMPLATE, tokenizer)
    problems = list(apps.read_apps(data.folder / f"{split}.jsonl"))
    texts = [_prompt(tokenizer, p, task.prompt_tokens) for p in problems]
    whole = [apps.prompt_of(problem) for problem in problems]
    cut = sum(a != b for a, b in zip(texts, whole, strict=True))
    prompts = [chat.encode_prompt(Completion(text, "")) for text in texts]
    key = purpose_key(jax.random.key(seed), "apps", len(split))

    def draw(temperature, top_k, samples):
        rollout = generate(
            loaded.cfg,
            loaded.params,
            prompts,
            Sampling(temperature=temperature, top_k=top_k, eos_ids=chat.stop_ids),
            key,
            max_new_tokens=sampled.max_new_tokens,
            samples=samples,
            slots=sampled.slots,
        )
        # An empty response has no token to read a score at.
        found = [
            tokenizer.decode(rollout.response(i)) or "\n"
            for i in range(len(prompts) * samples)
        ]
        return [found[i : i + samples] for i in range(0, len(found), samples)]

    cases = None if split == "test" else task.cases
    greedy = draw(0.0, 0, 1)
    pools = draw(sampled.temperature, sampled.top_k, sampled.votes)
    rows = []
    with Progress(len(problems), unit="problem") as bar:
        for i, (problem, text) in enumerate(zip(problems, texts, strict=True)):
            responses = [*greedy[i], *pools[i]]
            shares = judge(problem, responses, task.limits, cases, task.workers)
            rows.append({
                "difficulty": problem.difficulty,
                "prompt": text,
                "greedy": responses[0],
                "greedy_passed": shares[0],
                "programs": responses[1:],
                "passed": shares[1:],
            })  # fmt: skip
            bar.update(i + 1)
    write_jsonl(folder / "programs.jsonl", rows)
    return {
        "problems": len(rows),
        "cut_prompts": cut,
        "without_program": sum(
            apps.program_of(text) is None for row in rows for text in row["programs"]
        ),
    }


# --- judging ------------------------------------------------------------------------


def judge(
    problem: AppsProblem,
    responses: Sequence[str],
    limits: Limits | None = None,
    cases: int | None = None,
    workers: int = 1,
    run: Callable = run_many,
) -> list[float]:
    """The share of a problem's first `cases` tests that each response's program passes.

    A response without a program passes none; equal programs run once. `run` is
    `research.sandbox.run_many` or takes and gives the same. Raises DataError for a
    problem without tests.

    A result is judged where it was run and then let go: each may hold the megabytes
    that a program prints without end, and a problem may have thousands of them.
    """
    tests = problem.tests[:cases]
    if not tests:
        raise DataError(f"problem {problem.problem_id}: has no tests to judge by")
    found = [apps.program_of(response) for response in responses]
    different = list(dict.fromkeys(program for program in found if program is not None))

    def passed(asked) -> bool:
        program, (given, expected) = asked
        (result,) = run([_job(problem, program, given)], limits, workers=1)
        return _passes(problem, result, expected)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        done = pool.map(passed, itertools.product(different, tests))
        shares: dict[str | None, float] = {None: 0.0}
        for program in different:
            shares[program] = float(np.mean([next(done) for _ in tests]))
    return [shares[program] for program in found]


def _job(problem: AppsProblem, program: str, given) -> Job:
    if problem.function is None:
        return Job(program, _text(given))
    # Some published inputs are one argument that is no list.
    arguments = given if isinstance(given, list) else [given]
    call = json.dumps({"name": problem.function, "arguments": arguments})
    return Job(DRIVER, call, {"solution.py": program})


def _passes(problem: AppsProblem, result, expected) -> bool:
    """Whether a result is what is expected; for a call, or the only item of that.

    Published outputs of calls are often a list around the result. APPS's own checker
    takes the first item of any such list for the result, so that to return 1 passes
    where [1, 2, 3] is expected; here, the list has to hold nothing else. Its calls
    compare floats as they are, and so does this; for what is printed see
    `research.sandbox.run.passes`.
    """
    if problem.function is None:
        return passes(result, _text(expected))
    if result.status != "ok":
        return False
    try:
        returned = json.loads(result.stdout)
    except (ValueError, RecursionError):
        return False
    wrapped = isinstance(expected, list) and len(expected) == 1
    wanted = [expected, expected[0]] if wrapped else [expected]
    return any(_equal(returned, x) for x in wanted)


def _equal(a, b) -> bool:
    """Equal as JSON: true is not 1, whereas 1.0 is 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    return a == b


def _text(value) -> str:
    """Standard input or output: text, or its lines as a list."""
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def _prompt(tokenizer: Tokenizer, problem: AppsProblem, longest: int) -> str:
    """The prompt, without what is too much of the question's start."""
    text = apps.prompt_of(problem)
    ids = tokenizer.encode(text)
    return text if len(ids) <= longest else tokenizer.decode(ids[-longest:])
