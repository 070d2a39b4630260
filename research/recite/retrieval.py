"""Passages found by BM25, the retriever that recitation is compared with."""

import logging
from collections.abc import Sequence


def retrieve(
    passages: Sequence[str], questions: Sequence[str], k1: float = 0.9, b: float = 0.4
) -> list[int]:
    """The number of the best passage for every question.

    Ranked by BM25 over lower-cased words, with the parameters of Anserini; a question
    without any word of the corpus gets the first passage.
    """
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it says all that it does

    def words(texts):
        return bm25s.tokenize(list(texts), stopwords=None, show_progress=False)

    index = bm25s.BM25(k1=k1, b=b, method="lucene")
    index.index(words(passages), show_progress=False)
    found, _ = index.retrieve(words(questions), k=1, show_progress=False)
    return [int(row[0]) for row in found]
