"""The texts that a model reads and writes, in both eras of the original code.

    base   states between `---` lines, tactics in ```lean4 (InternLM2-Math-base)
    plus   ChatML, states and tactics in ```lean (InternLM2-Math-plus)

each as `sft` (state -> tactic) or `cot` (state -> thought, tactic); `few-shot` shows a
model that was not tuned how the base era's tactics are written, and is never learned.
A prompt holds one state, and no thought before it: thoughts are not carried from step
to step. A target holds
everything that is learned, the mark that ends it included. A state has no line
"N goals"; goals stand apart by one blank line.

The layout of a thought and its tactic in `plus` was not published: the reasoning comes
first, the SFT answer after a blank line. What STaR learns is the model's own output,
word for word (`Format.own`).
"""

from dataclasses import dataclass
from typing import Literal

Era = Literal["base", "plus"]
Kind = Literal["sft", "cot", "few-shot"]
END = "<|im_end|>"
RULE = "---"
FENCE = "```"
ANSWER = "Here is the predicted next tactic:"
ASKS = {
    "sft": "Please predict a possible tactic to help me prove the theorem.",
    "cot": "Please write down the reasoning that leads to the possible next tactic and "
    "then predict the tactic to help me prove the theorem.",
}
KINDS = {"base": ("sft", "cot", "few-shot"), "plus": ("sft", "cot")}
Example = tuple[str, str]
# What a model that was not tuned is shown. The original's three are not these.
SHOTS: tuple[Example, ...] = (
    ("p q : Prop\nhp : p\nhq : q\n⊢ p ∧ q", "exact ⟨hp, hq⟩"),
    ("a b : ℕ\nh : a = b\n⊢ b + 0 = a", "rw [h, Nat.add_zero]"),
    ("x : ℝ\nh₀ : 2 * x + 1 = 7\n⊢ x = 3", "linarith"),
)


@dataclass(frozen=True)
class Format:
    """One era's texts with or without thoughts.

    Raises ValueError for another era or kind, and for plus with few-shot: its model
    knows how to answer.
    """

    era: Era
    kind: Kind

    def __post_init__(self):
        for name, value, known in (
            ("era", self.era, ("base", "plus")),
            ("kind", self.kind, KINDS.get(self.era, ())),
        ):
            if value not in known:
                raise ValueError(f"{name}: expected one of {known}, got {value!r}")

    @property
    def thinks(self) -> bool:
        """Whether a thought is written before the tactic."""
        return self.kind == "cot"

    def prompt(self, state: str) -> str:
        """What the model continues."""
        if self.era == "plus":
            return (
                f"<|im_start|>user\nMy LEAN 4 state is:\n{FENCE}lean\n{state}{FENCE}\n"
                f"{ASKS[self.kind]}{END}\n<|im_start|>assistant\n"
            )
        if self.kind == "few-shot":
            return few_shot(SHOTS, state)
        title = "Reasoning:" if self.thinks else "Next tactic:"
        return f"Tactic state:\n{RULE}\n{state}\n{RULE}\n{title}\n{RULE}\n"

    def target(self, tactic: str, thought: str | None = None) -> str:
        """What the model learns to write, to its end.

        Raises ValueError without a thought where one is written, and the other way;
        for a tactic with a fence, which could not be read back. One of several lines
        is a target of base SFT as well, though sampling would end at the first.
        """
        if (thought is None) == self.thinks:
            wanted = "a thought" if self.thinks else "no thought"
            raise ValueError(f"{self.era} {self.kind}: expected {wanted}")
        answer = f"{ANSWER}\n{FENCE}lean\n{tactic}\n{FENCE}{END}"
        if not self.thinks:
            text = f"{tactic}\n" if self.era == "base" else answer
        elif self.era == "base":
            answer = f"{FENCE}lean4\n{tactic}\n{FENCE}\n{RULE}"
            text = f"{thought}\n{RULE}\nNext tactic:\n{RULE}\n{answer}"
        else:
            text = f"{thought}\n\n{answer}"
        fenced = self.era == "plus" or self.thinks
        if fenced and self.tactic(text) != tactic.strip():
            raise ValueError(
                f"{self.era} {self.kind}: the tactic {tactic!r} cannot be read back"
            )
        return text

    def own(self, output: str) -> str:
        """A model's output, without its end or with it, as a target of STaR."""
        mark = {"plus": END, "base": "" if self.thinks else "\n"}[self.era]
        return output if mark and output.endswith(mark) else output + mark

    def tactic(self, output: str) -> str:
        """The tactic in an output: in its last fence, up to what closes it or a rule.

        Without a fence the whole output counts as the tactic, and is illegal by itself;
        in base SFT it is the first line, up to a rule, where the original's search
        stops as well.
        """
        if self.era == "base" and not self.thinks:
            return output.partition("\n")[0].partition(RULE)[0].strip()
        name = "lean4" if self.era == "base" else "lean"
        inside = output.split(f"{FENCE}{name}\n")[-1].partition(FENCE)[0]
        return inside.partition(RULE)[0].replace(END, "").strip()

    def thought(self, output: str) -> str:
        """What the output says before its tactic; "" where it writes none."""
        if not self.thinks:
            return ""
        name = "lean4" if self.era == "base" else "lean"
        before, fence, _ = output.rpartition(f"{FENCE}{name}\n")
        if not fence:
            return ""
        title = f"{RULE}\nNext tactic:\n{RULE}\n" if self.era == "base" else ANSWER
        return before.rstrip().removesuffix(title.rstrip()).strip()

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which sampling ends; they are part of the target."""
        if self.era == "plus":
            return (END,)
        return (f"{FENCE}\n{RULE}",) if self.thinks else ("\n",)


def few_shot(examples: tuple[Example, ...], state: str) -> str:
    """The base era's prompt for a model that was not tuned: examples, then the state.

    Each example (state, tactic) ends with a rule and a blank line.
    """
    asks = Format("base", "sft").prompt
    shown = (f"{asks(s)}{tactic}\n{RULE}\n\n" for s, tactic in examples)
    return "".join(shown) + asks(state)


def row(form: Format, state: str, tactic: str, thought: str | None = None) -> dict:
    """{prompt, completion} of one step, a row of the prompt shape."""
    return {"prompt": form.prompt(state), "completion": form.target(tactic, thought)}
