"""Costs read from HLO are those of the mathematics: closed forms, loops included."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train import hlo_text
from train.hlo_costs import Costs, Window, _places, add, costs, group_size, scale


def compiled(fn, *shapes, dtype=jnp.float32):
    args = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return costs(jax.jit(fn).lower(*args).compile().as_text())


def test_a_product_is_two_flops_for_each_multiplication():
    """2 M K N, of [M, K] @ [K, N]."""
    assert compiled(jnp.dot, (8, 16), (16, 32)).flops == 2 * 8 * 16 * 32


def test_a_scan_counts_as_often_as_it_runs():
    """7 products of a scan of 7; XLA's own analysis says 1."""

    def fn(x, ws):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, ws)[0]

    assert compiled(fn, (8, 16), (7, 16, 16)).flops == 7 * 2 * 8 * 16 * 16


def test_nested_loops_multiply():
    """3 outer rounds of (5 inner products and one of their own)."""

    def fn(x, w):
        def outer(x, _):
            x = jax.lax.fori_loop(0, 5, lambda _, x: x @ w, x)
            return jnp.tanh(x) @ w, None

        return jax.lax.scan(outer, x, None, length=3)[0]

    assert compiled(fn, (8, 16), (16, 16)).flops == 3 * 6 * 2 * 8 * 16 * 16


def test_a_loop_that_only_the_data_ends_is_counted_once_and_named():
    def fn(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 9.0, lambda x: x @ w, x)

    found = compiled(fn, (8, 16), (16, 16))
    assert found.flops == 2 * 8 * 16 * 16
    assert len(found.open_loops) == 1
    assert found.around.flops == 0


def test_what_surrounds_such_a_loop_is_told_apart():
    """Costs are of a round: one product. Before it are two, once at each call."""

    def fn(x, w):
        x = jnp.tanh(jnp.tanh(x @ w) @ w)
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 9.0, lambda x: x @ w, x)

    found, product = compiled(fn, (8, 16), (16, 16)), 2 * 8 * 16 * 16
    assert (found.flops, found.around.flops) == (product, 2 * product)
    assert found.around.around is None and not found.around.open_loops
    assert scale(found, 3).around.flops == 6 * product


def test_a_gradient_is_two_more_products_of_each():
    """tanh(x @ w) @ v: forward, dx and dw of the first; dv and d(tanh) of the second.

    The second's own value is not needed for the gradient of its sum.
    """
    shapes = (8, 16), (16, 32), (32, 4)

    def loss(x, w, v):
        return jnp.sum(jnp.tanh(x @ w) @ v)

    first, second = 2 * 8 * 16 * 32, 2 * 8 * 32 * 4
    found = compiled(jax.grad(loss, (0, 1, 2)), *shapes).flops
    assert found == 3 * first + 2 * second


@settings(max_examples=15, deadline=None)
@given(
    rounds=st.integers(2, 9),
    batch=st.integers(1, 3),
    m=st.integers(1, 9),
    k=st.integers(1, 9),
)
def test_batched_products_in_loops(rounds, batch, m, k):
    """rounds x 2 B M K K for any sizes."""

    def fn(x, w):
        def body(x, _):
            return jnp.einsum("bmk,bkn->bmn", x, w) + 1, None

        return jax.lax.scan(body, x, None, length=rounds)[0]

    found = compiled(fn, (batch, m, k), (batch, k, k))
    # Products of one column or of one element may be written as sums.
    assert found.flops in (rounds * 2 * batch * m * k * k, 0) and (
        found.flops or min(m, k) == 1
    )


@settings(max_examples=50, deadline=None)
@given(
    inputs=st.integers(1, 7),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    low=st.integers(-2, 4),
    high=st.integers(0, 4),
    lhs=st.integers(1, 4),
    rhs=st.integers(1, 3),
)
def test_places_of_a_convolution_that_are_no_padding(
    inputs, kernel, stride, low, high, lhs, rhs
):
    """The sum of a convolution of ones: each pair that meets an input counts one."""
    span = (inputs - 1) * lhs + 1 + low + high - (kernel - 1) * rhs - 1
    if span < 0:
        return
    out = jax.lax.conv_general_dilated(
        jnp.ones((1, 1, inputs)), jnp.ones((1, 1, kernel)), (stride,), [(low, high)],
        lhs_dilation=(lhs,), rhs_dilation=(rhs,),
    )  # fmt: skip
    window = Window(stride, low, lhs, rhs)
    assert _places(inputs, kernel, out.shape[-1], window) == int(out.sum())


# As a TPU has it: attention scores of 4 rows x 4 heads, each with its own keys, are a
# convolution whose dilation keeps the rows and heads apart.
ATTENTION = """HloModule m
ENTRY %main (q: bf16[4,4,512,128], k: bf16[4,4,512,128]) -> f32[4,4,512,512] {
  %q = bf16[4,4,512,128]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %k = bf16[4,4,512,128]{3,2,1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %c = f32[4,4,512,512]{2,3,1,0:T(8,128)} convolution(%q, %k), \
window={size=4x4 stride=3x3 lhs_dilate=4x4}, dim_labels=01bf_01oi->01bf
}
"""


def test_batched_products_that_tpus_write_as_convolutions():
    """2 B N T S H, and HBM traffic without what lies in faster memory."""
    found = costs(ATTENTION)
    assert found.flops == 2 * 4 * 4 * 512 * 512 * 128
    assert found.bytes_read == 4 * 4 * 512 * 128 * 2
    assert found.bytes_written == 4 * 4 * 512 * 512 * 4


LOOP = """HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%body (p: (s32[], f32[64,32], s32[])) -> (s32[], f32[64,32], s32[]) {
  %p = (s32[], f32[64,32]{1,0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[64,32]{1,0} get-tuple-element(%p), index=1
  %n = s32[] get-tuple-element(%p), index=2
  %ar = f32[64,32]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %ag-start = (f32[64,32]{1,0}, f32[256,32]{1,0}) all-gather-start(%ar), channel_id=2, replica_groups=[2,4]<=[8], dimensions={0}
  %ag = f32[256,32]{1,0} all-gather-done(%ag-start)
  %rs = f32[16,32]{1,0} reduce-scatter(%ar), channel_id=3, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}, to_apply=%add
  %cp = f32[64,32]{1,0} collective-permute(%ar), channel_id=4, source_target_pairs={{0,1},{1,0}}
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %t = (s32[], f32[64,32]{1,0}, s32[]) tuple(%next, %cp, %n)
}

%condition (p: (s32[], f32[64,32], s32[])) -> pred[] {
  %p = (s32[], f32[64,32]{1,0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] get-tuple-element(%p), index=2
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[64,32]) -> f32[64,32] {
  %x = f32[64,32]{1,0} parameter(0)
  %zero = s32[] constant(2)
  %five = s32[] constant(7)
  %t = (s32[], f32[64,32]{1,0}, s32[]) tuple(%zero, %x, %five)
  %w = (s32[], f32[64,32]{1,0}, s32[]) while(%t), condition=%condition, body=%body
  ROOT %r = f32[64,32]{1,0} get-tuple-element(%w), index=1
}
"""  # noqa: E501


def test_collectives_in_a_loop_whose_bound_is_carried():
    """5 rounds (from 2 to 7) of the ring formulas, n = 4, arrays of 8 KiB."""
    sent = {t.kind: (t.count, t.bytes) for t in costs(LOOP).traffic}
    size = 64 * 32 * 4
    assert sent == {
        "all-reduce": (5, 5 * 2 * size * 3 / 4),
        "all-gather": (5, 5 * 4 * size * 3 / 4),
        "reduce-scatter": (5, 5 * size * 3 / 4),
        "collective-permute": (5, 5 * size),
    }


def test_a_noted_trip_count_wins():
    noted = LOOP.replace(
        "body=%body",
        'body=%body, backend_config={"known_trip_count":{"n":"11"}}',
    )
    assert {t.count for t in costs(noted).traffic} == {11}


def test_a_counter_may_take_several_steps_in_a_round():
    """From 2 to 7 by twos: 3 rounds; an addition in two parts is one of their sum."""
    twos = LOOP.replace("%one = s32[] constant(1)", "%one = s32[] constant(2)")
    assert {t.count for t in costs(twos).traffic} == {3}
    twice = LOOP.replace(
        "%next = s32[] add(%i, %one)",
        "%half = s32[] add(%i, %one)\n  %next = s32[] add(%one, %half)",
    )
    assert {t.count for t in costs(twice).traffic} == {3}


@pytest.mark.parametrize(
    "groups, size",
    [
        ("{{0,2,4,6},{1,3,5,7}}", 4),
        ("[2,4]<=[4,2]T(1,0)", 4),
        ("mesh['x'=1,'y'=4,'z'=2] {'y','z'}", 8),
        ("mesh['x'=8] {'x':(2)4}", 4),
    ],
)
def test_groups_in_each_notation(groups, size):
    line = f"  %a = f32[2] all-reduce(%x), replica_groups={groups}, to_apply=%add"
    assert group_size(hlo_text._instruction(line)[1]) == size


SCATTER = """HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%all-reduce-scatter.3 (input: f32[64,32]) -> f32[16,32] {
  %input = f32[64,32]{1,0} parameter(0)
  %all-reduce = f32[64,32]{1,0} all-reduce(%input), replica_groups={{0,1,2,3}}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %slice = f32[16,32]{1,0} dynamic-slice(%all-reduce, %zero, %zero), dynamic_slice_sizes={16,32}
}

%start (p: f32[16,32]) -> (f32[16,32], f32[64,32]) {
  %p = f32[16,32]{1,0} parameter(0)
  %ag = f32[64,32]{1,0} all-gather(%p), channel_id=32, replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %c = (f32[16,32]{1,0}, f32[64,32]{1,0}) custom-call(%ag), custom_call_target="AsyncCollectiveStart"
}

%done (p: f32[16,32], q: f32[64,32]) -> f32[64,32] {
  %p = f32[16,32]{1,0} parameter(0)
  %q = f32[64,32]{1,0} parameter(1)
  %ag = f32[64,32]{1,0} all-gather(%p), channel_id=32, replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %c = f32[64,32]{1,0} custom-call(%p, %q, %ag), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (x: f32[64,32]) -> f32[64,32] {
  %x = f32[64,32]{1,0} parameter(0)
  %rs = f32[16,32]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.3
  %s = (f32[16,32]{1,0}, f32[64,32]{1,0}) fusion(%rs), kind=kCustom, calls=%start
  %a = f32[16,32]{1,0} get-tuple-element(%s), index=0
  %b = f32[64,32]{1,0} get-tuple-element(%s), index=1
  ROOT %d = f32[64,32]{1,0} fusion(%a, %b), kind=kCustom, calls=%done
}
"""  # noqa: E501


def test_collectives_as_tpus_fuse_them():
    """An all-reduce with its slice is a reduce-scatter; start and done are one."""
    size = 64 * 32 * 4
    sent = {t.kind: (t.count, t.bytes) for t in costs(SCATTER).traffic}
    assert sent == {
        "reduce-scatter": (1, size * 3 / 4),
        "all-gather": (1, size * 3 / 4),
    }


FUSION = """HloModule m

%look (p: f32[10,64,32], i: s32[]) -> f32[64,32] {
  %p = f32[10,64,32]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %one = f32[1,64,32]{2,1,0} dynamic-slice(%p, %i, %zero, %zero), dynamic_slice_sizes={1,64,32}
  ROOT %x = f32[64,32]{1,0} bitcast(%one)
}

%put (p: f32[10,64,32], x: f32[64,32], i: s32[]) -> f32[10,64,32] {
  %p = f32[10,64,32]{2,1,0} parameter(0)
  %x = f32[64,32]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  %one = f32[1,64,32]{2,1,0} bitcast(%x)
  ROOT %u = f32[10,64,32]{2,1,0} dynamic-update-slice(%p, %one, %i, %zero, %zero)
}

ENTRY %main (p: f32[10,64,32], i: s32[]) -> f32[10,64,32] {
  %p = f32[10,64,32]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %x = f32[64,32]{1,0} fusion(%p, %i), kind=kLoop, calls=%look
  ROOT %q = f32[10,64,32]{2,1,0} fusion(%p, %x, %i), kind=kLoop, calls=%put
}
"""  # noqa: E501


def test_fusions_read_their_slices_and_write_their_updates():
    """Of [10, 64, 32] one row of ten is read, and one is written in place."""
    row, index = 64 * 32 * 4, 4
    found = costs(FUSION)
    assert found.bytes_read == (row + index) + (row + index)
    assert found.bytes_written == row + row


NESTED = FUSION.replace(
    "HloModule m\n",
    """HloModule m

%product (p: f32[10,64,32], i: s32[], x: f32[8,64]) -> f32[8,32] {
  %p = f32[10,64,32]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %x = f32[8,64]{1,0} parameter(2)
  %w = f32[64,32]{1,0} fusion(%p, %i), kind=kLoop, calls=%look
  ROOT %y = f32[8,32]{1,0} convolution(%x, %w), dim_labels=bf_io->bf
}

%replace (p: f32[10,64,32], x: f32[64,32], i: s32[]) -> f32[10,64,32] {
  %p = f32[10,64,32]{2,1,0} parameter(0)
  %x = f32[64,32]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %q = f32[10,64,32]{2,1,0} fusion(%p, %x, %i), kind=kLoop, calls=%put
}
""",
)
NESTED = (
    NESTED[: NESTED.index("ENTRY")]
    + """ENTRY %main (p: f32[10,64,32], i: s32[]) -> f32[10,64,32] {
  %p = f32[10,64,32]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %x = f32[8,64]{1,0} parameter(2)
  %u = f32[64,32]{1,0} parameter(3)
  %y = f32[8,32]{1,0} fusion(%p, %i, %x), kind=kOutput, calls=%product
  ROOT %q = f32[10,64,32]{2,1,0} fusion(%p, %u, %i), kind=kLoop, calls=%replace
}
"""
)  # noqa: E501


def test_fusions_within_fusions_read_their_slices_too():
    """A product with a slice of stacked weights reads that slice, not all of them."""
    found = costs(NESTED)
    row, x, y, index = 64 * 32 * 4, 8 * 64 * 4, 8 * 32 * 4, 4
    assert found.flops == 2 * 8 * 64 * 32
    assert found.bytes_read == (row + index + x) + (row + index)
    assert found.bytes_written == y + row


ASYNC = """HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%goes_on (p: f32[16,32], x: f32[64,32]) -> (f32[64,32], f32[16,32]) {
  %p = f32[16,32]{1,0} parameter(0)
  %x = f32[64,32]{1,0} parameter(1)
  %ag = f32[64,32]{1,0:S(1)} all-gather(%p), channel_id=32, replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="0"}
  %y = f32[64,32]{1,0} add(%x, %x)
  ROOT %t = (f32[64,32]{1,0}, f32[16,32]{1,0}, f32[64,32]{1,0:S(1)}) tuple(%y, %p, %ag)
}

ENTRY %main (p: f32[16,32], x: f32[64,32]) -> f32[64,32] {
  %p = f32[16,32]{1,0} parameter(0)
  %x = f32[64,32]{1,0} parameter(1)
  %f = (f32[64,32]{1,0}, f32[16,32]{1,0}, f32[64,32]{1,0:S(1)}) fusion(%p, %x), kind=kLoop, output_to_operand_aliasing={{1}: (0, {})}, calls=%goes_on
  ROOT %y = f32[64,32]{1,0} get-tuple-element(%f), index=0
}
"""  # noqa: E501


def test_a_collective_that_goes_on_behind_other_work_moves_nothing_again():
    """What it gathers was read when it began, and passes through: x + x alone."""
    found = costs(ASYNC)
    size = 64 * 32 * 4
    assert (found.bytes_read, found.bytes_written) == (size, size)


def test_float32_at_the_highest_precision_takes_six_passes():
    highest = "operand_precision={highest,highest}, "
    line = ATTENTION.replace("window=", highest + "window=").replace("bf16", "f32")
    found = costs(line)
    assert found.work == 6 * found.flops
    assert costs(ATTENTION).work == costs(ATTENTION).flops


MANY_LINES = """HloModule m, is_scheduled=true

ENTRY %main (a: f32[8,16], b: f32[16,4]) -> f32[8,4] {
  %a = f32[8,16]{1,0} parameter(0)
  %b = f32[16,4]{1,0} parameter(1)
  %k = f32[16,4]{1,0} custom-call(%b), custom_call_target="x", frontend_attributes={k={
"block": 512
}}, metadata={op_name="x"}
  ROOT %dot.1 = f32[8,4]{1,0} dot(%a, %k), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""  # noqa: E501


def test_attributes_of_many_lines_do_not_end_a_computation():
    """2 M K N of the product behind them, as Pallas kernels have them on TPUs."""
    assert costs(MANY_LINES).flops == 2 * 8 * 16 * 4


def test_sums_and_multiples_agree():
    """a + a + a = 3 a, for every field."""
    once = costs(LOOP)
    assert add([once, once, once]) == scale(once, 3)
    assert add([once, Costs()]) == once


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        costs("not HLO")
