"""Run as a script on 4 simulated devices: responses of UL2 on one, and spread over all.

Argument: a folder of `qa_files.t5_checkpoint`. Prints one JSON object that
tests/research/test_recite_models.py reads.
"""

import json
import sys
from pathlib import Path

import jax

from models import encoder_decoder, t5_files
from models.sampling import Sampling
from train.mesh import make_mesh

MESHES = {
    "tensor": dict(tensor=2, data=2, fsdp=1),
    "fsdp": dict(tensor=1, data=2, fsdp=2),
}


def responses(folder: Path, mesh) -> dict:
    """Two samples to each of three sources; where keys of the first one lie."""
    cfg, params, _ = t5_files.from_pretrained(folder, mesh=mesh)
    rules, key = Sampling(temperature=1.0, eos_ids=(1,)), jax.random.key(5)
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
    found = encoder_decoder.generate(
        cfg, params, prompts, rules, key, max_new_tokens=5, samples=2, slots=6
    )
    tokens, lengths = jax.numpy.ones((4, 8), int), jax.numpy.full(4, 8)
    source = encoder_decoder.read(cfg, params, tokens, lengths)
    part = source.keys.addressable_shards[0].data
    return {
        "tokens": found.tokens.tolist(),
        "log_probs": found.log_probs.tolist(),
        "share": part.size / source.keys.size,
    }


if __name__ == "__main__":
    source = Path(sys.argv[1])
    made = {name: make_mesh(**sizes) for name, sizes in MESHES.items()}
    cases = {"one": None} | made
    print(json.dumps({name: responses(source, mesh) for name, mesh in cases.items()}))
