"""How anything is trained: one file per algorithm, and what the algorithms share."""
