"""What a sampler returns: prompts and responses with lengths, log-probs and endings."""

from typing import NamedTuple

import numpy as np

from models.sampling import REASONS


class Rollout(NamedTuple):
    """N responses. Masks come from lengths, never from token ids.

    prompts: int32 [N, P], prompt_lengths: int32 [N] (without the shared prefix)
    tokens: int32 [N, R], lengths: int32 [N]; EOS and stop sequences are inside
    log_probs: float32 [N, R], of the tokens under the plain model (temperature 1)
    sampling_log_probs: float32 [N, R], under the distribution they were drawn from
    reasons: int32 [N], index into `models.sampling.REASONS`
    """

    prompts: np.ndarray
    prompt_lengths: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    log_probs: np.ndarray
    sampling_log_probs: np.ndarray
    reasons: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """float32 [N, R], 1 on response tokens (EOS included)."""
        place = np.arange(self.tokens.shape[1])[None]
        return (place < self.lengths[:, None]).astype(np.float32)

    def response(self, row: int) -> list[int]:
        return self.tokens[row, : self.lengths[row]].tolist()

    def reason(self, row: int) -> str:
        return REASONS[self.reasons[row]]
