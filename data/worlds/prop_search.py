"""A search for short tactic proofs of propositional formulas.

In the order in which a person would try: what is at hand, steps that lose nothing
(introduce, take apart), then choices, deeper and deeper.
"""

from collections.abc import Sequence

from data.worlds.prop_proofs import Step, prune
from data.worlds.propositions import FALSE, Formula, halves

DEPTHS = range(6)  # choices on one branch of a proof, tried in this order


def prove(
    hypotheses: Sequence[Formula],
    goal: Formula,
    budget: int = 600,
    depths: Sequence[int] = DEPTHS,
) -> Step | None:
    """An intuitionistic proof in few steps, or None where the search finds none.

    Hypothesis i has number i. `depths`: bounds on the choices on one branch, tried one
    after the other; `budget` bounds the goals looked at for each. The search is sound
    and not complete: what it does not find may still be provable.
    """
    for depth in depths:
        search = _Search(len(hypotheses), budget)
        found = search.solve(tuple(enumerate(hypotheses)), goal, depth, frozenset())
        if found is not None:
            return prune(found)[0]
        if search.budget <= 0:
            return None
    return None


class _Search:
    def __init__(self, first: int, budget: int):
        self.next, self.budget = first, budget
        self.failed: dict[tuple, int] = {}

    def fresh(self) -> int:
        self.next += 1
        return self.next - 1

    def solve(self, context, goal, depth, path) -> Step | None:
        """context: pairs (number, formula); path: the sequents that led here."""
        self.budget -= 1
        known: dict[Formula, int] = {}
        for number, formula in context:
            known.setdefault(formula, number)
        if goal in known:
            return Step("exact", (known[goal],), (), (), goal)
        if (closed := _absurd(known)) is not None:
            return closed
        if not isinstance(goal, str) and goal[0] in "→¬":
            new, rest = self.fresh(), FALSE if goal[0] == "¬" else goal[2]
            below = self.solve((*context, (new, goal[1])), rest, depth, path)
            return below and Step("intro", (), (new,), (below,), goal, (goal[1],))
        for number, formula in context:
            if not isinstance(formula, str) and formula[0] in "∧↔":
                parts = halves(formula)
                new = (self.fresh(), self.fresh())
                rest = tuple(pair for pair in context if pair[0] != number)
                rest += tuple(zip(new, parts, strict=True))
                below = self.solve(rest, goal, depth, path)
                return below and Step(
                    "obtain", (number,), new, (below,), formula, parts
                )
        sequent = (frozenset(known), goal)
        if sequent in path or self.failed.get(sequent, -1) >= depth:
            return None
        if self.budget > 0:
            found = self.choose(context, known, goal, depth, path | {sequent})
            if found is not None:
                return found
        self.failed[sequent] = depth
        return None

    def all(self, goals, context, depth, path) -> tuple[Step, ...] | None:
        steps = []
        for goal in goals:
            step = self.solve(context, goal, depth, path)
            if step is None:
                return None
            steps.append(step)
        return tuple(steps)

    def choose(self, context, known, goal, depth, path) -> Step | None:
        if depth:
            # What concludes the goal, that which asks for the least first.
            ends = [
                (len(premises), number, formula, premises)
                for number, formula in context
                if (premises := _premises(formula, goal))
            ]
            for _, number, formula, premises in sorted(ends, key=lambda e: e[:2]):
                below = self.all(premises, context, depth - 1, path)
                if below is not None:
                    return Step("apply", (number,), (), below, formula)
        if not isinstance(goal, str) and goal[0] in "∧↔":
            below = self.all(halves(goal), context, depth, path)
            return below and Step("split", (), (), below, goal)
        if not depth:
            return None
        if not isinstance(goal, str):  # a disjunction: the others are gone
            for kind, part in zip(("left", "right"), goal[1:], strict=True):
                below = self.solve(context, part, depth - 1, path)
                if below is not None:
                    return Step(kind, (), (), (below,), goal)
        asked = {_asks(f) for _, f in context}
        for number, formula in context:
            for given, end in _forward(formula, known):
                if end not in known and (not isinstance(end, str) or end in asked):
                    new = self.fresh()
                    below = self.solve((*context, (new, end)), goal, depth - 1, path)
                    if below is not None:
                        uses = (number, *given)
                        return Step("have", uses, (new,), (below,), formula, (end,))
        for number, formula in context:
            if not isinstance(formula, str) and formula[0] == "∨":
                new = (self.fresh(), self.fresh())
                rest = tuple(pair for pair in context if pair[0] != number)
                below = tuple(
                    self.solve((*rest, (n, part)), goal, depth - 1, path)
                    for n, part in zip(new, formula[1:], strict=True)
                )
                if None not in below:
                    return Step("cases", (number,), new, below, formula, formula[1:])
        if goal != FALSE and any(_premises(f, FALSE) for _, f in context):
            below = self.solve(context, FALSE, depth - 1, path)
            if below is not None:
                return Step("exfalso", (), (), (below,), goal)
        return None


def _absurd(known) -> Step | None:
    if FALSE in known:
        return Step("absurd", (known[FALSE],), (), (), FALSE)
    for formula, number in known.items():
        if not isinstance(formula, str) and formula[0] == "¬" and formula[1] in known:
            return Step("absurd", (number, known[formula[1]]), (), (), formula)
    return None


def _premises(formula: Formula, goal: Formula) -> tuple[Formula, ...]:
    """What has to be shown for the goal to follow; empty where it does not."""
    premises = []
    while not isinstance(formula, str):
        if formula[0] == "→":
            premises.append(formula[1])
            formula = formula[2]
        elif formula[0] == "¬":
            premises.append(formula[1])
            formula = FALSE
        else:
            break
        if formula == goal:
            return tuple(premises)
    return ()


def _asks(formula: Formula) -> Formula | None:
    """The last premise of what ends in a compound formula: it can only go forwards."""
    last = None
    while not isinstance(formula, str) and formula[0] == "→":
        last, formula = formula[1], formula[2]
    return None if isinstance(formula, str) else last


def _forward(formula: Formula, known) -> list[tuple[tuple[int, ...], Formula]]:
    """What follows from it and from facts as they stand: their numbers, the end."""
    given, ends = [], []
    while not isinstance(formula, str) and formula[0] == "→" and formula[1] in known:
        given.append(known[formula[1]])
        formula = formula[2]
        ends.append((tuple(given), formula))
    return ends
