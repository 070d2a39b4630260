"""An embedded prover for a strict subset of Lean 4: syntax, kernel and tactics."""
