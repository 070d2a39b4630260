"""Small worlds whose ground truth is known exactly, for the miniature experiments."""
