"""Parameters from the tensors of a checkpoint, each device reading its slice.

Kernels can be quantised as they are read, a layer at a time: what is kept of a base is
its codes. In floats there are the embeddings, the norms, and of kernels no more than
one of one layer, and what is computed from it, on any host or device.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from models import hf_weights
from models.kernels import is_node
from models.params import flatten_names, unflatten_names
from models.quantized import NF4, Kind, contracted, quantize, quantize_params
from models.sharding import Rule, param_shardings
from models.tensor_files import TensorFolder


def quantized_shapes(shapes, kind: Kind | None):
    """A parameter tree as it will be held: shapes, kernels in nodes if `kind` says so.

    Raises:
      ValueError: an unknown kind, or a kernel that does not fit it.
    """
    if kind is None:
        return shapes
    return jax.eval_shape(partial(quantize_params, kind=kind), shapes)


def load_params(
    found: list[hf_weights.Place],
    shapes,
    folder: TensorFolder,
    mesh: Mesh | None,
    rules: tuple[Rule, ...],
    kind: Kind | None = None,
):
    """The parameters, read from a folder whose tensors have been checked.

    Args:
      found: the place of every parameter.
      shapes: the tree of the parameters, before quantisation.
      mesh, rules: where they go; None: whole, on the default device.
      kind: how the kernels of the layers are kept; the nodes equal, bit for bit, those
        of `quantize_params` on what would be loaded otherwise.
    """
    places = {place.name: place for place in found}
    wanted = quantized_shapes(shapes, kind)
    kernels, placed = {}, None
    if mesh is not None:
        kernels = flatten_names(param_shardings(shapes, mesh, rules))
        placed = param_shardings(wanted, mesh, rules)
    flat = {}
    for name, leaf in flatten_names(shapes).items():
        place, node, sharding = places[name], _at(wanted, name), kernels.get(name)
        if not is_node(node):
            flat[name] = _load(place, leaf, folder, sharding)
            continue
        lies = None if placed is None else _lies(node, sharding, _at(placed, name))
        flat[name] = _load_quantized(place, leaf, folder, kind, node, lies)
    return unflatten_names(flat)


def _at(tree, name: str):
    for key in name.split("/"):
        tree = tree[key]
    return tree


def _load(place, leaf, folder: TensorFolder, sharding):
    """One parameter as a jax array, read slice by slice."""

    def read(bounds) -> np.ndarray:
        index = tuple(slice(*b) for b in bounds)
        if not place.stacked:
            return _read(place, None, index, folder, leaf.dtype)
        out = np.empty([stop - start for start, stop in bounds], leaf.dtype)
        for row, layer in enumerate(range(*bounds[0])):
            out[row] = hf_weights.read(place, layer, index[1:], folder.read)
        return out

    return _array(leaf.shape, sharding, read)


class _Lies(NamedTuple):
    """Shardings of a kernel's layer as it is read and as it is quantised, and of parts.

    parts: of the quantised layer, as it is quantised; node: of the whole node
    """

    read: NamedSharding
    kernel: NamedSharding
    parts: tuple[NamedSharding, ...]
    node: tuple[NamedSharding, ...]


def _lies(node, kernel: NamedSharding, placed) -> _Lies:
    """Where the layers of a kernel lie until they are quantised.

    As they will, but for groups of magnitudes that this would cut: their mean, a sum,
    must not depend on the mesh. The rest of the arithmetic is the same cut or not.
    """
    mesh, specs = kernel.mesh, [x.spec for x in jax.tree.leaves(placed)]
    cut = False
    if isinstance(node, NF4) and kernel.spec[-1] is not None:
        cut = node.step.shape[-1] % mesh.shape[kernel.spec[-1]] != 0

    def layer(spec, cut):
        axes = tuple(spec)[1:]
        return NamedSharding(mesh, P(*axes[:-1], None) if cut else P(*axes))

    return _Lies(
        layer(kernel.spec, False),
        layer(kernel.spec, cut),
        tuple(layer(spec, cut) for spec in specs),
        tuple(jax.tree.leaves(placed)),
    )


def _load_quantized(place, leaf, folder: TensorFolder, kind: Kind, node, lies):
    """A kernel of all layers as a node, quantised layer by layer as it is read."""
    axes = contracted(place.name, leaf.ndim)

    def read(layer, bounds):
        index = tuple(slice(*b) for b in bounds)
        return _read(place, layer, index, folder, leaf.dtype)

    made = _empty(jax.tree.structure(node), tuple(jax.tree.leaves(node)), lies)
    for layer in range(leaf.shape[0]):
        sharding = None if lies is None else lies.read
        kernel = _array(leaf.shape[1:], sharding, partial(read, layer))
        made = _fill(made, kernel, np.int32(layer), kind=kind, axes=axes, lies=lies)
        jax.block_until_ready(made)  # else the layers that are read ahead pile up
    return made


@partial(jax.jit, static_argnums=(0, 1, 2))
def _empty(tree, leaves, lies):
    made = [jnp.zeros(x.shape, x.dtype) for x in leaves]
    return _constrained(jax.tree.unflatten(tree, made), lies and lies.node)


@partial(jax.jit, static_argnames=("kind", "axes", "lies"), donate_argnums=0)
def _fill(node, kernel, layer, *, kind, axes, lies):
    """The node with one layer more, in place."""
    kernel = _constrained(kernel, lies and (lies.kernel,))
    made = _constrained(quantize(kernel, kind, axes), lies and lies.parts)

    def put(whole, part):
        return jax.lax.dynamic_update_index_in_dim(whole, part, layer, 0)

    return _constrained(jax.tree.map(put, node, made), lies and lies.node)


def _constrained(tree, shardings):
    if shardings is None:
        return tree
    leaves = jax.tree.leaves(tree)
    tied = map(jax.lax.with_sharding_constraint, leaves, shardings)
    return jax.tree.unflatten(jax.tree.structure(tree), tied)


def _read(place, layer, index, folder, dtype) -> np.ndarray:
    return hf_weights.read(place, layer, index, folder.read).astype(dtype, copy=False)


def _array(shape, sharding, read):
    """An array of what `read` returns for the bounds of each axis of a slice."""
    cache: dict[tuple, np.ndarray] = {}

    def part(index) -> np.ndarray:
        key = tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
        if key not in cache:  # devices that hold copies share one read
            cache[key] = read(key)
        return cache[key]

    if sharding is None:
        return jnp.asarray(part((slice(None),) * len(shape)))
    return jax.make_array_from_callback(shape, sharding, part)
