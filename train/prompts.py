"""Which prompts an iteration of reinforcement learning draws responses to."""

import hashlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Prompts(NamedTuple):
    """The prompts of one iteration: its number, and which ones [prompts]."""

    iteration: int
    ids: np.ndarray


class PromptOrder:
    """`order[s]` is the `Prompts` of iteration s: a function of (seed, s) alone.

    Prompts are gone through in a new permutation for every epoch; an iteration may
    begin in one epoch and end in the next.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], count: int, seed: int):
        self.total, self.count, self.seed = len(prompts), count, seed
        digest = hashlib.sha256(repr([list(map(int, p)) for p in prompts]).encode())
        self.fingerprint = f"{digest.hexdigest()[:16]} {count} {seed}"

    def __getitem__(self, iteration: int) -> Prompts:
        places = np.arange(iteration * self.count, (iteration + 1) * self.count)
        epochs, within = np.divmod(places, self.total)
        ids = np.empty(self.count, np.int64)
        for epoch in np.unique(epochs):
            rng = np.random.default_rng([zlib.crc32(b"prompts"), self.seed, epoch])
            now = epochs == epoch
            ids[now] = rng.permutation(self.total)[within[now]]
        return Prompts(iteration, ids)
