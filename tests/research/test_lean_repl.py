"""Lean 4 through its REPL: the protocol, and the rules by which a proof is one.

Against a stand-in, or, where LEAN_REPL names a real one (`make lean-check`), against
that: everything here but what is marked `stand_in` holds for both.
"""

import json

import pytest
from helpers.lean_backends import REAL, SWAP, settings, stand_in, started, used
from helpers.prover_conformance import CHECKS, Examples

from data.sets.lean import Statement
from research.lean_star import repl_protocol as protocol
from research.lean_star import repl_rules as rules
from research.lean_star.environment import (
    Crashed,
    Illegal,
    Progress,
    Proved,
    State,
    Theorem,
)
from research.lean_star.repl import LeanRepl, theorem_of
from research.lean_star.repl_protocol import (
    CommandReply,
    Message,
    Pos,
    Refusal,
    Sorry,
    StepReply,
)

FALSE = Theorem("false", "theorem false_one : False := by")
UNICODE = Theorem(
    "unicode", "theorem unicode (α₁ β' : Prop) (h𝕜 : α₁ ∧ ¬β') : ¬β' ∧ α₁ := by"
)


@pytest.fixture(scope="module")
def lean():
    with LeanRepl(used()) as made:
        yield made


@pytest.fixture(scope="module")
def lax():
    """Lets every text through to Lean: what its own answers must be judged by."""
    with LeanRepl(used(strict=False)) as made:
        yield made


@pytest.fixture(scope="module")
def raw():
    """ask(request): the process itself."""
    process = started()
    yield lambda request: process.ask(request, 300)
    process.close()


def proved(lean, theorem, *script):
    state = lean.start(theorem)
    for tactic in script[:-1]:
        state = lean.run(state, tactic).state
    return lean.run(state, script[-1])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, lean):
    """As every environment: a hang of the stand-in is what is slow."""
    examples = Examples()
    slow = None if REAL else (examples.swap, "fault hang")
    check(lean, Examples(slow=slow))


def test_a_proof_step_by_step_and_as_a_whole(lean):
    """Goals as Lean prints them, in its order; the last step proves; so says verify."""
    state = lean.start(SWAP)
    assert isinstance(state, State)
    assert state.pp == "p q : Prop\nhp : p\nhq : q\n⊢ q ∧ p"
    assert (state.n_goals, state.depth, state.theorem) == (1, 0, SWAP)
    both = lean.run(state, "constructor").state
    assert both.pp == (
        "case left\np q : Prop\nhp : p\nhq : q\n⊢ q\n\n"
        "case right\np q : Prop\nhp : p\nhq : q\n⊢ p"
    )
    assert (both.n_goals, both.depth) == (2, 1)
    right = lean.run(both, "exact hq").state
    assert right.goals == both.goals[1:]
    last = lean.run(right, "exact hp")
    assert isinstance(last, Proved)
    assert last.script == ("constructor", "exact hq", "exact hp")
    verdict = lean.verify(SWAP, last.script)
    assert (verdict.ok, verdict.axioms, verdict.detail) == (True, (), "")
    for script in (last.script[:-1], (*last.script, "exact hp"), (), ("", " ")):
        assert not lean.verify(SWAP, script).ok


def test_any_state_may_be_run_again(lean):
    """Branching: no result changes a state, legal or not, in any order."""
    state = lean.start(SWAP)
    goals = [lean.run(state, "constructor").state.goals for _ in range(2)]
    for tactic in ("exact hp", "nonsense", "exact nobody", "exact ⟨hq, hp⟩"):
        lean.run(state, tactic)
    assert lean.run(state, "constructor").state.goals == goals[0] == goals[1]
    assert isinstance(lean.run(state, "exact ⟨hq, hp⟩"), Proved)


def test_unicode_goes_there_and_back(lean):
    """Beyond the first plane as well; half of a surrogate pair never gets there."""
    state = lean.start(UNICODE)
    assert state.pp == "α₁ β' : Prop\nh𝕜 : α₁ ∧ ¬β'\n⊢ ¬β' ∧ α₁"
    assert isinstance(lean.run(state, "exact ⟨h𝕜.2, h𝕜.1⟩"), Proved)
    assert lean.verify(UNICODE, ["exact ⟨h𝕜.2, h𝕜.1⟩"]).ok
    assert lean.run(state, "exact \ud835") == Illegal("parse", "no Unicode text")
    assert not lean.verify(UNICODE, ["exact \ud835"]).ok


def test_rule_1_no_goals_left_is_not_success(lean, raw):
    """An unknown name is recovered to sorry: no goals, an error, and not proved."""
    env = raw(protocol.command(f"import {used().imports[0]}")).env
    opened = raw(protocol.command("theorem t (p : Prop) : p := by sorry", env))
    reply = raw(protocol.step(opened.sorries[0].proof_state, "exact my_fake_premise"))
    assert reply.goals == () and reply.status == "Incomplete: contains sorry"
    found = lean.run(lean.start(SWAP), "exact my_fake_premise")
    assert isinstance(found, Illegal) and found.kind == "elaboration"
    assert "my_fake_premise" in found.message


STATUSES = [
    "Incomplete: open goals remain", "Incomplete: contains sorry",
    "Incomplete: contains metavariable(s)", "Error: Goal not assigned",
    "Error: proof has type p but root goal has type q",
    "Error: kernel type check failed: (kernel) declaration has free variables",
    "Not verified: more than one initial goal", "completed", "", None,
]  # fmt: skip


def step_reply(goals=(), status="Completed", messages=(), sorries=()):
    return StepReply(1, goals, status, messages, sorries, ())


def said(severity, data="x"):
    return Message(severity, data, Pos(0, 0), Pos(0, 0))


def test_rule_2_success_is_completed_without_errors():
    """Of all statuses one, and that without a message of severity error."""
    assert rules.judge(step_reply()) == rules.Closed()
    for severity in ("trace", "info", "warning"):
        assert rules.judge(step_reply(messages=(said(severity),))) == rules.Closed()
    for status in STATUSES:
        assert isinstance(rules.judge(step_reply(status=status)), rules.Given)
    found = rules.judge(step_reply(messages=(said("error", "unsolved goals"),)))
    assert found == rules.Failed("elaboration", "unsolved goals")


def test_rule_3_an_error_makes_a_step_illegal(lean, raw):
    """Goals beside an error are no progress: the hypothesis rests on sorry."""
    env = raw(protocol.command(f"import {used().imports[0]}")).env
    opened = raw(protocol.command("theorem t (p : Prop) : p := by sorry", env))
    tactic = "have h : p := my_fake_premise"
    reply = raw(protocol.step(opened.sorries[0].proof_state, tactic))
    assert reply.goals and protocol.errors(reply.messages)
    found = lean.run(lean.start(SWAP), tactic)
    assert isinstance(found, Illegal) and found.kind == "elaboration"
    goals = ("⊢ p",)
    status = "Incomplete: open goals remain"
    assert rules.judge(step_reply(goals, status)) == rules.Open(goals, ())
    bad = step_reply(goals, status, (said("warning"), said("error", "no")))
    assert rules.judge(bad) == rules.Failed("elaboration", "no")


SORRIES = ("sorry", "admit", "have h : q := by sorry", "all_goals sorry", "exact sorry")


@pytest.mark.parametrize("tactic", SORRIES[:4])
def test_rule_4_a_sorry_is_illegal_at_its_step(lean, lax, tactic):
    """By its text, and by Lean's reply where the text is let through."""
    for used_one in (lean, lax):
        found = used_one.run(used_one.start(SWAP), tactic)
        assert isinstance(found, Illegal) and found.kind == "forbidden"
    assert "brings a sorry" in found.message
    assert not lean.verify(SWAP, [tactic]).ok
    assert lax.verify(SWAP, [tactic]).detail


def test_rule_4_by_what_the_reply_says():
    """A list of sorries, or a warning that something uses it: either is enough."""
    goals, status = ("⊢ p",), "Incomplete: open goals remain"
    entry = Sorry("⊢ q", 1, None, None)
    for reply in (
        step_reply(goals, status, sorries=(entry,)),
        step_reply(sorries=(entry,)),
        step_reply(messages=(said("warning", "declaration uses 'sorry'"),)),
        step_reply(messages=(said("warning", "declaration uses `sorry`"),)),
    ):
        found = rules.judge(reply)
        assert isinstance(found, rules.Failed) and found.kind == "forbidden"


def test_rule_5_a_theorem_does_not_see_itself(lean, lax, raw):
    """On the environment after its own sorry it would; ours is the header's alone."""
    env = raw(protocol.command(f"import {used().imports[0]}")).env
    after = raw(protocol.command("theorem ex : False := by sorry", env)).env
    opened = raw(protocol.command("theorem ey : False := by sorry", after))
    reply = raw(protocol.step(opened.sorries[0].proof_state, "exact ex"))
    assert reply.status == "Completed"  # the danger is real
    for used_one in (lean, lax):
        for _ in range(2):
            state = used_one.start(FALSE)
            for name in ("false_one", "salign_goal"):
                found = used_one.run(state, f"exact {name}")
                assert isinstance(found, Illegal), found
                assert not used_one.verify(FALSE, [f"exact {name}"]).ok
    assert not lax.verify(FALSE, ["exact (by assumption)"]).ok


@stand_in
def test_rule_5_every_command_is_on_the_headers_environment(tmp_path):
    """All that was asked: theorems and proofs on environment 0, then the axioms."""
    log = tmp_path / "log"
    made = settings(f"--log={log}")
    with LeanRepl(made) as lean:
        for theorem in (SWAP, FALSE, SWAP):
            lean.run(lean.start(theorem), "constructor")
        assert lean.verify(SWAP, ["exact ⟨hq, hp⟩"]).ok
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    commands = [r for r in asked if "cmd" in r]
    assert commands[0] == {"cmd": "import Init"}
    assert [r["env"] for r in commands[1:]] == [0, 0, 0, 0, 0, 5]
    assert commands[-1]["cmd"].startswith("#print axioms salign_")


def test_rule_6_what_is_said_instead_of_a_reply(lean, raw):
    """Parse errors and exceptions are illegal tactics, unknown ids are ours."""
    state = lean.start(SWAP)
    for tactic, kind in (
        ("nonsense", "parse"), ("exact hp", "elaboration"), ("exact hq)", "parse"),
        ("constructor; exact hq", "parse"), ("constructor\nexact hq", "parse"),
        ("", "parse"), ("  \n", "parse"),
    ):  # fmt: skip
        found = lean.run(state, tactic)
        assert isinstance(found, Illegal), (tactic, found)
        if kind == "parse":
            assert found.kind == kind, (tactic, found)
    for text, kind in (
        ("Lean error:\n<input>:1:1: unknown tactic", "parse"),
        ("Lean error:\nno goals to be proved", "no_goals"),
        ("Lean error:\nNo goals to be solved", "no_goals"),
        ("Lean error:\n(deterministic) timeout at `whnf`", "limits"),
        ("Lean error:\nmaximum recursion depth has been reached", "limits"),
        ("Lean error:\ntype mismatch", "elaboration"),
    ):
        found = rules.judge(Refusal(text))
        assert found == rules.Failed(kind, text.removeprefix("Lean error:\n"))
    for request in (protocol.step(10**6, "skip"), protocol.command("#eval 1", 10**6)):
        reply = raw(request)
        assert reply.message.startswith("Unknown ")
        assert isinstance(rules.judge(reply), rules.Unknown)


def test_rule_7_axioms_are_among_three(lax):
    """A false axiom of the header proves everything, step by step; verify says no."""
    cheat = FALSE._replace(header="axiom cheat : False")
    assert isinstance(proved(lax, cheat, "exact cheat"), Proved)
    verdict = lax.verify(cheat, ["exact cheat"])
    assert (verdict.ok, verdict.axioms) == (False, ("cheat",))
    assert verdict.detail == "rests on cheat"
    true = Theorem("t", "theorem t : True := by")
    assert lax.verify(true, ["trivial"]).ok
    trusted = lax.verify(true, ["native_decide"])
    assert not trusted.ok and not set(trusted.axioms) <= rules.AXIOMS


INJECTIONS = [
    "exact cheat\n\naxiom cheat : False", "trivial\n\ntheorem u : True := by",
    "set_option autoImplicit true in exact hp", "open Classical in exact hp",
    "run_tac IO.println 1", "exact (by native_decide)", "exact sorryAx _ false",
    "exact Lean.sorryAx _", "exact Lean.ofReduceBool _ _ _", "#eval 1", "stop",
    "exact hp #exit", "exact hp -- so", "exact /- so -/ hp", "exact hp \0",
    'macro "x" : tactic => `(tactic| sorry)',
    "exact by_elab return .bvar 0", "unsafe exact hp", "exact decl_name%",
]  # fmt: skip


@pytest.mark.parametrize("tactic", INJECTIONS)
def test_rule_7_what_could_change_the_question_never_gets_there(lean, tactic):
    """Illegal as a step, and no proof as a whole: words of commands and of trust."""
    assert rules.forbidden(tactic)
    found = lean.run(lean.start(SWAP), tactic)
    assert isinstance(found, Illegal) and found.kind == "forbidden"
    assert "may not be in a tactic" in lean.verify(SWAP, [tactic]).detail


@pytest.mark.parametrize(
    "tactic",
    [
        "simp only [Function.comp_def, h.end, IsOpen.inter]", "exact h.open.sorry_free",
        "rw [sorryless]", "nlinarith [sq_nonneg (a - b)]", "exact #[1, 2].size_toList",
        "refine ⟨?_, fun x hx => ?_⟩", "cases h with | inl h => exact h | inr h => rfl",
        "exact (#s).pos", "simp_all (config := { decide := true })", "norm_num",
    ],
)  # fmt: skip
def test_ordinary_tactics_are_not_forbidden(tactic):
    """Whole words only, not their parts, nor the parts of dotted names."""
    assert rules.forbidden(tactic) is None


def test_injected_declarations_prove_nothing_false(lax):
    """Without the filter: whatever comes after the proof is about something else."""
    for script in (
        ["exact cheat\n\naxiom cheat : False"],
        ["sorry\n\ntheorem salign : True := by", "trivial"],
        ["exact f\n\naxiom f : False", "theorem g : False := by", "exact f"],
    ):
        assert not lax.verify(FALSE, script).ok


@pytest.mark.parametrize(
    ("statement", "text", "name"),
    [
        ("theorem t (p : Prop) : p := by", "theorem X (p : Prop) : p", "X"),
        ("theorem t : p :=\n  by sorry", "theorem X : p", "X"),
        ("lemma A.B.t.{u} {α : Type u} : p", "theorem A.B.X.{u} {α : Type u} : p",
         "A.B.X"),
        ("@[simp]\ntheorem t: p := sorry", "@[simp]\ntheorem X: p", "X"),
        ("example (p : Prop) : p → p := by", "theorem X (p : Prop) : p → p", "X"),
        ("∀ p : Prop, p → p", "theorem X : ∀ p : Prop, p → p", "X"),
        ("(p : Prop) (hp : p) : p", "theorem X (p : Prop) (hp : p) : p", "X"),
        ("(p → q) → r", "theorem X : (p → q) → r", "X"),
        ("theorem t (h : a = b := by simp) : p", "theorem X (h : a = b := by simp) : p",
         "X"),
        ("theorem «a b» : p", "theorem X : p", "X"),
        ("theorem A.«b.c».«d : e» (h : p) : p", "theorem A.«b.c».X (h : p) : p",
         "A.«b.c».X"),
        ("/-- theorem := -/ theorem t : -- :=\nlet x := 1; x = 1",
         "/-- theorem := -/ theorem X : -- :=\nlet x := 1; x = 1", "X"),
    ],
)  # fmt: skip
def test_statements_become_theorems_without_a_proof(statement, text, name):
    """Under a name of ours, in the namespace of theirs."""
    assert rules.declared(statement, "X") == (text, name)
    assert (
        rules.opening(text, 9) == f"set_option maxHeartbeats 9 in\n{text} := by sorry"
    )
    assert rules.whole(text, ("a", "b\n| c"), 0) == f"{text} := by\n  a\n  b\n  | c"


@pytest.mark.parametrize(
    "statement",
    ["theorem t : True := trivial", "theorem t : True := by trivial", "True := trivial",
     "theorem t : let x := 1; x = 1 := rfl", "theorem t (h : p := by simp) : p := h",
     "def f := 1\ntheorem t : f = 1", "theorem t : p\ntheorem u : p"],
)  # fmt: skip
def test_statements_with_a_proof_or_more_are_refused(statement):
    with pytest.raises(ValueError, match="expected"):
        rules.declared(statement, "X")


def test_axioms_are_read_from_one_message_alone():
    """However it is broken into lines; about this theorem; and nothing beside it."""

    def reply(*messages):
        return CommandReply(1, messages, (), (), None)

    none = said("info", "'A.t' does not depend on any axioms")
    some = said("info", "'A.t' depends on axioms: [propext,\n Classical.choice]")
    assert rules.axioms_of(reply(none), "A.t") == ()
    assert rules.axioms_of(reply(some), "A.t") == ("propext", "Classical.choice")
    for bad in (
        reply(), reply(none, none), reply(said("error", none.data)),
        reply(said("info", "'t' does not depend on any axioms")), Refusal("no"),
        reply(said("info", none.data + "\n" + none.data)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected the axioms of A.t"):
            rules.axioms_of(bad, "A.t")


@stand_in
def test_an_old_repl_proves_nothing():
    """Without proofStatus there is no check to rely on: given up, and said why."""
    with LeanRepl(settings("--old")) as lean:
        found = proved(lean, SWAP, "constructor", "exact hq", "exact hp")
        assert "does not check the proof" in found.reason
        verdict = lean.verify(SWAP, ["exact ⟨hq, hp⟩"])
        assert not verdict.ok and "does not check the proof" in verdict.detail


@stand_in
def test_problems_of_minif2f_are_theorems():
    """The published statement under the header of its files, imported once."""
    fields = ("two", "theorem two (p : Prop)\n    (h₂ : p) : p", "test", "f", "u", "c")
    theorem = theorem_of(Statement(*fields))
    assert theorem.source == "u@c" and theorem.split == "test"
    with LeanRepl(settings()) as lean:
        assert lean.start(theorem).pp == "p : Prop\nh₂ : p\n⊢ p"
        assert lean.verify(theorem, ["exact h₂"]).ok
        assert lean.stats()["started"] == 1


def test_counts_add_up():
    """Every step is in exactly one count of results."""
    with LeanRepl(used()) as lean:
        state = lean.start(SWAP)
        tactics = ("constructor", "exact hp", "sorry", "exact ⟨hq, hp⟩", "nonsense")
        results = lean.run_many([(state, t) for t in tactics])
        assert isinstance(results[0], Progress) and isinstance(results[3], Proved)
        stats = lean.stats()
        kinds = [k for k in stats if k.startswith(("illegal/", "progress", "proved"))]
        assert sum(stats[k] for k in kinds) == stats["steps"] == 5
        assert stats["started"] == stats["state"] == 1 and stats["seconds"] > 0
        assert lean.capabilities().language == "lean4"
    found = lean.run(state, "constructor")
    assert isinstance(found, Crashed) and "closed" in found.reason
