"""A stand-in for the Lean 4 REPL: its protocol, over a tiny theorem language.

    python -m helpers.fake_lean_repl [--start-seconds=S] [--import-seconds=S]
        [--at-start=die|noise] [--log=FILE] [--old]

What it understands is legal Lean 4 with the same effect, so the same tests can run
against the real one: theorems of propositional logic with named hypotheses, and the
tactics of `TACTICS`. It reproduces what the protocol's documentation says, hard edges
included: lines are joined without a break, a second empty line or malformed JSON ends
the process, elaboration errors are recovered to sorry with no goals left, proof states
live on the environment before their command. Nothing is ever freed.

Faults come on demand, as tactics `fault NAME` that no real Lean knows:
"""

import argparse
import json
import os
import re
import sys
import time

from helpers.tiny_lean import DONE, LeanError, State, frozen, parsed_theorem, printed

FAULTS = {
    "hang": "never answers",
    "die": "ends with exit code 1 and a message on standard error",
    "die_half": "ends in the middle of a reply",
    "malformed": "answers with text that is no JSON",
    "not_an_object": "answers with a JSON list",
    "wrong_shape": "answers with goals that are no list",
    "forged": "prints a reply that says Completed, and then its own",
    "old_id": "answers with the id of an earlier proof state",
    "disguised_sorry": "no goals left, no error, 'Incomplete: contains sorry'",
    "metavariables": "no goals left, no error, 'Incomplete: contains metavariable(s)'",
    "kernel": "no goals left, the kernel refuses the term",
    "lying": "says Completed though nothing was proved",
    "contradiction": "says Completed beside an open goal",
    "error_with_goals": "an error message beside a new goal",
    "grow": "keeps 64 MiB more, and answers well",
    "grow_hang": "takes more and more memory without an answer",
    "stderr": "writes 300 kB on standard error, and answers well",
    "slow": "answers well after 0.3 s",
    "forget": "answers well, and knows none of its proof states after that",
}
__doc__ += "\n".join(f"    {name:<17}{what}" for name, what in FAULTS.items()) + (
    "\n\n`fault once NAME FILE` does so unless FILE exists, which it then makes; `fault"
    "\nspent FILE` answers well then, and is an unknown tactic ever after.\n"
    "\nA line `open Fault NAME`, or `open Fault once NAME FILE`, makes a command do so;"
    "\n`open Fault meet FOLDER N` makes it wait until N processes wait there.\n"
)
STARTS = r"(?:theorem|lemma|axiom|import|open|#print|set_option)\b"


def message(severity: str, data: str, line: int) -> dict:
    pos = {"line": line, "column": 0}
    return {"severity": severity, "pos": pos, "endPos": pos, "data": data}


class Repl:
    def __init__(self, options):
        self.options = options
        self.envs, self.states, self.kept, self.forgotten = [], [], [], 0

    def command(self, cmd: str, env: int | None, request: dict) -> dict:
        if env is not None and env >= len(self.envs):
            return {"message": "Unknown environment."}
        before = {"constants": {}} if env is None else self.envs[env]
        now = {"constants": dict(before["constants"])}
        messages, sorries = [], []
        self.tactics, self.roots = [], []
        starts = [m.start() for m in re.finditer(rf"^[ \t]*{STARTS}", cmd, re.M)]
        if cmd[: starts[0] if starts else None].strip():
            messages.append(message("error", "unexpected token; expected command", 1))
        for start, stop in zip(starts, [*starts[1:], None], strict=True):
            line = cmd.count("\n", 0, start) + 1
            text = cmd[start:stop].strip()
            found = self.one(text, line, env is None, now, before, messages, sorries)
            if found is not None:
                return found
        self.envs.append(now)
        traced = request.get("allTactics")
        reply = {
            "tactics": [self.traced(*t) for t in self.tactics] if traced else [],
            "sorries": sorries,
            "messages": messages,
            "env": len(self.envs) - 1,
        }
        if request.get("rootGoals"):
            reply["sorries"] = sorries + [self.entry(*root) for root in self.roots]
        reply = {k: v for k, v in reply.items() if v != []}
        fault = re.search(r"^open Fault (.*)$", cmd, re.M)
        return self.fault(lambda: reply, fault[1].split()) if fault else reply

    def entry(self, state, line, column) -> dict:
        self.states.append(state)
        return {
            "proofState": len(self.states) - 1,
            "pos": {"line": line, "column": column},
            "goal": "\n\n".join(map(printed, state.goals)),
            "endPos": {"line": line, "column": column + 5},
        }

    def traced(self, state, tactic, line) -> dict:
        entry = self.entry(state, line, 2)
        goals = entry.pop("goal")
        return entry | {"tactic": tactic, "goals": goals, "usedConstants": []}

    def one(self, text, line, fresh, now, before, messages, sorries):
        word = text.split()[0]
        if word == "import":
            if not fresh or line > 1:
                messages.append(message("error", "invalid 'import' command", line))
            elif text.split()[1].split(".")[0] not in ("Init", "Lean", "Mathlib"):
                return {"message": f"unknown module prefix '{text.split()[1]}'"}
            time.sleep(self.options.import_seconds)
        elif word == "#print":
            name = text.split()[-1]
            if name not in now["constants"]:
                messages.append(message("error", f"Unknown constant `{name}`", line))
                return None
            axioms = now["constants"][name][1]
            rests = f"depends on axioms: [{', '.join(axioms)}]"
            rests = rests if axioms else "does not depend on any axioms"
            messages.append(message("info", f"'{name}' {rests}", line))
        elif word == "axiom":
            _, name, _, claim = text.split(maxsplit=3)
            now["constants"][name] = [claim, [name]]
        elif word in ("theorem", "lemma"):
            self.theorem(text, line, now, before, messages, sorries)
        return None

    def theorem(self, text, line, now, before, messages, sorries):
        try:
            name, hyps, target, body = parsed_theorem(text)
        except SyntaxError as error:
            messages.append(message("error", str(error), line))
            return
        if name in now["constants"]:
            data = f"'{name}' has already been declared"
            messages.append(message("error", data, line))
            return
        goal = ["", hyps, target]
        if body in ("sorry", "by sorry"):
            state, at = State(before, [goal], root=goal), text.index("sorry")
            sorries.append(self.entry(state, line, at))
            uses = message("warning", "declaration uses `sorry`", line)
            messages.append(uses)
            now["constants"][name] = [target, ["sorryAx"]]
            return
        state, ok = State(now, [goal]), True
        self.roots.append((State(before, [goal], root=goal), line, 0))
        for tactic in filter(None, map(str.strip, body.split("\n"))):
            if tactic == "by":
                continue
            self.tactics.append((state, tactic, line))
            try:
                state, errors, _ = state.run(tactic.removeprefix("by "))
            except LeanError as error:
                errors = [str(error)]
            messages += [message("error", e, line) for e in errors]
            ok = ok and not errors
            if not ok:
                break
        if ok and state.goals:
            left = "unsolved goals\n" + "\n\n".join(map(printed, state.goals))
            messages.append(message("error", left, line))
            ok = False
        if "sorry" in state.marks or not ok:
            messages.append(message("warning", "declaration uses `sorry`", line))
            state.axioms.add("sorryAx")
        now["constants"][name] = [target, sorted(state.axioms)]

    def step(self, number: int, tactic: str) -> dict:
        if not self.forgotten <= number < len(self.states):
            return {"message": "Unknown proof state."}
        state = self.states[number]
        if tactic.startswith("fault "):
            words = tactic.split()[1:]
            if words[0] in ("disguised_sorry", "metavariables", "kernel", "lying"):
                mark = {"disguised_sorry": "sorry"}.get(words[0], words[0])
                return self.reply(State(state.env, [], state.marks | {mark}))
            return self.fault(lambda: self.reply(state), words)
        try:
            new, errors, sorried = state.run(tactic)
        except LeanError as error:
            return {"message": f"Lean error:\n{error}"}
        sorries = []
        for goal in sorried:
            self.states.append(State(new.env, [goal]))
            number = len(self.states) - 1
            sorries.append({"proofState": number, "goal": printed(goal)})
        return self.reply(new, errors, sorries)

    def reply(self, state, errors=(), sorries=()) -> dict:
        self.states.append(state)
        reply = {
            "sorries": list(sorries),
            "proofStatus": state.status(),
            "proofState": len(self.states) - 1,
            "messages": [message("error", e, 0) for e in errors],
            "goals": [printed(g) for g in state.goals],
        }
        if self.options.old:
            del reply["proofStatus"]
        return {k: v for k, v in reply.items() if v != [] or k == "goals"}

    def fault(self, answer, words):
        """Commits a fault in the place of `answer()`, or beside it."""
        name = words[0]
        if name == "spent":
            if os.path.exists(words[1]):
                return {"message": "Lean error:\n<input>:1:1: unknown tactic"}
            open(words[1], "w").close()
            return answer()
        if name == "once":
            if os.path.exists(words[2]):
                return answer()
            open(words[2], "w").close()
            name = words[1]
        if name == "meet":
            open(os.path.join(words[1], str(os.getpid())), "w").close()
            while len(os.listdir(words[1])) < int(words[2]):
                time.sleep(0.01)
        good = answer()
        text = json.dumps(good, indent=1)
        if name == "hang":
            time.sleep(3600)
        elif name == "die":
            sys.exit("Stack overflow detected. Aborting.")
        elif name == "die_half":
            sys.stdout.write(text[: len(text) // 2])
            sys.stdout.flush()
            os._exit(134)
        elif name == "malformed":
            say("uncaught exception: <not JSON>")
        elif name == "not_an_object":
            say(f"[{text}]")
        elif name == "wrong_shape":
            return good | {"goals": "no goals"}
        elif name == "forged":
            say(json.dumps(good | {"goals": [], "proofStatus": DONE}))
            time.sleep(0.05)
        elif name == "old_id":
            return good | {"proofState": 0}
        elif name == "contradiction":
            return good | {"proofStatus": DONE}
        elif name == "error_with_goals":
            return good | {"messages": [message("error", "something is wrong", 0)]}
        elif name == "grow":
            self.kept.append(b"x" * (64 << 20))
        elif name == "grow_hang":
            while True:
                self.kept.append(b"x" * (4 << 20))
                time.sleep(0.02)
        elif name == "stderr":
            sys.stderr.write("PANIC at nowhere: noise\n" * 12_500)
            sys.stderr.flush()
        elif name == "slow":
            time.sleep(0.3)
        elif name == "forget":
            self.forgotten = len(self.states)
        return None if name in ("malformed", "not_an_object") else good

    def answer(self, request: dict) -> dict | None:
        has = request.__contains__
        if has("proofState") and has("tactic"):
            return self.step(request["proofState"], request["tactic"])
        if has("pickleTo") and has("env"):
            if request["env"] >= len(self.envs):
                return {"message": "Unknown environment."}
            write(request["pickleTo"], self.envs[request["env"]])
            return {"env": request["env"]}
        if has("unpickleEnvFrom"):
            self.envs.append(read(request["unpickleEnvFrom"]))
            return {"env": len(self.envs) - 1}
        if has("pickleTo") and has("proofState"):
            if request["proofState"] >= len(self.states):
                return {"message": "Unknown proof State."}
            s = self.states[request["proofState"]]
            kept = [s.env, s.goals, sorted(s.marks), sorted(s.axioms)]
            write(request["pickleTo"], kept)
            return self.reply(s)
        if has("unpickleProofStateFrom"):
            env, goals, marks, axioms = read(request["unpickleProofStateFrom"])
            goals = [[g[0], [list(h) for h in g[1]], g[2]] for g in frozen(goals)]
            return self.reply(State(env, goals, marks, axioms))
        if has("cmd"):
            return self.command(request["cmd"], request.get("env"), request)
        if has("path"):
            try:
                with open(request["path"], encoding="utf-8") as file:
                    return self.command(file.read(), request.get("env"), request)
            except OSError as error:
                return {"message": f"no such file or directory ({error.strerror})"}
        sys.exit("uncaught exception: Could not parse as a valid JSON command")


def write(path: str, value) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


def read(path: str):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def say(text: str) -> None:
    sys.stdout.write(text + "\n\n")
    sys.stdout.flush()


def next_query(stream) -> str:
    """Lines up to an empty one, joined with nothing between them; "" at the end."""
    query = ""
    for line in stream:
        if not line.strip():
            return query or line
        query += line.rstrip()
    return query


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--start-seconds", type=float, default=0)
    parser.add_argument("--import-seconds", type=float, default=0)
    parser.add_argument("--at-start", choices=("die", "noise"))
    parser.add_argument("--log")
    parser.add_argument("--old", action="store_true", help="without proofStatus")
    options = parser.parse_args()
    time.sleep(options.start_seconds)
    if options.at_start == "die":
        sys.exit("error: unknown package")
    if options.at_start == "noise":
        say("info: downloading toolchain")
    sys.stdin.reconfigure(encoding="utf-8", newline="\n")
    sys.stdout.reconfigure(encoding="utf-8")
    repl = Repl(options)
    while query := next_query(sys.stdin):
        if query.startswith(("#", "--")):
            continue
        if options.log:
            with open(options.log, "a", encoding="utf-8") as file:
                file.write(query + "\n")
        try:
            request = json.loads(query)
        except ValueError as error:
            sys.exit(f"uncaught exception: Could not parse JSON:\n{error}")
        reply = repl.answer(request)
        if reply is not None:
            short = json.dumps(reply, ensure_ascii=False)
            long = json.dumps(reply, ensure_ascii=False, indent=1)
            say(short if len(short) <= 80 else long)


if __name__ == "__main__":
    main()
