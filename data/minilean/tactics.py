"""Runs tactics on states: (state, text) -> new state or Fault. Untrusted.

`start`, `run`, `proof_of`, `show_state` are all that others need. What a tactic does is
what Lean 4 with Mathlib does for the same text, or it is refused: names must be new,
`apply` unifies to first order, only the first goal is touched, `constructor` and ⟨…⟩
prove ∧ and ↔ (⟨…⟩ also ∃), `induction'` wants no hypothesis about its variable.
A proof is one only after `kernel.check`.
"""

from data.minilean import (
    arithmetic,
    elimination,
    logic,
    rewriting,
    script,
    witnesses,
)
from data.minilean.polynomials import OutOfBudget, Work
from data.minilean.state import (
    Fault,
    Goal,
    Illegal,
    State,
    Step,
    after,
    first_state,
    hole,
    proof_of,
    show_goal,
    show_state,
)
from data.minilean.syntax import Statement

BUDGET = 30_000

TACTICS = {
    **logic.TACTICS,
    **elimination.TACTICS,
    **witnesses.TACTICS,
    **rewriting.TACTICS,
    **arithmetic.TACTICS,
}
# The others are not handed a budget: it would be made for every step, and never used.
_SPENDING = frozenset(("have", *rewriting.TACTICS, *arithmetic.TACTICS))


def start(statement: Statement) -> State:
    """The state in which the goal is the statement's."""
    return first_state(statement)


def run(state: State, text: str, budget: int = BUDGET) -> State | Fault:
    """The state after a tactic on the first goal, or why it did nothing.

    budget: steps of arithmetic, rewriting and search that the tactic may spend. Pure:
    state stays as it is. Never raises, whatever the text.
    """
    if not state[1]:
        return Fault("no_goals", "no goals to be proved")
    tactic = script.read(text)
    if type(tactic) is Fault:
        return tactic
    try:
        goal = state[1][0]
        if tactic[0] in _SPENDING:
            return after(state, act(goal, tactic, Work(budget)))
        return after(state, TACTICS[tactic[0]](goal, tactic[1], None))
    except Illegal as fault:
        return Fault(fault.kind, str(fault))
    except OutOfBudget as fault:
        return Fault("timeout", str(fault))
    except ValueError as fault:  # a limit of the arithmetic
        return Fault("limits", str(fault))
    except RecursionError:
        return Fault("limits", "nested too deep")


def act(goal: Goal, tactic: script.Tactic, work: Work) -> Step:
    """What a tactic makes of a goal. Raises Illegal, ValueError for the budget."""
    head, args = tactic
    if head == "have":
        return _have(goal, args, work)
    return TACTICS[head](goal, args, work)


def _have(goal: Goal, args: tuple, work: Work) -> Step:
    """`have h : T := e`, `have h := e`, `have h : T := by tactic`."""
    name, formula, how = args
    if type(how) is not script.Tactic:
        return logic.have(goal, name, formula, how)
    formula = logic.Elaborator(goal).formula(formula)
    inner = act(goal._replace(target=formula, case=""), how, work)
    if inner.goals:
        raise Illegal("unsolved goals in the proof of have")
    return logic.with_fact(goal, name, formula, inner.template)


__all__ = [
    "Fault",
    "State",
    "act",
    "hole",
    "proof_of",
    "run",
    "show_goal",
    "show_state",
    "start",
]
