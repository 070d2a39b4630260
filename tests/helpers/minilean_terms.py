"""Random proof terms, and known ones, terms and statements with one thing changed."""

import random

from data.minilean import kernel, syntax
from data.minilean.kernel import Proof
from data.minilean.syntax import INT, NAT, Binder, Formula, Signature, Statement, Term

RULES = tuple(
    "hyp apply at fst snd symm square nonneg product em intro pair inl inr true absurd "
    "cases unpack witness have refl rewrite induct ring norm_num antisymm contra "
    "linear".split()
)

# Changed: one node of a term or formula


def places(node, path=()) -> list[tuple]:
    """The paths of all terms and formulas in a term or formula."""
    found = [path]
    for i, part in enumerate(node.args):
        if type(part) in (Term, Formula):
            found += places(part, (*path, i))
    return found


def changed(rng: random.Random, node, scope: dict):
    """node with a number, a name, a relation or another of its heads changed."""
    path = rng.choice(places(node))
    return _put(node, path, lambda here: _changed(rng, here, scope))


def _put(node, path: tuple, change):
    if not path:
        return change(node)
    args = list(node.args)
    args[path[0]] = _put(args[path[0]], path[1:], change)
    return node._replace(args=tuple(args))


def _changed(rng: random.Random, node, scope: dict):
    op, args = node.op, node.args
    if op == "num":
        return node._replace(args=(max(0, args[0] + rng.choice([-1, 1, 1, 2])),))
    if op == "var" or op == "prop":
        result = node.sort if op == "var" else "Prop"
        sorts = tuple(a.sort for a in args[1:])
        others = [n for n in scope if scope[n] == Signature(sorts, result)]
        if others and rng.random() < 0.8:
            return node._replace(args=(rng.choice(others), *args[1:]))
        return syntax.num(1, result) if op == "var" else syntax.negate(node)
    if op in ("+", "-", "*") and type(node) is Term:
        signs = "+*" if node.sort == NAT else "+-*"
        return node._replace(op=rng.choice(signs), args=args[:: rng.choice([1, -1])])
    if op == "^":
        return node._replace(args=(args[0], syntax.num(rng.randint(0, 3), NAT)))
    if op == "neg" or op == "¬":
        return args[0]
    if op in syntax.RELATIONS:
        return node._replace(
            op=rng.choice(syntax.RELATIONS), args=args[:: rng.choice([1, 1, -1])]
        )
    if op in syntax.CONNECTIVES:
        return node._replace(
            op=rng.choice(syntax.CONNECTIVES), args=args[:: rng.choice([1, -1])]
        )
    if op in syntax.QUANTIFIERS:
        return node._replace(op="∃" if op == "∀" else "∀")
    return syntax.negate(node) if type(node) is Formula else syntax.num(1, node.sort)


def near(rng: random.Random, statement: Statement) -> Statement:
    """The statement with one node of its goal, or of a hypothesis, changed."""
    scope = dict(statement.binders)
    facts = [i for i, b in enumerate(statement.binders) if type(b.type) is Formula]
    if not facts or rng.random() < 0.6:
        return statement._replace(goal=changed(rng, statement.goal, scope))
    binders, at = list(statement.binders), rng.choice(facts)
    name, formula = binders[at]
    binders[at] = Binder(name, changed(rng, formula, scope))
    return statement._replace(binders=tuple(binders))


# Mutated: one thing anywhere in a proof term

KINDS = ("rule", "name", "multiplier", "term", "formula", "part", "order")
_LEAVES = ("refl", "ring", "norm_num", "true")


def parts(proof, path=()) -> list[tuple]:
    """(path, what is there) of all that a proof term is made of, formulas whole."""
    found = [(path, proof)]
    inside = proof.args if type(proof) is Proof else proof
    for i, part in enumerate(inside):
        if type(part) is Proof or type(part) is tuple:
            found += parts(part, (*path, i))
        else:
            found.append(((*path, i), part))
    return found


def mutated(rng: random.Random, proof: Proof, scope: dict) -> tuple[str, Proof]:
    """(what was changed, one of KINDS; the changed term). scope: names to draw from."""
    found = parts(proof)
    at = {
        "rule": [p for p, x in found if type(x) is Proof],
        "name": [p for p, x in found if type(x) is str],
        "multiplier": [p for p, x in found if type(x) is int],
        "term": [p for p, x in found if type(x) is Term],
        "formula": [p for p, x in found if type(x) is Formula],
        "part": [p for p, x in found if type(x) is Proof],
        "order": [p for p, x in found if type(x) is Proof and len(x.args) > 1],
    }
    kind = rng.choice([kind for kind in KINDS if at[kind]])
    names = [*scope, "·not", "ih", *(x for _, x in found if type(x) is str)]
    proofs = [x for _, x in found if type(x) is Proof]

    def change(here):
        if kind == "rule":
            return Proof(rng.choice(RULES), here.args)
        if kind == "name":
            return rng.choice(names)
        if kind == "multiplier":
            return rng.choice([here + 1, here - 1, -here, 2 * here, 0])
        if kind == "term" or kind == "formula":
            return changed(rng, here, scope)
        if kind == "order":
            args = list(here.args)
            rng.shuffle(args)
            return Proof(here.op, tuple(args))
        wrapped = Proof(rng.choice(["absurd", "inl", "fst", "snd", "symm"]), (here,))
        leaf = Proof("hyp", (rng.choice(names),)), Proof(rng.choice(_LEAVES))
        return rng.choice([wrapped, *leaf, rng.choice(proofs)])

    return kind, _replaced(proof, rng.choice(at[kind]), change)


def _replaced(here, path: tuple, change):
    if not path:
        return change(here)
    inside = list(here.args if type(here) is Proof else here)
    inside[path[0]] = _replaced(inside[path[0]], path[1:], change)
    return Proof(here.op, tuple(inside)) if type(here) is Proof else tuple(inside)


# Drawn: a term that may fit a goal

_CHECKER = kernel._Checker  # to see what a part proves, whatever a test puts there


def term(rng: random.Random, scope: dict, sort: str, size: int) -> Term:
    """A random number of that sort."""
    names = [n for n, kind in scope.items() if kind == Signature((), sort)]
    if size == 0 or rng.random() < 0.3:
        if names and rng.random() < 0.7:
            return syntax.var(rng.choice(names), sort)
        return syntax.num(rng.randint(0, 3), sort)
    sides = term(rng, scope, sort, size - 1), term(rng, scope, sort, size - 1)
    return Term(rng.choice("+*" if sort == NAT else "+-*"), sides, sort)


def inferred(rng: random.Random, scope: dict, size: int) -> tuple[Proof, Formula]:
    """(a term, what the kernel reads off it, or True where it reads nothing)."""
    facts = [n for n, kind in scope.items() if type(kind) is Formula]
    proof = Proof("hyp", (rng.choice(facts or ["h"]),))
    made = rng.random()
    if made < 0.15:
        proof = Proof(rng.choice(["square", "nonneg"]), (_number(rng, scope),))
    elif made < 0.2 and facts:
        proof = Proof("em", (scope[rng.choice(facts)],))
    formula = _read(scope, proof)
    for _ in range(rng.randint(0, 2)):
        proof, formula = _eliminated(rng, scope, proof, formula, size)
    return proof, formula


def _number(rng: random.Random, scope: dict) -> Term:
    return term(rng, scope, rng.choice([NAT, INT]), 1)


def proves(scope: dict, proof: Proof, formula: Formula) -> bool:
    try:
        _CHECKER().check(scope, proof, formula, 0)
    except (kernel.Refused, ValueError):  # the limits of arithmetic; else a fault
        return False
    return True


def _read(scope: dict, proof: Proof) -> Formula:
    try:
        return _CHECKER().infer(scope, proof, 0)
    except (kernel.Refused, ValueError):  # the limits of arithmetic; else a fault
        return syntax.TRUE


def _eliminated(rng, scope: dict, proof: Proof, formula: Formula, size: int):
    op, args = syntax.exposed(formula)
    if op == "→":
        part = drawn(rng, scope, args[0], size - 1)
        return Proof("apply", (proof, part)), args[1]
    if op == "∀":
        at = term(rng, scope, args[1], 1)
        return Proof("at", (proof, at)), syntax.instantiate(args[2], at)
    if op in ("∧", "↔"):
        proof = Proof(rng.choice(["fst", "snd"]), (proof,))
    elif op == "=":
        proof = Proof("symm", (proof,))
    elif op in ("<", "≤"):
        other = Proof("square", (_number(rng, scope),))
        proof = Proof("product", (proof, rng.choice([proof, other])))
    return proof, _read(scope, proof)


def drawn(rng: random.Random, scope: dict, goal: Formula, size: int) -> Proof:
    """A term with some chance to prove goal, at most `size` deep."""
    op, args = syntax.exposed(goal)
    same = [n for n, kind in scope.items() if kind == goal]
    if same and rng.random() < 0.7:
        return Proof("hyp", (rng.choice(same),))
    if size <= 0 or (op in "=<≤" and rng.random() < 0.4):
        return _leaf(rng, scope, op, size)
    name = rng.choice([f"a{size}", f"a{size}", f"b{size}", rng.choice([*scope, "x"])])

    def below(formula, more=None, by=goal):
        return drawn(rng, {**scope, **(more or {})}, formula or by, size - 1)

    if rng.random() < 0.6:
        if op == "→":
            return Proof("intro", (name, below(args[1], {name: args[0]})))
        if op == "∀":
            inner = syntax.instantiate(args[2], syntax.var(name, args[1]))
            more = {name: Signature((), args[1])}
            return Proof("intro", (name, below(inner, more)))
        if op in ("∧", "↔"):
            pair = args
            if op == "↔":
                pair = syntax.implies(*args), syntax.implies(*args[::-1])
            return Proof("pair", (below(pair[0]), below(pair[1])))
        if op == "∨":
            side = rng.randrange(2)
            return Proof(("inl", "inr")[side], (below(args[side]),))
        if op == "∃":
            at = term(rng, scope, args[1], 1)
            return Proof("witness", (at, below(syntax.instantiate(args[2], at))))
        if op == "=" and rng.random() < 0.3:
            up, down = Formula("≤", args), Formula("≤", args[::-1])
            return Proof("antisymm", (below(up), below(down)))
        if op in ("<", "≤"):
            denied = syntax.negate(syntax.exposed(goal))
            return Proof("contra", (name, below(syntax.FALSE, {name: denied})))
        if op == "False":
            return _leaf(rng, scope, op, size)
    numbers = [n for n, kind in scope.items() if kind == syntax.NAT_TYPE]
    if numbers and rng.random() < 0.25:
        n, new = rng.choice(numbers), rng.choice([f"k{size}", rng.choice(numbers)])

        def at(by: Term) -> Formula:
            return syntax.substitute(goal, n, by)

        k = syntax.var(new, NAT)
        more = {new: syntax.NAT_TYPE, name: at(k)}
        step = below(at(syntax.add(k, syntax.num(1, NAT))), more)
        base = below(at(syntax.num(0, NAT)))
        return Proof("induct", (n, new, name, base, step))
    proof, formula = inferred(rng, scope, size)
    if formula.op == "∨":
        one, other = (below(goal, {name: side}) for side in formula.args)
        return Proof("cases", (proof, name, one, name, other))
    if formula.op == "∃":
        new, sort = f"k{size}", formula.args[1]
        inner = syntax.instantiate(formula.args[2], syntax.var(new, sort))
        more = {new: Signature((), sort), name: inner}
        return Proof("unpack", (proof, new, name, below(goal, more)))
    if formula.op in ("=", "↔") and rng.random() < 0.7:
        return _rewriting(rng, scope, goal, proof, formula, size)
    if rng.random() < 0.3:
        return proof
    if rng.random() < 0.3:
        return Proof("absurd", (below(syntax.FALSE),))
    claim = None if rng.random() < 0.6 else changed(rng, goal, scope)
    more = {name: formula if claim is None else claim}
    first = proof if claim is None else below(claim)
    return Proof("have", (name, claim, first, below(goal, more)))


def claimed(rng: random.Random, scope: dict, goal: Formula, size: int) -> Proof:
    """As `drawn`, below a few claims that are often true."""
    claims = []
    for i in range(rng.randint(0, 4)):
        formula = likely(rng, scope)
        part = drawn(rng, scope, formula, rng.randint(0, size))
        # what does not hold by itself would keep all that comes after from being seen
        if rng.random() < 0.05 or proves(scope, part, formula):
            claims.append((f"c{i}", formula, part))
            scope = {**scope, f"c{i}": formula}
    found = drawn(rng, scope, goal, size)
    for name, formula, part in reversed(claims):
        found = Proof("have", (name, formula, part, found))
    return found


def likely(rng: random.Random, scope: dict) -> Formula:
    """A formula that hypotheses, polynomials or logic may prove, or nearly."""
    facts = [kind for kind in scope.values() if type(kind) is Formula]
    sort = rng.choice([NAT, INT])
    t, u = (term(rng, scope, sort, 2) for _ in range(2))
    trivial = rng.choice([syntax.TRUE, syntax.equals(t, t)])
    one, other = (rng.choice([*facts, trivial, trivial]) for _ in range(2))
    wrong = changed(rng, one, scope)
    made = rng.randrange(12)
    if made == 0:
        return syntax.conj(one, other)
    if made == 1:
        return syntax.disj(*rng.sample([one, wrong], 2))
    if made == 2:
        return syntax.implies(wrong, rng.choice([wrong, one]))
    if made == 3:
        return syntax.iff(one, rng.choice([one, other]))
    if made == 4:
        return syntax.equals(syntax.add(t, u), syntax.add(u, t))
    if made == 5:
        numbers = (syntax.num(rng.randint(0, 3), sort) for _ in range(2))
        return Formula(rng.choice(syntax.RELATIONS), tuple(numbers))
    if made == 6:
        return syntax.relation("≤", t, rng.choice([t, syntax.add(t, u)]))
    if made == 7:
        k = syntax.var("k", sort)
        body = syntax.relation("≤", k, syntax.add(k, syntax.num(1, sort)))
        return rng.choice([syntax.forall, syntax.exists])("k", sort, body)
    if made == 8:
        return syntax.implies(syntax.FALSE, wrong)
    if made == 9 and facts:
        fact = rng.choice(facts)
        if fact.op == "=":
            return Formula("=", fact.args[::-1])
        return syntax.disj(fact, syntax.negate(fact))
    if made == 10:
        return syntax.relation("<", t, syntax.add(t, syntax.num(1, sort)))
    return rng.choice([one, wrong])


def _leaf(rng: random.Random, scope: dict, op: str, size: int) -> Proof:
    size = min(size, 0) - 1
    if size < -2:
        return Proof(rng.choice(_LEAVES))
    if op == "False" or rng.random() < 0.2:
        items = []
        for _ in range(rng.randint(1, 3)):
            items.append(
                (rng.choice([1, 1, 1, 2, 3, -1]), inferred(rng, scope, size)[0])
            )
        return Proof("linear", (tuple(items),))
    if rng.random() < 0.6:
        return Proof(rng.choice(_LEAVES))
    return inferred(rng, scope, size)[0]


def _rewriting(rng, scope: dict, goal, proof: Proof, formula: Formula, size: int):
    """A rewriting to goal: where the right side occurs, there was the left."""
    left, right = formula.args

    def motive(node, depth: int):
        if node == right and rng.random() < 0.8:
            if formula.op == "↔":
                return syntax.HOLE
            return Term("bound", (depth,), left.sort)
        depth += node.op in syntax.QUANTIFIERS
        args = (motive(a, depth) if isinstance(a, tuple) else a for a in node.args)
        return node._replace(args=tuple(args))

    found = motive(goal, 0)
    put = syntax.instantiate if formula.op == "=" else syntax.plugged
    before = put(found, left)
    return Proof("rewrite", (proof, found, drawn(rng, scope, before, size - 1)))
