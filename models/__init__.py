"""Pure functions of (params, tokens): decoders, heads, sampling, checkpoints."""
