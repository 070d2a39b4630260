"""Random formulas, their truth by other means, and random tactics and proof terms."""

import itertools
import random

from helpers.minilean_judge import value

from data.minilean import syntax
from data.minilean.kernel import Proof
from data.minilean.printer import show_formula
from data.minilean.syntax import (
    INT,
    INT_TYPE,
    NAT,
    NAT_TYPE,
    PROP,
    Binder,
    Formula,
    Signature,
    Statement,
    Term,
)

ATOMS = ("p", "q", "r", "s")


def proposition(rng: random.Random, atoms, size: int) -> Formula:
    """A random formula of that many connectives."""
    if size == 0:
        if rng.random() < 0.06:
            return rng.choice([syntax.TRUE, syntax.FALSE])
        return syntax.prop(rng.choice(atoms))
    op = rng.choice("∧∨→→↔¬")
    if op == "¬":
        return syntax.negate(proposition(rng, atoms, size - 1))
    left = rng.randrange(size)
    parts = proposition(rng, atoms, left), proposition(rng, atoms, size - 1 - left)
    return Formula(op, parts)


def truth(formula: Formula, values: dict) -> bool:
    """Of a proposition, its atoms having these values."""
    op, args = formula
    if op == "prop":
        return values[args[0]]
    return connected(op, [truth(part, values) for part in args])


def connected(op: str, parts: list[bool]) -> bool:
    """The truth of True, False, or a connective of parts."""
    if op in ("True", "False"):
        return op == "True"
    if op == "¬":
        return not parts[0]
    left, right = parts
    return {
        "∧": left and right,
        "∨": left or right,
        "→": not left or right,
        "↔": left == right,
    }[op]


def tautology(statement: Statement) -> bool:
    """The goal holds wherever the hypotheses do, by truth tables."""
    atoms = [name for name, kind in statement.binders if kind == PROP]
    formulas = [kind for _, kind in statement.binders if type(kind) is Formula]
    for row in itertools.product([False, True], repeat=len(atoms)):
        values = dict(zip(atoms, row, strict=True))
        if all(truth(f, values) for f in formulas):
            if not truth(statement.goal, values):
                return False
    return True


def sequent(rng: random.Random) -> Statement:
    """Up to three hypotheses and a goal over two to four atoms."""
    atoms = ATOMS[: rng.randint(2, 4)]
    binders = [Binder(atom, PROP) for atom in atoms]
    for i in range(rng.randint(0, 3)):
        formula = proposition(rng, atoms, rng.randint(1, 4))
        binders.append(Binder(f"h{i}", formula))
    goal = proposition(rng, atoms, rng.randint(1, 5))
    return Statement("sequent", tuple(binders), goal)


def valid_sequent(rng: random.Random, valid: bool) -> Statement:
    while True:
        found = sequent(rng)
        if tautology(found) == valid:
            return found


# Arithmetic: variables x y : ℤ, n : ℕ, s : ℕ → ℕ; judged in one model after another


def holds_in(formula: Formula, model: dict) -> bool:
    """Truth of a formula without quantifiers in a model of its variables."""
    op, args = formula
    if op in syntax.RELATIONS:
        left, right = (value(a, model) for a in args)
        return {
            "=": left == right,
            "≠": left != right,
            "<": left < right,
            "≤": left <= right,
            ">": left > right,
            "≥": left >= right,
        }[op]
    if op == "prop":
        return model[args[0]]
    return connected(op, [holds_in(part, model) for part in args])


def number(rng: random.Random, sort: str, size: int) -> Term:
    if size == 0:
        if rng.random() < 0.4:
            return syntax.num(rng.randint(0, 3), sort)
        return syntax.var(rng.choice("xy" if sort == INT else "nm"), sort)
    op = rng.choice("++*-^s" if sort == INT else "++*^s")
    if op == "^":
        return syntax.power(number(rng, sort, size - 1), rng.randint(0, 3))
    if op == "s":
        if sort == NAT:
            return syntax.apply("s", NAT, number(rng, NAT, size - 1))
        return syntax.neg(number(rng, sort, size - 1))
    left = rng.randrange(size)
    parts = number(rng, sort, left), number(rng, sort, size - 1 - left)
    return Term(op, parts, sort)


def comparison(rng: random.Random) -> Formula:
    sort = rng.choice([INT, NAT])
    parts = number(rng, sort, rng.randint(0, 3)), number(rng, sort, rng.randint(0, 2))
    return Formula(rng.choice(syntax.RELATIONS), parts)


def arithmetic_formula(rng: random.Random, size: int) -> Formula:
    if size == 0:
        return comparison(rng)
    op = rng.choice("∧∨→¬↔")
    if op == "¬":
        return syntax.negate(arithmetic_formula(rng, size - 1))
    left = rng.randrange(size)
    parts = arithmetic_formula(rng, left), arithmetic_formula(rng, size - 1 - left)
    return Formula(op, parts)


FUNCTIONS = (lambda n: n, lambda n: 2 * n + 1, lambda n: n * n, lambda n: 0)
NUMBERS = (
    Binder("x", INT_TYPE),
    Binder("y", INT_TYPE),
    Binder("n", NAT_TYPE),
    Binder("m", NAT_TYPE),
    Binder("s", Signature((NAT,), NAT)),
)


def false_arithmetic(rng: random.Random) -> Statement:
    """Hypotheses that hold in a model where the goal does not.

    Now and then a hypothesis says what s is, and the goal quantifies a variable: all
    that is needed is one model, and an instance of what is quantified.
    """
    while True:
        which = rng.randrange(len(FUNCTIONS))
        model = {"s": FUNCTIONS[which]}
        model |= {v: rng.randint(-4, 4) for v in "xy"}
        model |= {v: rng.randint(0, 4) for v in "nm"}
        goal = arithmetic_formula(rng, rng.randint(0, 2))
        if holds_in(goal, model):
            continue
        binders = list(NUMBERS)
        for i in range(rng.randint(0, 3)):
            formula = arithmetic_formula(rng, rng.randint(0, 1))
            if holds_in(formula, model):
                binders.append(Binder(f"h{i}", formula))
        k = syntax.var("k", NAT)
        image = (
            k,
            syntax.add(syntax.mul(syntax.num(2, NAT), k), syntax.num(1, NAT)),
            syntax.mul(k, k),
            syntax.num(0, NAT),
        )[which]
        if rng.random() < 0.3:
            formula = syntax.equals(syntax.apply("s", NAT, k), image)
            binders.append(Binder("hs", syntax.forall("k", NAT, formula)))
        free = [v for v in "xynm" if v in syntax.free_names(goal)]
        used = set().union(
            *(syntax.free_names(b.type) for b in binders if type(b.type) is Formula)
        )
        if free and rng.random() < 0.4:
            name = rng.choice(free)
            sort = INT if name in "xy" else NAT
            if name not in used:  # so that induction and intro have something to do
                goal = syntax.forall(name, sort, goal)
                binders = [b for b in binders if b.name != name]
        return Statement("false", tuple(binders), goal)


def any_arithmetic(rng: random.Random) -> Statement:
    """Hypotheses and a goal, true or false."""
    binders = list(NUMBERS)
    for i in range(rng.randint(0, 3)):
        binders.append(Binder(f"h{i}", arithmetic_formula(rng, rng.randint(0, 1))))
    goal = arithmetic_formula(rng, rng.randint(0, 1))
    return Statement("any", tuple(binders), goal)


def counter_model(statement: Statement) -> dict | None:
    """A model, among small ones, of the hypotheses and not of the goal."""
    formulas = [kind for _, kind in statement.binders if type(kind) is Formula]
    used = set().union(*map(syntax.free_names, [*formulas, statement.goal]))
    ranges = {"x": range(-3, 4), "y": range(-3, 4), "n": range(4), "m": range(4)}
    ranges["s"] = FUNCTIONS
    names = [name for name in ranges if name in used]
    for row in itertools.product(*(ranges[name] for name in names)):
        model = dict(zip(names, row, strict=True))
        if all(holds_in(f, model) for f in formulas):
            if not holds_in(statement.goal, model):
                return model
    return None


# Tactics


def tactic(rng: random.Random, goal) -> str:
    """A tactic that has some chance to apply to a goal of the tactic layer."""
    hypotheses = [b.name for b in goal.binders if type(b.type) is Formula] or ["h"]
    variables = [b.name for b in goal.binders if type(b.type) is Signature] or ["x"]
    h, k = rng.choice(hypotheses), rng.choice(hypotheses)
    new, other = f"a{rng.randrange(12)}", f"b{rng.randrange(12)}"
    v = rng.choice(variables)

    def formula() -> str:
        formulas = [b.type for b in goal.binders if type(b.type) is Formula]
        return show_formula(_part(rng, rng.choice([*formulas, goal.target])), True)

    def proof() -> str:
        return rng.choice(
            [h, f"{h} {k}", f"{h}.1", f"{h}.2", f"⟨{h}, {k}⟩", f"{h} {v}",
             f"{h}.mp {k}", f"Or.inl {h}", f"Or.inr {k}", f"absurd {h} {k}", "rfl",
             f"{h}.symm", f"False.elim {h}", f"And.intro {h} {k}", f"⟨{v}, {h}⟩"]
        )  # fmt: skip

    target, made = goal.target.op, rng.random()
    if made < 0.35:  # what fits the target
        fits = {
            "→": [f"intro {new}"],
            "¬": [f"intro {new}"],
            "∀": [f"intro {v if v not in dict(goal.binders) else new}"],
            "∧": ["constructor", "refine ⟨?_, ?_⟩"],
            "↔": ["constructor"],
            "∨": ["left", "right"],
            "True": ["trivial"],
            "=": ["ring", "norm_num", "rfl", "linarith"],
            "<": ["linarith", "nlinarith", "norm_num"],
        }
        return rng.choice(fits.get(target, ["assumption", "linarith", "exfalso"]))
    if made < 0.45:
        return rng.choice(["assumption", "contradiction", "linarith", f"exact {h}"])
    text = rng.choice(_FORMS)
    if "F" in text:
        text = text.replace("F", formula(), 1)
    if "E" in text:
        text = text.replace("E", proof(), 1)
    text = text.replace("$h", h).replace("$k", k).replace("$v", v)
    text = text.replace("$a", new).replace("$b", other)
    if rng.random() < 0.03:
        text = garbled(rng, text)
    return text


_FORMS = (
    "exact E", "exact E", "apply E", "apply $h", "refine ⟨?_, E⟩", "exfalso",
    "cases' $h with $a $b", "obtain ⟨$a, $b⟩ := $h", "rcases $h with $a | $b",
    "obtain ⟨⟨$a, $b⟩, $k⟩ := $h", "rcases $h with $h | $h",
    "have $a : F := by linarith",
    "have $a : F := E", "have $a := E", "have $a : F := by assumption", "rw [$h]",
    "rw [← $h]", "rw [$h] at $k", "rw [$h, $k]", "subst $h", "simp only [$h]",
    "simp only [$h, $k] at $k", "ring", "norm_num", "norm_num [$h]", "norm_num at $h",
    "linarith [E]", "nlinarith [sq_nonneg $v, $h]", "nlinarith [mul_pos $h $k]",
    "induction' $v with $a $b", "induction' $v with $v $b", "use $v", "exists $v",
    "by_cases $a : F", "by_contra $a", "intro $a $b", "intros $a", "trivial", "rfl",
    "constructor", "exact ⟨E, E⟩", "have $a : F := by nlinarith", "apply $h $v",
)  # fmt: skip


def garbled(rng: random.Random, text: str) -> str:
    """text with characters lost, doubled, swapped or of another world."""
    letters = list(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(letters) + 1)
        letters[at : at + rng.randrange(2)] = rng.choice(
            [
                "",
                "(",
                "⟨",
                "⟩",
                "|",
                ":=",
                "∀",
                "x",
                "✝",
                "\ud800",
                "\x00",
                "\n",
                "9" * 70,
            ]
        )
    return "".join(letters)


def _part(rng: random.Random, formula: Formula) -> Formula:
    """A closed part of formula, maybe denied, or with its sides swapped."""
    while rng.random() < 0.6 and formula.op in ("∧", "∨", "→", "↔", "¬"):
        formula = rng.choice(formula.args)
    made = rng.random()
    if made < 0.15:
        return syntax.negate(formula)
    if made < 0.25 and len(formula.args) == 2 and formula.op != "prop":
        return Formula(formula.op, formula.args[::-1])
    return formula


# Proof terms

_SWAPS = {
    "inl": "inr", "inr": "inl", "fst": "snd", "snd": "fst", "symm": "fst",
    "ring": "refl", "refl": "ring", "norm_num": "true", "true": "refl",
    "absurd": "inl", "pair": "apply", "apply": "pair", "contra": "intro",
    "intro": "contra", "square": "nonneg", "product": "apply",
}  # fmt: skip


def nodes(proof: Proof, path=()) -> list[tuple]:
    """The paths of all nodes of a proof term."""
    found = [path]
    for i, arg in enumerate(proof.args):
        if type(arg) is Proof:
            found += nodes(arg, (*path, i))
    return found


def mutated(rng: random.Random, proof: Proof, names: list[str]) -> Proof:
    """proof with one node changed: its rule, a name, a formula, or its parts."""
    path = rng.choice(nodes(proof))
    here = proof
    for i in path:
        here = here.args[i]
    op, args = here
    choices = ["wrap", "replace"]
    choices += ["rule"] * 2 * (op in _SWAPS) + ["name"] * 3 * _named(args)
    choices += ["swap"] * (sum(type(a) is Proof for a in args) > 1)
    choices += ["formula"] * any(type(a) is Formula for a in args)
    how = rng.choice(choices)
    if how == "rule":
        new = Proof(_SWAPS[op], args)
    elif how == "name":
        at = rng.choice([i for i, a in enumerate(args) if type(a) is str])
        new = Proof(op, (*args[:at], rng.choice(names), *args[at + 1 :]))
    elif how == "swap":
        at = [i for i, a in enumerate(args) if type(a) is Proof][:2]
        swapped = list(args)
        swapped[at[0]], swapped[at[1]] = args[at[1]], args[at[0]]
        new = Proof(op, tuple(swapped))
    elif how == "formula":
        at = next(i for i, a in enumerate(args) if type(a) is Formula)
        new = Proof(op, (*args[:at], flipped(rng, args[at]), *args[at + 1 :]))
    elif how == "wrap":
        new = Proof(rng.choice(["absurd", "inl", "fst", "snd", "symm"]), (here,))
    else:
        new = rng.choice([Proof("hyp", (rng.choice(names),)), Proof("true")])
    return put(proof, path, new)


def _named(args: tuple) -> bool:
    return any(type(a) is str for a in args)


def put(proof: Proof, path: tuple, new: Proof) -> Proof:
    if not path:
        return new
    args = list(proof.args)
    args[path[0]] = put(args[path[0]], path[1:], new)
    return Proof(proof.op, tuple(args))


def flipped(rng: random.Random, formula: Formula) -> Formula:
    """formula with one connective or atom changed."""
    if formula.op in ("∧", "∨", "→", "↔"):
        made = rng.random()
        if made < 0.4:
            at = rng.randrange(2)
            args = list(formula.args)
            args[at] = flipped(rng, args[at])
            return Formula(formula.op, tuple(args))
        if made < 0.7:
            return Formula(formula.op, formula.args[::-1])
        return Formula(rng.choice("∧∨→↔"), formula.args)
    if formula.op == "¬":
        return formula.args[0]
    return syntax.negate(formula)
