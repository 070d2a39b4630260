"""Exact match and F1 of short answers, by each data set's own normalisation."""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# What the trivia_qa metric takes for punctuation beside ASCII's.
_MORE = "‘’´`_"
_TO_SPACE = str.maketrans({c: " " for c in string.punctuation + _MORE})
_DELETED = str.maketrans("", "", string.punctuation)

Normalise = Callable[[str], str]


def trivia(text: str) -> str:
    """Natural Questions and TriviaQA: punctuation becomes a space (T5's metric)."""
    return _joined(_ARTICLES.sub(" ", text.lower().translate(_TO_SPACE)))


def squad(text: str) -> str:
    """HotpotQA: punctuation is deleted."""
    return _joined(_ARTICLES.sub(" ", text.lower().translate(_DELETED)))


def _joined(text: str) -> str:
    return " ".join(text.split())


NORMALISERS: dict[str, Normalise] = {"trivia": trivia, "squad": squad}


def exact_match(answer: str, golds: Iterable[str], normalise: Normalise) -> bool:
    """Whether the answer is one of the golds, both normalised."""
    return normalise(answer) in {normalise(gold) for gold in golds}


def f1(answer: str, golds: Iterable[str], normalise: Normalise) -> float:
    """The greatest F1 of the words, counted as a multiset, with any gold; 0 to 1."""
    return max((_f1(normalise(answer), normalise(gold)) for gold in golds), default=0.0)


def _f1(answer: str, gold: str) -> float:
    found, wanted = Counter(answer.split()), Counter(gold.split())
    shared = sum((found & wanted).values())
    if not shared:
        return 0.0
    precision, recall = shared / found.total(), shared / wanted.total()
    return 2 * precision * recall / (precision + recall)


def contains(text: str, golds: Sequence[str], normalise: Normalise) -> bool:
    """Whether the words of some gold stand next to each other in the text.

    By words: as characters, "art" would be in "party". A gold that normalises to
    nothing is in no text.
    """
    words = f" {normalise(text)} "
    return any(f" {wanted} " in words for gold in golds if (wanted := normalise(gold)))
