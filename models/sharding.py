"""Which axis of which parameter is split over which axis of the device mesh.

Mesh axes: `data` (copies of the parameters), `fsdp` (parameters split, gathered where
used), `tensor` (heads, ffn and vocabulary split), `sequence` (activations only).
"""

import functools
import math
import re
from typing import NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from models.params import flatten_names

MESH_AXES = ("data", "fsdp", "tensor", "sequence")
ROWS = ("data", "fsdp")  # what rows of batches are split over


class Rule(NamedTuple):
    """The spec of the parameters whose "/"-joined name matches a pattern.

    In full, or from some "/" on: a decoder may be a part of a larger tree.

    Every split axis must divide by its mesh axis, or it is an error. The axes named in
    `whole_if_uneven` stay whole instead: sizes that published models leave uneven.
    """

    pattern: str
    spec: P
    whole_if_uneven: tuple[int, ...] = ()


# Vocabularies grow by single tokens (32001), and few kv heads meet many devices.
RULES = (
    Rule(r"embed/embedding", P("tensor", "fsdp"), (0,)),
    Rule(r"embed/positions", P(None, "fsdp")),
    Rule(r"lm_head/kernel", P("fsdp", "tensor"), (1,)),
    Rule(r"layers/attn/q/kernel", P(None, "fsdp", "tensor", None)),
    Rule(r"layers/attn/[kv]/kernel", P(None, "fsdp", "tensor", None), (2,)),
    Rule(r"layers/attn/q/bias", P(None, "tensor", None)),
    Rule(r"layers/attn/[kv]/bias", P(None, "tensor", None), (1,)),
    Rule(r"layers/attn/out/kernel", P(None, "tensor", None, "fsdp")),
    Rule(r"layers/mlp/(gate|up)/kernel", P(None, "fsdp", "tensor")),
    Rule(r"layers/mlp/(gate|up)/bias", P(None, "tensor")),
    Rule(r"layers/mlp/down/kernel", P(None, "tensor", "fsdp")),
    Rule(r"layers/(attn/out|mlp/down)/bias", P()),
    Rule(r"layers/(attn_norm|mlp_norm|attn/q_norm|attn/k_norm)/scale", P()),
    Rule(r"layers/(attn_norm|mlp_norm)/bias", P()),
    Rule(r"final_norm/(scale|bias)", P()),
    Rule(r"((scalar|reward|value)_)?head/kernel", P()),
)


def _quantized(rule: Rule) -> tuple[Rule, ...]:
    """For the parts of a quantised kernel, which keep its axes, shortened.

    Too short, some of the scales': those stay whole, a few hundredths of the codes.
    """
    axes = tuple(range(len(rule.spec)))
    return (
        Rule(f"{rule.pattern}/codes", rule.spec, rule.whole_if_uneven),
        Rule(f"{rule.pattern}/(absmax|step|mean|scale)", rule.spec, axes),
    )


RULES += tuple(
    part
    for rule in RULES
    if rule.pattern.endswith("kernel")
    for part in _quantized(rule)
)

# Of adapters, a [L, inputs, rank] is split by inputs, b [L, rank, *outputs] by outputs,
# as their kernels are.
RULES += (
    Rule(r"layers/(attn/[qkv]|mlp/(gate|up))/kernel/a", P(None, "fsdp", None)),
    Rule(r"layers/(attn/out|mlp/down)/kernel/a", P(None, "tensor", None)),
    Rule(r"layers/attn/q/kernel/b", P(None, None, "tensor", None)),
    Rule(r"layers/attn/[kv]/kernel/b", P(None, None, "tensor", None), (2,)),
    Rule(r"layers/mlp/(gate|up)/kernel/b", P(None, None, "tensor")),
    Rule(r"layers/(attn/out|mlp/down)/kernel/b", P(None, None, "fsdp")),
    Rule(r"lm_head/kernel/a", P("fsdp", None)),
    Rule(r"lm_head/kernel/b", P(None, "tensor"), (1,)),
)


def param_specs(shapes, mesh: Mesh, rules: tuple[Rule, ...] = RULES):
    """The tree of PartitionSpecs of a tree of arrays or shapes.

    Raises:
      ValueError: a parameter that no rule covers, or an axis that does not divide;
        names the parameter, the axis and the mesh.
    """
    names = flatten_names(shapes)
    uncovered = [n for n in names if _rule(n, rules) is None]
    if uncovered:
        raise ValueError(f"no sharding rule covers {', '.join(uncovered)}")
    specs = [_spec(n, x.shape, mesh, _rule(n, rules)) for n, x in names.items()]
    return jax.tree.unflatten(jax.tree.structure(shapes), specs)


def param_shardings(shapes, mesh: Mesh, rules: tuple[Rule, ...] = RULES):
    """The tree of NamedShardings of a tree of arrays or shapes; see `param_specs`."""
    specs = param_specs(shapes, mesh, rules)

    def sharding(spec):
        return NamedSharding(mesh, spec)

    return jax.tree.map(sharding, specs, is_leaf=lambda x: isinstance(x, P))


def fitting(shape, mesh: Mesh, *axes) -> P:
    """The spec that splits a shape over these axes of the mesh (a name, several, None).

    An axis that does not divide stays whole: a batch of one row, a cache of few heads.
    """
    return P(
        *(
            axis if axis is None or not shape[i] % _ways(mesh, axis) else None
            for i, axis in enumerate(axes)
        )
    )


def fill_rows(rows: int, mesh: Mesh | None) -> int:
    """The least number of rows, from this one on, that divides over the devices.

    Rows that do not divide would be whole, all of them, on every device.
    """
    ways = 1 if mesh is None else _ways(mesh, ROWS)
    return -(-rows // ways) * ways


def constrain(x, mesh: Mesh | None, *axes):
    """x, laid out by `fitting`; without a mesh, as it is."""
    if mesh is None:
        return x
    sharding = NamedSharding(mesh, fitting(x.shape, mesh, *axes))
    return jax.lax.with_sharding_constraint(x, sharding)


def fetch(tree):
    """Arrays as NumPy's, whole, on this host.

    What is spread over several processes is gathered first: all of them must call this
    at the same place of the program, and all get the same.
    """
    leaves = jax.tree.leaves(tree)
    if not all(x.is_fully_addressable or x.is_fully_replicated for x in leaves):
        mesh = next(x.sharding.mesh for x in leaves if not x.is_fully_addressable)
        tree = _everywhere(mesh)(tree)
    return jax.device_get(tree)


@functools.cache
def _everywhere(mesh: Mesh):
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))


def _ways(mesh: Mesh, axis) -> int:
    return math.prod(mesh.shape[a] for a in ((axis,) if type(axis) is str else axis))


def _rule(name: str, rules: tuple[Rule, ...]) -> Rule | None:
    matching = (r for r in rules if re.fullmatch(f"(.*/)?({r.pattern})", name))
    return next(matching, None)


def _spec(name: str, shape, mesh: Mesh, rule: Rule) -> P:
    if len(rule.spec) > len(shape):
        raise ValueError(
            f"{name}: rule {rule.pattern!r} has {len(rule.spec)} axes, the parameter "
            f"has shape {tuple(shape)}"
        )
    axes: list[str | None] = []
    for dim, axis in enumerate(rule.spec):
        ways = 1 if axis is None else mesh.shape[axis]
        if shape[dim] % ways == 0:
            axes.append(axis)
        elif dim in rule.whole_if_uneven:
            axes.append(None)
        else:
            raise ValueError(
                f"{name}: axis {dim} of {tuple(shape)} does not divide into {ways} "
                f"parts (mesh axis {axis!r} of {dict(mesh.shape)})"
            )
    return P(*axes)
