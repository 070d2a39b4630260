"""APPS: programming problems with tests, in both of its published forms.

Hugging Face's rows {problem_id, question, solutions, input_output, difficulty, url,
starter_code}, where solutions and input_output are JSON in a string, and the original
folders `NNNN/{question.txt, solutions.json, input_output.json, metadata.json,
starter_code.py}`. Nothing is executed here."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.errors import DataError
from data.records import Record
from data.sets.rows import OnBad, mismatch, parsed, text

DIFFICULTIES = ("introductory", "interview", "competition")
EASY = ("introductory",)
MOST_DIGITS = 4300  # more than which int() and str() refuse
HUGE = object()
TEST_SIZES = (100, 300, 100)  # chapter 6's sub-sample, a tenth of each difficulty


class AppsProblem(NamedTuple):
    """One problem. Its tests are pairs (input, expected output).

    With `function` None both are text for standard input and output, or lists of its
    lines; else they are the arguments and the result of a call. No solutions and no
    tests are legal: some published problems lack them. Tests with an integer that
    Python does not print (over 4,300 digits) are left out.
    """

    problem_id: int
    question: str
    solutions: tuple[str, ...]
    tests: tuple[tuple[Any, Any], ...]
    function: str | None
    difficulty: str
    starter_code: str
    url: str

    @property
    def level(self) -> int:
        """1, 2, 3 for introductory, interview, competition."""
        return DIFFICULTIES.index(self.difficulty) + 1


def read_apps(path, on_bad: OnBad = None) -> Iterator[AppsProblem]:
    """Problems of a .jsonl or .parquet file, or of a folder of problem folders.

    DataError naming file, line (or folder) and field.
    """
    if Path(path).is_dir():
        return _folders(Path(path), on_bad)
    return parsed(path, parse_apps, on_bad)


def parse_apps(record: Record) -> AppsProblem:
    """One row of the Hugging Face form, its two JSON strings decoded."""
    row, where = record.row, record.where
    problem_id = row.get("problem_id", row.get("id", record.line - 1))
    if type(problem_id) is not int or problem_id < 0:
        raise mismatch(where, "problem_id", "an integer >= 0", problem_id)
    solutions = text(where, row, "solutions", may_be_empty=True)
    tests = text(where, row, "input_output", may_be_empty=True)
    return _problem(where, row, problem_id, solutions, tests)


def subsample(
    path,
    seed: int,
    sizes: Sequence[int] = TEST_SIZES,
    on_bad: OnBad = None,
) -> list[AppsProblem]:
    """`sizes` problems of each difficulty, drawn by `seed`, in the order of the file.

    Problems without tests cannot be graded and are not drawn. The file is read twice,
    so that only what was drawn is held in memory. DataError where there are too few.
    """
    with_tests: dict[str, list[int]] = {difficulty: [] for difficulty in DIFFICULTIES}
    for i, problem in enumerate(read_apps(path, on_bad)):
        if problem.tests:
            with_tests[problem.difficulty].append(i)
    drawn: set[int] = set()
    for k, (difficulty, size) in enumerate(zip(DIFFICULTIES, sizes, strict=True)):
        known = with_tests[difficulty]
        if size > len(known):
            raise DataError(
                f"{path}: expected {size} {difficulty} problems with tests, "
                f"found {len(known)}"
            )
        rng = np.random.default_rng([seed, 600 + k])
        drawn.update(known[j] for j in rng.choice(len(known), size, replace=False))
    again = read_apps(path, None if on_bad is None else lambda error: None)
    return [problem for i, problem in enumerate(again) if i in drawn]


def published_row(problem: AppsProblem) -> dict:
    """The problem in the Hugging Face form, as `parse_apps` reads it."""
    inputs, outputs = ([test[side] for test in problem.tests] for side in (0, 1))
    given = {"inputs": inputs, "outputs": outputs}
    given |= {"fn_name": problem.function} if problem.function else {}
    return {
        "problem_id": problem.problem_id,
        "question": problem.question,
        "solutions": json.dumps(problem.solutions) if problem.solutions else "",
        "input_output": json.dumps(given) if problem.tests else "",
        "difficulty": problem.difficulty,
        "url": problem.url,
        "starter_code": problem.starter_code,
    }


def prompt_of(problem: AppsProblem, always_starter: bool = False) -> str:
    """What a generator continues.

    The section of starter code is there where the problem has some; `always_starter`
    is the original's behaviour, whose test for an empty one is never true.
    """
    starter = ""
    if problem.starter_code.strip() or always_starter:
        starter = f"# Starter Code\n\n```python\n{problem.starter_code}\n```\n\n"
    return f"# Question\n\n{problem.question}\n\n{starter}# Solution\n\n"


def completion_of(program: str) -> str:
    """A program as a response."""
    return f"```python\n{program}\n```\n"


def program_of(response: str) -> str | None:
    """The program in a response: the first block of Python; None if there is none."""
    found = re.search(r"```python\n(.*?)\n?```", response, re.DOTALL)
    return found[1] if found else None


def sft_rows(
    problems: Iterator[AppsProblem],
    difficulties: Sequence[str] = DIFFICULTIES,
    per_problem: int | None = None,
    always_starter: bool = False,
) -> Iterator[dict]:
    """{prompt, completion, eos, level} of each solution, `per_problem` of them at most.

    A solution that occurs twice in its problem is one.
    """
    for problem in problems:
        if problem.difficulty in difficulties:
            for solution in list(dict.fromkeys(problem.solutions))[:per_problem]:
                yield {
                    "prompt": prompt_of(problem, always_starter),
                    "completion": completion_of(solution),
                    "eos": True,
                    "level": problem.level,
                }


def _folders(root: Path, on_bad: OnBad) -> Iterator[AppsProblem]:
    folders = sorted(p for p in root.iterdir() if p.is_dir() and p.name.isdecimal())
    if not folders:
        raise DataError(f"{root}: expected folders of problems, such as 0000")
    for folder in folders:
        try:
            problem = _folder(folder)
        except DataError as error:
            if on_bad is None:
                raise
            on_bad(error)
        else:
            yield problem


def _folder(folder: Path) -> AppsProblem:
    metadata = _json(_file(folder, "metadata.json"), f"{folder}/metadata.json", "")
    if not isinstance(metadata, dict):
        raise mismatch(f"{folder}", "metadata.json", "an object", metadata)
    row = {
        "question": _file(folder, "question.txt"),
        "starter_code": _file(folder, "starter_code.py", optional=True),
        "difficulty": metadata.get("difficulty"),
        "url": metadata.get("url"),
    }
    solutions = _file(folder, "solutions.json", optional=True)
    tests = _file(folder, "input_output.json", optional=True)
    return _problem(str(folder), row, int(folder.name), solutions, tests)


def _file(folder: Path, name: str, optional: bool = False) -> str:
    try:
        return (folder / name).read_text("utf-8")
    except FileNotFoundError:
        if optional:
            return ""
        raise DataError(f"{folder}/{name}: expected a file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{folder}/{name}: cannot be read: {error}") from error


def _problem(where: str, row: dict, problem_id: int, solutions: str, tests: str):
    difficulty = row.get("difficulty")
    if difficulty not in DIFFICULTIES:
        raise mismatch(where, "difficulty", f"one of {DIFFICULTIES}", difficulty)
    programs = _json(solutions, where, "solutions") if solutions.strip() else []
    if not isinstance(programs, list) or not all(isinstance(p, str) for p in programs):
        raise mismatch(where, "solutions", "a JSON list of programs", programs)
    pairs, function = _tests(tests, where)
    optional = {key: row.get(key) or "" for key in ("starter_code", "url")}
    return AppsProblem(
        problem_id,
        text(where, row, "question"),
        tuple(programs),
        pairs,
        function,
        difficulty,
        text(where, optional, "starter_code", may_be_empty=True),
        text(where, optional, "url", may_be_empty=True),
    )


def _tests(tests: str, where: str) -> tuple[tuple[tuple[Any, Any], ...], str | None]:
    given = _json(tests, where, "input_output") if tests.strip() else {}
    if not isinstance(given, dict):
        raise mismatch(where, "input_output", "a JSON object", given)
    inputs, outputs = given.get("inputs", []), given.get("outputs", [])
    function = given.get("fn_name")
    for name, value in (("inputs", inputs), ("outputs", outputs)):
        if not isinstance(value, list):
            raise mismatch(where, f"input_output.{name}", "a list", value)
    if len(inputs) != len(outputs):
        raise DataError(
            f"{where}: input_output: expected as many outputs as inputs, got "
            f"{len(inputs)} inputs and {len(outputs)} outputs"
        )
    if function is not None and not (isinstance(function, str) and function):
        raise mismatch(where, "input_output.fn_name", "a function's name", function)
    pairs = zip(inputs, outputs, strict=True)
    return tuple(pair for pair in pairs if not _holds_huge(list(pair))), function


def _integer(digits: str) -> int | object:
    return int(digits) if len(digits) <= MOST_DIGITS else HUGE


def _holds_huge(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return value is HUGE or (isinstance(value, list) and any(map(_holds_huge, value)))


def _json(given: str, where: str, field: str) -> Any:
    try:
        return json.loads(given, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        at = f"{where}: {field}" if field else where
        raise DataError(f"{at}: not JSON: {error}") from error
