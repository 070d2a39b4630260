"""The weight map: where each of our parameters lives in a Hugging Face checkpoint.

A row reads: our name, their name, and how their axes become ours. In a layout such as
``"nh d -> d n h"`` a word is one axis, the product of its letters from slow to fast:
their [N*H, D] is taken apart and transposed to our [D, N, H]. A `part` picks a range of
one letter first: InternLM2 stores queries, key and value of a kv head side by side.
``{i}`` is the layer; our parameters stack layers on axis 0.

Letters: V vocab, D model, N heads, K kv heads, H head dim, F ffn, L layers,
J = N/K + 2 projections of a kv head (queries, key, value), S scores of a token (1),
P rows of the table of learned positions.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from models.config import DecoderConfig
from models.decoder import param_shapes
from models.errors import CheckpointError
from models.params import flatten_names


class Row(NamedTuple):
    """One parameter's place: names, layout, and (letter, start, stop) of a part.

    Part bounds count from the end when negative, as slices do; None means all.
    """

    ours: str
    theirs: str
    layout: str
    part: tuple[str, int | None, int | None] | None = None


_LAYER = "model.layers.{i}."

LLAMA = (
    Row("embed/embedding", "model.embed_tokens.weight", "v d -> v d"),
    Row("layers/attn_norm/scale", _LAYER + "input_layernorm.weight", "d -> d"),
    Row("layers/attn/q/kernel", _LAYER + "self_attn.q_proj.weight", "nh d -> d n h"),
    Row("layers/attn/q/bias", _LAYER + "self_attn.q_proj.bias", "nh -> n h"),
    Row("layers/attn/k/kernel", _LAYER + "self_attn.k_proj.weight", "kh d -> d k h"),
    Row("layers/attn/k/bias", _LAYER + "self_attn.k_proj.bias", "kh -> k h"),
    Row("layers/attn/v/kernel", _LAYER + "self_attn.v_proj.weight", "kh d -> d k h"),
    Row("layers/attn/v/bias", _LAYER + "self_attn.v_proj.bias", "kh -> k h"),
    Row("layers/attn/out/kernel", _LAYER + "self_attn.o_proj.weight", "d nh -> n h d"),
    Row("layers/attn/out/bias", _LAYER + "self_attn.o_proj.bias", "d -> d"),
    Row("layers/attn/q_norm/scale", _LAYER + "self_attn.q_norm.weight", "h -> h"),
    Row("layers/attn/k_norm/scale", _LAYER + "self_attn.k_norm.weight", "h -> h"),
    Row("layers/mlp_norm/scale", _LAYER + "post_attention_layernorm.weight", "d -> d"),
    Row("layers/mlp/gate/kernel", _LAYER + "mlp.gate_proj.weight", "f d -> d f"),
    Row("layers/mlp/gate/bias", _LAYER + "mlp.gate_proj.bias", "f -> f"),
    Row("layers/mlp/up/kernel", _LAYER + "mlp.up_proj.weight", "f d -> d f"),
    Row("layers/mlp/up/bias", _LAYER + "mlp.up_proj.bias", "f -> f"),
    Row("layers/mlp/down/kernel", _LAYER + "mlp.down_proj.weight", "d f -> f d"),
    Row("layers/mlp/down/bias", _LAYER + "mlp.down_proj.bias", "d -> d"),
    Row("final_norm/scale", "model.norm.weight", "d -> d"),
    Row("lm_head/kernel", "lm_head.weight", "v d -> d v"),
)

_WQKV = _LAYER + "attention.wqkv."
_QUERIES, _KEY, _VALUE = ("j", None, -2), ("j", -2, -1), ("j", -1, None)

INTERNLM2 = (
    Row("embed/embedding", "model.tok_embeddings.weight", "v d -> v d"),
    Row("layers/attn_norm/scale", _LAYER + "attention_norm.weight", "d -> d"),
    Row("layers/attn/q/kernel", _WQKV + "weight", "kjh d -> d kj h", _QUERIES),
    Row("layers/attn/q/bias", _WQKV + "bias", "kjh -> kj h", _QUERIES),
    Row("layers/attn/k/kernel", _WQKV + "weight", "kjh d -> d kj h", _KEY),
    Row("layers/attn/k/bias", _WQKV + "bias", "kjh -> kj h", _KEY),
    Row("layers/attn/v/kernel", _WQKV + "weight", "kjh d -> d kj h", _VALUE),
    Row("layers/attn/v/bias", _WQKV + "bias", "kjh -> kj h", _VALUE),
    Row("layers/attn/out/kernel", _LAYER + "attention.wo.weight", "d nh -> n h d"),
    Row("layers/attn/out/bias", _LAYER + "attention.wo.bias", "d -> d"),
    Row("layers/mlp_norm/scale", _LAYER + "ffn_norm.weight", "d -> d"),
    Row("layers/mlp/gate/kernel", _LAYER + "feed_forward.w1.weight", "f d -> d f"),
    Row("layers/mlp/up/kernel", _LAYER + "feed_forward.w3.weight", "f d -> d f"),
    Row("layers/mlp/down/kernel", _LAYER + "feed_forward.w2.weight", "d f -> f d"),
    Row("final_norm/scale", "model.norm.weight", "d -> d"),
    Row("lm_head/kernel", "output.weight", "v d -> d v"),
)

_OPT = "model.decoder.layers.{i}."

OPT = (
    Row("embed/embedding", "model.decoder.embed_tokens.weight", "v d -> v d"),
    Row("embed/positions", "model.decoder.embed_positions.weight", "p d -> p d"),
    Row("layers/attn_norm/scale", _OPT + "self_attn_layer_norm.weight", "d -> d"),
    Row("layers/attn_norm/bias", _OPT + "self_attn_layer_norm.bias", "d -> d"),
    Row("layers/attn/q/kernel", _OPT + "self_attn.q_proj.weight", "nh d -> d n h"),
    Row("layers/attn/q/bias", _OPT + "self_attn.q_proj.bias", "nh -> n h"),
    Row("layers/attn/k/kernel", _OPT + "self_attn.k_proj.weight", "kh d -> d k h"),
    Row("layers/attn/k/bias", _OPT + "self_attn.k_proj.bias", "kh -> k h"),
    Row("layers/attn/v/kernel", _OPT + "self_attn.v_proj.weight", "kh d -> d k h"),
    Row("layers/attn/v/bias", _OPT + "self_attn.v_proj.bias", "kh -> k h"),
    Row("layers/attn/out/kernel", _OPT + "self_attn.out_proj.weight", "d nh -> n h d"),
    Row("layers/attn/out/bias", _OPT + "self_attn.out_proj.bias", "d -> d"),
    Row("layers/mlp_norm/scale", _OPT + "final_layer_norm.weight", "d -> d"),
    Row("layers/mlp_norm/bias", _OPT + "final_layer_norm.bias", "d -> d"),
    Row("layers/mlp/up/kernel", _OPT + "fc1.weight", "f d -> d f"),
    Row("layers/mlp/up/bias", _OPT + "fc1.bias", "f -> f"),
    Row("layers/mlp/down/kernel", _OPT + "fc2.weight", "d f -> f d"),
    Row("layers/mlp/down/bias", _OPT + "fc2.bias", "d -> d"),
    Row("final_norm/scale", "model.decoder.final_layer_norm.weight", "d -> d"),
    Row("final_norm/bias", "model.decoder.final_layer_norm.bias", "d -> d"),
    Row("lm_head/kernel", "lm_head.weight", "v d -> d v"),
)

MAPS = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "internlm2": INTERNLM2,
    "opt": OPT,
}


# Where transformers keep the head of every ...ForSequenceClassification.
SCORE = Row("head/kernel", "score.weight", "s d -> d s")


class Place(NamedTuple):
    """A row with its sizes filled in: where a parameter, or a layer of it, comes from.

    sizes: of each letter; theirs, ours: axes as words of letters; part: range of a
    letter that is taken.
    """

    name: str
    source: str
    sizes: Mapping[str, int]
    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    part: tuple[str, range] | None

    @property
    def stacked(self) -> bool:
        return "{i}" in self.source

    @property
    def their_shape(self) -> tuple[int, ...]:
        return tuple(_product(self.sizes[c] for c in word) for word in self.theirs)

    @property
    def our_shape(self) -> tuple[int, ...]:
        """Of one layer, where layers are stacked."""
        size = {c: len(r) for c, r in self.ranges().items()}
        return tuple(_product(size[c] for c in word) for word in self.ours)

    def ranges(self) -> dict[str, range]:
        """The range of each letter that the parameter holds."""
        full = {c: range(n) for c, n in self.sizes.items()}
        return full | dict([self.part] if self.part else [])


def places(rows: tuple[Row, ...], names, sizes: Mapping[str, int]) -> list[Place]:
    """The places of the parameters `names`, in the order of the rows.

    Raises:
      CheckpointError: a parameter has no row; names it.
    """
    names = set(names)
    unmapped = names - {row.ours for row in rows}
    if unmapped:
        raise CheckpointError(
            f"this model_type has no tensor for {', '.join(sorted(unmapped))}"
        )
    found = []
    for row in rows:
        if row.ours not in names:
            continue
        theirs, ours = (tuple(side.split()) for side in row.layout.split(" -> "))
        used = {c: sizes[c] for word in theirs for c in word}
        part = None
        if row.part:
            letter, start, stop = row.part
            part = (letter, range(used[letter])[start:stop])
        found.append(Place(row.ours, row.theirs, used, theirs, ours, part))
    return found


def decoder_places(cfg: DecoderConfig, model_type: str, shapes=None) -> list[Place]:
    """The places of all parameters of a decoder in a checkpoint of `model_type`.

    shapes: the parameters meant, where they are not those of `param_shapes`: a scalar
    head "head" may take the place of "lm_head".
    """
    sizes = {
        "v": cfg.vocab_size,
        "d": cfg.d_model,
        "n": cfg.n_heads,
        "k": cfg.n_kv_heads,
        "h": cfg.head_dim,
        "f": cfg.d_ff,
        "j": cfg.n_heads // cfg.n_kv_heads + 2,
        "p": cfg.max_position + cfg.position_offset,
        "s": 1,
    }
    shapes = param_shapes(cfg) if shapes is None else shapes
    return places((*MAPS[model_type], SCORE), flatten_names(shapes), sizes)


Source = tuple[list[Place], int | None]


def tensors(found: list[Place], n_layers: int) -> dict[str, Source]:
    """{their tensor's name: (the places that share it, the layer or None)}, in order.

    Layers come one after another, where the first row of a layer stands.
    """
    groups: dict[str, list[Place]] = {}
    for place in found:
        groups.setdefault(place.source, []).append(place)
    stacked = {source: g for source, g in groups.items() if g[0].stacked}
    result: dict[str, Source] = {}
    for source, group in groups.items():
        if source not in stacked:
            result[source] = (group, None)
        elif source == next(iter(stacked)):
            for layer in range(n_layers):
                for name, places_ in stacked.items():
                    result[name.format(i=layer)] = (places_, layer)
    return result


Reader = Callable[[str, tuple[slice, ...]], np.ndarray]


def read(place: Place, layer: int | None, index, read_slice: Reader) -> np.ndarray:
    """The slice `index` of our parameter (of one layer of it), from their tensor.

    Reads the rows and columns that it needs and no others, as long as a slice of an
    axis of several letters (InternLM2's heads, "kj") falls on whole kv heads.

    Args:
      index: a slice per axis of ours, without the layer axis.
      read_slice: (their tensor's name, a slice per axis) -> array.
    """
    ranges = place.ranges()
    trim = []
    for word, cut, size in zip(place.ours, index, place.our_shape, strict=True):
        start, stop, _ = cut.indices(size)
        slow = word[0]
        stride = size // len(ranges[slow])
        low, high = start // stride, -(-stop // stride)
        ranges[slow] = ranges[slow][low:high]
        trim.append(slice(start - low * stride, stop - low * stride))
    source = place.source if layer is None else place.source.format(i=layer)
    runs = [_runs([place.sizes[c] for c in w], [ranges[c] for c in w])
            for w in place.theirs]  # fmt: skip
    block = _read_blocks(source, runs, (), read_slice)
    letters = "".join(place.theirs)
    block = block.reshape([len(ranges[c]) for c in letters])
    block = block.transpose([letters.index(c) for c in "".join(place.ours)])
    shape = [_product(len(ranges[c]) for c in word) for word in place.ours]
    return block.reshape(shape)[tuple(trim)]


def write(group: list[Place], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Their tensor, from the values of all places that share it (one layer of each)."""
    first = group[0]
    letters = "".join(first.theirs)
    out = np.empty([first.sizes[c] for c in letters], values[first.name].dtype)
    for place in group:
        ranges = place.ranges()
        ours = "".join(place.ours)
        block = values[place.name].reshape([len(ranges[c]) for c in ours])
        target = tuple(slice(ranges[c].start, ranges[c].stop) for c in letters)
        out[target] = block.transpose([ours.index(c) for c in letters])
    return out.reshape(first.their_shape)


def _runs(sizes: list[int], ranges: list[range]) -> list[slice]:
    """Contiguous pieces of a flat axis that hold a product of ranges of its letters."""
    last = max((i for i, r in enumerate(ranges) if len(r) < sizes[i]), default=0)
    inner = _product(sizes[last + 1 :])
    pieces = []
    for outer in itertools.product(*ranges[:last]):
        base = 0
        for i, size in zip(outer, sizes[:last], strict=True):
            base = base * size + i
        base *= sizes[last]
        cut = ranges[last]
        pieces.append(slice((base + cut.start) * inner, (base + cut.stop) * inner))
    return pieces


def _read_blocks(source, runs, chosen, read_slice) -> np.ndarray:
    axis = len(chosen)
    if axis == len(runs):
        return read_slice(source, chosen)
    blocks = [_read_blocks(source, runs, (*chosen, r), read_slice) for r in runs[axis]]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=axis)


def _product(sizes) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
