"""Entry points called in this process, and what bad input must look like from outside.

Also a checkpoint small enough to be made anew for every test, without transformers.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import string
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax

from data.tokenizers import char_tokenizer
from models import decoder
from models.config import DecoderConfig
from models.pretrained import save_pretrained
from train import cli

ROOT = Path(cli.__file__).parents[1]
CONFIGS = ROOT / "configs"
TINY = DecoderConfig(
    vocab_size=104,
    d_model=16,
    n_layers=2,
    n_heads=2,
    n_kv_heads=1,
    head_dim=8,
    d_ff=24,
    max_position=512,
    init_std=0.1,
)
CHATML = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


def call(module, *arguments) -> Done:
    """`python -m module arguments...` without the process."""
    out, err = io.StringIO(), io.StringIO()
    argv = [module.__name__, *map(str, arguments)]
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", argv),
    ):
        code = cli.run(module.main, argv, module.define_flags)
    return Done(code, out.getvalue(), err.getvalue())


def assert_refused(done: Done, *mentions: str) -> None:
    """Exit code 2, one line on stderr that starts with `error:` and says what."""
    assert done.code == 2, done
    assert done.err.startswith("error: ") and done.err.endswith("\n"), done.err
    assert done.err.count("\n") == 1 and "Traceback" not in done.err, done.err
    assert len(done.err) > len("error: x\n")
    for mention in mentions:
        assert mention in done.err, done.err


def checkpoint(folder: Path, **fields) -> Path:
    """A random Llama in Hugging Face's format whose tokens are printable characters."""
    cfg = dataclasses.replace(TINY, **fields)
    tokenizer = char_tokenizer(string.printable, CHATML)
    assert tokenizer.vocab_size <= cfg.vocab_size
    params = decoder.init_params(cfg, jax.random.key(0))
    save_pretrained(folder, cfg, params, tokenizer_files=tokenizer.files.contents)
    return folder


def write_rows(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def snapshot(folder: Path) -> dict[str, str]:
    """{file: digest} of everything below a folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
