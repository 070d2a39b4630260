"""Low-rank adapters in training: a frozen base, in 4 or 8 bits if need be, and what is
trained beside it (Hu et al. 2021; Dettmers et al. 2023).

The state of a run holds the adapters only: its checkpoints are theirs, and the base is
an argument of every step, neither copied nor given away.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from models import adapters as adapters_lib
from models.adapters import ALL_LINEAR, LoRAConfig
from models.config import DecoderConfig
from models.decoder import param_shapes
from models.kernels import is_node
from models.loading import quantized_shapes
from models.merging import by_layer
from models.peft_files import save_adapters
from models.quantized import dequantize, quantize_params
from models.sharding import param_shardings
from train.distributed import written_by_first
from train.errors import ConfigError
from train.keys import purpose_key
from train.optim import OptimizerConfig
from train.settings import at_least, fraction, positive

FOLDER = "adapter"


@dataclasses.dataclass(frozen=True)
class LoRASettings:
    """Adapters of `rank` at kernels whose names match `targets`; see `LoRAConfig`.

    `base` is how the frozen kernels are kept: as they are loaded, or in few bits.
    Adapters are float32 whatever the base: in bfloat16 most updates of a small learning
    rate would round away.
    """

    rank: int = positive(64)
    alpha: float = positive(16.0)
    dropout: float = fraction(0.0)
    targets: tuple[str, ...] = ALL_LINEAR
    use_rslora: bool = False
    base: Literal["nf4", "int8"] | None = None
    seed: int = at_least(0, 0)

    def __post_init__(self):
        self.config()  # checks what is left

    def config(self) -> LoRAConfig:
        fields = dataclasses.asdict(self)
        del fields["base"], fields["seed"]
        return LoRAConfig(**fields)


class Adapters(NamedTuple):
    """What a run with adapters is given in the place of its parameters.

    trained: the adapters at the start; base: frozen, perhaps quantised parameters
    noise: PRNG key of the dropout of all updates, None without dropout
    """

    trained: Any
    base: Any
    config: LoRAConfig
    noise: jax.Array | None


def check_targets(cfg: DecoderConfig, settings: LoRASettings) -> None:
    """Raises ConfigError for a target that matches no kernel; looks at no weights."""
    try:
        adapters_lib.adapter_shapes(param_shapes(cfg), settings.config())
    except ValueError as e:
        raise ConfigError(f"config.lora: {e}") from e


def check_lora(
    cfg: DecoderConfig,
    settings: LoRASettings,
    optimizer: OptimizerConfig,
    shapes: Callable[[DecoderConfig], Any] = param_shapes,
) -> None:
    """Raises ConfigError for settings of a run with adapters that cannot work together.

    shapes: architecture -> the parameters that are adapted. Looks at no weights.
    """
    params = shapes(cfg)
    try:
        adapters_lib.adapter_shapes(params, settings.config())
    except ValueError as e:
        raise ConfigError(f"config.lora.targets: {e}") from e
    try:
        quantized_shapes(params, settings.base)
    except ValueError as e:
        raise ConfigError(f"config.lora.base: {e}") from e
    if optimizer.frozen:
        raise ConfigError(
            "config.optimizer.frozen: expected none, as config.lora freezes all "
            f"but the adapters, got {optimizer.frozen}"
        )


def as_base(params, settings: LoRASettings):
    """Parameters as the settings keep a frozen base; what is quantised stays so."""
    nodes = any(map(is_node, jax.tree.leaves(params, is_leaf=is_node)))
    if settings.base is None or nodes:
        return params
    return quantize_params(params, settings.base)


def adapt(cfg: DecoderConfig, params, settings: LoRASettings, mesh=None) -> Adapters:
    """Adapters that change nothing yet, and the base, from a decoder's parameters.

    params: where the base is to be quantised, they may be so already.

    Raises ConfigError for a target that matches no kernel.
    """
    check_targets(cfg, settings)
    lora, run_key = settings.config(), jax.random.key(settings.seed)
    key = purpose_key(run_key, "adapters")
    trained = adapters_lib.init_adapters(param_shapes(cfg), lora, key, jnp.float32)
    if mesh is not None:
        trained = jax.device_put(trained, param_shardings(trained, mesh))
    base = as_base(params, settings)
    noise = purpose_key(run_key, "dropout") if lora.dropout else None
    return Adapters(trained, base, lora, noise)


def attached(given: Adapters, trained, key=None):
    """The parameters that a loss sees; dropout only with a key."""
    return adapters_lib.attach(
        given.base,
        trained,
        given.config.scale,
        dropout=given.config.dropout,
        key=key,
    )


def export_adapters(
    workdir: Path, cfg, given: Adapters, trained, base: str, head=None
) -> Path:
    """Writes `workdir/adapter`, a folder that PEFT loads over `base`; returns it.

    head: of a reward model, which is written along.
    """
    folder = workdir / FOLDER

    def write(whole) -> None:
        trained, head = whole
        save_adapters(folder, cfg, trained, given.config, base, head)
        print(f"adapter: {folder}", flush=True)

    written_by_first((trained, head), write)
    return folder


def merged_by_layer(given: Adapters, parts, dtype=None):
    """As `merged`, of parts (base, trained), for writing: see `models.merging`.

    Inside of `written_by_first(parts, ...)`: the parts may be spread over processes.
    """
    base, trained = parts
    return by_layer(base, trained, given.config.scale, dtype)


def merged(given: Adapters, trained, dtype=None):
    """Plain parameters base + scale * a @ b; kernels without an adapter widened, too.

    Args:
      dtype: of all kernels that were adapted or quantised; see `models.adapters.merge`.
    """
    params = adapters_lib.merge(given.base, trained, given.config.scale, dtype)

    def plain(kernel):
        return dequantize(kernel, dtype or jnp.float32) if is_node(kernel) else kernel

    return jax.tree.map(plain, params, is_leaf=is_node)
