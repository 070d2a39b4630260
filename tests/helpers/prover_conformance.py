"""What every prover environment must do, as checks that take the environment.

    @pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
    def test_conformance(check, environment):
        check(environment, Examples())

`Examples` holds theorems and tactics in Lean 4; a back-end in another language, or one
that knows fewer tactics, passes its own with the same roles.
"""

import dataclasses
import time

from research.lean_star.environment import (
    KINDS,
    Capabilities,
    Crashed,
    GaveUp,
    Illegal,
    Progress,
    Proved,
    State,
    Theorem,
    Timeout,
)


@dataclasses.dataclass(frozen=True)
class Examples:
    """Texts with fixed roles.

    swap: p ∧ q → q ∧ p; first: a tactic that leaves one goal; split: one that then
    leaves two; closing: tactics that close the first and the second of these. goals:
    what the two goals are, without hypotheses, in order. illegal: does not apply to
    swap at first. dishonest: tactics that leave something unproved. injected: more
    than a tactic. unicode: names beyond ASCII, a tactic, and a line that the state
    then has. broken: no statement. slow: a theorem and a tactic that takes more than
    `limit` seconds, or None.
    """

    swap: str = "theorem swap (p q : Prop) : p ∧ q → q ∧ p := by"
    other: str = "theorem other (p q : Prop) : p ∧ q → p ∧ p := by"
    first: str = "intro h"
    split: str = "constructor"
    closing: tuple[str, str] = ("exact h.2", "exact h.1")
    goals: tuple[str, str] = ("⊢ q", "⊢ p")
    illegal: str = "exact foo"
    dishonest: tuple[str, ...] = ("sorry", "admit", "have k : q := by sorry")
    injected: tuple[str, ...] = (
        "intro h\nexact ⟨h.2, h.1⟩",
        "intro h; exact ⟨h.2, h.1⟩",
        "intro h -- exact",
        "intro h\n\ntheorem cheat : False := by sorry",
        "set_option maxHeartbeats 0 in intro h",
    )
    unicode: tuple[str, str, str] = (
        "theorem greek (α₁ β' : Prop) (hα : α₁) : β' → α₁ := by",
        "intro hβ",
        "hβ : β'",
    )
    broken: str = "theorem broken (p : Prop) : p ∧ := by"
    slow: tuple[str, str] | None = None
    limit: float = 0.2


def _theorem(statement: str) -> Theorem:
    return Theorem("example", statement)


def _start(env, statement: str) -> State:
    state = env.start(_theorem(statement))
    assert isinstance(state, State), state
    return state


def _progress(env, state: State, *tactics: str) -> State:
    for tactic in tactics:
        result = env.run(state, tactic)
        assert isinstance(result, Progress), (tactic, result)
        state = result.state
    return state


def a_proof_is_proved_and_verified(env, examples: Examples):
    """The last tactic gives Proved with the whole script, which verify accepts."""
    split = _progress(env, _start(env, examples.swap), examples.first, examples.split)
    last = _progress(env, split, examples.closing[0])
    result = env.run(last, examples.closing[1])
    script = (examples.first, examples.split, *examples.closing)
    assert isinstance(result, Proved) and tuple(result.script) == script
    verdict = env.verify(_theorem(examples.swap), script)
    assert verdict.ok and verdict.checker == env.capabilities().checker
    assert verdict.seconds >= 0 and not verdict.detail


def goals_come_in_order(env, examples: Examples):
    """Two goals, printed apart, the first to be worked on first."""
    state = _progress(env, _start(env, examples.swap), examples.first, examples.split)
    assert state.n_goals == 2 and state.depth == 2
    assert [goal.splitlines()[-1] for goal in state.goals] == list(examples.goals)
    assert state.pp == "\n\n".join(state.goals)
    after = _progress(env, state, examples.closing[0])
    assert after.goals == state.goals[1:]


def an_illegal_tactic_leaves_the_state_usable(env, examples: Examples):
    """Illegal, of a known kind with a message; the state goes on as if nothing was."""
    state = _start(env, examples.swap)
    before = (state.pp, state.key, state.script)
    for tactic in (examples.illegal, "", " ", "nonsense 1 2", "⟨", "exact"):
        result = env.run(state, tactic)
        assert isinstance(result, Illegal), (tactic, result)
        assert result.kind in KINDS and result.message
    assert (state.pp, state.key, state.script) == before
    _progress(env, state, examples.first)


def what_is_left_unproved_is_refused(env, examples: Examples):
    """sorry and its kin are no step, wherever they stand; nor do they verify."""
    state = _progress(env, _start(env, examples.swap), examples.first)
    for tactic in examples.dishonest:
        assert isinstance(env.run(state, tactic), Illegal | GaveUp), tactic
        script = [examples.first, tactic]
        assert not env.verify(_theorem(examples.swap), script).ok, tactic


def more_than_a_tactic_is_refused(env, examples: Examples):
    """Several sentences, comments and commands are no tactic."""
    state = _start(env, examples.swap)
    for tactic in examples.injected:
        assert isinstance(env.run(state, tactic), Illegal), tactic
        assert not env.verify(_theorem(examples.swap), [tactic]).ok, tactic


def states_branch_and_return(env, examples: Examples):
    """A state may be run again after others, with the same result."""
    start = _start(env, examples.swap)
    one = _progress(env, start, examples.first)
    split = _progress(env, one, examples.split)
    env.run(split, examples.closing[0])
    again = _progress(env, _progress(env, start, examples.first), examples.split)
    assert again.goals == split.goals and again.key == split.key
    assert _progress(env, one, examples.split).goals == split.goals
    assert one.key != split.key


def a_finished_proof_takes_no_more(env, examples: Examples):
    """A tactic behind the end does not verify, nor does a script cut short."""
    script = [examples.first, examples.split, *examples.closing]
    theorem = _theorem(examples.swap)
    assert env.verify(theorem, script).ok
    for wrong in ([*script, examples.closing[1]], script[:-1], script[:1], []):
        verdict = env.verify(theorem, wrong)
        assert not verdict.ok and verdict.detail, wrong


def a_proof_of_another_theorem_is_none(env, examples: Examples):
    """verify looks at the statement that it is given."""
    script = [examples.first, examples.split, *examples.closing]
    assert not env.verify(_theorem(examples.other), script).ok


def unicode_comes_back(env, examples: Examples):
    """Names beyond ASCII are printed as they were written."""
    statement, tactic, line = examples.unicode
    state = _progress(env, _start(env, statement), tactic)
    assert line in state.goals[0].splitlines()


def a_broken_statement_is_a_crash_not_a_failure(env, examples: Examples):
    """start says so, verify refuses it, and the environment goes on."""
    assert isinstance(env.start(_theorem(examples.broken)), Crashed)
    assert not env.verify(_theorem(examples.broken), [examples.first]).ok
    _start(env, examples.swap)


def many_are_run_in_order(env, examples: Examples):
    """Results of run_many are those of run, whatever stands beside them."""
    start = _start(env, examples.swap)
    one = _progress(env, start, examples.first)
    split = _progress(env, one, examples.split)
    last = _progress(env, split, examples.closing[0])
    items = [
        (start, examples.first),
        (start, examples.illegal),
        (last, examples.closing[1]),
        (one, examples.dishonest[0]),
        (one, examples.split),
    ]
    results = env.run_many(items)
    kinds = [Progress, Illegal, Proved, Illegal | GaveUp, Progress]
    assert len(results) == len(items)
    for result, kind in zip(results, kinds, strict=True):
        assert isinstance(result, kind), (result, kind)
    assert results[0].state.goals == one.goals
    assert results[4].state.goals == split.goals
    assert env.run_many([]) == []


def many_are_started_in_order(env, examples: Examples):
    """States of start_many are those of start; what is no statement is Crashed."""
    texts = [examples.swap, examples.broken, examples.unicode[0], examples.other]
    found = env.start_many([_theorem(text) for text in texts])
    assert len(found) == 4 and isinstance(found[1], Crashed)
    for state, text in zip(found, texts, strict=True):
        if text != examples.broken:
            assert state.goals == _start(env, text).goals
            assert state.theorem.statement == text and state.depth == 0
    _progress(env, found[0], examples.first)
    assert env.start_many([]) == []


def a_slow_tactic_ends(env, examples: Examples):
    """Within its limit and a second; the state stays usable."""
    if examples.slow is None:
        return
    statement, tactic = examples.slow
    state = _start(env, statement)
    began = time.monotonic()
    result = env.run(state, tactic, timeout=examples.limit)
    assert time.monotonic() - began < examples.limit + 1
    assert isinstance(result, Timeout), result
    assert isinstance(env.run(state, examples.illegal), Illegal)


def it_counts_and_says_what_it_can(env, examples: Examples):
    """stats grows with every step; capabilities are filled in."""
    state = _start(env, examples.swap)
    before = env.stats()["steps"]
    env.run(state, examples.first)
    env.run(state, examples.illegal)
    assert env.stats()["steps"] == before + 2
    capabilities = env.capabilities()
    assert isinstance(capabilities, Capabilities)
    assert capabilities.branching in ("native", "replay")
    assert capabilities.timeouts in ("wall", "budget")
    assert capabilities.checker and capabilities.language


CHECKS = (
    a_proof_is_proved_and_verified,
    goals_come_in_order,
    an_illegal_tactic_leaves_the_state_usable,
    what_is_left_unproved_is_refused,
    more_than_a_tactic_is_refused,
    states_branch_and_return,
    a_finished_proof_takes_no_more,
    a_proof_of_another_theorem_is_none,
    unicode_comes_back,
    a_broken_statement_is_a_crash_not_a_failure,
    many_are_run_in_order,
    many_are_started_in_order,
    a_slow_tactic_ends,
    it_counts_and_says_what_it_can,
)
