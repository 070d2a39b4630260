"""Chapter 7, Lean-STaR: thoughts interleaved with tactics."""
