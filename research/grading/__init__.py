"""Final answers: where they stand, and whether two of them say the same."""
