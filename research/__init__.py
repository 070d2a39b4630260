"""What the thesis adds: one package per chapter, reading like the paper's algorithm."""
