"""Goals and states of a proof under way, and the proof term at its end: untrusted.

A state is immutable. Every tactic acts on the first goal and leaves a template: a proof
term with a "hole" for each new goal, in order. When no goal is left the templates of
all steps, taken from the last to the first, fill each other's holes.
"""

from typing import NamedTuple

from data.minilean import printer
from data.minilean.kernel import Proof
from data.minilean.syntax import Binder, Formula, Signature, Statement

# A state beyond these is refused: kinder to the reader than to the prover.
MAX_GOALS, MAX_BINDERS, MAX_STEPS = 32, 40, 200


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


def hole(index: int = 0) -> Proof:
    return Proof("hole", (index,))


def hypothesis(name: str) -> Proof:
    return Proof("hyp", (name,))


def first_state(statement: Statement) -> State:
    goal = goal_of(statement.binders, statement.goal)
    return State(statement, (goal,), None, 0)


def goal_of(binders, target, case: str = "", hidden: frozenset = frozenset()) -> Goal:
    return Goal(binders, target, case, hidden, printer.show_context(binders))


def after(state: State, step: Step) -> State:
    """The state once the first goal is replaced. Raises Illegal beyond the limits."""
    goals = step.goals + state.goals[1:]
    if len(goals) > MAX_GOALS or state.steps >= MAX_STEPS:
        raise Illegal("too many goals or steps", "limits")
    for goal in step.goals:
        if len(goal.binders) > MAX_BINDERS:
            raise Illegal("too many hypotheses", "limits")
    trace = (step.template, len(step.goals), state.trace)
    return State(state.statement, goals, trace, state.steps + 1)


def proof_of(state: State) -> Proof:
    """The proof term of a state without goals. ValueError if goals are left."""
    if state.goals:
        raise ValueError(f"{len(state.goals)} goals are left")
    waiting: list[Proof] = []
    trace = state.trace
    while trace is not None:
        template, holes, trace = trace
        if holes:
            filling = [waiting.pop() for _ in range(holes)]
            template = filled(template, filling)
        waiting.append(template)
    return waiting.pop()


def filled(template: Proof, filling: list[Proof]) -> Proof:
    """template with filling[i] for hole i; what is filled in is not looked into."""
    op, args = template
    if op == "hole":
        return filling[args[0]]
    if op == "hyp" or op == "linear":
        return template
    new = tuple([filled(a, filling) if type(a) is Proof else a for a in args])
    return Proof(op, new)


def scope_of(goal: Goal) -> dict[str, Signature | Formula]:
    """name -> type of what the goal shows."""
    return dict(goal.binders)


def show_state(state: State) -> str:
    """All goals as Lean prints them, separated by blank lines; "no goals"."""
    return printer.show_goals([show_goal(goal) for goal in state.goals])


def show_goal(goal: Goal) -> str:
    tag = f"case {goal.case}\n" if goal.case else ""
    return f"{tag}{goal.context}⊢ {printer.show_formula(goal.target)}"


# What tactics do to goals


def fresh(goal: Goal, *names: str) -> None:
    """Raises Illegal unless the names are new in the goal and differ."""
    for i, name in enumerate(names):
        if name in goal.hidden or name in names[:i]:
            raise Illegal(f"{name} is in use: names must be new")
        for binder in goal.binders:
            if binder[0] == name:
                raise Illegal(f"{name} is in use: names must be new")


def with_binder(goal: Goal, name: str, kind: Signature | Formula) -> Goal:
    """The goal with one more hypothesis or variable, whose name must be new."""
    fresh(goal, name)
    before, target, case, hidden, context = goal
    binders = (*before, Binder(name, kind))
    if before and before[-1].type == kind:  # it shares a line with the one before
        return goal_of(binders, target, case, hidden)
    context = f"{context}{name} : {printer.show_type(kind)}\n"
    return Goal(binders, target, case, hidden, context)


def without(goal: Goal, name: str) -> Goal:
    """The goal without the hypothesis `name`."""
    binders = tuple([binder for binder in goal.binders if binder[0] != name])
    return goal_of(binders, goal.target, goal.case, goal.hidden)


def with_target(goal: Goal, target: Formula, tag: str = "") -> Goal:
    """The goal with another target, its case tag lengthened by `tag`."""
    case = tagged(goal, tag) if tag else goal.case
    return Goal(goal.binders, target, case, goal.hidden, goal.context)


def formula_of(goal: Goal, name: str) -> Formula:
    """The hypothesis of that name. Raises Illegal."""
    for binder in goal.binders:
        if binder.name == name:
            if type(binder.type) is Formula:
                return binder.type
            raise Illegal(f"{name} is not a hypothesis")
    raise Illegal(f"unknown identifier '{name}'")


def tagged(goal: Goal, tag: str) -> str:
    """The case tag of a new goal, below the goal's own."""
    return f"{goal.case}.{tag}" if goal.case else tag
