"""Errors that an entry point turns into one line and an exit code (see `train.cli`).

A class with `user_error = True` means bad input: exit code 2. Training that diverged
is 3, and a stop that saved its state, to be resumed by the same command, is 75.
"""


class ConfigError(ValueError):
    """A config or a flag that cannot be used; the message names the key."""

    user_error = True


class Diverged(RuntimeError):
    """Training produced a value that is not finite; the message names the step."""


class Preempted(RuntimeError):
    """Stopped by a signal after saving; the same command continues the run."""
