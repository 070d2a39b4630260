r"""LaTeX formulas as plain text: \frac{a}{b} -> a/b, \sqrt{2} -> sqrt(2), \pi -> pi.

Total on any text: an unknown command keeps its name, a stray backslash
stays. Groups nest at most
`DEEPEST` deep; beyond that the text stays as it is."""

import re

DEEPEST = 20

_UNICODE = str.maketrans(
    {"−": "-", "–": "-", "·": "*", "×": "*", "π": "pi", "∞": "inf", "√": "\\sqrt ",
     "∪": "U", "°": "", "≤": "<=", "≥": ">="}
)  # fmt: skip
_SYMBOLS = {
    "pi": "pi", "infty": "inf", "cup": "U", "cap": "n", "cdot": "*", "times": "*",
    "div": "/", "pm": "±", "mp": "∓", "le": "<=", "leq": "<=", "ge": ">=",
    "geq": ">=", "lt": "<", "gt": ">", "neq": "!=", "ne": "!=", "left": "",
    "right": "", "displaystyle": "", "circ": "", "degree": "", "quad": " ",
    "qquad": " ", "lbrack": "[", "rbrack": "]",
}  # fmt: skip
_FRACTIONS = {"frac", "dfrac", "tfrac", "cfrac"}
_MATRIX = re.compile(
    r"\\begin\{([bpvBV]?matrix|array)\}(?:\{[clr| ]*\})?(.*?)\\end\{\1\}", re.DOTALL
)
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)


class _TooDeep(Exception):
    """Braces nest deeper than an answer would have them."""


def to_plain(text: str) -> str:
    """The text without LaTeX commands; spaces and single braces may stay."""
    text = text.translate(_UNICODE)
    if "\\" not in text and "{" not in text:
        return text
    text = _MATRIX.sub(_matrix, text).replace("\\\\", "\\")
    try:
        return _convert(_TOKEN.findall(text), 0)
    except _TooDeep:
        return text


def _matrix(match: re.Match) -> str:
    rows = [row.split("&") for row in re.split(r"\\\\|\\cr\b", match[2]) if row.strip()]
    return "matrix(" + ";".join(",".join(map(str.strip, row)) for row in rows) + ")"


def _convert(tokens: list[str], depth: int) -> str:
    if depth > DEEPEST:
        raise _TooDeep
    out, i = [], 0
    while i < len(tokens):
        token, i = tokens[i], i + 1
        name = token[1:]
        if token[0] != "\\" or not name:
            if token in "^_" and i < len(tokens) and tokens[i] == "{":
                inner, i = _group(tokens, i, depth)
                out.append(token + (inner if _single(inner) else f"({inner})"))
            else:
                out.append(token)
        elif name in _FRACTIONS:
            top, i = _group(tokens, i, depth)
            bottom, i = _group(tokens, i, depth)
            after = tokens[i] if i < len(tokens) else ""
            out.append(_fraction("".join(out[-2:]).rstrip(), top, bottom, after))
        elif name == "sqrt":
            degree, i = _option(tokens, i, depth)
            inner, i = _group(tokens, i, depth)
            out.append(f"root({degree}|{inner})" if degree else f"sqrt({inner})")
        elif name in _SYMBOLS:
            out.append(_SYMBOLS[name])
        elif name[0].isalpha():
            out.append(name if name[:4] != "text" and name[:4] != "math" else "")
            if not out[-1] and i < len(tokens) and tokens[i] == "{":
                inner, i = _group(tokens, i, depth)
                out.append(inner)
        elif name in ",;: !":
            out.append(" ")
        else:
            out.append(name if name in "{}$%_&#" else token)
    return "".join(out)


def _group(tokens: list[str], i: int, depth: int) -> tuple[str, int]:
    """The converted group or single token from place i on, and the place after it."""
    while i < len(tokens) and tokens[i].isspace():
        i += 1
    if i >= len(tokens):
        return "", i
    if tokens[i] != "{":
        return _convert(tokens[i : i + 1], depth + 1), i + 1
    level = 0
    for j in range(i, len(tokens)):
        level += {"{": 1, "}": -1}.get(tokens[j], 0)
        if level == 0:
            return _convert(tokens[i + 1 : j], depth + 1).strip(), j + 1
    return _convert(tokens[i + 1 :], depth + 1).strip(), len(tokens)


def _option(tokens: list[str], i: int, depth: int) -> tuple[str, int]:
    """The [option] from place i on, '' without one, and the place after it."""
    if i < len(tokens) and tokens[i] == "[" and "]" in tokens[i:]:
        end = tokens.index("]", i)
        return _convert(tokens[i + 1 : end], depth + 1).strip(), end + 1
    return "", i


def _single(text: str) -> bool:
    """One number, one letter, or one function of something: needs no parentheses."""
    if re.fullmatch(r"\d+(\.\d+)?|[A-Za-z]|pi|inf", text):
        return True
    return bool(re.fullmatch(r"(?:sqrt|root)?\([^()]*\)", text))


def _fraction(before: str, top: str, bottom: str, after: str) -> str:
    # A sign may lead; any other sum inside needs parentheses.
    level, top_sum = 0, False
    for place, character in enumerate(top):
        level += {"(": 1, ")": -1}.get(character, 0)
        top_sum |= level == 0 and place > 0 and character in "+-"
    text = (f"({top})" if top_sum else top) + "/"
    text += bottom if _single(bottom) else f"({bottom})"
    if before[-1:] in ("^", "/") or after[:1] in ("^", "!") or after[:1].isdigit():
        return f"({text})"
    whole = before[-1:].isdigit() and (top + bottom).isdigit()
    return f" {text}" if whole else text
