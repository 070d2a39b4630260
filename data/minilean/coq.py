"""Proof terms of the kernel as Coq 8.16 terms: an independent referee.

    Lemma v_name : forall binders, goal. Proof. exact (term). Qed. Print Assumptions ...

ℕ becomes nat, ℤ becomes Z, > and ≥ become < and ≤ turned round. Logic, quantifiers,
equations, rewriting, induction and case distinctions on order are plain terms. What the
certificates of the arithmetic claim is stated, and Coq's own tactics prove it: `ring`,
and `lia` from the facts that a certificate names (products by `nia`). They know less
of powers whose exponent is no numeral; such a term may fail there without being wrong.
`plain` tells the terms that need no tactic. Types are followed as the kernel does, but
nothing is checked here.
"""

from collections.abc import Container

from data.minilean import syntax
from data.minilean.kernel import Proof
from data.minilean.syntax import (
    FALSE,
    HOLE,
    INT,
    NAT,
    Formula,
    Signature,
    Statement,
    Term,
    exposed,
    num,
)

HEADER = """Require Import ZArith Arith Lia Classical.
Ltac powers := repeat (rewrite ?Nat.pow_add_r, ?Nat2Z.inj_add, ?Z.pow_add_r by lia);
  cbn [Nat.pow Z.of_nat].
Ltac polynomial := first [ring | powers; ring | lia].
Ltac linear := first [lia | powers; lia].
Ltac closed := first [lia | vm_compute; intuition (discriminate || lia)].

"""
CONNECTIVES = {"∧": "/\\", "∨": "\\/", "→": "->", "↔": "<->"}
TACTICAL = ("ring", "norm_num", "linear", "product", "square")


def plain(proof: Proof) -> bool:
    """The term needs none of Coq's tactics."""
    waiting: list = [proof]
    while waiting:
        here = waiting.pop()
        if type(here) is Proof:
            if here.op in TACTICAL:
                return False
            waiting += here.args
    return True


def lemma(statement: Statement, proof: Proof) -> str:
    """The lemma with the proof term, and its assumptions printed.

    HEADER goes before the first. Every name gets the prefix v_, so that it meets none
    of Coq's.
    """
    binders = []
    for name, kind in statement.binders:
        shown = _type(kind) if type(kind) is Signature else show(kind)
        binders.append(f"({_name(name)} : {shown})")
    scope = dict(statement.binders)
    term, goal = _check(scope, proof, statement.goal), show(statement.goal)
    if binders:
        term = f"fun {' '.join(binders)} => {term}"
        goal = f"forall {' '.join(binders)}, {goal}"
    title = _name(statement.name)
    return (
        f"Lemma {title} : {goal}.\nProof. exact ({term}). Qed.\n"
        f"Print Assumptions {title}.\n"
    )


# Statements


def _name(name: str) -> str:
    """v_ and the name, with the numbers of the characters that are no ASCII letters,
    digits or primes. Underscores count among those: different names stay different."""
    return "v_" + "".join(
        c if c.isascii() and (c.isalnum() or c == "'") else f"_{ord(c)}_" for c in name
    )


def _type(signature: Signature) -> str:
    names = {NAT: "nat", INT: "Z", "Prop": "Prop"}
    return " -> ".join(names[s] for s in (*signature.args, signature.result))


def _sort(sort: str) -> str:
    return _type(Signature((), sort))


def show_term(term: Term) -> str:
    """The term in Coq."""
    op, args, sort = term
    scope = "nat" if sort == NAT else "Z"
    if op == "var":
        return _name(args[0])
    if op == "num":
        return f"{args[0]}%{scope}"
    if op == "app":
        return f"({' '.join([_name(args[0]), *map(show_term, args[1:])])})"
    if op == "neg":
        return f"(- {show_term(args[0])})%Z"
    if op == "^" and sort == INT:
        exponent = args[1]
        shown = f"(Z.of_nat {show_term(exponent)})"
        if exponent.op == "num":
            shown = str(exponent.args[0])
        return f"({show_term(args[0])} ^ {shown})%Z"
    return f"({show_term(args[0])} {op} {show_term(args[1])})%{scope}"


def show(formula: Formula) -> str:
    """The formula in Coq, in parentheses."""
    op, args = formula
    if op in (">", "≥"):
        op, args = exposed(formula)
    if op in syntax.RELATIONS:
        scope = "nat" if args[0].sort == NAT else "Z"
        sign = {"≠": "<>", "≤": "<="}.get(op, op)
        return f"({show_term(args[0])} {sign} {show_term(args[1])})%{scope}"
    if op in CONNECTIVES:
        return f"({show(args[0])} {CONNECTIVES[op]} {show(args[1])})"
    if op == "¬":
        return f"(~ {show(args[0])})"
    if op == "prop":
        return f"({' '.join([_name(args[0]), *map(show_term, args[1:])])})"
    if op in syntax.QUANTIFIERS:
        name, body = _opened(formula)
        word = "forall" if op == "∀" else "exists"
        return f"({word} {_name(name)} : {_sort(args[1])}, {show(body)})"
    return op


def _opened(formula: Formula, taken: Container[str] = ()) -> tuple[str, Formula]:
    """(name, body) with a name that neither the rest of the body nor `taken` has."""
    hint, sort, body = formula.args
    name = hint or "x"
    while name in syntax.free_names(body) or name in taken:
        name += "'"
    return name, syntax.instantiate(body, syntax.var(name, sort))


def _predicate(name: str, sort: str, body: Formula) -> str:
    return f"(fun {_name(name)} : {_sort(sort)} => {show(body)})"


# Proofs: text in parentheses, with the formula where it is inferred


def _infer(scope: dict, proof: Proof) -> tuple[str, Formula]:
    match proof:
        case ("hyp", (name,)):
            return _name(name), scope[name]
        case ("apply", (major, minor)):
            text, formula = _infer(scope, major)
            premise, conclusion = exposed(formula).args
            return f"({text} {_check(scope, minor, premise)})", conclusion
        case ("at", (major, term)):
            text, formula = _infer(scope, major)
            instance = syntax.instantiate(formula.args[2], term)
            return f"({text} {show_term(term)})", instance
        case (("fst" | "snd") as op, (major,)):
            text, formula = _infer(scope, major)
            one, other = formula.args if op == "fst" else formula.args[::-1]
            part = one if formula.op == "∧" else Formula("→", (one, other))
            return f"({'proj1' if op == 'fst' else 'proj2'} {text})", part
        case ("symm", (major,)):
            text, formula = _infer(scope, major)
            word = "eq_sym" if formula.op == "=" else "iff_sym"
            return f"({word} {text})", Formula(formula.op, formula.args[::-1])
        case ("em", (formula,)):
            denied = syntax.negate(formula)
            return f"(classic {show(formula)})", syntax.disj(formula, denied)
        case ("nonneg", (term,)):
            formula = Formula("≤", (num(0, NAT), term))
            return f"(Nat.le_0_l {show_term(term)})", formula
        case ("square", (term,)):
            formula = Formula("≤", (num(0, term.sort), syntax.power(term, 2)))
            how = "apply Nat.le_0_l"
            if term.sort == INT:
                how = "rewrite Z.pow_2_r; apply Z.square_nonneg"
            return f"(ltac:({how}) : {show(formula)})", formula
        case ("product", (p, q)):
            first, second = _infer(scope, p), _infer(scope, q)
            op, a, b = syntax.comparison(first[1])
            other, c, d = syntax.comparison(second[1])
            low = syntax.add(syntax.mul(a, d), syntax.mul(b, c))
            high = syntax.add(syntax.mul(b, d), syntax.mul(a, c))
            formula = Formula("<" if op == other == "<" else "≤", (low, high))
            facts = [(t, f) for t, f in (first, second)]
            return f"(ltac:({_with_facts(facts)}nia) : {show(formula)})", formula
    raise ValueError(f"{proof.op} proves nothing that can be inferred")


def _with_facts(facts: list[tuple[str, Formula]]) -> str:
    return "".join(f"generalize ({t} : {show(f)}); " for t, f in facts)


def _check(scope: dict, proof: Proof, goal: Formula) -> str:
    """The term in parentheses. ValueError for a term that does not fit."""
    op, args = proof
    exposed_goal = exposed(goal)
    match exposed_goal.op, proof:
        case "→", ("intro", (name, body)):
            premise, conclusion = exposed_goal.args
            inner = _check({**scope, name: premise}, body, conclusion)
            return f"(fun {_name(name)} : {show(premise)} => {inner})"
        case "∀", ("intro", (name, body)):
            sort = goal.args[1]
            instance = syntax.instantiate(goal.args[2], syntax.var(name, sort))
            inner = _check({**scope, name: Signature((), sort)}, body, instance)
            return f"(fun {_name(name)} : {_sort(sort)} => {inner})"
        case (("∧" | "↔"), ("pair", (p, q))):
            one, other = goal.args
            if goal.op == "↔":
                one, other = Formula("→", (one, other)), Formula("→", (other, one))
            return f"(conj {_check(scope, p, one)} {_check(scope, q, other)})"
        case "∨", (("inl" | "inr"), (part,)):
            word = "or_introl" if op == "inl" else "or_intror"
            inner = _check(scope, part, goal.args[op == "inr"])
            return f"({word} {inner} : {show(goal)})"
        case "True", ("true", ()):
            return "I"
        case _, ("absurd", (part,)):
            return f"(False_ind {show(goal)} {_check(scope, part, FALSE)})"
        case _, ("cases", (major, first, p, second, q)):
            text, formula = _infer(scope, major)
            left, right = formula.args
            return (
                f"(match {text} return {show(goal)} with or_introl {_name(first)} => "
                f"{_check({**scope, first: left}, p, goal)} | or_intror "
                f"{_name(second)} => {_check({**scope, second: right}, q, goal)} end)"
            )
        case _, ("unpack", (major, variable, name, body)):
            text, formula = _infer(scope, major)
            sort = formula.args[1]
            inner = {**scope, variable: Signature((), sort)}
            inner[name] = syntax.instantiate(
                formula.args[2], syntax.var(variable, sort)
            )
            return (
                f"(match {text} return {show(goal)} with ex_intro _ {_name(variable)} "
                f"{_name(name)} => {_check(inner, body, goal)} end)"
            )
        case "∃", ("witness", (term, part)):
            instance = syntax.instantiate(goal.args[2], term)
            inner = _check(scope, part, instance)
            name, body = _opened(goal)
            predicate = _predicate(name, goal.args[1], body)
            return f"(ex_intro {predicate} {show_term(term)} {inner})"
        case _, ("have", (name, formula, part, body)):
            if formula is None:
                text, formula = _infer(scope, part)
            else:
                text = _check(scope, part, formula)
            inner = _check({**scope, name: formula}, body, goal)
            return f"((fun {_name(name)} : {show(formula)} => {inner}) {text})"
        case "=", ("refl", ()):
            return "eq_refl"
        case "↔", ("refl", ()):
            return "(conj (fun v_h => v_h) (fun v_h => v_h))"
        case _, ("rewrite", (equation, motive, part)):
            text, formula = _infer(scope, equation)
            return _rewritten(scope, text, formula, motive, part)
        case _, ("induct", (variable, new, name, base, step)):
            return _induction(scope, goal, variable, new, name, base, step)
    return _arithmetic(scope, proof, goal, exposed_goal)


def _arithmetic(scope: dict, proof: Proof, goal: Formula, exposed_goal) -> str:
    match exposed_goal.op, proof:
        case "=", ("ring", ()):
            return f"(ltac:(polynomial) : {show(goal)})"
        case _, ("norm_num", ()):
            return f"(ltac:(closed) : {show(goal)})"
        case "=", ("antisymm", (p, q)):
            module = "Nat" if goal.args[0].sort == NAT else "Z"
            up = _check(scope, p, Formula("≤", goal.args))
            down = _check(scope, q, Formula("≤", goal.args[::-1]))
            return f"({module}.le_antisymm _ _ {up} {down})"
        case (("<" | "≤"), ("contra", (name, part))):
            sides = exposed_goal.args
            decide = {"<": "lt_dec", "≤": "le_dec"}[exposed_goal.op]
            if sides[0].sort == INT:
                decide = f"Z_{decide}"
            denied = syntax.negate(exposed_goal)
            inner = _check({**scope, name: denied}, part, FALSE)
            return (
                f"(match {decide} {show_term(sides[0])} {show_term(sides[1])} with "
                f"left v_h => v_h | right {_name(name)} => "
                f"False_ind {show(goal)} {inner} end)"
            )
        case "False", ("linear", (items,)):
            facts = [_infer(scope, part) for _, part in items]
            return f"(ltac:({_with_facts(facts)}linear) : False)"
    return _infer(scope, proof)[0]


def _induction(scope, goal, variable, new, name, base, step) -> str:
    """nat_ind, with n + 1 for Coq's S n."""
    n = syntax.var(new, NAT)

    def motive(term: Term) -> Formula:
        return syntax.substitute(goal, variable, term)

    rest = {k: v for k, v in scope.items() if k != variable}
    inner = {**rest, new: Signature((), NAT), name: motive(n)}
    predicate = _predicate(new, NAT, motive(n))
    successor = syntax.add(n, num(1, NAT))
    body = _check(inner, step, motive(successor))
    body = (
        f"(eq_ind {show_term(successor)} {predicate} {body} (S {_name(new)}) "
        f"(Nat.add_1_r {_name(new)}))"
    )
    return (
        f"(nat_ind {predicate} {_check(rest, base, motive(num(0, NAT)))} "
        f"(fun ({_name(new)} : nat) ({_name(name)} : {show(motive(n))}) => {body}) "
        f"{_name(variable)})"
    )


def _rewritten(scope, text, formula: Formula, motive: Formula, part) -> str:
    left, right = formula.args
    if formula.op == "=":
        name = "z"
        while name in syntax.free_names(motive):
            name += "'"
        body = syntax.instantiate(motive, syntax.var(name, left.sort))
        inner = _check(scope, part, syntax.instantiate(motive, left))
        predicate = _predicate(name, left.sort, body)
        return (
            f"(eq_ind {show_term(left)} {predicate} {inner} {show_term(right)} {text})"
        )
    inner = _check(scope, part, syntax.plugged(motive, left))
    forwards, _ = _congruence(motive, text, left, right, scope)
    return f"({forwards} {inner})"


def _congruence(motive, text: str, left, right, scope, depth=0) -> tuple[str, str]:
    """Functions motive[left] -> motive[right] and back, from left <-> right.

    What they bind has names that text, a term in scope, cannot speak of.
    """
    if motive == HOLE:
        return f"(proj1 {text})", f"(proj2 {text})"
    if motive.op not in (*syntax.CONNECTIVES, *syntax.QUANTIFIERS, "¬"):
        same = f"(fun v_h : {show(motive)} => v_h)"
        return same, same
    x, y = f"c{depth}", f"d{depth}"
    found = []
    for source, way in ((left, 0), (right, 1)):
        kind = show(syntax.plugged(motive, source))
        if motive.op in syntax.QUANTIFIERS:
            name, body = _opened(motive, scope)
            step = _congruence(body, text, left, right, scope, depth + 1)[way]
            if motive.op == "∀":
                inner = f"fun {_name(name)} => {step} ({x} {_name(name)})"
            else:
                inner = (
                    f"match {x} with ex_intro _ {_name(name)} {y} => "
                    f"ex_intro _ {_name(name)} ({step} {y}) end"
                )
            found.append(f"(fun {x} : {kind} => {inner})")
            continue
        parts = motive.args if motive.op != "¬" else (motive.args[0], FALSE)
        a, b = (_congruence(m, text, left, right, scope, depth + 1) for m in parts)
        inner = {
            "∧": f"conj ({a[way]} (proj1 {x})) ({b[way]} (proj2 {x}))",
            "∨": f"match {x} with or_introl {y} => or_introl ({a[way]} {y}) "
            f"| or_intror {y} => or_intror ({b[way]} {y}) end",
            "→": f"fun {y} => {b[way]} ({x} ({a[1 - way]} {y}))",
            "¬": f"fun {y} => {x} ({a[1 - way]} {y})",
            "↔": f"conj (fun {y} => {b[way]} (proj1 {x} ({a[1 - way]} {y}))) "
            f"(fun {y} => {a[way]} (proj2 {x} ({b[1 - way]} {y})))",
        }[motive.op]
        found.append(f"(fun {x} : {kind} => {inner})")
    return found[0], found[1]
