"""A tokenizer of whole words for worlds whose texts are English sentences."""

import json
import re
from collections.abc import Iterable

from data.errors import DataError
from data.tokenizer_files import TokenizerFiles
from data.tokenizers import JsonTokenizer

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
MARKS = (".", ",", "?", ":", ";")
NEWLINES = ("\n\n\n", "\n\n", "\n")


def sentence_tokenizer(
    texts: Iterable[str], phrases: Iterable[str] = ()
) -> JsonTokenizer:
    """A tokenizer of every word that occurs in the texts, one id each.

    A word has the space before it; the first of a line has one too, which is not in the
    text, so that a name is the same token wherever it stands. Marks and runs of
    newlines are tokens, as are `phrases`, which begin at the start of a line. Ids 0 to
    3 are <pad>, <s>, </s>, <unk>. An ordinary `tokenizer.json`.

    Raises DataError for a text that holds anything else.
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    phrases = sorted(set(phrases), key=len, reverse=True)
    pattern = "|".join(
        [*(re.escape(f" {p}") for p in phrases), r" [^\s.,?:;]+", r"[.,?:;]", r"\n+"]
    )
    found: dict[str, None] = dict.fromkeys((*NEWLINES, *MARKS))
    found |= dict.fromkeys(f" {phrase}" for phrase in phrases)
    for text in texts:
        spaced = re.sub(r"(^|\n)(?=[^\s.,?:;])", r"\1 ", text)
        pieces = re.findall(pattern, spaced)
        if "".join(pieces) != spaced:
            raise DataError(f"a text of words, marks and newlines: got {text[:60]!r}")
        found |= dict.fromkeys(pieces)
    for piece in found:
        if piece.startswith("\n") and piece not in NEWLINES:
            raise DataError(f"a text has {len(piece)} newlines in a row, at most 3")
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *found])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(
        tokenizers.Regex(r"(^|(?<=\n))(?=[^\s.,?:;])"), " "
    )
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    backend.decoder = decoders.Sequence(
        [
            decoders.Fuse(),
            decoders.Replace(tokenizers.Regex(r"(?<=\n) "), ""),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(list(SPECIAL))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
    }
    contents = {
        "tokenizer.json": backend.to_str(pretty=True).encode(),
        "tokenizer_config.json": json.dumps(config, indent=2).encode(),
    }
    return JsonTokenizer(TokenizerFiles("", contents))
