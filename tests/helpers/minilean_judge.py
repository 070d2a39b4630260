"""Counter-models of what the kernel claims, by trying: it knows nothing of proofs.

Variables range over small numbers, functions and predicates over a few that are often
met and over what the hypotheses say they are. Quantifiers are tried on small numbers.
"""

import random
from collections import Counter

from data.minilean import kernel, syntax
from data.minilean.syntax import INT, NAT, Formula, Signature, Term

TRIED = {NAT: range(0, 14), INT: range(-14, 15)}
FUNCTIONS = (
    lambda n: abs(n),
    lambda n: 2 * abs(n) + 1,
    lambda n: n * n,
    lambda n: 0,
    lambda n: 3,
)
PREDICATES = (
    lambda *n: True,
    lambda *n: False,
    lambda *n: n[0] % 2 == 0,
    lambda *n: n[0] > 0,
    lambda *n: n[0] == 1,
)
RELATIONS = {
    "=": lambda a, b: a == b,
    "≠": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "≤": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "≥": lambda a, b: a >= b,
}


class TooLarge(Exception):
    """A power or a recursion without end, or a witness that was not found."""


def value(term: Term, model: dict, bound: tuple = ()) -> int:
    """The number that a term is in a model."""
    op, args, _ = term
    if op == "num":
        return args[0]
    if op == "var":
        return model[args[0]]
    if op == "bound":
        return bound[args[0]]
    if op == "app":
        return model[args[0]](*(value(a, model, bound) for a in args[1:]))
    left = value(args[0], model, bound)
    if op == "neg":
        return -left
    right = value(args[1], model, bound)
    if op == "^":
        if right * left.bit_length() > 2000:
            raise TooLarge
        return left**right
    return left + right if op == "+" else left - right if op == "-" else left * right


def true(formula: Formula, model: dict, bound: tuple = ()) -> bool:
    """Whether a formula holds in a model, quantifiers being tried."""
    op, args = formula
    if op in RELATIONS:
        left, right = (value(a, model, bound) for a in args)
        return RELATIONS[op](left, right)
    if op == "prop":
        known = model[args[0]]
        if len(args) == 1:
            return known
        return known(*(value(a, model, bound) for a in args[1:]))
    if op in ("True", "False"):
        return op == "True"
    if op in ("∀", "∃"):
        tried = (true(args[2], model, (k, *bound)) for k in TRIED[args[1]])
        if op == "∀":
            return all(tried)
        if not any(tried):
            raise TooLarge  # a larger number might do
        return True
    left = true(args[0], model, bound)
    if op == "¬":
        return not left
    if op == "∧":
        return left and true(args[1], model, bound)
    if op == "∨":
        return left or true(args[1], model, bound)
    right = true(args[1], model, bound)
    return left == right if op == "↔" else not left or right


def told(name: str, formulas: list[Formula], model: dict):
    """The function that f 0 = a, f (n + 1) = b or f n = c say it is, or None."""
    known, step, direct = {}, None, None
    for formula in formulas:
        body = formula.args[2] if formula.op == "∀" else formula
        if body.op != "=" or body.args[0].op != "app" or body.args[0].args[0] != name:
            continue
        at, result = body.args[0].args[1], body.args[1]
        names = syntax.free_names(result)
        if formula.op == "∀" and at.op == "bound" and name not in names:
            direct = result
        elif formula.op == "∀" and at.op == "+" and at.args[0].op == "bound":
            step = result if names <= {name} else None
        elif formula.op == "=" and at.op == "num" and not names:
            known[at.args[0]] = value(result, model)
    if direct is not None:
        return lambda n: value(direct, model, (n,))
    if step is None:
        return None

    begun = set()

    def function(n: int) -> int:
        if n not in known:
            if not 0 <= n < 60 or n in begun:
                raise TooLarge  # it refers to itself
            begun.add(n)
            known[n] = value(step, model, (n - 1,)) if n else 0
        return known[n]

    return function


def counter_model(scope: dict, goal: Formula, rng: random.Random, budget: int = 500):
    """(a model of the scope's formulas in which goal fails, or None; models of them).

    Gives up after `budget` formulas looked at.
    """
    formulas = [kind for kind in scope.values() if type(kind) is Formula]
    used = set().union(*map(syntax.free_names, (*formulas, goal)))
    known = {n: scope[n] for n in scope if n in used and type(scope[n]) is Signature}
    # what is chosen first decides most: functions, propositions, numbers
    order = sorted(known, key=lambda n: (not known[n].args, known[n].result != "Prop"))
    places = {name: i for i, name in enumerate(order)}
    last = [[] for _ in range(len(order) + 1)]
    for formula in formulas:
        names = syntax.free_names(formula)
        last[max((places[n] + 1 for n in names), default=0)].append(formula)
    model, seen, left = {}, 0, budget

    def choices(name: str) -> list:
        signature = known[name]
        if signature.result == "Prop":
            found = list(PREDICATES) if signature.args else [False, True]
        elif signature.args:
            told_so = told(name, formulas, model)
            return [told_so] if told_so else rng.sample(FUNCTIONS, len(FUNCTIONS))
        else:
            found = list(range(7) if signature.result == NAT else range(-9, 10))
        return rng.sample(found, len(found))

    def search(at: int) -> bool:
        nonlocal seen, left
        for formula in last[at]:
            left -= 1
            if not true(formula, model):
                return False
        if at == len(order):
            seen += 1
            left -= 1
            return not true(goal, model)
        for choice in choices(order[at]):
            model[order[at]] = choice
            if search(at + 1):
                return True
            if left < 0:
                break
        return False

    try:
        return (dict(model) if search(0) else None), seen
    except TooLarge:
        return None, seen


class Claims:
    """What the kernel accepts anywhere in the terms that it is shown.

    Put in the place of its checker: `found` are the claims (rule, scope, formula);
    `tried` and `accepted` count the terms by rule; `calls` counts the checks.
    """

    def __init__(self, checker=kernel._Checker):
        self.found: list = []
        self.tried, self.accepted, self.calls = Counter(), Counter(), 0
        claims = self

        class Recorded(checker):
            def __init__(self):
                super().__init__()
                claims.calls += 1

            def infer(self, scope, proof, depth):
                claims.tried[proof[0]] += 1
                formula = super().infer(scope, proof, depth)
                claims.accepted[proof[0]] += 1
                claims.add(proof[0], scope, formula)
                return formula

            def check(self, scope, proof, target, depth):
                inferred = proof[0] in kernel._INFERRED
                claims.tried[proof[0]] += not inferred
                super().check(scope, proof, target, depth)
                claims.accepted[proof[0]] += not inferred
                claims.add(proof[0], scope, target)

        self.checker = Recorded

    def add(self, rule: str, scope: dict, formula: Formula) -> None:
        if rule != "hyp":
            self.found.append((rule, scope, formula))

    def judged(self, seed: int, most: int) -> tuple[list, int, int]:
        """(claims with a counter-model, how many were judged, those with a model).

        One that speaks of what is no variable of its scope, or in whose scope a
        hypothesis does, counts as countered.
        At most `most` are judged, of every rule as many.
        """
        rng, wrong, met = random.Random(seed), [], 0
        by_rule: dict[str, list] = {}
        for claim in rng.sample(self.found, len(self.found)):
            by_rule.setdefault(claim[0], []).append(claim)
        each = most // max(1, len(by_rule))
        claims = [claim for same in by_rule.values() for claim in same[:each]]
        for rule, scope, formula in claims:
            formulas = [kind for kind in scope.values() if type(kind) is Formula]
            names = set().union(*map(syntax.free_names, (*formulas, formula)))
            if any(type(scope.get(name)) is not Signature for name in names):
                wrong.append((rule, scope, formula, None))
                continue
            model, seen = counter_model(scope, formula, rng)
            met += seen > 0
            if model is not None:
                wrong.append((rule, scope, formula, model))
        return wrong, len(claims), met
