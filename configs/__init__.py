"""Numbers and names, no logic: one file per experiment, `get_config(variant)`."""
