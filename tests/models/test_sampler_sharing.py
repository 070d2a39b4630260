"""Equal prompts share a prefill, and room may be asked for: no response changes."""

import gc
import weakref

import numpy as np
import pytest
from helpers.sampling import KEY, TINY, params_of, random_prompts

from models import sampler, slots
from models.sampling import Sampling

SOME = random_prompts(3, 9)
# Two prompts over and over, as trajectories that wait at one state ask for them.
PROMPTS = [SOME[i] for i in (0, 1, 0, 0, 2, 1, 0, 0, 0)]


def generate(prompts=PROMPTS, rows=None, **options):
    """Five tokens of each prompt; rows: ids that the draws depend on."""
    rows = list(range(len(prompts))) if rows is None else rows
    return sampler.generate(
        TINY,
        params_of(TINY),
        prompts,
        Sampling(temperature=0.8),
        KEY,
        max_new_tokens=5,
        row_ids=rows,
        **options,
    )


@pytest.mark.parametrize("size", [2, 4, 16])
def test_equal_prompts_are_prefilled_once(size, monkeypatch):
    """Three of nine prompts are run; each row draws what it draws alone."""
    seen, prefill = [], slots.prefill

    def counted(cfg, params, prefix, prefix_length, tokens, lengths):
        seen.extend({(*t[:n],) for t, n in zip(tokens, lengths, strict=True)})
        return prefill(cfg, params, prefix, prefix_length, tokens, lengths)

    monkeypatch.setattr(slots, "prefill", counted)
    together = generate(slots=size, prefill_rows=4)
    assert sorted(seen) == sorted(tuple(prompt) for prompt in SOME)
    for i, prompt in enumerate(PROMPTS):
        assert together.response(i) == generate([prompt], [i]).response(0)
    assert len({tuple(together.response(i)) for i in (0, 2, 3, 6, 7, 8)}) > 1


def test_prompts_stay_in_memory_only_while_rows_of_them_wait(monkeypatch):
    """None are left when others are prefilled, nor while the last rows decode.

    Three samples for four slots: of the second prompt two wait in the first decoding.
    """
    made, alive, prefill, decode = [], [], slots.prefill, slots.decode

    def count():
        gc.collect()
        return sum(ref() is not None for ref in made)

    def counted(*args):
        assert not count()
        found = prefill(*args)
        made.append(weakref.ref(found.logits))
        return found

    def decoding(*args):
        alive.append(count())
        return decode(*args)

    monkeypatch.setattr(slots, "prefill", counted)
    monkeypatch.setattr(slots, "decode", decoding)
    generate(SOME, list(range(9)), samples=3, slots=4)
    assert len(made) == 3 and (alive[0], alive[-1]) == (1, 0)


def test_room_for_longer_prompts_changes_nothing_and_is_compiled_once():
    """Requests of different lengths share their programs; log-probs are the same."""
    short = [prompt[:4] for prompt in PROMPTS]
    before = slots.decode._cache_size()
    roomy = [generate(p, longest=40, slots=4) for p in (PROMPTS, short)]
    assert slots.decode._cache_size() == before + 1
    for found, prompts in zip(roomy, (PROMPTS, short), strict=True):
        tight = generate(prompts, slots=4)
        np.testing.assert_array_equal(found.tokens, tight.tokens)
        np.testing.assert_allclose(found.log_probs, tight.log_probs, atol=1e-5)
