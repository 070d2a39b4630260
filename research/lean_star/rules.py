"""For each tactic, what an oracle that knows it finds worth saying about the goal.

A rule maps (goal, what follows the tactic's name) to a case of `wordings.TEMPLATES` and
the values of its slots. Formulas are quoted where they are short, else described.
"""

import re
from collections.abc import Callable, Sequence

from data.worlds.theorems_words import length
from research.lean_star.reading import Goal, premises, shape
from research.lean_star.wordings import COUNTS, PHRASES, SHAPES

Said = tuple[str, dict[str, str]]
SHORT = 9  # tokens up to which a formula is quoted
FACT = 14  # the same for a fact that is to be shown on the way


def said(formula: str, limit: int = SHORT) -> str:
    """The formula if it is short, else what it is."""
    if length(formula) <= limit:
        return formula
    return described(formula)


def described(formula: str) -> str:
    """What kind of formula it is, in words."""
    op = shape(formula).op
    return SHAPES.get("<" if op in ("≤", ">", "≥") else op, SHAPES[""])


def listed(names: Sequence[str]) -> str:
    """One, two or more names as a list in words."""
    *before, last = names
    comma, conjunction = PHRASES["comma"], PHRASES["and"]
    return comma.join(before) + conjunction + last if before else last


def unknown(goal: Goal, rest: str) -> Said:
    """For what no rule is made for."""
    return "unknown", {"target": said(goal.target)}


def _relations(goal: Goal) -> list[str]:
    """Names of the hypotheses that compare numbers, three at most."""
    found = ((name, shape(kind).op) for name, kind in goal.hypotheses.items())
    return [name for name, op in found if op in ("=", "<", "≤", ">", "≥")][:3]


def _intro(goal: Goal, rest: str) -> Said:
    target = shape(goal.target)
    if target.op == "∀":
        names = re.findall(r"\b[A-Za-z]\w*", target.parts[0])
        return "any number", {"name": listed(names)}
    if (count := len(rest.split())) > 1:
        return "suppose all", {"count": COUNTS[min(count, len(COUNTS) - 1)]}
    if target.op == "→":
        given, end = map(said, target.parts)
        return "suppose", {"given": given, "end": end}
    if target.op == "¬":
        return "refute", {"given": said(target.parts[0])}
    return unknown(goal, rest)


def _exact(goal: Goal, rest: str) -> Said:
    pair = re.fullmatch(r"⟨(\w+), (\w+)⟩", rest)
    if pair:
        one, other = pair.groups()
        return "pair", {"one": one, "other": other, "shape": described(goal.target)}
    if not re.fullmatch(r"\w+( \w+)*", rest):
        return unknown(goal, rest)
    name, *others = rest.split(" ")
    if others:
        slots = {"name": name, "others": listed(others)}
        return "one step", {"target": said(goal.target), **slots}
    return "at hand", {"target": said(goal.target), "name": name}


def _constructor(goal: Goal, rest: str) -> Said:
    target = shape(goal.target)
    if target.op == "∧":
        return "both parts", dict(
            zip(("one", "other"), map(said, target.parts), strict=True)
        )
    return ("both ways" if target.op == "↔" else "by its form"), {}


def _side(first: bool) -> Callable[[Goal, str], Said]:
    def rule(goal: Goal, rest: str) -> Said:
        target = shape(goal.target)
        if target.op != "∨":
            return unknown(goal, rest)
        part, other = target.parts if first else target.parts[::-1]
        slots = {
            "shape": described(goal.target),
            "part": said(part),
            "which": PHRASES["first" if first else "second"],
        }
        for ends, leads in ((False, "says"), (True, "leads")):
            for name, kind in goal.hypotheses.items():
                if part == (premises(kind)[1] if ends else kind):
                    more = {"name": name, "leads": PHRASES[leads]}
                    return "side with reason", slots | more
        return "side", slots | {"other": said(other)}

    return rule


def _obtain(goal: Goal, rest: str) -> Said:
    return _taken_apart(goal, rest.rpartition(":= ")[2])


def _cases(goal: Goal, rest: str) -> Said:
    return _taken_apart(goal, rest.partition(" with")[0])


def _taken_apart(goal: Goal, name: str) -> Said:
    known = shape(goal.hypotheses.get(name, ""))
    slots = {"target": said(goal.target), "name": name}
    if known.op == "∃":
        return "some number", slots
    case = {"∧": "two facts", "↔": "two ways", "∨": "possibilities"}.get(known.op)
    if case is None:
        return unknown(goal, name)
    one, other = map(said, known.parts)
    return case, slots | {"one": one, "other": other}


def _apply(goal: Goal, rest: str) -> Said:
    known = goal.hypotheses.get(rest, "")
    needs, end = premises(known)
    slots = {"target": said(goal.target), "name": rest}
    if shape(known).op == "∀":
        tail = PHRASES["needs_premise" if needs else "needs_nothing"]
        return "instance", slots | {"tail": tail}
    if not needs:
        return unknown(goal, rest)
    asked = PHRASES["premises"]
    if len(needs) < 3:
        asked = PHRASES["and"].join(map(said, needs))
    return ("denied" if end == "False" else "concluded"), slots | {"asked": asked}


def _exfalso(goal: Goal, rest: str) -> Said:
    against = [n for n, kind in goal.hypotheses.items() if premises(kind)[1] == "False"]
    blamed = (against or _relations(goal))[:2]
    which = listed(blamed) if blamed else PHRASES["facts"]
    return "out of reach", {"target": said(goal.target), "which": which}


def _contradiction(goal: Goal, rest: str) -> Said:
    names = {kind: name for name, kind in goal.hypotheses.items()}
    for name, kind in goal.hypotheses.items():
        known = shape(kind)
        if known.op == "¬" and known.parts[0] in names:
            slots = {"one": name, "other": names[known.parts[0]]}
            return "clash", {"target": said(goal.target), **slots}
    return "absurd", {"target": said(goal.target)}


def _have(goal: Goal, rest: str) -> Said:
    match = re.fullmatch(r"\w+ : (.*) := by (\w+) ?(.*)", rest)
    if match is None:
        return unknown(goal, rest)
    fact, how, arguments = match.groups()
    known, names = _relations(goal), arguments.split()
    source = PHRASES["known"]
    if how == "exact" and len(names) > 1:
        source = PHRASES["gives"].format(name=names[0], others=listed(names[1:]))
    elif how in ("exact", "apply") and names:
        source = PHRASES["says_so"].format(name=names[0])
    elif known:
        source = PHRASES["from"].format(others=listed(known))
    slots = {"target": said(goal.target), "fact": said(fact, FACT), "source": source}
    return "on the way", slots


def _rw(goal: Goal, rest: str) -> Said:
    match = re.fullmatch(r"\[(← )?(\w+)\]( at \w+)?", rest)
    if match is None:
        return unknown(goal, rest)
    back, name, _ = match.groups()
    kind = goal.hypotheses.get(name, "")
    equation = shape(premises(kind)[1])
    if equation.op != "=":
        return unknown(goal, rest)
    here, there = equation.parts[::-1] if back else equation.parts
    slots = {"name": name, "here": said(here), "there": said(there)}
    return ("rule" if shape(kind).op == "∀" else "replace"), slots


def _norm_num(goal: Goal, rest: str) -> Said:
    names = re.findall(r"\w+", rest)
    return ("compute with", {"name": listed(names)}) if names else ("compute", {})


def _linarith(goal: Goal, rest: str) -> Said:
    known = _relations(goal)
    which = listed(known) if known else PHRASES["facts"]
    if goal.target == "False":
        return "bounds clash", {"which": which}
    return "add up", {"target": said(goal.target), "which": which}


def _nlinarith(goal: Goal, rest: str) -> Said:
    found = re.findall(r"sq_nonneg (?:\(([^()]*)\)|(\w+))", rest)
    bases = [one or other for one, other in found]
    if not bases:
        return unknown(goal, rest)
    if len(bases) > 2:
        return "many squares", {}
    square = PHRASES["square" if len(bases) == 1 else "squares"]
    return "square", {"which": listed(bases), "square": square}


def _use(goal: Goal, rest: str) -> Said:
    target = shape(goal.target)
    name = re.match(r"\(?(\w+)", target.parts[0])
    if target.op != "∃" or not name or not rest:
        return unknown(goal, rest)
    return "example", {"name": name[1], "value": rest}


def _refine(goal: Goal, rest: str) -> Said:
    witness = re.fullmatch(r"⟨(.*), \?_⟩", rest)
    if witness and "?_" not in witness[1]:
        return _use(goal, witness[1])
    return _constructor(goal, rest)


def _induction(goal: Goal, rest: str) -> Said:
    name = re.match(r"\w+", rest)
    return ("step by step", {"name": name[0]}) if name else unknown(goal, rest)


def _subst(goal: Goal, rest: str) -> Said:
    if not re.fullmatch(r"\w+", rest):
        return unknown(goal, rest)
    return "same everywhere", {"target": said(goal.target), "name": rest}


def _assumption(goal: Goal, rest: str) -> Said:
    names = [n for n, kind in goal.hypotheses.items() if kind == goal.target]
    name = names[0] if names else PHRASES["fact"]
    return "known", {"target": said(goal.target), "name": name}


def _always(case: str) -> Callable[[Goal, str], Said]:
    return lambda goal, rest: (case, {})


RULES: dict[str, Callable[[Goal, str], Said]] = {
    "intro": _intro,
    "intros": _intro,
    "exact": _exact,
    "constructor": _constructor,
    "left": _side(first=True),
    "right": _side(first=False),
    "obtain": _obtain,
    "rcases": _cases,
    "cases'": _cases,
    "apply": _apply,
    "exfalso": _exfalso,
    "contradiction": _contradiction,
    "have": _have,
    "rw": _rw,
    "ring": _always("expand"),
    "norm_num": _norm_num,
    "linarith": _linarith,
    "nlinarith": _nlinarith,
    "use": _use,
    "refine": _refine,
    "exists": _use,
    "induction'": _induction,
    "subst": _subst,
    "rfl": _always("same sides"),
    "assumption": _assumption,
}
