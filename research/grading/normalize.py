r"""Two normal forms of an answer, as strings: a strict one and a loose one.

The rules of the MATH data set's grader, in the order in which they apply. They never
raise. Where the released grader is careless, ours is not, and says so:
unit words count as words only ("Monday" keeps its "day"); a numerator or exponent of
several terms keeps parentheses (there, \frac{x+1}{2} reads x+1/2, and 2^{x+1} 2^x+1);
a mixed number is not joined to one number (there, 7 3/4 is 73/4 too), and its sign
covers its fraction; two matrices keep their rows apart; "1 \text{ and } 2" is not cut
to 1 as if the word were a unit; a comma before a space separates two numbers, not
thousands ("1, 234" is not 1234)."""

import functools
import re

from research.grading.latex import to_plain

LONGEST = 1000  # characters; a longer answer is compared as it stands

_UNITS = (
    "degree cm centimeter meter mile second minute hour day week month year foot feet "
    "inch yard"
).split()
_UNIT = re.compile(
    rf"(?<![A-Za-z\\])(?:{'|'.join(_UNITS)})(?:es)?s?(?![A-Za-z]) *(?:\^ *\{{?\d+\}}?)?"
)
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_SCALES = {"million": 6, "billion": 9, "trillion": 12}
_DEGREE = re.compile(r"\^ *(?:\\circ|\{ *\\circ *\})")


def strict_form(answer: str) -> str:
    """The first form: spelling of LaTeX unified, units to the right cut off."""
    text = _unwrapped(answer.strip())
    return text if len(text) > LONGEST else _strict(text)


# Every answer of a vote is compared with every other: their forms are made once.
@functools.lru_cache(1 << 14)
def _strict(text: str) -> str:
    original = text
    for old, new in (("\n", ""), ("\\!", ""), ("\\\\", "\\")):
        text = text.replace(old, new)
    text = re.sub(r"\\[td]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])", "", text)
    text = _DEGREE.sub("", text).replace("\\$", "")
    pieces = re.split(r"\\text\{ (?!(?:and|or) *\})", text)
    if len(pieces) > 2:
        return original  # units in two places: the rules give up on the whole answer
    text = pieces[0].replace("\\%", "")
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    if text.startswith("."):
        text = "0" + text
    sides = text.split("=")
    if len(sides) == 2 and len(sides[0].strip()) <= 2:
        text = sides[1].strip()
    text = re.sub(r"\\sqrt *([^\s{\[\\])", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<=\d) +(?=\d+/\d)", "&", text).replace(" ", "")
    text = re.sub(r"\\frac([^\s{\\])([^\s{\\])", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac([^\s{\\])\{", r"\\frac{\1}{", text)
    text = re.sub(r"\\frac(\{[^{}]*\})([^\s{\\])", r"\\frac\1{\2}", text)
    if text == "0.5":
        return r"\frac{1}{2}"
    return re.sub(r"(-?\d+)/(-?\d+)", r"\\frac{\1}{\2}", text) if _ratio(text) else text


def loose_form(answer: str, thousands: bool = True) -> str:
    """The second form: plain text in lower case, without units, spaces and braces.

    Integers lose their leading zeros, and with `thousands` the commas between those."""
    text = answer.strip()
    return text if len(text) > LONGEST else _loose(text, thousands)


@functools.lru_cache(1 << 14)
def _loose(text: str, thousands: bool) -> str:
    text = re.sub(r"\\?[$%]", "", _unwrapped(text))
    text = re.sub(r"(?: |\\text\{ *)(?:or|and)(?: *\}| )", " , ", text)
    text = re.sub(r"(\d) *(m|b|tr)illion", _scaled, text)
    # A unit may stand in a text of its own: then that has to open first.
    text = _UNIT.sub("", _TEXT.sub(r" \1", text))
    text = _DEGREE.sub("", text).strip()
    if text[:1] == "{" and text[-1:] == "}":
        text = text[1:-1]
    text = text.replace(",\\!", "").replace("\\!", "")
    text = _whole(text)
    text = to_plain(text)
    text = re.sub("- +", "-", text)
    text = re.sub(r"(-?)(?<![\d./])\b(\d+) +(\d+/\d+)(?![\d/])", _mixed, text)
    thousands = thousands and not re.search(r",\s", text)
    text = re.sub(r"[\s{}]", "", text).lower()
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+|-?\d+" if thousands else r"-?\d+", text):
        text = text.replace(",", "")
        sign, digits = ("-", text[1:]) if text[0] == "-" else ("", text)
        digits = digits.lstrip("0") or "0"
        text = digits if digits == "0" else sign + digits
    return text


def _unwrapped(text: str) -> str:
    whole = _TEXT.fullmatch(text)
    return whole[1].strip() if whole else text


def _ratio(text: str) -> bool:
    return bool(re.fullmatch(r"(?:0|-?[1-9]\d*)/(?:-?[1-9]\d*)", text))


def _scaled(match: re.Match) -> str:
    return f"{match[1]}*10^{_SCALES[match[2] + 'illion']}"


def _whole(text: str) -> str:
    """2.0 -> 2; anything else as it is."""
    match = re.fullmatch(r"([+-]?\d+)\.0*", text)
    return match[1] if match else text


def _mixed(match: re.Match) -> str:
    return f"-{match[2]}-{match[3]}" if match[1] else f"{match[2]}+{match[3]}"
