"""Goals and states of a proof under way, and the proof term at its end: untrusted.

A state is immutable. Every tactic acts on the first goal and leaves a template: a proof
term with a "hole" for each new goal, in order. When no goal is left the templates of
all steps, taken from the last to the first, fill each other's holes.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from data.minilean import printer
from data.minilean.kernel import Proof
from data.minilean.syntax import Binder, Formula, Signature, Statement

# A state beyond these is refused: kinder to the reader than to the prover.
MAX_GOALS, MAX_BINDERS, MAX_STEPS = 32, 40, 200
# What a NamedTuple's constructor calls, in half the time: for what every step makes.
_made = tuple.__new__


class Goal(NamedTuple):
    """Hypotheses and target; `case`: the tag; `hidden`: variables no longer shown.

    Hidden names are known to the kernel still, so none of them may be used anew.
    context: the binders as printed, kept because a step changes little of it.
    """

    binders: tuple[Binder, ...]
    target: Formula
    case: str
    hidden: frozenset[str]
    context: str


class State(NamedTuple):
    """What is to be proved still; trace: (template, holes, trace before) or None."""

    statement: Statement
    goals: tuple[Goal, ...]
    trace: tuple | None
    steps: int


class Fault(NamedTuple):
    """Why a tactic did nothing.

    kind: "parse", "elaboration", "no_goals", "forbidden", "limits" or "timeout".
    """

    kind: str
    message: str


class Illegal(Exception):
    """A tactic that does not apply; becomes a Fault before it leaves this package."""

    def __init__(self, message: str, kind: str = "elaboration"):
        super().__init__(message)
        self.kind = kind


class Step(NamedTuple):
    """What a tactic makes of a goal: new goals, and a term with a hole for each."""

    goals: tuple[Goal, ...]
    template: Proof


_HOLES = tuple([Proof("hole", (index,)) for index in range(64)])


def hole(index: int = 0) -> Proof:
    return _HOLES[index] if index < 64 else Proof("hole", (index,))


@lru_cache(maxsize=1 << 12)
def hypothesis(name: str) -> Proof:
    return Proof("hyp", (name,))


def first_state(statement: Statement) -> State:
    goal = goal_of(statement.binders, statement.goal)
    return State(statement, (goal,), None, 0)


def goal_of(binders, target, case: str = "", hidden: frozenset = frozenset()) -> Goal:
    return Goal(binders, target, case, hidden, printer.show_context(binders))


def after(state: State, step: Step) -> State:
    """The state once the first goal is replaced. Raises Illegal beyond the limits."""
    new, template = step
    statement, goals, trace, steps = state
    goals = new + goals[1:]
    if len(goals) > MAX_GOALS or steps >= MAX_STEPS:
        raise Illegal("too many goals or steps", "limits")
    for goal in new:
        if len(goal.binders) > MAX_BINDERS:
            raise Illegal("too many hypotheses", "limits")
    trace = (template, len(new), trace)
    return _made(State, (statement, goals, trace, steps + 1))


def proof_of(state: State) -> Proof:
    """The proof term of a state without goals. ValueError if goals are left."""
    if state.goals:
        raise ValueError(f"{len(state.goals)} goals are left")
    waiting: list[Proof] = []
    trace = state.trace
    while trace is not None:
        template, holes, trace = trace
        if holes == 1:
            template = filled(template, (waiting.pop(),))
        elif holes:
            # they wait in the order of their holes, the first at the end
            filling = waiting[: -holes - 1 : -1]
            del waiting[-holes:]
            template = filled(template, filling)
        waiting.append(template)
    return waiting.pop()


def filled(template: Proof, filling: Sequence[Proof]) -> Proof:
    """template with filling[i] for hole i; what is filled in is not looked into."""
    op, args = template[0], template[1]
    if op == "hole":
        return filling[args[0]]
    new = []
    for arg in args:
        if type(arg) is Proof:
            kind = arg[0]
            if kind == "hole":
                arg = filling[arg[1][0]]
            elif kind != "hyp" and kind != "linear":
                arg = filled(arg, filling)
        new.append(arg)
    return _made(Proof, (op, tuple(new)))


def scope_of(goal: Goal) -> dict[str, Signature | Formula]:
    """name -> type of what the goal shows."""
    return {binder[0]: binder[1] for binder in goal[0]}


def show_state(state: State) -> str:
    """All goals as Lean prints them, separated by blank lines; "no goals"."""
    return printer.show_goals([show_goal(goal) for goal in state.goals])


def show_goal(goal: Goal) -> str:
    case, target = goal[2], printer.show_formula(goal[1])
    if case:
        return f"case {case}\n{goal[4]}⊢ {target}"
    return f"{goal[4]}⊢ {target}"


# What tactics do to goals


def with_binder(
    goal: Goal, name: str, kind: Signature | Formula, target: Formula | None = None
) -> Goal:
    """The goal with one more hypothesis or variable, whose name must be new.

    target: what is to be proved then; None: what was.
    """
    before, old, case, hidden, context = goal
    if target is None:
        target = old
    if name in hidden:
        raise Illegal(f"{name} is in use: names must be new")
    for binder in before:
        if binder[0] == name:
            raise Illegal(f"{name} is in use: names must be new")
    binders = (*before, _made(Binder, (name, kind)))
    if before and before[-1][1] == kind:  # it shares a line with the one before
        return goal_of(binders, target, case, hidden)
    context = f"{context}{name} : {printer.show_type(kind)}\n"
    return _made(Goal, (binders, target, case, hidden, context))


def without(goal: Goal, name: str) -> Goal:
    """The goal without the hypothesis `name`."""
    binders, target, case, hidden, context = goal
    at = next((i for i, binder in enumerate(binders) if binder[0] == name), None)
    if at is None:
        return goal
    kind, before, behind = binders[at][1], binders[:at], binders[at + 1 :]
    kept = before + behind
    above = before[-1][1] if before else None
    below = behind[0][1] if behind else None
    if above == kind or kind == below or (above == below and above is not None):
        return goal_of(kept, target, case, hidden)  # lines are shared, or will be
    line = f"\n{name} : {printer.show_type(kind)}\n"
    context = f"\n{context}".replace(line, "\n", 1)[1:]
    return _made(Goal, (kept, target, case, hidden, context))


def with_target(goal: Goal, target: Formula, tag: str = "") -> Goal:
    """The goal with another target, its case tag lengthened by `tag`."""
    case = goal[2]
    if tag:
        case = f"{case}.{tag}" if case else tag
    return _made(Goal, (goal[0], target, case, goal[3], goal[4]))


def formula_of(goal: Goal, name: str) -> Formula:
    """The hypothesis of that name. Raises Illegal."""
    for binder in goal[0]:
        if binder[0] == name:
            if type(binder[1]) is Formula:
                return binder[1]
            raise Illegal(f"{name} is not a hypothesis")
    raise Illegal(f"unknown identifier '{name}'")


def tagged(goal: Goal, tag: str) -> str:
    """The case tag of a new goal, below the goal's own."""
    return f"{goal.case}.{tag}" if goal.case else tag
