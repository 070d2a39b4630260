"""A tiny part of Lean 4, for its stand-in: propositions, terms, tactics, goals.

What is understood here means the same to Lean. A state is never changed."""

import re
from itertools import accumulate

TACTICS = (
    "intro", "exact", "apply", "constructor", "left", "right", "assumption", "rfl",
    "trivial", "have", "skip", "sorry", "admit", "all_goals", "native_decide",
)  # fmt: skip
OPEN, DONE = "Incomplete: open goals remain", "Completed"
TOKEN = re.compile(r"\s*([^\W\d][\w'!?]*(?:\.[^\W\d][\w']*)*|\d+|.)")


class LeanError(Exception):
    """A tactic failed: nothing changes."""


class Recovered(Exception):
    """An elaboration error, after which the term is sorry."""


# Formulas: a string (atom), or (sign, a, b): "→", "∧", "∨", "↔", "="; ("¬", a).
SIGNS = {"↔": 20, "→": 25, "∨": 30, "∧": 35, "=": 50}


class Text:
    """Tokens read one by one."""

    def __init__(self, text: str):
        self.tokens = [t for t in TOKEN.findall(text) if t.strip()]

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self, expected: str = "") -> str:
        if not self.tokens or (expected and self.tokens[0] != expected):
            raise SyntaxError(f"expected {expected or 'more'}")
        return self.tokens.pop(0)

    def formula(self, power: int = 0):
        if self.peek() == "¬":
            self.take()
            left = ("¬", self.formula(40))
        elif self.peek() == "(":
            self.take()
            left = self.formula()
            self.take(")")
        else:
            left = self.take()
            if not re.fullmatch(r"[\w.'!?]+", left):
                raise SyntaxError(f"unexpected {left!r}")
        while (sign := self.peek()) in SIGNS and SIGNS[sign] >= power:
            self.take()
            left = (sign, left, self.formula(SIGNS[sign] + (sign in "↔=")))
        return left

    def term(self):
        parts = [self.simple()]
        while self.peek() and self.peek() not in ",)⟩":
            parts.append(self.simple())
        return ("app", *parts) if len(parts) > 1 else parts[0]

    def simple(self):
        token = self.take()
        if token == "fun":
            name = self.take()
            self.take("=")
            self.take(">")
            return ("fun", name, self.term())
        if token in "(⟨":
            parts = [self.term()]
            while self.peek() == ",":
                self.take()
                parts.append(self.term())
            self.take(")" if token == "(" else "⟩")
            found = ("pair", *parts) if token == "⟨" else parts[0]
        elif re.match(r"[^\W\d]", token):
            found = token
        else:
            raise SyntaxError(f"unexpected {token!r}")
        while self.peek() == "." and self.tokens[1:2] in (["1"], ["2"]):
            self.take()
            found = ("proj", found, int(self.take()))
        return found

    def end(self, value):
        if self.tokens:
            raise SyntaxError("expected end of input")
        return value


def shown(f, power: int = 0) -> str:
    if isinstance(f, str):
        return f
    if f[0] == "¬":
        return f"¬{shown(f[1], 40)}"
    own = SIGNS[f[0]]
    right = own + (f[0] in "↔=")
    text = f"{shown(f[1], own + 1)} {f[0]} {shown(f[2], right)}"
    return f"({text})" if own < power else text


def frozen(value):
    """Lists of a JSON file as the tuples that formulas are."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value


class Checker:
    """Types of terms in a goal's context; uses constants of the environment."""

    def __init__(self, env, hyps):
        self.env, self.hyps, self.axioms = env, dict(hyps), set()

    def infer(self, term):
        if isinstance(term, str):
            if term == "trivial":
                return "True"
            if term in self.hyps:
                return self.hyps[term]
            if term in self.env["constants"]:
                formula, axioms = self.env["constants"][term]
                self.axioms |= set(axioms)
                return frozen(formula)
            raise Recovered(f"Unknown identifier `{term}`")
        if term[0] == "proj":
            pair = self.infer(term[1])
            if pair[0] != "∧":
                raise LeanError("invalid projection")
            return pair[term[2]]
        if term[0] == "app":
            kind = self.infer(term[1])
            for argument in term[2:]:
                kind = ("→", kind[1], "False") if kind[0] == "¬" else kind
                if kind[0] != "→":
                    raise LeanError("function expected")
                self.check(argument, kind[1])
                kind = kind[2]
            return kind
        raise LeanError("cannot infer the type")

    def check(self, term, kind):
        if term[0] == "fun" and kind[0] in "→¬":
            self.hyps[term[1]] = kind[1]
            return self.check(term[2], kind[2] if kind[0] == "→" else "False")
        if term[0] == "pair" and kind[0] == "∧":
            self.check(term[1], kind[1])
            rest = term[2] if len(term) == 3 else ("pair", *term[2:])
            return self.check(rest, kind[2])
        if term == "rfl" and kind[0] == "=" and kind[1] == kind[2]:
            return None
        if term[0] == "app" and term[1] in ("Or.inl", "Or.inr") and kind[0] == "∨":
            return self.check(term[2], kind[1 if term[1] == "Or.inl" else 2])
        found = self.infer(term)
        if found != kind:
            raise LeanError(f"type mismatch: {shown(found)}, expected {shown(kind)}")


class State:
    """Goals [tag, [[name, type], ...], target], and what the proof rests on."""

    def __init__(self, env, goals, marks=(), axioms=(), root=None):
        self.env, self.goals, self.marks = env, goals, set(marks)
        self.axioms, self.root = set(axioms), root

    def status(self) -> str:
        if self.goals:
            return OPEN
        kernel = "Error: kernel type check failed: (kernel) declaration has free vari"
        for mark, text in (
            ("lying", DONE),
            ("kernel", kernel + "ables '[anonymous]'"),
            ("metavariables", "Incomplete: contains metavariable(s)"),
            ("sorry", "Incomplete: contains sorry"),
        ):
            if mark in self.marks:
                return text
        return DONE

    def run(self, text: str):
        """(new State, error messages, sorried goals). Raises LeanError."""
        new = State(self.env, list(self.goals), self.marks, self.axioms, self.root)
        word, _, rest = text.strip().partition(" ")
        rest = rest.strip()
        if "\n" in text.strip() or ";" in text:
            raise LeanError("<input>:1:9: expected end of input")
        if word not in TACTICS:
            raise LeanError("<input>:1:1: unknown tactic")
        if not new.goals:
            raise LeanError("no goals to be proved")
        if text.strip() == "all_goals sorry":
            sorries, new.goals, new.marks = new.goals, [], new.marks | {"sorry"}
            return new, [], sorries
        tag, hyps, target = goal = new.goals.pop(0)
        if word in ("sorry", "admit"):
            new.marks.add("sorry")
            return new, [], [goal]
        if word == "skip":
            new.goals.insert(0, goal)
            return new, [], []
        try:
            made, errors, sorries = self.act(new, word, rest, goal)
        except SyntaxError as error:
            raise LeanError(f"<input>:1:{len(text) + 1}: {error}") from error
        new.goals[:0] = made
        return new, errors, sorries

    def act(self, new, word, rest, goal):
        tag, hyps, target = goal
        if word == "intro" and target[0] in "→¬" and not isinstance(target, str):
            after = target[2] if target[0] == "→" else "False"
            return [[tag, [*hyps, [rest or "a✝", target[1]]], after]], [], []
        if word == "constructor" and target[0] in "∧↔":
            parts = [("left", target[1]), ("right", target[2])]
            if target[0] == "↔":
                parts = [("mp", ("→", *target[1:])), ("mpr", ("→", *target[:0:-1]))]
            return [[name, hyps, part] for name, part in parts], [], []
        if word in ("left", "right") and target[0] == "∨":
            return [["h", hyps, target[1 if word == "left" else 2]]], [], []
        if word == "apply" and (f := dict(hyps).get(rest)) and f[0] in "→¬":
            if (f[2] if f[0] == "→" else "False") == target:
                return [[tag, hyps, f[1]]], [], []
        if word == "assumption":
            if target in [f for _, f in hyps]:
                return [], [], []
        if word == "native_decide" and target == "True":
            new.axioms |= {"Lean.ofReduceBool"}
            return [], [], []
        if word == "have":
            return self.have(new, rest, goal)
        if word in ("exact", "rfl", "trivial"):
            text = Text(rest if word == "exact" else word)
            return [], self.closed(new, hyps, text.end(text.term()), target), []
        raise LeanError(f"tactic '{word}' failed")

    def have(self, new, rest, goal):
        tag, hyps, target = goal
        match = re.fullmatch(r"(\w+)\s*:\s*(.*?)\s*:=\s*(.*)", rest)
        if match is None:
            raise SyntaxError("expected ':='")
        formula = Text(match[2])
        claim = formula.end(formula.formula())
        body, errors, sorries = match[3], [], []
        if body in ("sorry", "by sorry"):
            new.marks.add("sorry")
            sorries = [["", hyps, claim]]
        elif body.startswith("by "):
            inner, errors, sorries = State(self.env, [["", hyps, claim]]).run(body[3:])
            if inner.goals:
                raise LeanError("unsolved goals")
            new.marks |= inner.marks
            new.axioms |= inner.axioms
        else:
            text = Text(body)
            errors = self.closed(new, hyps, text.end(text.term()), claim)
        return [[tag, [*hyps, [match[1], claim]], target]], errors, sorries

    def closed(self, new, hyps, term, target) -> list[str]:
        """Checks a term; an unknown name makes it sorry, and is what is returned."""
        checker = Checker(self.env, hyps)
        try:
            checker.check(term, target)
        except Recovered as error:
            new.marks.add("sorry")
            return [str(error)]
        new.axioms |= checker.axioms
        return []


def printed(goal) -> str:
    """A goal as Lean prints it: neighbours of one type share a line."""
    tag, hyps, target = goal
    lines, kinds = [f"case {tag}"] if tag else [], []
    for name, kind in hyps:
        if kinds and kinds[-1][1] == kind:
            kinds[-1][0].append(name)
        else:
            kinds.append(([name], kind))
    lines += [f"{' '.join(names)} : {shown(kind)}" for names, kind in kinds]
    return "\n".join([*lines, f"⊢ {shown(target)}"])


def parsed_theorem(text: str):
    head, _, body = text.partition(":=")
    head = head.split(maxsplit=1)[1]
    name, rest = re.match(r"([^\s:(]+)(.*)", head, re.S).groups()
    hyps = []
    while (rest := rest.strip()).startswith("("):
        depths = accumulate((c == "(") - (c == ")") for c in rest)
        stop = list(depths).index(0)
        names, _, kind = rest[1:stop].partition(":")
        formula = Text(kind)
        kind = formula.end(formula.formula())
        hyps += [[n, kind] for n in names.split()]
        rest = rest[stop + 1 :]
    formula = Text(rest.removeprefix(":"))
    return name, hyps, formula.end(formula.formula()), body.strip()
