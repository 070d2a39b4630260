"""Where the final answer stands in a solution."""

import re

MARKER = "# Answer"


def marked_answer(text: str, marker: str = MARKER) -> str | None:
    """What follows the first marker, stripped; None without marker or text after it."""
    _, found, answer = text.partition(marker)
    return answer.strip() or None if found else None


def boxed_answer(text: str) -> str | None:
    r"""What the last `\boxed{...}` or `\fbox{...}` holds, braces inside balanced.

    Escaped braces do not count. The old `\boxed 5` holds one word, up to a space, `$`,
    or the full stop that ends it. None where there is no box, its brace never closes,
    or it is empty."""
    boxes = list(re.finditer(r"\\(?:boxed|fbox)(?![a-zA-Z])", text))
    if not boxes:
        return None
    rest = text[boxes[-1].end() :].lstrip()
    if not rest.startswith("{"):
        word = re.match(r"[^\s$]+", rest)
        return word[0].rstrip(".") or None if word else None
    depth = 0
    for brace in re.finditer(r"\\.|[{}]", rest, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0 and brace[0] == "}":
            return rest[1 : brace.start()].strip() or None
    return None


def final_answer(text: str) -> str | None:
    """The marked answer, else the boxed one, else None."""
    answer = marked_answer(text)
    return boxed_answer(text) if answer is None else answer
