"""Steps per second of the embedded prover, on one core, printing and checks included.

    python -m research.benchmarks.minilean [--theorems 2000] [--rounds 5] [--repeats 8]

A step is one `run` of the environment: the tactic is read and applied, new goals are
printed, a proof that ends is checked by the kernel. Theorems are distinct: templates
with known proofs, filled with random formulas and numbers. "first" goes through each
proof once: the median of --rounds, each with --theorems that no other round has.
"searched" is "first" of yet others by way of `checking.Checker`, as a search runs them:
in its thread, every proof verified a second time from its script. "again" goes through
the last round's theorems --repeats times more, when much is remembered: no rate to
quote. "illegal" are tactics that do not apply. Time is the processor's; still, a busy
neighbour slows it.
"""

import argparse
import gc
import json
import random
import statistics
import time

from data.minilean import kernel
from data.minilean.parser import parse_statement
from research.lean_star.checking import Checker
from research.lean_star.embedded import EmbeddedEnvironment
from research.lean_star.environment import Illegal, Progress, Proved, Theorem

LOGIC = [
    ("(h : A ∧ B) : B ∧ A", "obtain ⟨a, b⟩ := h$constructor$exact b$exact a"),
    ("(h : A ∨ B) : B ∨ A", "rcases h with a | b$right$exact a$left$exact b"),
    ("(f : A → B) (g : B → C) : A → C", "intro a$apply g$apply f$exact a"),
    ("(f : A → B) : ¬B → ¬A", "intro g a$apply g$apply f$assumption"),
    ("(h : A ∧ B ∧ C) : (C ∧ A) ∧ B",
     "cases' h with a h$cases' h with b c$constructor$constructor$exact c$exact a$"
     "exact b"),
    ("(h : A ∨ B) (f : A → C) (g : B → C) : C",
     "rcases h with a | b$apply f$exact a$apply g$exact b"),
    (": (A → B → C) → (A ∧ B → C)",
     "intro f h$obtain ⟨a, b⟩ := h$apply f$exact a$exact b"),
    ("(h : A) (k : ¬A) : B ∧ C", "exfalso$apply k$exact h"),
    (": A ∧ (B ∨ C) → A ∧ B ∨ A ∧ C",
     "intro h$obtain ⟨a, b⟩ := h$rcases b with b | b$left$exact ⟨a, b⟩$right$"
     "constructor$exact a$exact b"),
    ("(h : A ↔ B) : B ↔ A", "constructor$intro b$exact h.2 b$intro a$exact h.1 a"),
]  # fmt: skip
NUMBERS = [
    ("(x y : ℤ) (h : x = y + I) (k : y = J) : x = J + I", "rw [h]$rw [k]"),
    ("(x y : ℤ) (h : x = y) (k : y < I) : x < I + J", "rw [← h] at k$linarith"),
    ("(x y : ℤ) (h : x ≤ y + I) (k : y ≤ J) : x ≤ J + I", "linarith"),
    ("(x y : ℤ) : (x + I * y) * (x - J) = x * x + I * x * y - J * x - J * I * y",
     "ring"),
    ("(P : ℕ → Prop) (h : ∀ n : ℕ, P n → P (n + I)) (k : P J) : P (J + I)",
     "apply h$exact k"),
    ("(P : ℤ → Prop) (h : ∃ x : ℤ, P (x + I)) : ∃ y : ℤ, P y",
     "obtain ⟨x, k⟩ := h$use x + I"),
    ("(s : ℕ → ℕ) (a : s 0 = J) (b : ∀ n : ℕ, s (n + 1) = s n + I) (n : ℕ) "
     ": s n = J + I * n",
     "induction' n with n ih$norm_num [a]$rw [b, ih]$ring"),
    ("(x : ℤ) (h : x = I) : x * x + J = I * I + J", "subst h$norm_num"),
]  # fmt: skip
WRONG = ("exact foo", "left", "apply h k", "rw [h]", "intro h", "linarith", "nonsense")


def formula(rng: random.Random, size: int) -> str:
    """A random proposition over p q r s, in parentheses."""
    if size == 0:
        return rng.choice("pqrs")
    op, left = rng.choice("∧∨→"), rng.randrange(size)
    parts = formula(rng, left), formula(rng, size - 1 - left)
    return f"({parts[0]} {op} {parts[1]})"


def theorems(templates, count: int, seed: int) -> list[tuple[Theorem, list[str]]]:
    """Distinct theorems with their scripts."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        text, script = rng.choice(templates)
        if templates is LOGIC:
            for name in "ABC":
                text = text.replace(name, formula(rng, rng.randint(0, 3)))
            text = f"(p q r s : Prop) {text}"
        for name in "IJ":
            number = str(rng.randint(2, 99))
            text, script = text.replace(name, number), script.replace(name, number)
        found[f"theorem t {text} := by"] = script.split("$")
    return [(Theorem("t", text), script) for text, script in found.items()]


def replay(env: EmbeddedEnvironment, problems) -> tuple[int, float, list]:
    """(steps, seconds, certificates) of every script, each to its end."""
    steps, certificates = 0, []
    states = [env.start(theorem) for theorem, _ in problems]
    began = time.process_time()
    for (theorem, script), state in zip(problems, states, strict=True):
        for tactic in script:
            result = env.run(state, tactic)
            steps += 1
            if type(result) is Proved:
                certificates.append(result.certificate)
                break
            if type(result) is Illegal:
                raise ValueError(f"{theorem.statement}: {tactic}: {result.message}")
            state = result.state
        else:
            raise ValueError(f"{theorem.statement}: goals are left")
    return steps, time.process_time() - began, certificates


def searched(env: EmbeddedEnvironment, problems) -> tuple[int, float]:
    """(steps, seconds) of every script as a search runs it: all first tactics, ..."""
    states = dict(enumerate(env.start_many([theorem for theorem, _ in problems])))
    steps, at = 0, 0
    began = time.process_time()
    with Checker(env) as checker:
        while states:
            for i, state in states.items():
                checker.put("search", i, state, problems[i][1][at])
            results = checker.results("search")
            steps, at = steps + len(results), at + 1
            for i, (result, _) in results.items():
                if type(result) is Proved:
                    del states[i]
                elif type(result) is Progress:
                    states[i] = result.state
                else:
                    raise ValueError(f"{problems[i][0].statement}: {result}")
    return steps, time.process_time() - began


def illegal(env: EmbeddedEnvironment, problems) -> tuple[int, float]:
    """(steps, seconds) of tactics that mostly do not apply."""
    states = [env.start(theorem) for theorem, _ in problems]
    began = time.process_time()
    for state in states:
        for tactic in WRONG:
            env.run(state, tactic)
    return len(states) * len(WRONG), time.process_time() - began


def measure(
    templates, count: int, rounds: int, repeats: int, seed: int
) -> dict[str, float]:
    """Rates per second of one kind of theorems."""
    everything, first = theorems(templates, count * (rounds + 1), seed), []
    for start in range(0, count * rounds, count):
        problems, env = everything[start : start + count], EmbeddedEnvironment()
        gc.collect()
        gc.freeze()  # the theorems are not the prover's garbage
        steps, seconds, certificates = replay(env, problems)
        first.append(steps / seconds)
    found = {"theorems": count, "steps": steps, "first/s": statistics.median(first)}
    found |= {"first/s min": min(first), "first/s max": max(first)}
    steps, seconds = searched(EmbeddedEnvironment(), everything[count * rounds :])
    found["searched/s"] = steps / seconds
    again = [replay(env, problems)[:2] for _ in range(repeats)]
    found["again/s"] = sum(s for s, _ in again) / sum(t for _, t in again)
    wrong, spent = illegal(env, problems)
    found["illegal/s"] = wrong / spent
    began = time.process_time()
    for statement, proof, _ in certificates:
        if not kernel.check(statement.binders, proof, statement.goal).ok:
            raise ValueError("the kernel changed its mind")
    found["kernel proofs/s"] = count / (time.process_time() - began)
    began = time.process_time()
    for theorem, _ in problems:
        parse_statement(theorem.statement)
    found["statements read/s"] = count / (time.process_time() - began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--theorems", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=8)
    args = parser.parse_args()
    results = {
        name: measure(templates, args.theorems, args.rounds, args.repeats, seed=0)
        for name, templates in (("logic", LOGIC), ("numbers", NUMBERS))
    }
    for name, rates in results.items():
        print(f"{name}:", ", ".join(f"{k} {v:,.0f}" for k, v in rates.items()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
