"""The algebra worker: reads pairs of formulas, says whether they are equal.

A script of its own that runs inside the sandbox (see `algebra`). One JSON line a pair:
[a, b] in, true or false out; a pair that takes too long, too much memory or is no
formula is false. The parser knows numbers, letters, + - * / ^ !, parentheses, sqrt(x),
root(n|x), pi, and products without a sign; nothing is ever evaluated as Python."""

import functools
import json
import re
import resource
import signal
import sys

SECONDS = 0.5
BITS = 1 << 15  # of a number that is worked out; a larger one may take minutes
POINTS = range(3)
TOKEN = re.compile(r"\s*(?:(\d+\.?\d*|\.\d+)|(sqrt|root|pi|[a-z])|([-+*/^!()|]))")


class NoFormula(ValueError):
    """The text is not a formula of the little language."""


def tokens(text: str) -> list[str]:
    """Numbers, names and signs of a formula. Raises NoFormula."""
    found, place, text = [], 0, text.strip()
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise NoFormula(f"unexpected {text[place]!r} at {place}")
        found.append(match[0].strip())
        place = match.end()
    return found


def parse(text: str):
    """A formula as nested tuples (sign, operand, ...), numbers and names as strings.

    Products without a sign bind as those with one, from the left: 1/2x is (1/2)x.
    Powers bind from the right, above a sign before them: -x^2 is -(x^2)."""
    rest = [*tokens(text), ""]
    place = 0

    def take(expected=None):
        nonlocal place
        token = rest[place]
        if token == "" or expected not in (None, token):
            raise NoFormula(f"expected {expected or 'more'}, got {token!r}")
        place += 1
        return token

    def total():
        value = product()
        while rest[place] in ("+", "-"):
            value = (take(), value, product())
        return value

    def product():
        value = signed()
        while rest[place] not in ("", "+", "-", ")", "|"):
            value = (take() if rest[place] in ("*", "/") else "*", value, signed())
        return value

    def signed():
        if rest[place] in ("+", "-"):
            return ("negative", signed()) if take() == "-" else signed()
        return power()

    def power():
        value = atom()
        while rest[place] == "!":
            value = (take(), value)
        return (take(), value, signed()) if rest[place] == "^" else value

    def atom():
        token = take()
        if token == "(":
            value = total()
            take(")")
            return value
        if token in ("sqrt", "root"):
            if rest[place] != "(":
                return (token, "2", atom())
            take("(")
            degree = "2" if token == "sqrt" else total()
            if token == "root":
                take("|")
            value = ("root", degree, total())
            take(")")
            return value
        if token in ("+", "-", "*", "/", "^", "!", ")", "|"):
            raise NoFormula(f"unexpected {token!r}")
        return token

    value = total()
    if rest[place] != "":
        raise NoFormula(f"unexpected {rest[place]!r}")
    return value


@functools.lru_cache(4096)
def formula(text: str):
    """The formula as a sympy expression; decimals are exact. Raises NoFormula, too, for
    a power or a factorial of numbers that has more than BITS."""
    import sympy

    def power(a, b):
        if a.is_Rational and b.is_Integer:
            size = max(abs(a.p), a.q).bit_length()
            if abs(b) * size > BITS:
                raise NoFormula("a power is too large")
        return a**b

    def factorial(a):
        if a.is_Integer and a * int(a).bit_length() > BITS:
            raise NoFormula("a factorial is too large")
        return sympy.factorial(a)

    def build(node):
        if isinstance(node, str):
            if node[0].isdigit() or node[0] == ".":
                return sympy.Rational(node)
            return sympy.pi if node == "pi" else sympy.Symbol(node)
        sign, *operands = node
        values = [build(operand) for operand in operands]
        if sign == "root":
            return values[1] ** (1 / values[0])
        return {
            "+": lambda a, b: a + b,
            "-": lambda a, b: a - b,
            "*": lambda a, b: a * b,
            "/": lambda a, b: a / b,
            "^": power,
            "!": factorial,
            "negative": lambda a: -a,
        }[sign](*values)

    return build(parse(text))


@functools.lru_cache(4096)
def values(text: str) -> tuple[complex | None, ...]:
    """The formula's value at fixed points, one per letter; None where it has none."""
    import sympy

    found = []
    for k in POINTS:
        point = {
            name: sympy.Rational((-1) ** k * (17 * ord(str(name)) % 29 + 3), 11 + 2 * k)
            for name in formula(text).free_symbols
        }
        value = formula(text).evalf(20, point)
        found.append(complex(value) if value.is_number else None)
    return tuple(found)


def equal(a: str, b: str) -> bool:
    """Whether the difference is zero: numerically at three points, then by algebra.

    A formula without a finite value (a division by zero) equals nothing."""
    import sympy

    left, right = formula(a), formula(b)
    bad = (sympy.zoo, sympy.nan, sympy.oo, -sympy.oo)
    if left.has(*bad) or right.has(*bad):
        return False
    if left == right:
        return True
    for x, y in zip(values(a), values(b), strict=True):
        if None not in (x, y) and abs(x - y) > 1e-9 * max(1.0, abs(x), abs(y)):
            return False
    difference = left - right
    return sympy.expand(difference) == 0 or sympy.simplify(difference) == 0


def bounded(a: str, b: str) -> bool:
    """`equal` in SECONDS of processor time; False for whatever goes wrong."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    used = used.ru_utime + used.ru_stime
    # A long operation inside the interpreter sees no alarm: this one ends the process.
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + SECONDS + 0.1) + 1, hard))
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        return bool(equal(a, b))
    except Exception:  # any failure of the algebra is a "no": its input is hostile
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def expired(number, frame):
    """The alarm of `bounded`."""
    raise TimeoutError


def main() -> None:
    sys.stderr = open("/dev/null", "w")
    with open("path.json", encoding="utf-8") as file:
        sys.path[:0] = json.load(file)
    signal.signal(signal.SIGPROF, expired)
    # What sympy loads at first use does not count against the first question.
    equal("sqrt(8)+x", "x+2sqrt(2)"), equal("(x+1)(x-1)/x", "x-1/x")
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(bounded(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
