"""The miniature's tokenizer: words of states, tactics, prompts and thoughts."""

import functools

from data.tokenizers import JsonTokenizer, word_tokenizer
from data.worlds.theorems_words import vocabulary
from research.lean_star.wordings import words


@functools.cache
def tokenizer() -> JsonTokenizer:
    """The one tokenizer of the miniature: lossless on all that its data can say."""
    return word_tokenizer(vocabulary(words()))
