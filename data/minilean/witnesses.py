"""use and exists: witnesses of ∃."""

from data.minilean import syntax
from data.minilean.elaborate import Elaborator, limited, reflexive
from data.minilean.kernel import Proof
from data.minilean.logic import assumed
from data.minilean.polynomials import Work
from data.minilean.state import Goal, Illegal, Step, hole, tagged
from data.minilean.syntax import Formula


def use(goal: Goal, args: tuple, work: Work) -> Step:
    """`use t1, t2`: witnesses of ∃; closes what rfl or a hypothesis proves."""
    return _witnesses(goal, args, tagged(goal, "h"))


def exists(goal: Goal, args: tuple, work: Work) -> Step:
    """`exists t1, t2`: as use, but for the tag."""
    return _witnesses(goal, args, goal.case)


def _witnesses(goal: Goal, raws: tuple, case: str) -> Step:
    elaborator, terms, target = Elaborator(goal), [], goal.target
    for raw in raws:
        if target.op != "∃":
            raise Illegal("the target is not ∃")
        terms.append(elaborator.term(("term", raw), target.args[1]))
        target = limited(syntax.instantiate(target.args[2], terms[-1]))
    proof = _discharged(goal, target)
    goals = () if proof else (goal._replace(target=target, case=case),)
    if not proof and _is_closed(target):
        # Lean's discharger decides some of these and not others
        raise Illegal("what is left has no variables: prove it in ⟨…, …⟩")
    template = proof or hole()
    for term in reversed(terms):
        template = Proof("witness", (term, template))
    return Step(goals, template)


def _discharged(goal: Goal, target: Formula) -> Proof | None:
    if target.op == "True":
        return Proof("true")
    if target.op == "∧":
        parts = [_discharged(goal, part) for part in target.args]
        return Proof("pair", tuple(parts)) if all(parts) else None
    return assumed(goal, target) or reflexive(target, reducible=True)


def _is_closed(formula: Formula) -> bool:
    if formula.op == "∧":
        return any(_is_closed(part) for part in formula.args)
    return formula.op in syntax.RELATIONS and not syntax.free_names(formula)


TACTICS = {"use": use, "exists": exists}
