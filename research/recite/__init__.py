"""Chapter 4, RECITE: recite a passage from the model's own weights, then answer."""
