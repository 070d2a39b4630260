"""Small files as LeanDojo and miniF2F are published, their projects, and a checkpoint.

The theorems are such as the stand-in of the REPL understands, all proved by one tactic
or two. The model is random; trained on a dozen steps, it proves some by luck.
"""

import json
import shlex
from pathlib import Path
from typing import NamedTuple

import jax
from helpers.entry import write_rows
from helpers.lean_backends import FAKE

from data.tokenizers import word_tokenizer
from models import decoder
from models.config import DecoderConfig
from models.pretrained import save_pretrained
from research.lean_star.formats import ASKS, END, SHOTS, Format

TESTS = Path(__file__).parents[1]
LICENCE = "/- A licence, which says: theorem. -/\n"
URL = "https://github.com/leanprover-community/mathlib4"
# (name, binders and goal, [(state, tactic)])
TRIVIAL = ("⊢ True", "trivial")
OWN = ("p : Prop\nhp : p\n⊢ p", "assumption")
BOTH = ("p : Prop\nhp : p\n⊢ p ∧ True", "constructor")
PROOFS = {
    "top": (": True", [TRIVIAL]),
    "own": ("(p : Prop) (hp : p) : p", [OWN]),
    "both": (
        "(p : Prop) (hp : p) : p ∧ True",
        [
            BOTH,
            ("case left\np : Prop\nhp : p\n⊢ p\n\ncase right\np : Prop\nhp : p\n⊢ True",
             "assumption"),
            ("case right\np : Prop\nhp : p\n⊢ True", "trivial"),
        ],
    ),
}  # fmt: skip


class LeanFiles(NamedTuple):
    """Where the files are; project: of the sources, the REPL runs anywhere."""

    train: str
    test: str
    minif2f: str
    thoughts: str
    project: str


def written(name: str, kind: str) -> str:
    """A theorem as it stands in a file."""
    statement, steps = PROOFS[kind]
    tactics = "\n".join(f"  {tactic}" for _, tactic in steps)
    return f"theorem {name} {statement} := by\n{tactics}\n"


def source(project: Path, file: str, theorems: dict[str, str]) -> list[dict]:
    """A file of the project, and LeanDojo's rows of its theorems, by name and kind."""
    text, rows = f"{LICENCE}import Init\n", []
    for name, kind in theorems.items():
        text += "\n"
        start = text.count("\n") + 1
        own = written(name, kind)
        text += own
        last = own.rstrip("\n").split("\n")
        steps = PROOFS[kind][1]
        after = [state for state, _ in steps[1:]] + ["no goals"]
        rows.append({
            "url": URL,
            "commit": "fe4454af900584467d21f4fd4fe951d29d9332a7",
            "file_path": file,
            "full_name": name,
            "start": [start, 1],
            "end": [start + len(last) - 1, len(last[-1]) + 1],
            "traced_tactics": [
                {
                    "tactic": tactic,
                    "annotated_tactic": [tactic, []],
                    "state_before": counted(state),
                    "state_after": counted(end),
                }
                for (state, tactic), end in zip(steps, after, strict=True)
            ],
        })  # fmt: skip
    path = project / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return rows


def counted(state: str) -> str:
    """As LeanDojo prints it: several goals are counted in a first line."""
    goals = state.count("⊢")
    return f"{goals} goals\n{state}" if goals > 1 else state


def thought(state: str) -> str:
    """A thought for a state."""
    target = state.partition("⊢ ")[2].partition("\n")[0]
    return f"The goal is {target}."


def write_lean(folder: Path) -> LeanFiles:
    """Four theorems to learn from, two of another split, two of miniF2F-test."""
    project = folder / "project"
    train = source(project, "Lib/One.lean", {"a1": "top", "a2": "own"})
    train += source(project, "Lib/Two.lean", {"b1": "both", "b2": "top"})
    test = source(project, "Lib/Three.lean", {"c1": "both", "c2": "own"})
    made = LeanFiles(
        *(str(folder / name) for name in (
            "train.json", "test.json", "minif2f.jsonl", "thoughts.jsonl", "project",
        ))
    )  # fmt: skip
    for path, rows in ((made.train, train), (made.test, test)):
        Path(path).write_text(json.dumps(rows))
    write_rows(
        Path(made.minif2f),
        [
            {
                "full_name": f"mathd_{kind}_{split}",
                "statement": f"theorem mathd_{kind} {PROOFS[kind][0]}",
                "url": "https://github.com/yangky11/miniF2F-lean4",
                "commit": "9e445f5",
                "file_path": "MiniF2F/Test.lean",
                "split": split,
            }
            for split in ("valid", "test")
            for kind in ("top", "both")
        ],
    )
    write_rows(
        Path(made.thoughts),
        [
            {
                "state": state,
                "thought": thought(state),
                "tactic": tactic,
                "full_name": row["full_name"],
                "file_path": row["file_path"],
            }
            for row, kind in zip(train, ("top", "own", "both", "top"), strict=True)
            for state, tactic in PROOFS[kind][1]
        ],
    )
    return made


def repl() -> str:
    """The stand-in's command, run in any folder."""
    start = f"cd {shlex.quote(str(TESTS))} && exec {shlex.join(FAKE)}"
    return shlex.join(["sh", "-c", start])


def checkpoint(folder: Path) -> Path:
    """A random Llama that knows the words of these states, in both formats."""
    texts = [Format(era, kind).prompt("") for era in ("base", "plus")
             for kind in ("sft", "cot")]  # fmt: skip
    words = {"case left", "case right", "p", "hp", "Prop", "True", "⊢", "∧", ":"}
    words |= {"trivial", "assumption", "constructor", "The goal is", "."}
    words |= {" ", "\n", "---", "```", "lean4", "lean", "Next tactic:", "Reasoning:"}
    words |= {"Here is the predicted next tactic:", *ASKS.values(), END}
    words |= {"<|im_start|>", "user", "assistant", "Tactic state:"}
    words |= {"My LEAN 4 state is:"}
    # The letters of all else: prompts with examples, and texts of prompts.
    letters = set("".join(["".join(x) for x in SHOTS] + texts))
    tokenizer = word_tokenizer(sorted(words | letters))
    cfg = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        d_model=32,
        n_layers=1,
        n_heads=2,
        n_kv_heads=1,
        head_dim=16,
        d_ff=32,
        max_position=512,
        init_std=0.1,
    )
    params = decoder.init_params(cfg, jax.random.key(0))
    save_pretrained(folder, cfg, params, tokenizer_files=tokenizer.files.contents)
    return folder
