"""Checkpoints of transformers go through `train.sft` and come back as its own.

What comes back has the same names, the same token ids and the same logits on both
sides, and the loss of what it was trained on is lower.
"""

import json
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import forward
from helpers.checkpoints import torch_logits, torch_model
from helpers.entry import CONFIGS, call, snapshot, write_rows

from models.pretrained import from_pretrained
from train import sft

WORDS = "the river runs from a cold spring down to the wide grey sea and back".split()
TEXT = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))] * 4
PAIRS = [(f"say {WORDS[i % 12]}", f"{WORDS[i % 12]} sea") for i in range(40)]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Case(NamedTuple):
    """A family with the kind of tokenizer and of rows that it is tried with."""

    model_type: str
    tokenizer: str
    rows: list
    fields: dict[str, Any]
    settings: tuple[str, ...] = ()


CASES = {
    "llama": Case(
        "llama",
        "sentencepiece",
        [{"instruction": q, "input": "", "output": a} for q, a in PAIRS],
        {"num_key_value_heads": 2},
        ("--config.length=128",),
    ),
    "mistral": Case(
        "mistral",
        "metaspace",
        [{"prompt": q + ": ", "completion": a} for q, a in PAIRS],
        {"sliding_window": 5},
        ("--config.export_dtype=float32",),
    ),
    "qwen2": Case(
        "qwen2",
        "byte_level",
        [
            {
                "messages": [
                    {"role": "user", "content": q},
                    {"role": "assistant", "content": a},
                ]
            }
            for q, a in PAIRS
        ],
        {"tie_word_embeddings": True},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_is_fine_tuned_and_comes_back(name, tmp_path):
    """Equality with transformers on what sft exports, and a loss that fell."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    case = CASES[name]
    source, work = tmp_path / "source", tmp_path / "run"
    make_tokenizer(case.tokenizer, source)
    before = AutoTokenizer.from_pretrained(source)
    model = torch_model(
        case.model_type,
        vocab_size=len(before) + 3,  # published models pad theirs as well
        num_hidden_layers=2,
        max_position_embeddings=256,
        **case.fields,
    )
    model.save_pretrained(source)
    untouched = snapshot(source)
    data = write_rows(tmp_path / "data.jsonl", case.rows)
    command = [
        f"--config={CONFIGS / 'sft.py'}:mini",
        f"--config.checkpoint={source}",
        f"--config.data={data}",
        "--config.length=64",
        "--config.steps=12",
        "--config.optimizer.lr=1e-2",
        "--config.loop.log_every=1",
        f"--workdir={work}",
        *case.settings,
    ]
    done = call(sft, *command)
    assert done.code == 0, done.err
    assert snapshot(source) == untouched

    rows = [json.loads(x) for x in (work / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 12 and np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    heldout = [row["eval/loss"] for row in rows if "eval/loss" in row]
    assert heldout[-1] < heldout[0]

    theirs, report = AutoModelForCausalLM.from_pretrained(
        work / "hf",
        output_loading_info=True,
        dtype=torch.float32,
        attn_implementation="eager",
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert type(theirs) is type(model)
    after = AutoTokenizer.from_pretrained(work / "hf")
    for text in ["say the sea", " two  spaces", "naïve 12\n"]:
        ids = before(text).input_ids
        assert after(text).input_ids == ids and after.decode(ids) == before.decode(ids)
    for file in kept(source):
        assert (work / "hf" / file.name).read_bytes() == file.read_bytes()

    ours = from_pretrained(work / "hf")
    tokens = np.random.default_rng(0).integers(0, len(before), (3, 24))
    logits = forward.logits(ours.cfg, ours.params, *forward.rows(tokens, 24))
    assert np.abs(logits - torch_logits(theirs.eval(), tokens)).max() < 1e-4
    assert np.abs(logits - torch_logits(model, tokens)).max() > 0.1  # it was trained

    left = snapshot(work / "hf")
    again = call(sft, *command)
    assert again.code == 0, again.err
    assert snapshot(work / "hf") == left
    final = [json.loads(x) for x in (work / "metrics.jsonl").read_text().splitlines()]
    assert final == rows


def kept(folder):
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
    files = [folder / name for name in names if (folder / name).exists()]
    assert len(files) >= 2
    return files


def make_tokenizer(kind, folder):
    """Trains a tokenizer on TEXT and saves it as checkpoints of its kind do."""
    folder.mkdir()
    {
        "sentencepiece": sentencepiece_folder,
        "metaspace": metaspace_folder,
        "byte_level": byte_level_folder,
    }[kind](folder)


def sentencepiece_folder(folder):
    """Llama 2's: a SentencePiece model with byte fallback, nothing else."""
    import sentencepiece

    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(TEXT))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=310,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    corpus.unlink()
    (folder / "tokenizer.vocab").unlink()
    write_config(
        folder,
        tokenizer_class="LlamaTokenizer",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        add_bos_token=True,
        add_eos_token=False,
        legacy=False,
    )


def metaspace_folder(folder):
    """Mistral's: BPE over words that start with a low line, byte fallback, a BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="first", split=False
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    fallback = [f"<0x{i:02X}>" for i in range(256)]
    train(backend, ["<unk>", "<s>", "</s>", *fallback], vocab_size=310)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    save(backend, folder, ["<unk>", "<s>", "</s>"])
    write_config(
        folder,
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def byte_level_folder(folder):
    """Qwen 2's: byte-level BPE, ChatML tokens and a chat template, no BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    train(backend, special, 310, pre_tokenizers.ByteLevel.alphabet())
    save(backend, folder, special)
    write_config(
        folder,
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def train(backend, special, vocab_size, alphabet=()):
    from tokenizers import trainers

    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=list(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)


def save(backend, folder, special):
    """`tokenizer.json` in which only the control tokens are special."""
    backend.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text("utf-8"))
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] in special]
    path.write_text(json.dumps(spec), "utf-8")


def write_config(folder, **fields):
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
