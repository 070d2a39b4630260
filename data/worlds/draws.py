"""Many small random draws from one NumPy generator, without its cost for each."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
BLOCK = 4096


class Draws:
    """Uniform draws of a seed, bought in blocks: scalars cost 10 times less so.

    A worker of the generators below: it has a place in its stream, so it is made
    where it is used and not handed on.
    """

    def __init__(self, rng: np.random.Generator):
        self._rng, self._block, self._at = rng, [], 0

    def random(self) -> float:
        if self._at == len(self._block):
            self._block, self._at = self._rng.random(BLOCK).tolist(), 0
        self._at += 1
        return self._block[self._at - 1]

    def chance(self, share: float) -> bool:
        return self.random() < share

    def below(self, n: int) -> int:
        return int(self.random() * n)

    def between(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + self.below(high - low + 1)

    def choice(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], n: int) -> list[T]:
        """n different ones (by position), in random order; n at most their number."""
        rest = list(options)
        return [rest.pop(self.below(len(rest))) for _ in range(n)]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        return self.sample(options, len(options))
