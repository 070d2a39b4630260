"""Small files as Natural Questions, TriviaQA and HotpotQA are published, and models.

The models are random: their answers are noise, their formats are those of checkpoints.
"""

import gzip
import json
from pathlib import Path
from typing import NamedTuple

import jax
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from models import decoder, hf_config, t5, t5_files
from models.pretrained import save_pretrained
from research.recite import prompts
from research.recite.published import EXEMPLARS

NONE = {"start_byte": -1, "end_byte": -1, "start_token": -1, "end_token": -1}
LONG_ANSWER = " ".join(f"word{i}" for i in range(20))


def span(page: str, text: str) -> dict:
    """A span as Natural Questions has them; tokens are words here."""
    start = page.encode().index(text.encode())
    words = len(text.split())
    return {
        "start_byte": start,
        "end_byte": start + len(text.encode()),
        "start_token": 10,
        "end_token": 10 + words,
    }


def annotation(long: dict, *short: dict, yes_no: str = "NONE") -> dict:
    return {
        "annotation_id": 13591449469826568799,
        "long_answer": {"candidate_index": 1, **long},
        "short_answers": list(short),
        "yes_no_answer": yes_no,
    }


def natural_question(number: int, kind: str = "answered") -> dict:
    """A line of nq-*.jsonl, all of its fields.

    kind: "answered"; "long", with a short answer of 20 tokens alone; "none", without a
    short answer; "yes"; "page", whose passage has over 512 bytes.
    """
    title = f"Town {number}"
    answer = {"long": LONG_ANSWER}.get(kind, f"{1900 + number}")
    filler = " It lies on a river, as é many towns do." * (30 if kind == "page" else 4)
    passage = f"<P>The bridge of {title} was built in {answer}.{filler}</P>"
    page = (
        f"<!DOCTYPE html><html><body><H1>{title}</H1>\n<P>{title} is a town that "
        f"is known for its market.{' It is old.' * 15}</P><H2>History</H2>\n"
        f"{passage}\n<H2>References</H2></body></html>"
    )
    given = [annotation(span(page, passage), span(page, answer))]
    if kind == "none":
        given = [annotation(span(page, passage)), annotation(NONE)]
    if kind == "yes":
        given = [annotation(span(page, passage), yes_no="YES")]
    question = f"when was the bridge of town {number} built"
    return {
        "annotations": given,
        "document_html": page,
        "document_title": title,
        "document_tokens": [
            {"end_byte": 14, "html_token": True, "start_byte": 0, "token": "<H1>"}
        ],
        "document_url": f"https://en.wikipedia.org//w/index.php?title=Town_{number}",
        "example_id": 797803103760793000 + number,
        "long_answer_candidates": [
            {"end_byte": 9, "end_token": 3, "start_byte": 0, "start_token": 1,
             "top_level": True}
        ],
        "question_text": question,
        "question_tokens": question.split(),
    }  # fmt: skip


def trivia(count: int) -> dict:
    """A file of TriviaQA."""
    rows = [
        {
            "Answer": {
                "Aliases": [f"River {i}", f"the River {i}"],
                "MatchedWikiEntityName": "",
                "NormalizedAliases": [f"river {i}", f"the river {i}"],
                "NormalizedMatchedWikiEntityName": "",
                "NormalizedValue": f"river {i}",
                "Type": "WikipediaEntity",
                "Value": f"River {i}",
            },
            "EntityPages": [
                {"DocSource": "TagMe", "Filename": "x.txt", "Title": f"Town {i}"}
            ],
            "Question": f"Which river runs through Town {i}?",
            "QuestionId": f"tc_{i}",
            "QuestionSource": "http://www.example.org/",
            "SearchResults": [],
        }
        for i in range(count)
    ]
    head = {"Domain": "Web", "Split": "dev", "VerifiedEval": False, "Version": 1.0}
    return {"Data": rows, **head}


def hotpot(count: int) -> list[dict]:
    """A file of HotpotQA."""
    return [
        {
            "_id": f"5a8b57f25542995d1e6f{i:04}",
            "answer": f"Land {i}" if i % 2 else "yes",
            "question": f"In which land does the river of Town {i} rise?",
            "supporting_facts": [[f"Town {i}", 0], [f"River {i}", 0]],
            "context": [
                [f"River {i}", [f"River {i} rises in Land {i}.", " It is long."]],
                ["Other", ["Not needed."]],
                [f"Town {i}", [f"Town {i} lies on River {i}."]],
            ],
            "type": "comparison" if i % 2 else "bridge",
            "level": "hard",
        }
        for i in range(count)
    ]


class QAFiles(NamedTuple):
    """Where the files are."""

    nq_test: str
    nq_train: str
    trivia: str
    hotpot: str


def write_qa(folder: Path, count: int = 3) -> QAFiles:
    """Files of `count` questions that count, Natural Questions among others that don't.

    Its training file has 20 rows with short answers and passages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = QAFiles(
        *(str(folder / name) for name in (
            "nq-dev-00.jsonl.gz", "nq-train-00.jsonl.gz", "web-dev.json",
            "hotpot_dev_distractor_v1.json",
        ))
    )  # fmt: skip
    kinds = ["none", *["answered"] * count, "yes", "long"]
    test = [natural_question(i, kind) for i, kind in enumerate(kinds)]
    train = [natural_question(i) for i in range(100, 120)]
    train += [natural_question(120, "page"), natural_question(121, "none")]
    for path, rows in ((made.nq_test, test), (made.nq_train, train)):
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    Path(made.trivia).write_text(json.dumps(trivia(count)))
    Path(made.hotpot).write_text(json.dumps(hotpot(count)))
    return made


def texts() -> list[str]:
    """What tokenizers are trained on."""
    rows = [natural_question(i)["document_html"] for i in range(10)]
    rows += [path.read_text() for path in EXEMPLARS.iterdir()]
    rows += [json.dumps(trivia(9)), json.dumps(hotpot(9))]
    words = "Answer 1: Q: A: [NLU] [S2S] [NLG]"
    return [*rows, prompts.RECITE, prompts.RECITE_TWO, prompts.READ, words]


def gpt2_files(bos: str = "</s>") -> dict[str, bytes]:
    """A byte-level BPE tokenizer, as GPT-2's and OPT's are; OPT's starts with </s>."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts(), trainer)
    config = {
        "tokenizer_class": "GPT2Tokenizer", "bos_token": bos, "eos_token": "</s>",
        "unk_token": "</s>", "pad_token": "<pad>", "add_bos_token": True,
    }  # fmt: skip
    return {
        "tokenizer.json": made.to_str().encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }


def t5_tokenizer_files() -> dict[str, bytes]:
    """Pieces without line breaks, sentinels at the end, EOS behind every text."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=500,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    made.train_from_iterator(texts(), trainer)
    sentinels = [f"<extra_id_{i}>" for i in range(4)]
    made.add_special_tokens(sentinels)
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    config = {
        "tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<pad>", "additional_special_tokens": sentinels,
    }  # fmt: skip
    return {
        "tokenizer.json": made.to_str().encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }


def vocabulary(files: dict[str, bytes]) -> int:
    """How many ids a tokenizer has."""
    return Tokenizer.from_str(files["tokenizer.json"].decode()).get_vocab_size()


def opt_checkpoint(folder: Path) -> Path:
    """A tiny OPT."""
    files = gpt2_files()
    config = {
        "model_type": "opt", "vocab_size": vocabulary(files), "hidden_size": 16,
        "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 1024, "init_std": 0.3,
    }  # fmt: skip
    cfg = hf_config.from_hf(config)
    params = decoder.init_params(cfg, jax.random.key(0))
    save_pretrained(folder, cfg, params, config, tokenizer_files=files)
    return folder


def t5_checkpoint(folder: Path) -> Path:
    """A tiny UL2: gated SiLU, an output matrix of its own."""
    files = t5_tokenizer_files()
    cfg = t5.T5Config(
        vocab_size=vocabulary(files), d_model=16, n_heads=2, head_dim=8, d_ff=24,
        n_layers=1, n_decoder_layers=1, activation="silu",
    )  # fmt: skip
    params = t5.init_params(cfg, jax.random.key(0))
    t5_files.save_pretrained(folder, cfg, params, files)
    return folder
