"""The ring of slots gives the same responses at any clock, in any slot, at any time."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.forward import TINY
from helpers.sampling import KEY, MIXED, SCANNED, params_of, random_prompts
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from models import sampler, slots
from models.sampling import LENGTH, RUNNING, Sampling
from models.sharding import MESH_AXES

ROWS, CACHE, RESPONSE = 4, 16, 8
PROMPTS = random_prompts(ROWS, 7, seed=3)
RULES = Sampling()
NONE = ((), jnp.int32(0))


def prefilled(cfg, params):
    tokens, lengths = sampler.pad_rows(PROMPTS, ROWS, 8)
    return slots.prefill(cfg, params, *NONE, tokens, lengths)


def empty(cfg, rows=ROWS):
    return slots.empty(cfg, RULES, KEY, rows=rows, cache=CACHE, response=RESPONSE)


def entries(source, target, budget, rows=ROWS):
    """Prompt ``source[i]`` into slot ``target[i]``, with the prompt as row id."""

    def padded(values, fill, dtype=np.int32):
        return np.array(list(values) + [fill] * (rows - len(values)), dtype)

    return slots.Entries(
        np.int32(len(source)),
        padded(source, 0),
        padded(target, rows),
        padded(source, 0, np.uint32),
        padded(budget, 0),
    )


def decode(cfg, params, state, ended=ROWS):
    return slots.decode(cfg, RULES, params, *NONE, state, np.int32(ended))


def assert_same(state, reference, order):
    """Slot ``order[i]`` of state holds what slot i of the reference holds."""
    for field in ("tokens", "generated", "reason", "length"):
        got, want = (np.asarray(getattr(s, field)) for s in (state, reference))
        np.testing.assert_array_equal(got[order], want, err_msg=field)
    for field in ("plain", "sampled"):
        got, want = (np.asarray(getattr(s, field)) for s in (state, reference))
        np.testing.assert_allclose(got[order], want, atol=1e-4, err_msg=field)


@pytest.fixture(scope="module", params=[TINY, MIXED], ids=["full", "mixed"])
def model(request):
    """(cfg, prepared params, prompts, all four decoded from clock 0)."""
    cfg = request.param
    params = slots.prepare(cfg, params_of(cfg))
    prompts = prefilled(cfg, params)
    everyone = entries(range(ROWS), range(ROWS), [RESPONSE] * ROWS)
    state = slots.insert(cfg, RULES, empty(cfg), prompts, everyone, KEY)
    return cfg, params, prompts, decode(cfg, params, state)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3 * CACHE), st.permutations(range(ROWS)), st.integers(0, ROWS))
def test_any_clock_any_slot_any_time(model, clock, order, early):
    """Neither the clock, nor the slot, nor entering later changes a response."""
    cfg, params, prompts, reference = model
    state = empty(cfg)._replace(clock=jnp.int32(clock))
    # Some enter first; the others enter when the shortest of those has ended.
    budget = [RESPONSE] * ROWS
    if early:
        first = entries(range(early), order[:early], budget[:early])
        state = slots.insert(cfg, RULES, state, prompts, first, KEY)
        short = state._replace(budget=state.budget.at[order[0]].set(3))
        state = decode(cfg, params, short, ROWS - early + 1)
        assert state.reason[order[0]] == LENGTH
        again = entries([0], [order[0]], [RESPONSE])
        state = slots.insert(cfg, RULES, state, prompts, again, KEY)
    late = entries(range(early, ROWS), order[early:], budget[early:])
    state = slots.insert(cfg, RULES, state, prompts, late, KEY)
    state = decode(cfg, params, state)
    assert_same(state, reference, list(order))


def test_keep_goes_on_with_fewer_rows(model):
    """Rows moved to a smaller set of slots go on as if they had stayed."""
    cfg, params, prompts, reference = model
    budget = [2, RESPONSE, 1, RESPONSE]
    state = slots.insert(
        cfg, RULES, empty(cfg), prompts, entries(range(4), range(4), budget), KEY
    )
    state = decode(cfg, params, state, 2)
    assert np.array_equal(np.asarray(state.reason) == RUNNING, [0, 1, 0, 1])
    state = decode(cfg, params, slots.keep(cfg, state, np.array([3, 1], np.int32)), 2)
    arrays = reference._replace(keys=(), values=(), clock=(), row_keys=())
    some = jax.tree.map(lambda x: x[jnp.array([1, 3])], arrays)
    assert_same(state, some, [1, 0])


def test_ended_rows_rest(model):
    """A row that has ended keeps its response while the others go on."""
    cfg, params, prompts, _ = model
    state = slots.insert(
        cfg, RULES, empty(cfg), prompts, entries([0, 1], [0, 1], [2, RESPONSE]), KEY
    )
    state = decode(cfg, params, state, ROWS - 1)
    before = jax.device_get((state.tokens[0], state.plain[0], state.generated[0]))
    state = decode(cfg, params, state)
    after = jax.device_get((state.tokens[0], state.plain[0], state.generated[0]))
    assert state.generated[1] == RESPONSE and after[2] == 2
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_layer_loops_agree():
    """Scanned and unrolled layers, prepared or not, give one response."""
    everyone = entries(range(ROWS), range(ROWS), [RESPONSE] * ROWS)
    results = []
    for cfg in (TINY, SCANNED):
        params = slots.prepare(cfg, params_of(TINY))
        assert slots.prepare(cfg, params) is params
        assert isinstance(params["layers"], tuple) == (cfg is TINY)
        prompts = prefilled(cfg, params)
        state = slots.insert(cfg, RULES, empty(cfg), prompts, everyone, KEY)
        results.append(decode(cfg, params, state))
    assert_same(*results, list(range(ROWS)))


def test_prepare_casts_what_is_computed_in_bfloat16():
    """Prepared bfloat16 parameters give equal logits: norms stay in float32."""
    cfg = dataclasses.replace(SCANNED, dtype="bf16_compute")
    params = params_of(cfg)
    prepared = slots.prepare(cfg, params)
    leaves = jax.tree_util.tree_leaves_with_path(prepared)
    dtypes = {str(path[-1].key): leaf.dtype for path, leaf in leaves}
    assert dtypes["scale"] == jnp.float32 and dtypes["kernel"] == jnp.bfloat16
    a, b = prefilled(cfg, params), prefilled(cfg, prepared)
    np.testing.assert_array_equal(a.logits, b.logits)


@pytest.mark.parametrize("cfg", [TINY, SCANNED], ids=["unrolled", "scanned"])
def test_every_field_has_a_sharding(cfg):
    """Caches by rows and heads, the rest by rows; what does not divide is whole."""
    state, prompts = empty(cfg), prefilled(cfg, params_of(TINY))
    mesh = AbstractMesh((1, 4, 2, 1), MESH_AXES, (AxisType.Auto,) * 4)
    found, few = (
        slots.shardings(mesh, x) for x in (state, slots.keep(cfg, state, np.array([0])))
    )
    keys = jax.tree.leaves(found.keys)[0].spec
    assert tuple(keys)[-4:] == (("data", "fsdp"), "tensor", None, None)
    assert len(keys) == (5 if cfg is SCANNED else 4)
    assert found.tokens.spec == P(("data", "fsdp"), None)
    assert found.row_keys.spec == P(("data", "fsdp")) and found.clock.spec == P()
    assert few.tokens.spec == P(None, None)
    assert slots.shardings(mesh, prompts).logits.spec == P(("data", "fsdp"), None)


def test_a_field_without_a_sharding_is_named():
    class Wider(NamedTuple):
        keys: jax.Array
        draft: jax.Array

    mesh = AbstractMesh((1, 4, 2, 1), MESH_AXES, (AxisType.Auto,) * 4)
    with pytest.raises(ValueError, match="Wider: no sharding is stated for draft"):
        slots.shardings(mesh, Wider(jnp.zeros((4, 2, 8, 4)), jnp.zeros(4)))
