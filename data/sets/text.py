"""The text of a problem and its solution, as chapter 6 writes them for every data set.

    # Question, blank line, the problem, blank line, # Solution, blank line,
    the steps with a blank line after each, # Answer, blank line, the bare answer

A prompt ends with the blank line after "# Solution", in training as in generation;
the original code puts that blank line into the first target. The text is the same."""

import re
from collections.abc import Sequence

from data.batch import TokenizedExample
from data.chat import ChatTemplate
from data.errors import DataError
from data.formats import Completion

BLANK = "\n\n"
ANSWER = "# Answer\n\n"


def prompt_of(question: str) -> str:
    """What a generator continues."""
    return f"# Question\n\n{question}\n\n# Solution\n\n"


def with_answer(solution: str, answer: str) -> str:
    """A solution that ends in the marker and the answer."""
    solution = solution.strip()
    return (solution + BLANK if solution else "") + ANSWER + answer.strip()


def clean_step(text: str) -> str:
    """A step without space around it, and a blank line right before its answer marker.

    A step that is nothing but the answer starts with the marker.
    """
    text = re.sub(r"\n*# Answer\n\n", f"{BLANK}{ANSWER}", text).lstrip()
    return text if text.endswith(ANSWER) else text.rstrip()


def has_answer(step: str) -> bool:
    """Whether the step ends the solution."""
    return ANSWER in step


def separator(step: str) -> str:
    """What stands between this step and the next: a blank line.

    Exceptions: nothing after the answer, one space after "Mr." and "Mrs.", where
    sentence splitters cut by mistake.
    """
    if has_answer(step):
        return ""
    return " " if step.endswith(("Mr.", "Mrs.")) else BLANK


def separated(steps: Sequence[str]) -> list[str]:
    """The steps, each with what separates it from the next; they join to the text."""
    return [step + separator(step) for step in steps]


def last_separated(step: str) -> str:
    """A step at the end of a row: only a blank line is part of it."""
    return step + (BLANK if separator(step) == BLANK else "")


def encode_sft(template: ChatTemplate, row: dict) -> TokenizedExample:
    """Tokens [n] and weights [n] of a row {prompt, completion, eos} of these readers.

    The loss covers the completion, and the end-of-sequence token only where `eos` is
    true: a step that is not the last must not end the text. Template 'plain' only.
    """
    if template.name != "plain":
        raise DataError(f"template: expected 'plain', got {template.name!r}")
    example = template.encode(Completion(row["prompt"], row["completion"]))
    if row["eos"]:
        return example
    return TokenizedExample(example.tokens[:-1], example.weights[:-1])
