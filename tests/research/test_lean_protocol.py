"""The REPL's protocol, request by request, against the stand-in or a real one."""

import json
import shlex
import subprocess

import pytest
from helpers.lean_backends import FAKE, TESTS, stand_in, started, used
from hypothesis import given
from hypothesis import strategies as st

from research.lean_star import lean_check
from research.lean_star import repl_protocol as protocol
from research.lean_star.repl import settings_from_environment
from research.lean_star.repl_process import Died, ReplProcess
from research.lean_star.repl_protocol import (
    CommandReply,
    Pos,
    ProtocolError,
    Refusal,
    Sorry,
)
from research.lean_star.repl_worker import ReplSettings


@pytest.fixture
def raw():
    """ask(request): the process itself."""
    process = started()
    yield lambda request: process.ask(request, 300)
    process.close()


def test_the_whole_protocol(raw, tmp_path):
    """Commands, options, files, both kinds of pickles: each reply as documented."""
    env = raw(protocol.command(f"import {used().imports[0]}")).env
    proof = "theorem t (p : Prop) (hp : p) : p := by\n  exact hp"
    done = raw(protocol.command(proof, env, all_tactics=True, root_goals=True))
    assert isinstance(done, CommandReply) and not protocol.errors(done.messages)
    (tactic,) = done.tactics
    assert (tactic.tactic, tactic.goals) == ("exact hp", "p : Prop\nhp : p\n⊢ p")
    (root,) = done.sorries  # into tactic mode of a finished proof
    for number in (tactic.proof_state, root.proof_state):
        assert raw(protocol.step(number, "assumption")).status == "Completed"
    file = tmp_path / "t.lean"
    file.write_text("theorem u : 2 = 2 := by\n  rfl\n")
    assert isinstance(raw(protocol.file(str(file), all_tactics=True)), CommandReply)
    assert isinstance(raw(protocol.file(str(tmp_path / "none"))), Refusal)
    env_file, state_file = tmp_path / "env.olean", tmp_path / "state.olean"
    assert raw(protocol.pickle_env(done.env, str(env_file))).env == done.env
    back = raw(protocol.unpickle_env(str(env_file))).env
    assert back > done.env
    twice = raw(protocol.command(proof, back))  # the environment knows t
    assert protocol.errors(twice.messages) and twice.env > back
    kept = raw(protocol.pickle_state(root.proof_state, str(state_file)))
    assert kept.proof_state > root.proof_state and kept.goals == (root.goal,)
    again = raw(protocol.unpickle_state(str(state_file), env))
    assert again.goals == kept.goals and again.proof_state > kept.proof_state
    assert raw(protocol.step(again.proof_state, "exact hp")).status == "Completed"
    for request in (
        protocol.pickle_env(10**6, str(env_file)),
        protocol.pickle_state(10**6, str(state_file)),
    ):
        assert raw(request).message.startswith("Unknown ")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.integers(0))
def test_a_request_is_one_line_and_an_empty_one(text, env):
    """Whatever the text: two line breaks, at the end; the same text comes out."""
    for request in (protocol.command(text, env), protocol.step(env or 0, text)):
        sent = protocol.encode(request)
        assert sent.count(b"\n") == 2 and sent.endswith(b"\n\n")
        assert json.loads(sent) == request and sent[:1] == b"{"


def test_options_that_are_not_given_are_not_sent():
    """Written out: absent, not null, which other versions may not take."""
    assert protocol.encode(protocol.command("a\nb")) == b'{"cmd":"a\\nb"}\n\n'
    assert protocol.command("c", 0, True, True, "full") == {
        "cmd": "c", "env": 0, "allTactics": True, "rootGoals": True, "infotree": "full"
    }  # fmt: skip
    assert protocol.file("f", 1) == {"path": "f", "env": 1}
    assert protocol.unpickle_state("f") == {"unpickleProofStateFrom": "f"}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "not JSON"), ("{", "not JSON"), ("[]", "expected a JSON object"),
        ("{}", "expected env, proofState or message"),
        ('{"env": -1}', "env: expected 0"), ('{"env": true}', "env: expected int"),
        ('{"message": 3}', "message: expected str"),
        ('{"proofState": 1}', "goals: expected a list of strings, got None"),
        ('{"proofState": 1, "goals": [1]}', "goals: expected a list of strings"),
        ('{"proofState": 1, "goals": [], "proofStatus": 1}', "proofStatus: expec"),
        ('{"env": 1, "messages": [{"severity": "bad", "data": ""}]}', "severity: exp"),
        ('{"env": 1, "messages": [{"severity": "info"}]}', "data: expected str"),
        ('{"env": 1, "sorries": {}}', "sorries: expected a list of objects"),
        ('{"env": 1, "sorries": [{"goal": "", "pos": {"line": 1}}]}', "column: exp"),
    ],
)  # fmt: skip
def test_malformed_replies_name_what_is_wrong(text, field):
    """A reply that is not as documented is an error, never half a reply."""
    with pytest.raises(ProtocolError, match=field):
        protocol.decode(text.encode())


def test_a_reply_of_the_documentation_is_read():
    """Its own example, pretty-printed over lines, with a field that is not known."""
    reply = protocol.decode(
        b"""{"sorries":
 [{"pos": {"line": 1, "column": 18},
   "endPos": {"line": 1, "column": 23},
   "goal": "\\n\\u22a2 Nat"}],
 "messages":
 [{"severity": "error",
   "pos": {"line": 1, "column": 23},
   "endPos": {"line": 1, "column": 26},
   "data": "type mismatch"}],
 "infotree": [{"node": {}, "children": []}], "more": 1,
 "env": 6}"""
    )
    assert reply.env == 6 and reply.tactics == () and reply.infotree[0]["node"] == {}
    place = Pos(1, 18), Pos(1, 23)
    assert reply.sorries == (Sorry("\n⊢ Nat", None, *place),)
    assert protocol.errors(reply.messages) == ["type mismatch"]
    assert reply.messages[0].pos == Pos(1, 23)


@stand_in
def test_the_stand_in_has_the_hard_edges_of_the_documentation():
    """Lines are joined bare; comments have no reply; an empty line too many ends it."""

    def talk(text):
        done = subprocess.run(
            FAKE, input=text.encode(), cwd=TESTS, capture_output=True, timeout=60
        )
        replies = done.stdout.decode().split("\n\n")
        assert replies.pop() == ""
        return done.returncode, [json.loads(r) for r in replies], done.stderr.decode()

    code, replies, _ = talk('{"cmd": "theorem t : True :=\n  by trivial"}\n\n# hm\n\n')
    assert (code, len(replies)) == (0, 1) and replies[0]["env"] == 0
    code, (reply,), _ = talk('{"cmd": "theorem t : True := by\nsorry"}\n\n')
    assert reply["messages"][0]["severity"] == "error"  # bysorry
    code, replies, complaint = talk('{"cmd": "import Init"}\n\n\n{"cmd": "#x"}\n\n')
    assert (code, len(replies)) == (1, 1) and "Could not parse JSON" in complaint
    assert talk('{"comd": "x"}\n\n')[0] == talk("{\n\n")[0] == 1


def test_settings_come_from_the_environment():
    """The command as a shell reads it; without one the error says what to set."""
    made = settings_from_environment(
        {"LEAN_REPL": "lake env 'my repl'", "LEAN_REPL_PROJECT": "/p"}, heartbeats=7
    )
    assert made.command == ("lake", "env", "my repl")
    assert (made.cwd, made.imports, made.heartbeats) == ("/p", ("Init",), 7)
    several = {"LEAN_REPL": "r", "LEAN_REPL_IMPORTS": "Mathlib Aesop"}
    assert settings_from_environment(several).imports == ("Mathlib", "Aesop")
    with pytest.raises(ValueError, match="LEAN_REPL: expected the command"):
        settings_from_environment({})
    for fields in ({"command": ()}, {"imports": ()}, {"tactic_seconds": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(fields))}: expected"):
            ReplSettings(**({"command": ("r",)} | fields))
    with pytest.raises(Died, match="cannot be started"):
        ReplProcess(("/nowhere/repl",))


@stand_in
def test_lean_check_says_clearly_where_no_lean_is(monkeypatch, capsys):
    """Exit code 2 and what to set; with a REPL, the tests that are meant for both."""
    ran = []
    monkeypatch.setattr(lean_check.subprocess, "call", lambda c: ran.append(c) or 1)
    for command, code, says in (
        ("", 2, "error: LEAN_REPL: expected the command of a Lean 4 REPL"),
        ("/nowhere/repl", 2, "cannot be started"),
        (shlex.join(FAKE), 1, ""),
    ):
        monkeypatch.setenv("LEAN_REPL", command)
        monkeypatch.setenv("LEAN_REPL_PROJECT", str(TESTS))
        monkeypatch.setattr(lean_check, "settings_from_environment", quick)
        with pytest.raises(SystemExit) as ended:
            lean_check.main()
        assert ended.value.code == code and says in capsys.readouterr().err
    (command,) = ran
    assert [TESTS.parent / path for path in command[-2:]] == [
        TESTS / "research" / f"test_lean_{name}.py" for name in ("protocol", "repl")
    ]


def quick(variables):
    return settings_from_environment(variables, restarts=1)
