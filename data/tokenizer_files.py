"""The small files beside a checkpoint's vocabulary: which tokens are special, and how.

They are kept in memory as read, so that an export writes the same bytes even if the
source folder has gone by then."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import DataError
from data.paths import as_path
from data.records import parse_json

# Those that transformers' AutoTokenizer reads, and are copied on export ...
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
# ... and those of the model, which name ids too but are the model's to export.
MODEL_FILES = ("generation_config.json", "config.json")

NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


class AddedToken(NamedTuple):
    """A token that the folder adds to the vocabulary."""

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = True


@dataclass(frozen=True)
class SpecialTokens:
    """Control tokens by spelling, and the roles that some of them play."""

    ids: Mapping[str, int]
    names: Mapping[str, str]  # "bos_token" -> its spelling
    bos_id: int | None
    eos_id: int | None
    pad_id: int
    stop_ids: tuple[int, ...]
    adds_bos: bool
    adds_eos: bool


@dataclass(frozen=True)
class TokenizerFiles:
    """File contents by name, and what the JSON ones among them say."""

    directory: str
    contents: Mapping[str, bytes]
    model_contents: Mapping[str, bytes] | None = None

    def path(self, name: str) -> str:
        return str(as_path(self.directory) / name)

    def text(self, name: str) -> str:
        try:
            return self.contents[name].decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path(name)}: not UTF-8: {error.reason}") from error

    def json(self, name: str) -> dict:
        """The file's object; {} if there is no such file."""
        data = {**(self.model_contents or {}), **self.contents}.get(name)
        if data is None:
            return {}
        try:
            value = parse_json(data)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.path(name)}: not JSON: {error}") from error
        if not isinstance(value, dict):
            raise DataError(f"{self.path(name)}: expected an object")
        return value

    @cached_property
    def config(self) -> dict:
        return self.json("tokenizer_config.json")

    @cached_property
    def chat_template(self) -> str | None:
        """The checkpoint's own Jinja template; its own file wins over the config."""
        if "chat_template.jinja" in self.contents:
            return self.text("chat_template.jinja")
        template = self.config.get("chat_template")
        if isinstance(template, list):
            named = {t.get("name"): t.get("template") for t in template}
            template = named.get("default")
        if template is not None and not isinstance(template, str):
            raise DataError(
                f"{self.path('tokenizer_config.json')}: chat_template: "
                "expected a string"
            )
        return template

    def added_tokens(self) -> list[AddedToken]:
        """Those of tokenizer_config.json and added_tokens.json, in order of ids."""
        return list(self.added_places().values())

    def added_places(self) -> dict[int, AddedToken]:
        """The same by their ids."""
        tokens = {
            int(i): AddedToken(spelling)
            for spelling, i in self.json("added_tokens.json").items()
        }
        for i, token in self.config.get("added_tokens_decoder", {}).items():
            known = {k: v for k, v in token.items() if k in AddedToken._fields}
            tokens[int(i)] = AddedToken(**known)
        return {i: tokens[i] for i in sorted(tokens)}

    def special_tokens(
        self,
        vocab: Mapping[str, int],
        special: Mapping[str, int],
        defaults: Mapping[str, str] | None = None,
        *,
        adds_bos: bool,
        adds_eos: bool,
    ) -> SpecialTokens:
        """The roles, from tokenizer_config.json, special_tokens_map.json and the model.

        The tokenizer's own files decide, even by saying null; config.json and
        generation_config.json fill in where they say nothing. adds_bos and adds_eos are
        what the vocabulary file does unless `add_bos_token` says otherwise."""
        spellings = {i: spelling for spelling, i in vocab.items()}
        stated = {**self.json("special_tokens_map.json"), **self.config}
        names = dict(defaults or {})
        for name in NAMES:
            if name in stated:
                names[name] = _spelling(stated[name])
        own = set(names)  # a model's eos id may be an ordinary word: not hidden in text
        stops = []
        for file in MODEL_FILES:
            settings = self.json(file)
            for name in ("bos_token", "eos_token"):
                found = settings.get(f"{name}_id")
                found = found if isinstance(found, list) else [found]
                found = [i for i in found if i in spellings]
                if found and name not in names:
                    names[name] = spellings[found[0]]
                if name == "eos_token":
                    stops += found
        names = {name: s for name, s in names.items() if s is not None and s in vocab}
        roles = {name: vocab[spelling] for name, spelling in names.items()}
        bos, eos = roles.get("bos_token"), roles.get("eos_token")
        stops = [eos, *stops] if eos is not None else stops
        pad = roles.get("pad_token", eos if eos is not None else 0)
        return SpecialTokens(
            ids=dict(special) | {names[n]: roles[n] for n in names if n in own},
            names=names,
            bos_id=bos,
            eos_id=eos,
            pad_id=pad,
            stop_ids=tuple(dict.fromkeys(stops)),
            adds_bos=bos is not None
            and self.config.get("add_bos_token", adds_bos) is True,
            adds_eos=eos is not None
            and self.config.get("add_eos_token", adds_eos) is True,
        )


def _spelling(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value


def read_tokenizer_files(directory: Path) -> TokenizerFiles:
    """All tokenizer files of a folder. Raises DataError for a folder that is none."""
    if not directory.is_dir():
        raise DataError(f"{directory}: expected a folder with a tokenizer")

    def read(names):
        return {
            n: (directory / n).read_bytes() for n in names if (directory / n).is_file()
        }

    try:
        return TokenizerFiles(str(directory), read(TOKENIZER_FILES), read(MODEL_FILES))
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{directory}: cannot be read: {reason}") from error
