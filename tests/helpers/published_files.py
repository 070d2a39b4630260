"""Rows in exactly the formats that the data sets of chapter 6 are published in."""

import json
import zlib
from pathlib import Path

MARK = "ки"


def math_row(problem, level, answer="7", *, subject="Algebra", unique_id=None, by=""):
    """A line of PRM800K's math_splits."""
    where = "train" if unique_id is None else unique_id
    number = zlib.crc32(problem.encode()) % 10**4
    return {
        "problem": problem,
        "solution": by or f"We compute. So $x=\\boxed{{{answer}}}$.",
        "answer": answer,
        "subject": subject,
        "level": level,
        "unique_id": f"{where}/{subject.lower()}/{number}.json",
    }


def completion(text, rating, flagged=None):
    return {"text": text, "rating": rating, "flagged": flagged}


def step(*completions, chosen=0, human=None):
    """An object of label.steps; `human` is the text that a labeler wrote (phase 1)."""
    if human is not None:
        human = {
            "text": human,
            "rating": None,
            "source": "human",
            "flagged": False,
            "corrected_rating": None,
        }
    return {
        "completions": list(completions),
        "human_completion": human,
        "chosen_completion": chosen,
    }


def prm_row(problem, *steps, phase=2, finish_reason="solution"):
    """A line of phase1_train.jsonl or phase2_train.jsonl."""
    question = {"problem": problem, "ground_truth_answer": "7"}
    if phase == 2:
        question = {
            "problem": problem,
            "ground_truth_solution": "We compute. So $x=\\boxed{7}$.",
            "ground_truth_answer": "7",
            "pre_generated_steps": ["We compute.", "So $x=7$.\n\n# Answer\n\n7"],
            "pre_generated_answer": "7",
            "pre_generated_verifier_score": 0.010779580529581414,
        }
    return {
        "labeler": "340d89bc-f5b7-45e9-b272-909ba68ee363",
        "timestamp": "2023-01-22T04:34:27.052924",
        "generation": None if phase == 1 else 9,
        "is_quality_control_question": False,
        "is_initial_screening_question": False,
        "question": question,
        "label": {
            "steps": list(steps),
            "total_time": 278270,
            "finish_reason": finish_reason,
        },
    }


def metamath_row(query, response, *, kind="MATH_AnsAug", original=None):
    """An object of MetaMathQA-395K.json."""
    return {
        "type": kind,
        "query": query,
        "original_question": query if original is None else original,
        "response": response,
    }


def shepherd_row(question, steps, signs, task="MATH"):
    """A line of math-shepherd.jsonl; `steps` are without "Step k: "."""

    def text(marks):
        numbered = [
            f"Step {k}: {s} {m}"
            for k, (s, m) in enumerate(zip(steps, marks, strict=True), 1)
        ]
        return f"{question} " + "\n".join(numbered)

    return {"input": text([MARK] * len(steps)), "label": text(signs), "task": task}


def apps_row(problem_id, difficulty="introductory", **fields):
    """A line of APPS's train.jsonl and test.jsonl on the Hugging Face hub."""
    tests = {"inputs": ["3\n1 2 3\n"], "outputs": ["6\n"]}
    return {
        "problem_id": problem_id,
        "question": f"Sum the numbers, problem {problem_id}.",
        "solutions": json.dumps(["input()\nprint(sum(map(int, input().split())))"]),
        "input_output": json.dumps(tests),
        "difficulty": difficulty,
        "url": f"https://codeforces.com/problemset/problem/{problem_id}/A",
        "starter_code": "",
    } | fields


def apps_folder(root: Path, row: dict) -> None:
    """The same problem in the original form: a folder of files."""
    folder = root / f"{row['problem_id']:04d}"
    folder.mkdir(parents=True)
    (folder / "question.txt").write_text(row["question"])
    metadata = {"difficulty": row["difficulty"], "url": row["url"]}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    optional = {
        "solutions.json": row["solutions"],
        "input_output.json": row["input_output"],
        "starter_code.py": row["starter_code"],
    }
    for name, content in optional.items():
        if content:
            (folder / name).write_text(content)


def math_rows(split: str, n: int) -> list[dict]:
    """Problems of all levels and two subjects; their labels say "secret<level>"."""
    return [
        math_row(
            f"{split} problem {i}?",
            i % 5 + 1,
            f"secret{i % 5 + 1}answer{split}{i}",
            subject=("Algebra", "Geometry")[i // 5 % 2],
            unique_id=split if split in ("train", "test") else "test",
            by=f"We find secret{i % 5 + 1}solution.",
        )
        for i in range(n)
    ]


def rated_row(row: dict) -> dict:
    """A trajectory of a problem: a good step and a bad one, then the answer."""
    word = f"secret{row['level']}step"
    end = f"So {word}.\n\n# Answer\n\n{word}"
    return prm_row(
        row["problem"],
        step(completion(f"Good {word}.", 1), completion(f"Bad {word}.", -1)),
        step(completion(end, 1)),
    )


def write_math_files(folder: Path) -> dict:
    """Every published file of a small MATH, as the fields of `MathFiles`.

    80 problems to train on, half of them of the original test split, one more that is
    also a test problem, and 10 test problems, two of each level.
    """
    train, test = math_rows("train", 40) + math_rows("test", 40), math_rows("held", 10)
    rows = [*train, train[0] | {"problem": test[0]["problem"]}]
    metamath = [
        metamath_row(
            f"{kind} of {row['problem']}",
            f"First secret{row['level']}sum. Then more.\nThe answer is: 5",
            kind=kind,
            original=row["problem"],
        )
        for row in rows
        for kind in ("MATH_AnsAug", "MATH_SV")
    ] + [metamath_row("Two and two?", "Four.\n#### 4\nThe answer is: 4", kind="GSM_SV")]
    shepherd = [
        shepherd_row(
            row["problem"], [f"It is secret{row['level']}.", "The answer is: 5"], "+-"
        )
        for row in [*rows, *test]
    ] + [shepherd_row("Two and two?", ["Four."], "+", task="GSM8K")]
    phases = [
        [rated_row(row) for row in part] for part in (rows[:50], [*rows[50:], *test])
    ]
    return write_files(folder, rows, test, phases, metamath, shepherd)


def write_files(folder: Path, train, test, phases, metamath, shepherd) -> dict:
    """The published files of these rows, as the fields of `MathFiles`."""
    lines = {
        "train": train,
        "test": test,
        "phase1_train": phases[0],
        "phase2_train": phases[1],
        "math-shepherd": shepherd,
    }
    for name, content in lines.items():
        text = "".join(json.dumps(row) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(text)
    (folder / "metamath.json").write_text(json.dumps(metamath))
    return {
        "math_train": str(folder / "train.jsonl"),
        "math_test": str(folder / "test.jsonl"),
        "prm800k": tuple(str(folder / f"phase{i}_train.jsonl") for i in (1, 2)),
        "metamath": str(folder / "metamath.json"),
        "math_shepherd": str(folder / "math-shepherd.jsonl"),
    }
