"""Random keys by purpose: every use of randomness folds its own name into the run key.

    key = fold_in(fold_in(run_key, crc32(purpose)), step) ...

so no key travels through Python, and a new use never shifts the noise of another.
"""

import zlib

import jax


def purpose_key(run_key: jax.Array, purpose: str, *ints: int | jax.Array) -> jax.Array:
    """The key of one purpose at one place in the run.

    `ints` (step, row, ...) are folded in from left to right; traced integers work too.
    """
    key = jax.random.fold_in(run_key, zlib.crc32(purpose.encode()))
    for i in ints:
        key = jax.random.fold_in(key, i)
    return key
