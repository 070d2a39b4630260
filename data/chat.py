"""Chat templates: from a conversation to token ids with a loss weight on each.

A template turns a conversation into segments of text, each learned or not. Segments are
encoded one after another, so that a boundary of the loss is a boundary of tokens, and a
prompt has the same ids in training as in generation. Weights are 1 on what the
assistant has to produce, its end-of-turn token included, and 0 elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from data.batch import TokenBatch, TokenizedExample
from data.errors import DataError
from data.formats import Completion, Conversation, Turn, nearest
from data.segments import Segment, mark, split_marked
from data.tokenizers import Tokenizer

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
ALPACA_SYSTEM = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
ALPACA_SYSTEM_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides "
    "further context. Write a response that appropriately completes the request."
)

# A layout gets the turns and the tokenizer. After a final user turn it ends with
# whatever opens the assistant's turn.
Layout = Callable[[Sequence[Turn], Tokenizer], list[Segment]]


@dataclass(frozen=True)
class ChatTemplate:
    """A named layout bound to a tokenizer."""

    name: str
    tokenizer: Tokenizer
    layout: Layout

    def encode(self, content: Conversation | Completion) -> TokenizedExample:
        """Tokens [n] and weights [n] of a whole conversation.

        Raises DataError if the template cannot express it or nothing is learned."""
        segments = self.layout(_turns(content), self.tokenizer)
        tokens, weights = encode_segments(segments, self.tokenizer)
        example = TokenizedExample(
            np.asarray(tokens, np.int32), np.asarray(weights, np.float32)
        )
        if not example.weights[1:].any():
            raise DataError(f"template {self.name!r}: no token of this row is learned")
        return example

    def encode_prompt(self, content: Conversation | Completion) -> list[int]:
        """Ids to generate from: turns up to the last user's, the assistant's opened."""
        segments = self.layout(_prompt_turns(content), self.tokenizer)
        return encode_segments(segments, self.tokenizer)[0]

    def render_prompt(self, content: Conversation | Completion) -> str:
        """The same prompt as text, control tokens spelled out, for people to read."""
        segments = self.layout(_prompt_turns(content), self.tokenizer)
        bos = self.tokenizer.special_names.get("bos_token", "")
        return "".join(
            bos if s.bos else "".join(split_marked(s.text)) for s in segments
        )

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end the assistant's turn, the one this template teaches first."""
        probe = Conversation((Turn("user", "a"), Turn("assistant", "a", train=True)))
        example = self.encode(probe)
        taught = int(example.tokens[np.nonzero(example.weights)[0][-1]])
        return tuple(dict.fromkeys([taught, *self.tokenizer.stop_ids]))


def load_template(name: str | None, tokenizer: Tokenizer) -> ChatTemplate:
    """The template of the given name, or the checkpoint's own for None or 'checkpoint'.

    Raises DataError for an unknown name (suggesting the nearest), a checkpoint without
    a template, and a tokenizer that lacks the tokens a template is made of."""
    if name is None or name == "checkpoint":
        from data.jinja_chat import jinja_layout

        if tokenizer.chat_template is None:
            raise DataError(
                "template: this checkpoint has no chat template; "
                f"name one of {', '.join(LAYOUTS)}"
            )
        layout = jinja_layout(tokenizer.chat_template)
        return ChatTemplate("checkpoint", tokenizer, layout)
    if name not in LAYOUTS:
        near = nearest(name, LAYOUTS)
        hint = f"; did you mean {near!r}?" if near else ""
        raise DataError(
            f"template: expected 'checkpoint' or one of {', '.join(LAYOUTS)}, "
            f"got {name!r}{hint}"
        )
    needed = ("<|im_start|>", "<|im_end|>") if name == "chatml" else ()
    missing = [token for token in needed if token not in tokenizer.special]
    if tokenizer.eos_id is None and not needed:
        missing = ["an end-of-sequence token"]
    if missing:
        raise DataError(
            f"template {name!r} needs {' and '.join(missing)}, "
            "which this tokenizer does not have"
        )
    return ChatTemplate(name, tokenizer, LAYOUTS[name])


def encode_segments(
    segments: Sequence[Segment], tokenizer: Tokenizer
) -> tuple[list[int], list[float]]:
    """Token ids and weights; neighbours that are no answer are read as one."""
    tokens, weights = [], []

    def put(ids, weight):
        tokens.extend(ids)
        weights.extend([float(weight)] * len(ids))

    fresh = True  # at the start of a text, right behind a BOS or nothing
    for segment in _joined(segments):
        if segment.bos:
            put([tokenizer.bos_id], 0)
            fresh = True
            continue
        for i, piece in enumerate(split_marked(segment.text)):
            if piece:
                previous = None if fresh else tokens[-1]
                ids = tokenizer.encode(piece, control=i % 2 == 0, previous=previous)
                put(ids, bool(segment.train))
                fresh = False
    return tokens, weights


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    joined: list[Segment] = []
    for s in segments:
        last = joined[-1] if joined else None
        if last and not (s.bos or last.bos) and s.train is last.train is None:
            joined[-1] = Segment(last.text + s.text)
        else:
            joined.append(s)
    return joined


def show_weights(example: TokenizedExample, tokenizer: Tokenizer) -> str:
    """A line per token: place, id, weight, spelling; learned tokens stand out."""
    lines = ["place     id  weight  token"]
    for i, (token, weight) in enumerate(zip(*example, strict=True)):
        shown = f"{weight:6.3g}" if weight else "     ."
        lines.append(f"{i:5d} {token:6d}  {shown}  {tokenizer.token_text(token)!r}")
    return "\n".join(lines)


def show_batch(batch: TokenBatch, tokenizer: Tokenizer, rows: int = 1) -> str:
    """The first rows of a batch as `show_weights` prints them, segment by segment."""
    shown = []
    for b in range(min(rows, len(batch.tokens))):
        for segment in range(1, int(batch.segment_ids[b].max()) + 1):
            inside = batch.segment_ids[b] == segment
            example = TokenizedExample(
                batch.tokens[b][inside], batch.weights[b][inside]
            )
            shown.append(f"row {b}, segment {segment}, {inside.sum()} tokens")
            shown.append(show_weights(example, tokenizer))
    return "\n".join(shown)


def _turns(content: Conversation | Completion) -> tuple[Turn, ...]:
    if isinstance(content, Conversation):
        return content.turns
    answer = Turn("assistant", content.completion, train=True)
    return (Turn("user", content.prompt), answer)


def _prompt_turns(content: Conversation | Completion) -> tuple[Turn, ...]:
    turns = _turns(content)
    while turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    return turns


def _exchanges(name: str, turns: Sequence[Turn]):
    """The system text (None if there is none), and pairs (user, assistant or None)."""
    system = turns[0].full_text if turns and turns[0].role == "system" else None
    rest = turns[1:] if system is not None else turns
    for i, turn in enumerate(rest):
        expected = ("user", "assistant")[i % 2]
        if turn.role != expected:
            at = i + (system is not None)
            raise DataError(
                f"messages[{at}].role: template {name!r} alternates user and "
                f"assistant; expected {expected!r}, got {turn.role!r}"
            )
    answers = [*rest[1::2], None]
    return system, list(zip(rest[::2], answers, strict=False))


def _vicuna(turns, tokenizer):
    system, exchanges = _exchanges("vicuna_v1", turns)
    marked = partial(mark, special=tokenizer.special)
    eos = tokenizer.special_names["eos_token"]
    segments = [Segment(marked(VICUNA_SYSTEM if system is None else system) + " ")]
    for user, answer in exchanges:
        segments.append(Segment(f"USER: {marked(user.full_text)} ASSISTANT:"))
        if answer:
            segments.append(Segment(f" {marked(answer.full_text)}{eos}", answer.train))
    return _begin(tokenizer) + segments


def _alpaca(turns, tokenizer):
    system, exchanges = _exchanges("alpaca", turns)
    marked = partial(mark, special=tokenizer.special)
    eos = tokenizer.special_names["eos_token"]
    if system is None:
        with_input = bool(exchanges and exchanges[0][0].context)
        system = ALPACA_SYSTEM_WITH_INPUT if with_input else ALPACA_SYSTEM
    segments = [Segment(marked(system))]
    for user, answer in exchanges:
        context = f"\n\n### Input:\n{marked(user.context)}" if user.context else ""
        segments.append(
            Segment(
                f"\n\n### Instruction:\n{marked(user.text)}{context}\n\n### Response:"
            )
        )
        if answer:
            # In Stanford's data the answer follows the colon with nothing in between.
            segments.append(Segment(f"{marked(answer.full_text)}{eos}", answer.train))
    return _begin(tokenizer) + segments


def _llama2(turns, tokenizer):
    system, exchanges = _exchanges("llama2", turns)
    marked = partial(mark, special=tokenizer.special)
    eos = tokenizer.special_names["eos_token"]
    segments = []
    for i, (user, answer) in enumerate(exchanges):
        has_system = i == 0 and system is not None
        head = f"<<SYS>>\n{marked(system)}\n<</SYS>>\n\n" if has_system else ""
        # Every exchange is a text of its own, as in Meta's reference code.
        segments += [Segment("", bos=True)] if tokenizer.bos_id is not None else []
        segments.append(
            Segment(f"[INST] {head}{marked(user.full_text).strip()} [/INST]")
        )
        if answer:
            text = marked(answer.full_text).strip()
            segments.append(Segment(f" {text} {eos}", answer.train))
    return segments


def _chatml(turns, tokenizer):
    marked = partial(mark, special=tokenizer.special)
    segments = []
    for turn in turns:
        segments += [
            Segment(f"<|im_start|>{turn.role}\n"),
            Segment(
                f"{marked(turn.full_text)}<|im_end|>",
                turn.train if turn.role == "assistant" else None,
            ),
            Segment("\n"),
        ]
    if not turns or turns[-1].role != "assistant":
        segments.append(Segment("<|im_start|>assistant\n"))
    return segments


def _plain(turns, tokenizer):
    if [turn.role for turn in turns] not in (["user"], ["user", "assistant"]):
        raise DataError(
            "template 'plain' joins one prompt and one completion; "
            "name a chat template for conversations"
        )
    marked = partial(mark, special=tokenizer.special)
    segments = [Segment(marked(turns[0].full_text))]
    for answer in turns[1:]:
        eos = tokenizer.special_names["eos_token"]
        segments.append(Segment(marked(answer.full_text) + eos, answer.train))
    return _begin(tokenizer) + segments


def _begin(tokenizer):
    return [Segment("", bos=True)] if tokenizer.adds_bos else []


LAYOUTS: dict[str, Layout] = {
    "vicuna_v1": _vicuna,
    "alpaca": _alpaca,
    "llama2": _llama2,
    "chatml": _chatml,
    "plain": _plain,
}
