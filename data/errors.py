"""The error that bad input data raises, with file, line and field in its message."""


class DataError(ValueError):
    """Input data, a tokenizer or a chat template that cannot be used as it is."""

    user_error = True
