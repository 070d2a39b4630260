"""Proof terms and statements with something nested 100,000 deep in every place.

    python -m helpers.minilean_malformed

prints the name of each case before the kernel sees it, and at last how many there were
and how many were refused.
"""

from data.minilean import syntax
from data.minilean.kernel import Proof, check
from data.minilean.syntax import INT, INT_TYPE, NAT_TYPE, Formula, Signature, Term

LEVELS = 100_000
CONTEXT = (
    ("p", syntax.PROP),
    ("P", Signature((INT,), "Prop")),
    ("x", INT_TYPE),
    ("n", NAT_TYPE),
    ("f", Signature((INT,), INT)),
    ("h", syntax.prop("p")),
    ("e", syntax.equals(syntax.var("x", INT), syntax.num(0, INT))),
    ("i", syntax.iff(syntax.prop("p"), syntax.prop("p"))),
    ("o", syntax.disj(syntax.prop("p"), syntax.prop("p"))),
    ("w", syntax.exists("y", INT, syntax.prop("P", syntax.var("y", INT)))),
    ("a", syntax.forall("y", INT, syntax.prop("P", syntax.var("y", INT)))),
    ("no", syntax.FALSE),
)
ATOM, X = syntax.prop("p"), syntax.var("x", INT)


def deep() -> Formula:
    """¬ ¬ ... p, beyond what recursion reaches."""
    found = ATOM
    for _ in range(LEVELS):
        found = Formula("¬", (found,))
    return found


def formulas(d) -> dict:
    """Formulas with d where something else belongs."""
    extra = tuple.__new__(Formula, ("True", (), d))
    long = tuple.__new__(Term, ("var", ("x",), INT, d))
    terms = {
        "name": Term("var", (d,), INT),
        "more": Term("var", ("x", d), INT),
        "sort": Term("var", ("x",), d),
        "number": Term("num", (d,), INT),
        "digits": Term("num", (1, d), INT),
        "index": Term("bound", (d,), INT),
        "function": Term("app", (d, X), INT),
        "argument": Term("app", ("f", d), INT),
        "operation": Term(d, (X, X), INT),
        "operand": Term("+", (X, d), INT),
        "parts": Term("+", d, INT),
        "long": long,
        "power": Term("^", (X, Term("var", ("n",), d)), INT),
    }
    found = {f"term {k}": Formula("=", (t, X)) for k, t in terms.items()}
    return found | {
        "itself": d,
        "atom": Formula("prop", (d,)),
        "atom more": Formula("prop", ("p", d)),
        "predicate": Formula("prop", (d, X)),
        "head": Formula(d, ()),
        "head and parts": Formula(d, (ATOM, ATOM)),
        "arguments": Formula("∧", d),
        "part": Formula("∧", (ATOM, d)),
        "hint": Formula("∀", (d, INT, ATOM)),
        "quantified": Formula("∃", ("y", d, ATOM)),
        "body": Formula("∃", ("y", INT, d)),
        "truth": Formula("True", (d,)),
        "extra": extra,
    }


def cases():
    """(name, context, proof, goal), none of which may be accepted."""
    d, h = deep(), Proof("hyp", ("h",))
    e, i, no = (Proof("hyp", (name,)) for name in ("e", "i", "no"))
    proofs = {
        "rule": Proof(d, ()),
        "rule and parts": Proof(d, (h,)),
        "arguments": Proof("hyp", d),
        "hyp": Proof("hyp", (d,)),
        "intro": Proof("intro", (d, h)),
        "cases": Proof("cases", (Proof("hyp", ("o",)), d, h, "b", h)),
        "have": Proof("have", (d, None, h, h)),
        "unpack": Proof("unpack", (Proof("hyp", ("w",)), d, "b", h)),
        "unpack name": Proof("unpack", (Proof("hyp", ("w",)), "b", d, h)),
        "contra": Proof("contra", (d, no)),
        "induct": Proof("induct", (d, "a", "b", h, h)),
        "induct new": Proof("induct", ("n", d, "b", h, h)),
        "induct name": Proof("induct", ("n", "m", d, h, h)),
        "part": Proof("absurd", (d,)),
        "multiplier": Proof("linear", (((d, no),),)),
        "items": Proof("linear", (d,)),
        "proof": d,
        "witness": Proof("witness", (d, h)),
        "at": Proof("at", (Proof("hyp", ("a",)), d)),
        "nonneg": Proof("nonneg", (d,)),
    }
    for goal in (ATOM, syntax.implies(ATOM, ATOM), syntax.FALSE):
        for name, proof in proofs.items():
            yield f"proof {name}", CONTEXT, proof, goal
    for name, formula in formulas(d).items():
        yield f"em {name}", CONTEXT, Proof("em", (formula,)), ATOM
        yield f"have {name}", CONTEXT, Proof("have", ("k", formula, no, h)), ATOM
        for equation in (e, i):
            proof = Proof("rewrite", (equation, formula, h))
            yield f"motive {name}", CONTEXT, proof, ATOM
        yield f"goal {name}", CONTEXT, Proof("absurd", (no,)), formula
        yield f"hypothesis {name}", (*CONTEXT, ("k", formula)), h, ATOM
        if formula.op == "=":
            term = formula.args[0]
            yield f"square {name}", CONTEXT, Proof("square", (term,)), ATOM
            yield f"nonneg {name}", CONTEXT, Proof("nonneg", (term,)), ATOM
    yield "bound name", (*CONTEXT, (d, syntax.PROP)), h, ATOM


def main() -> None:
    count = refused = 0
    assert check(CONTEXT, Proof("hyp", ("h",)), ATOM).ok
    for name, context, proof, goal in cases():
        print(name, flush=True)
        count += 1
        refused += not check(context, proof, goal).ok
    print(count, refused)


if __name__ == "__main__":
    main()
