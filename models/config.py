"""What a decoder is: an immutable, hashable description, safe as a static jit argument.

Letters: B batch, T time, S cache, N heads, K kv heads, H head dim, D model, F ffn,
V vocab, L layers.
"""

import dataclasses
from typing import Literal, get_args

import jax.numpy as jnp
from jax.sharding import Mesh

DType = Literal["float32", "bf16_compute", "bfloat16"]
Remat = Literal["none", "full", "dots"]
LayerLoop = Literal["auto", "scan", "unroll"]
Attention = Literal["auto", "dense", "chunked", "splash", "cudnn"]
Norm = Literal["rms", "layer"]
Feedforward = Literal["swiglu", "relu"]
Positions = Literal["rotary", "learned"]


@dataclasses.dataclass(frozen=True)
class RopeConfig:
    """Rotary positions: base and the scaling that a published config asks for.

    ``original_max_position`` is the length before scaling (dynamic and llama3 need it).
    """

    theta: float = 10000.0
    kind: Literal["default", "linear", "dynamic", "llama3"] = "default"
    factor: float = 1.0
    original_max_position: int = 2048
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder of the Llama family or OPT: its architecture, and how it is computed.

    Architecture: sizes, rope, norms, biases, ``sliding_window`` in tokens (a query sees
    the last ``sliding_window`` keys, itself included; ``sliding_layers`` restricts it
    to some layers). Computation: ``dtype`` policy, ``remat`` policy and ``layer_loop``.

    ``norm``: 'rms', or 'layer' (mean and bias). ``mlp``: 'swiglu' (gated), or 'relu':
    a matrix up and one down. ``positions``: 'rotary', as ``rope`` says, or 'learned': a
    table of ``max_position`` rows is added to the embeddings, behind
    ``position_offset`` rows that no position reads (OPT has 2).

    ``dtype``: 'float32' (parameters and compute), 'bf16_compute' (float32 parameters,
    bfloat16 compute), 'bfloat16' (both). Softmax, norms and logits are float32 always.
    ``layer_loop``: 'scan' compiles one layer (deep models), 'unroll' compiles each
    (shallow models on CPU, where a loop body runs on fewer threads), 'auto' chooses.
    ``attention``: of rows without context (training, scoring, prefill). 'dense' holds
    T x T scores; 'chunked' blocks of them, anywhere; 'splash' is a kernel for TPUs (T a
    multiple of 128 on each device, heads of 64, 128 or 256; float32 is rounded; without
    a TPU it is interpreted, slowly), 'cudnn' one for GPUs (bfloat16, heads of at most
    128, no packed rows). What a kernel does not take is 'chunked'. 'auto': dense for
    short rows, and for long ones the kernel of the device, chunked in float32. Windows
    are exact where positions in a segment go up by one, as everywhere here.
    ``mesh``: the devices that activations and caches are spread over; None where they
    are on one.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    head_dim: int
    rope: RopeConfig = RopeConfig()
    norm_eps: float = 1e-6
    max_position: int = 2048
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tie_embeddings: bool = False
    norm: Norm = "rms"
    mlp: Feedforward = "swiglu"
    positions: Positions = "rotary"
    position_offset: int = 0
    init_std: float = 0.02
    dtype: DType = "float32"
    remat: Remat = "none"
    layer_loop: LayerLoop = "auto"
    attention: Attention = "auto"
    mesh: Mesh | None = None

    def __post_init__(self):
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads ({self.n_heads}) must be a multiple of "
                f"n_kv_heads ({self.n_kv_heads})"
            )
        for name, kinds in (
            ("attention", Attention),
            ("norm", Norm),
            ("mlp", Feedforward),
            ("positions", Positions),
        ):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; expected one of "
                    f"{', '.join(get_args(kinds))}"
                )
        if self.learned:
            if self.rope != RopeConfig():
                raise ValueError(
                    f"rope is {self.rope}; learned positions leave it unread: expected "
                    "none"
                )
        elif self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even for rope")
        elif self.position_offset:
            raise ValueError(
                f"position_offset ({self.position_offset}) is for learned positions; "
                "expected 0 with rotary ones"
            )
        if self.sliding_layers and len(self.sliding_layers) != self.n_layers:
            raise ValueError(
                f"sliding_layers has {len(self.sliding_layers)} entries for "
                f"{self.n_layers} layers"
            )

    @property
    def learned(self) -> bool:
        """Whether positions are a learned table, which has an end."""
        return self.positions == "learned"

    def longest(self, asked: int | None = None) -> int:
        """The most tokens of a sequence: as asked for, the context where nothing is.

        A table of learned positions ends with the context, whatever is asked for.
        """
        if asked is None:
            return self.context
        return min(asked, self.context) if self.learned else asked

    @property
    def context(self) -> int:
        """The most tokens of a sequence; linear and dynamic scaling stretch it.

        Configs scaled so state the length before scaling in `max_position`, those of
        llama3 the length after it.
        """
        if self.rope.kind in ("linear", "dynamic"):
            return int(self.max_position * self.rope.factor)
        return self.max_position

    @property
    def param_dtype(self):
        return jnp.bfloat16 if self.dtype == "bfloat16" else jnp.float32

    @property
    def compute_dtype(self):
        return jnp.float32 if self.dtype == "float32" else jnp.bfloat16

    @property
    def precision(self) -> str | None:
        """Accelerators round float32 operands unless told not to."""
        return "highest" if self.dtype == "float32" else None
