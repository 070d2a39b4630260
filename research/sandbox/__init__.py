"""Running untrusted Python programs: nothing that they do reaches the host."""
