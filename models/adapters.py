"""LoRA adapters (Hu et al. 2021) as a tree of their own beside the parameters.

The tree mirrors the parameters at the targeted kernels, with {"a", "b"} in the place of
each: W + scale * a @ b. `attach` puts the two trees together without computing
anything, inside or outside of jit, so that one frozen base serves any number of roles:

    logits = forward(cfg, attach(base, policy, lora.scale), ...)
    loss, gradient = value_and_grad(lambda policy: ...)(policy)

Letters: L layers, I inputs, r rank, R roles.
"""

import dataclasses
import math
import zlib

import jax
import jax.numpy as jnp

from models.kernels import Adapted, is_node
from models.params import flatten_names, matches, unflatten_names
from models.quantized import contracted, dequantize, is_stacked

ATTENTION = ("layers/attn/*",)
ALL_LINEAR = ("layers/attn/*", "layers/mlp/*")


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """What is adapted, and how strongly: scale = alpha / rank.

    targets: shell-style patterns of whole kernel names ("layers/attn/q/kernel")
    dropout: of the adapters' input, in training
    use_rslora: scale = alpha / sqrt(rank) (Kalajdzievski 2023)
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = ALL_LINEAR
    use_rslora: bool = False

    def __post_init__(self):
        if isinstance(self.targets, list):  # as configs and JSON have it
            object.__setattr__(self, "targets", tuple(self.targets))
        for name, holds, expected in (
            ("rank", _is_count(self.rank), "a whole number above 0"),
            ("alpha", self.alpha > 0, "a number above 0"),
            ("dropout", 0 <= self.dropout < 1, "a number in [0, 1)"),
            (
                "targets",
                isinstance(self.targets, tuple) and len(self.targets) > 0,
                "one pattern of kernel names or more",
            ),
        ):
            if not holds:
                value = getattr(self, name)
                raise ValueError(f"lora {name} is {value!r}; expected {expected}")

    @property
    def scale(self) -> float:
        """The factor of a @ b."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def init_adapters(shapes, lora: LoRAConfig, key, dtype=jnp.float32):
    """Adapters that change nothing yet: b zero, a uniform in +-1/sqrt(I), as in PEFT.

    Args:
      shapes: the parameters or their shapes, before quantisation (`param_shapes`).

    Returns:
      {..: {"kernel": {"a": [L, I, r], "b": [L, r, *outs]}}} at the targeted kernels.

    Raises:
      ValueError: a target that matches no kernel.
    """
    made = adapter_shapes(shapes, lora, dtype)
    sizes = {n: x.size for n, x in made.items() if n.endswith("/a")}
    unit = jax.random.uniform(key, (sum(sizes.values()),), minval=-1.0, maxval=1.0)
    flat, start = {}, 0
    for name, leaf in made.items():
        if name not in sizes:
            flat[name] = jnp.zeros(leaf.shape, dtype)
            continue
        drawn = unit[start : start + leaf.size].reshape(leaf.shape)
        flat[name] = (drawn / math.sqrt(leaf.shape[-2])).astype(dtype)
        start += leaf.size
    return unflatten_names(flat)


def adapter_shapes(shapes, lora: LoRAConfig, dtype=jnp.float32) -> dict:
    """{"layers/attn/q/kernel/a": shape, ...} of the adapters; see `init_adapters`."""
    names = flatten_names(shapes)
    kernels = [n for n in names if _is_adaptable(n)]
    for pattern in lora.targets:
        if not any(matches(name, [pattern]) for name in kernels):
            raise ValueError(
                f"lora target {pattern!r} matches no kernel; kernels are: "
                + ", ".join(kernels)
            )
    made = {}
    for name in kernels:
        if not matches(name, lora.targets):
            continue
        shape = names[name].shape
        layers = shape[:1] if is_stacked(name) else ()
        axes = contracted(name, len(shape))
        inputs = math.prod(shape[axis] for axis in axes)
        outs = shape[len(shape) + axes[-1] + 1 :]
        a, b = (*layers, inputs, lora.rank), (*layers, lora.rank, *outs)
        made[f"{name}/a"] = jax.ShapeDtypeStruct(a, dtype)
        made[f"{name}/b"] = jax.ShapeDtypeStruct(b, dtype)
    return made


def _is_adaptable(name: str) -> bool:
    """Kernels that `models.kernels.project` reads: not those of scalar heads."""
    head = name.endswith("lm_head/kernel")
    return head or is_stacked(name) and name.endswith("/kernel")


def attach(params, adapters, scale, *, dropout: float = 0.0, key=None):
    """The parameters with `Adapted` nodes where there are adapters; no computation.

    Args:
      params: of a decoder, layers stacked; kernels may be quantised.
      adapters: of `init_adapters` or `stack_roles`.
      scale: `LoRAConfig.scale`, or a tuple of one per role.
      dropout, key: of the adapters' inputs; without a key there is none. Each kernel
        of each layer draws by itself.

    Raises:
      ValueError: adapters for parameters that there are not.
    """

    def adapted(name, kernel, adapter):
        keys = None
        if key is not None and dropout:
            keys = jax.random.fold_in(key, zlib.crc32(name.encode()))
            if is_stacked(name):
                keys = jax.random.split(keys, adapter["a"].shape[0])
        return Adapted(kernel, adapter["a"], adapter["b"], keys, scale, dropout)

    scale = tuple(scale) if isinstance(scale, list | tuple) else scale
    return _zip(params, adapters, adapted)


def detach(params):
    """The parameters that adapters were attached to: the inverse of `attach`."""

    def base(kernel):
        return kernel.base if isinstance(kernel, Adapted) else kernel

    return jax.tree.map(base, params, is_leaf=is_node)


def adapters_of(params) -> dict:
    """The adapters that were attached to parameters: {} where there are none."""
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_node)
    flat = {}
    for path, kernel in leaves:
        if isinstance(kernel, Adapted):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            flat |= {f"{name}/a": kernel.a, f"{name}/b": kernel.b}
    return unflatten_names(flat)


def merge(params, adapters, scale: float, dtype=None):
    """Plain parameters base + scale * a @ b, added in float32.

    Args:
      dtype: of the adapted kernels; None keeps that of the base, and means float32
        where it is quantised. Kernels without an adapter stay as they are.

    A merged kernel that is quantised again is not the one that was trained over.
    """

    def merged(name, kernel, adapter):
        wide = dequantize(kernel) if is_node(kernel) else kernel.astype(jnp.float32)
        a, b = (adapter[x].astype(jnp.float32) for x in "ab")
        b = b.reshape(*a.shape[:-2], a.shape[-1], -1)
        delta = jnp.einsum("...ir,...ro->...io", a, b, precision="highest")
        kept = jnp.float32 if is_node(kernel) else kernel.dtype
        return (wide + scale * delta.reshape(wide.shape)).astype(dtype or kept)

    return _zip(params, adapters, merged)


def stack_roles(roles):
    """Adapters of several roles as one tree: [L, R, I, r] and [L, R, r, *outs].

    The rows of a batch are then R equal groups, in the order of the roles, and one
    pass over the base serves them all. Ranks may differ (zeros fill up); pass each
    role's own scale to `attach`. For a role without adapters give zeros.

    Args:
      roles: adapter trees of the same kernels.
    """
    first = flatten_names(roles[0])
    for role in roles[1:]:
        odd = sorted(first.keys() ^ flatten_names(role).keys())
        if odd:
            raise ValueError(f"roles adapt different kernels: {', '.join(odd)}")
    rank = max(x.shape[-1] for r in roles for n, x in flatten_names(r).items()
               if n.endswith("/a"))  # fmt: skip

    def stacked(path, *leaves):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        layers = int(is_stacked(name))
        axis = layers + 1 if name.endswith("/a") else layers

        def widen(x):
            pad = [(0, 0)] * x.ndim
            pad[axis] = (0, rank - x.shape[axis])
            return jnp.pad(x, pad)

        return jnp.stack([widen(x) for x in leaves], axis=layers)

    return jax.tree_util.tree_map_with_path(stacked, *roles)


def _zip(params, adapters, f, path=()):
    """params with f(name, kernel, adapter) wherever the tree of adapters ends."""
    if set(adapters) == {"a", "b"} and not isinstance(adapters["a"], dict):
        return f("/".join(path), params, adapters)
    absent = [k for k in adapters if not isinstance(params, dict) or k not in params]
    if absent:
        names = ", ".join("/".join((*path, k)) for k in absent)
        raise ValueError(f"adapters for parameters that are not there: {names}")
    return {
        k: _zip(v, adapters[k], f, (*path, k)) if k in adapters else v
        for k, v in params.items()
    }
