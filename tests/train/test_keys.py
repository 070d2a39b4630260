"""Keys of different purposes and steps differ; the same place has the same key."""

import itertools

import jax
import numpy as np

from train.keys import purpose_key


def test_keys_replay_and_differ_by_seed_purpose_and_step():
    places = list(
        itertools.product((0, 1), ("rollout", "init"), ((), (0,), (1,), (0, 1)))
    )
    keys = {
        place: jax.random.key_data(
            purpose_key(jax.random.key(place[0]), *place[1:2], *place[2])
        )
        for place in places
    }
    assert len({tuple(np.asarray(k)) for k in keys.values()}) == len(places)
    again = purpose_key(jax.random.key(1), "init", 0, 1)
    assert (jax.random.key_data(again) == keys[1, "init", (0, 1)]).all()


def test_traced_steps_give_the_same_key():
    run_key = jax.random.key(3)
    traced = jax.jit(lambda step: jax.random.key_data(purpose_key(run_key, "x", step)))
    eager = jax.random.key_data(purpose_key(run_key, "x", 5))
    assert (traced(5) == eager).all()
