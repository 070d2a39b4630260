"""Text to ids and back: one interface over `tokenizer.json`, SentencePiece, lexicons.

Text never becomes a control token unless the caller says `control=True`, so that what a
user types cannot end a turn or open another; added tokens that a checkpoint does not
mark as special are ordinary words. `transformers` is not needed."""

import os
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from data.errors import DataError
from data.paths import as_path
from data.tokenizer_files import SpecialTokens, TokenizerFiles, read_tokenizer_files

UNKNOWN_ID = "\ufffd"  # how an id that the tokenizer does not know decodes


class Tokenizer(Protocol):
    """What the code base asks of a tokenizer. Ids are 0 .. vocab_size - 1.

    `special` maps the spelling of each control token to its id; `stop_ids` end a text;
    bos_id and eos_id are None where the checkpoint has none; pad_id always is an id."""

    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int
    stop_ids: tuple[int, ...]
    adds_bos: bool
    special: Mapping[str, int]
    special_names: Mapping[str, str]
    chat_template: str | None

    def encode(
        self,
        text: str,
        *,
        add_special: bool = False,
        control: bool = False,
        previous: int | None = None,
    ) -> list[int]:
        """Ids of a text.

        add_special: with the BOS (and EOS) that the checkpoint adds. control: spellings
        of control tokens become these tokens. previous: the id that the text follows,
        None at the start, where many tokenizers put a space that is not in the text."""

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of any ids, also of ids beyond the vocabulary (padded models)."""

    def token_text(self, token: int) -> str:
        """How one token is spelled in the vocabulary, for people to read."""


class _Base:
    """Special tokens and the order of encoding, common to both backends."""

    def __init__(self, files: TokenizerFiles, special: SpecialTokens):
        self.files = files
        self.special = special.ids
        self.special_names = special.names
        self.bos_id, self.eos_id = special.bos_id, special.eos_id
        self.pad_id = special.pad_id
        self.stop_ids = special.stop_ids
        self.adds_bos, self.adds_eos = special.adds_bos, special.adds_eos
        self.chat_template = files.chat_template
        self._special_ids = frozenset(self.special.values())
        unknown = self.special.get(special.names.get("unk_token"))
        self._control_ids = self._special_ids - {unknown}

    def encode(self, text, *, add_special=False, control=False, previous=None):
        ids = self._encode(text, control, previous)
        if not control and not self._control_ids.isdisjoint(ids):
            ids = self._spell_out(text, previous)
        if add_special:
            bos = [self.bos_id] if self.adds_bos else []
            ids = bos + ids + ([self.eos_id] if self.adds_eos else [])
        return ids

    def _spell_out(self, text, previous):
        # A vocabulary may hold a control token as a plain word. Cut behind its first
        # character, it is no longer found.
        ids = []
        for piece in re.split(self._cuts, text):
            ids += self._encode(piece, False, ids[-1] if ids else previous)
        return ids

    @cached_property
    def _cuts(self) -> str:
        spellings = sorted(self.special, key=len, reverse=True)
        return "|".join(
            f"(?<={re.escape(s[:1])})(?={re.escape(s[1:])})" for s in spellings
        )

    def decode(self, ids, skip_special=True):
        text, known = [], []
        for token in map(int, ids):
            if skip_special and token in self._special_ids:
                continue
            if 0 <= token < self.vocab_size:
                known.append(token)
            else:
                text += [self._decode(known), UNKNOWN_ID]
                known = []
        return "".join([*text, self._decode(known)])


class JsonTokenizer(_Base):
    """A `tokenizer.json`, run by the tokenizers library."""

    def __init__(self, files: TokenizerFiles):
        import tokenizers

        source = files.text("tokenizer.json")
        try:
            backend = tokenizers.Tokenizer.from_str(source)
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"{files.path('tokenizer.json')}: {error}") from error
        for token in files.added_tokens():
            if backend.token_to_id(token.content) is None:
                backend.add_tokens([tokenizers.AddedToken(**token._asdict())])
        backend.no_padding()
        backend.no_truncation()
        added = backend.get_added_tokens_decoder()
        special = {t.content: i for i, t in sorted(added.items()) if t.special}
        bare = backend.encode("a", add_special_tokens=False).ids
        full = backend.encode("a", add_special_tokens=True).ids
        ids = backend.get_vocab(with_added_tokens=True)
        special = files.special_tokens(
            ids, special, adds_bos=full[:1] != bare[:1], adds_eos=full[-1:] != bare[-1:]
        )
        backend.add_special_tokens(list(special.ids))  # the roles, if not yet marked so
        super().__init__(files, special)
        self.vocab_size = max(ids.values()) + 1
        self._backend, self._lock = backend, threading.Lock()

    @cached_property
    def _inner(self):
        """The same tokenizer for text in the middle of a line: no space put before."""
        import json

        import tokenizers

        def without_prefix(node):
            if isinstance(node, list):
                return [without_prefix(n) for n in node if n.get("type") != "Prepend"]
            if not isinstance(node, dict):
                return node
            node = {
                key: without_prefix(value)
                if key in ("normalizers", "pretokenizers")
                else value
                for key, value in node.items()
            }
            if node.get("type") == "Prepend":
                return None
            if node.get("type") == "Metaspace":
                node |= {"prepend_scheme": "never"}
                node.pop("add_prefix_space", None)
            elif "add_prefix_space" in node:
                node["add_prefix_space"] = False
            return node

        spec = json.loads(self._backend.to_str())
        changed = {
            key: without_prefix(spec[key]) for key in ("normalizer", "pre_tokenizer")
        }
        if all(spec[key] == changed[key] for key in changed):
            return self._backend
        return tokenizers.Tokenizer.from_str(json.dumps(spec | changed))

    def _encode(self, text, control, previous):
        if previous is None:
            return self._run(self._backend, text, control)
        if control and previous in self._special_ids:
            # The checkpoint's own rule for what follows a control token applies.
            before = self.token_text(previous)
            return self._run(self._backend, before + text, True)[1:]
        head, tail = text, ""
        if control and (match := re.search(self._special_pattern, text)):
            head, tail = text[: match.start()], text[match.start() :]
        ids = self._run(self._inner, head, control) if head else []
        return ids + (self._run(self._backend, tail, control) if tail else [])

    @cached_property
    def _special_pattern(self):
        return special_pattern(self.special)

    def _run(self, backend, text, control):
        with self._lock:  # the switch belongs to the backend, not to the call
            backend.encode_special_tokens = not control
            return backend.encode(text, add_special_tokens=False).ids

    def _decode(self, ids):
        return self._backend.decode(ids, skip_special_tokens=False) if ids else ""

    def token_text(self, token):
        known = 0 <= token < self.vocab_size
        text = self._backend.id_to_token(int(token)) if known else None
        return f"<id {token}>" if text is None else text


class SentencePieceTokenizer(_Base):
    """A SentencePiece `.model` file, with the added tokens of its folder."""

    def __init__(self, files: TokenizerFiles):
        import sentencepiece

        proto = files.contents["tokenizer.model"]
        # Serialised messages merge when joined: this sets add_dummy_prefix to false.
        no_prefix = b"\x1a\x02\x18\x00"
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=proto)
            self._inner = sentencepiece.SentencePieceProcessor(
                model_proto=proto + no_prefix
            )
        except RuntimeError as error:
            raise DataError(
                f"{files.path('tokenizer.model')}: not a SentencePiece model: {error}"
            ) from error
        model = self._model
        self._size = len(model)
        ids = {model.id_to_piece(i): i for i in range(self._size)}
        special = {
            piece: i
            for piece, i in ids.items()
            if model.is_control(i) or model.is_unknown(i)
        }
        self._added = {}
        for place, token in files.added_places().items():
            if token.content not in ids:
                # In the place of a piece that is not used (InternLM2), or at the end.
                unused = 0 <= place < self._size
                if unused:
                    piece = model.id_to_piece(place)
                    ids.pop(piece, None)
                    special.pop(piece, None)
                ids[token.content] = place if unused else len(ids)
                self._added[ids[token.content]] = token.content
            special[token.content] = ids[token.content]
        named = {
            name: model.id_to_piece(i)
            for name, i in (
                ("bos_token", model.bos_id()),
                ("eos_token", model.eos_id()),
                ("unk_token", model.unk_id()),
                ("pad_token", model.pad_id()),
            )
            if i >= 0
        }
        super().__init__(
            files,
            files.special_tokens(ids, special, named, adds_bos=True, adds_eos=False),
        )
        self.vocab_size = max(ids.values()) + 1
        self._legacy = files.config.get("legacy", False) is True

    def _encode(self, text, control, previous):
        ids = []
        pieces = special_pattern(self.special).split(text) if control else [text]
        for i, piece in enumerate(pieces):
            if i % 2:
                ids.append(self.special[piece])
            elif piece:
                last = ids[-1] if ids else previous
                start = last is None or (self._legacy and last in self._special_ids)
                # As in transformers, a space that is there already is not doubled.
                prefix = start and not piece.startswith(" ")
                ids += (self._model if prefix else self._inner).encode(piece)
        return ids

    def _decode(self, ids):
        text, run = [], []

        def flush():
            # Only the start of a text has a space that is not in it.
            model = self._inner if text else self._model
            text.extend([model.decode(run)] if run else [])
            run.clear()

        for token in ids:
            if token in self._added or token in self._control_ids:
                flush()
                text.append(self.token_text(token))
            elif token < self._size:
                run.append(token)
        flush()
        return "".join(text)

    def token_text(self, token):
        if 0 <= token < self._size and token not in self._added:
            return self._model.id_to_piece(int(token))
        return self._added.get(int(token), f"<id {token}>")


def special_pattern(special: Mapping[str, int]) -> re.Pattern:
    """Matches any control token, the longest first; it captures what it matches."""
    spellings = sorted(special, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, spellings)) or '(?!)'})")


def load_tokenizer(directory) -> Tokenizer:
    """A checkpoint folder's tokenizer: `tokenizer.json`, else `tokenizer.model`."""
    files = read_tokenizer_files(as_path(directory))
    kinds = {"tokenizer.json": JsonTokenizer, "tokenizer.model": SentencePieceTokenizer}
    kind = next((kinds[name] for name in kinds if name in files.contents), None)
    if kind is None:
        raise DataError(
            f"{directory}: expected a {' or a '.join(kinds)} in this folder"
        )
    try:
        return kind(files)
    except DataError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{directory}: the tokenizer's JSON files do not have the usual fields: "
            f"{error!r}"
        ) from error


def save_tokenizer(tokenizer: Tokenizer, directory) -> None:
    """Write the tokenizer's files, byte for byte, for transformers' AutoTokenizer."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in tokenizer.files.contents.items():
        partial = directory / f"{name}.{os.getpid()}.partial"
        partial.write_bytes(content)
        os.replace(partial, directory / name)


def char_tokenizer(alphabet: str, chat_template: str | None = None) -> JsonTokenizer:
    """A tokenizer of single characters, for miniature worlds."""
    return word_tokenizer(list(dict.fromkeys(alphabet)), chat_template)


def word_tokenizer(
    words: Sequence[str], chat_template: str | None = None
) -> JsonTokenizer:
    """A tokenizer of the given words, the longest match first; spaces are words too.

    Ids 0 to 3 are <pad>, <s>, </s>, <unk>; the words follow in their order. It is an
    ordinary `tokenizer.json`, so a miniature's checkpoint loads in transformers."""
    import json

    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    if len(set(words)) < len(words) or set(words) & set(special) or "" in words:
        raise DataError(
            "words: expected distinct, non-empty words, none of them special"
        )
    vocab = {word: i for i, word in enumerate([*special, *words])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    longest_first = sorted(words, key=len, reverse=True)
    backend.pre_tokenizer = pre_tokenizers.Split(
        tokenizers.Regex("|".join(map(re.escape, longest_first))), "isolated"
    )
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(special)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
    }
    if chat_template is not None:
        config["chat_template"] = chat_template
    contents = {
        "tokenizer.json": backend.to_str(pretty=True).encode(),
        "tokenizer_config.json": json.dumps(config, indent=2).encode(),
    }
    return JsonTokenizer(TokenizerFiles("", contents))
