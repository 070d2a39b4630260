"""Errors that a user can mend: what is wrong, where, and what was expected."""


class CheckpointError(ValueError):
    """A model folder is missing, unsupported, incomplete or of the wrong shape."""

    user_error = True


class PromptError(ValueError):
    """A prompt that cannot be sampled from: empty, out of vocabulary, or too long."""

    user_error = True
