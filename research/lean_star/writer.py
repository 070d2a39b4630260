"""The model as a writer of tactics: the one place where proof search meets the sampler.

A prompt holds one state; a completion is read back by the same format that training
wrote it in.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from data.batch import TokenizedExample
from data.tokenizers import Tokenizer
from models.beam import beam_search
from models.config import DecoderConfig
from models.sampler import stream
from models.sampling import Sampling
from research.lean_star.formats import END, Format
from research.lean_star.search import Written
from research.lean_star.settings import Drawn


class Codec(NamedTuple):
    """A format's texts as tokens of a model."""

    tokenizer: Tokenizer
    form: Format

    def prompt(self, state: str) -> list[int]:
        """The ids that the model continues, behind a BOS where the model has one."""
        ids = self._encode(self.form.prompt(state))
        return [self.tokenizer.bos_id, *ids] if self.tokenizer.adds_bos else ids

    def example(self, state: str, target: str) -> TokenizedExample:
        """Tokens [n] and weights [n]: the loss covers the target, and the EOS behind.

        As in the original, where the format ends a target by itself.
        """
        prompt = self.prompt(state)
        learned = self._encode(target, previous=prompt[-1]) + [self.tokenizer.eos_id]
        tokens = np.array([*prompt, *learned], np.int32)
        weights = np.repeat([0.0, 1.0], [len(prompt), len(learned)])
        return TokenizedExample(tokens, weights.astype(np.float32))

    def text(self, ids: Sequence[int]) -> str:
        """A completion as text, with the mark that ends it."""
        skip = self.form.era == "base"
        return self.tokenizer.decode(ids, skip_special=skip)

    def stops(self) -> tuple[tuple[int, ...], ...]:
        """The last tokens of a target: sampling may end there.

        Where a tokenizer spells the end of another target in another way, its EOS ends
        the completion.
        """
        thought = "The goal is p." if self.form.thinks else None
        ids = self._encode(self.form.target("exact h1", thought))
        for n in range(1, len(ids)):
            if any(stop in self.text(ids[-n:]) for stop in self.form.stops):
                return (tuple(ids[-n:]),)
        return ()

    def _encode(self, text: str, previous: int | None = None) -> list[int]:
        marks = self.form.era == "plus" and END in self.tokenizer.special
        return self.tokenizer.encode(text, control=marks, previous=previous)


class ModelWriter:
    """A decoder that writes tactics, see `search.Writer`.

    key: PRNG key of all that is drawn; a completion depends on it, the state and the
    row alone.
    """

    def __init__(
        self, cfg: DecoderConfig, params: Any, codec: Codec, drawn: Drawn, key=None
    ):
        self.codec, self.drawn = codec, drawn
        rules = Sampling(
            temperature=drawn.temperature,
            eos_ids=codec.tokenizer.stop_ids,
            stop=codec.stops(),
        )
        self._stream = partial(
            stream,
            cfg,
            params,
            sampling=rules,
            key=key if drawn.temperature else None,
            max_new_tokens=drawn.max_new_tokens,
            slots=drawn.slots,
            longest=drawn.prompt_tokens,
        )
        self._search = partial(
            beam_search,
            cfg,
            params,
            rules=rules,
            max_new_tokens=drawn.max_new_tokens,
            rows=drawn.slots,
            longest=drawn.prompt_tokens,
        )

    def prompts(self, states: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Their ids, of long ones the last `prompt_tokens`; and which ones are cut."""
        known = {state: self.codec.prompt(state) for state in dict.fromkeys(states)}
        most = self.drawn.prompt_tokens
        found = [known[state] for state in states]
        return [ids[-most:] for ids in found], [len(ids) > most for ids in found]

    def write(
        self, states: Sequence[str], rows: Sequence[int]
    ) -> Iterator[tuple[int, Written]]:
        """(index, completion) of every state, in the order in which they finish."""
        prompts, cut = self.prompts(states)
        for response in self._stream(prompts, row_ids=rows):
            output = self.codec.text(response.tokens)
            tactic = self.codec.form.tactic(output)
            made = Written(output, tactic, len(response.tokens))
            yield response.row, made._replace(cut=cut[response.row])

    def candidates(
        self, states: Sequence[str], rows: Sequence[int], count: int
    ) -> Iterator[tuple[int, list[Written]]]:
        """(index of the state, its completions): sampled, or at temperature 0 a beam's.

        See `best_first.Candidates`.
        """
        if not self.drawn.temperature:
            yield from self._beam(states, count)
            return
        ids = (np.asarray(rows)[:, None] * count + np.arange(count)).reshape(-1)
        found: dict[int, list[Written]] = {}
        prompts, cut = self.prompts(states)
        for one in self._stream(prompts, samples=count, row_ids=ids):
            state = one.row // count
            of_state = found.setdefault(state, [])
            of_state.append(self._scored(one.tokens, one.log_probs, cut[state]))
            if len(of_state) == count:
                yield state, found.pop(state)

    def _beam(self, states: Sequence[str], count: int):
        group = max(1, self.drawn.slots // count)
        prompts, cut = self.prompts(states)
        for start in range(0, len(states), group):
            found = self._search(prompts[start : start + group], width=count)
            for i, some in enumerate(found, start):
                yield i, [self._scored(h.tokens, h.log_probs, cut[i]) for h in some]

    def _scored(self, tokens, log_probs, cut: bool) -> Written:
        output = self.codec.text(tokens)
        tactic = self.codec.form.tactic(output)
        scores = self._scores(tokens, log_probs, output, tactic)
        return Written(output, tactic, len(tokens), scores, cut)

    def _scores(self, tokens, log_probs, output: str, tactic: str) -> dict[str, float]:
        """See `best_first.SCORES`; without a tactic inside, all tokens are its own."""
        begins = output.rfind(tactic) if tactic else -1
        first, last = 0, len(tokens)
        if begins > 0:
            ends = begins + len(tactic)
            lengths = [len(self.codec.text(tokens[:n])) for n in range(len(tokens) + 1)]
            first = max(n for n, length in enumerate(lengths) if length <= begins)
            last = min(n for n, length in enumerate(lengths) if length >= ends)
        return {
            "mean": float(np.mean(log_probs)),
            "sum": float(np.sum(log_probs)),
            "tactic": float(np.mean(log_probs[first:last])),
        }
