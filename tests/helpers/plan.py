"""What plans are compared with: FLOPs in closed form, and a plan made by hand."""

import json

from models.config import DecoderConfig
from train.chips import GIB, parse_slice
from train.hlo_costs import Costs, Traffic
from train.plan_terms import Function, Plan, roofline

MODEL = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 16,
    "intermediate_size": 256,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def model_file(folder, **changes) -> str:
    """A config.json of a model so small that it compiles in seconds."""
    path = folder / "config.json"
    path.write_text(json.dumps(MODEL | changes))
    return str(path)


def step_flops(
    cfg: DecoderConfig, rows: int, length: int, *, output: bool = True
) -> float:
    """FLOPs of forward and backward of `rows` x `length` tokens, attention in full.

    Three times the products of the forward pass; and with remat "dots" attention once
    more, with "full" all of a layer but the last product, whose value nobody needs.
    output: with those of the output matrix, which reward models do not have.
    """
    tokens, D, F = rows * length, cfg.d_model, cfg.d_ff
    heads = 2 * cfg.n_heads + 2 * cfg.n_kv_heads
    projections = 2 * tokens * D * heads * cfg.head_dim
    attention = 4 * rows * length**2 * cfg.n_heads * cfg.head_dim
    down = 2 * tokens * D * F
    layer = projections + attention + 3 * down
    again = {"none": 0, "dots": attention, "full": layer - down}[cfg.remat]
    head = 2 * tokens * D * cfg.vocab_size if output else 0
    return cfg.n_layers * (3 * layer + again) + 3 * head


def made_plan(topology="v5e:2x4", needed=10 * GIB, **changed) -> Plan:
    """A plan of one function: params and optimizer, and activations as needed."""
    where = parse_slice(topology)
    spent = Costs(
        flops=2e12,
        work=2e12,
        bytes_read=1e9,
        bytes_written=2e9,
        traffic=(Traffic("all-gather", 8, 4, 5e8),),
    )
    parts = {"params": 1 * GIB, "optimizer": 2 * GIB, "activations": needed - 3 * GIB}
    usable = where.chip.usable
    update = Function("update", 1, parts, needed, usable, 12e12)
    if update.fits:
        update = update._replace(costs=spent, roofline=roofline(spent, where))
    settings = {
        "batch_size": 64,
        "accum": 1,
        "length": 512,
        "dtype": "float32",
        "remat": "none",
    }
    mesh = {"data": 1, "fsdp": 8, "tensor": 1, "sequence": 1}
    plan = Plan("sft", "llama2-7b", where, mesh, settings, (update,), 100)
    return plan._replace(**changed)
