"""Small trained tokenizers of the kinds that checkpoints ship, made once."""

import json

import pytest

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "USER: what is two plus three? ASSISTANT: two plus three is five.",
    "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nhello there [/INST] hello, how are you?",
    "system\nuser\nassistant\nBelow is an instruction that describes a task.",
    "naïve café, 12345 and 67890;\n\n\tfor x in range(10): print(x)",
] * 3


def write(folder, name, value):
    (folder / name).write_text(json.dumps(value), "utf-8")


@pytest.fixture(scope="session")
def byte_bpe(tmp_path_factory):
    """A Qwen2-like folder: byte-level BPE, ChatML tokens, a Jinja template, no BOS."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("byte_bpe")
    backend = Tokenizer(models.BPE())
    words = r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": CHATML,
    }
    write(folder, "tokenizer_config.json", config)
    write(folder, "config.json", {"model_type": "qwen2", "bos_token_id": 0})
    write(folder, "generation_config.json", {"eos_token_id": [2, 0]})
    return folder


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory):
    """A Llama-2-like folder with nothing but a SentencePiece model and its config."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("sentencepiece")
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(line.replace("\n", " ") for line in CORPUS), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    corpus.unlink()
    (folder / "tokenizer.vocab").unlink()
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
    }
    write(folder, "tokenizer_config.json", config)
    write(folder, "config.json", {"model_type": "llama"})
    return folder


@pytest.fixture(scope="session")
def metaspace(sentencepiece_folder, tmp_path_factory):
    """The same vocabulary as the `tokenizer.json` that transformers converts it to."""
    import transformers

    folder = tmp_path_factory.mktemp("metaspace")
    source = transformers.AutoTokenizer.from_pretrained(sentencepiece_folder)
    source.save_pretrained(folder)
    write(folder, "config.json", {"model_type": "llama"})
    return folder


@pytest.fixture(scope="session")
def prepend(metaspace, tmp_path_factory):
    """The older form of it, whose normaliser puts a space before every stretch."""
    folder = tmp_path_factory.mktemp("prepend")
    for file in metaspace.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    spec = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    spec["pre_tokenizer"] = None
    spec["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    write(folder, "tokenizer.json", spec)
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True}
    write(folder, "tokenizer_config.json", config)
    return folder


@pytest.fixture(params=["byte_bpe", "sentencepiece_folder", "metaspace", "prepend"])
def any_folder(request):
    """Each kind of tokenizer folder in turn."""
    return request.getfixturevalue(request.param)
