"""What chapter 7's models learn, and from where they go on; nothing is trained.

Identities: examples of each kind of training against the known steps; equal updates and
equal tokens; the stages of both regimes; rules of the novel split, which nothing that
is learned from uses.
"""

import ast
import importlib
import math

import numpy as np
import pytest
from helpers.lean_stages import STEPS

from data.batch import TokenizedExample
from data.batches import batches
from data.records import write_jsonl
from data.worlds.theorems import NOVEL
from models.config import DecoderConfig
from research.lean_star import stages, world
from research.lean_star.formats import Format
from research.lean_star.settings import Miniature
from research.lean_star.star import Example
from research.lean_star.vocabulary import tokenizer
from research.lean_star.writer import Codec
from research.plan import named
from research.run import declare
from research.stages import StageResult
from research.training import Training
from research.weights import Loaded
from train.errors import ConfigError

CONFIGS = importlib.import_module("configs.ch7_lean_star")
WORLD = Miniature(known=12, annotated=0.5, statements=6, held_out=6, novel=11)
TRAINING = Training(epochs=2.0, batch_size=4, length=256)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return StageResult(folder, world.make_world(folder, task=WORLD, seed=0))


@pytest.fixture
def learn(monkeypatch, tmp_path, data):
    """finetune without the training: (examples, epochs, steps, what it returns)."""
    cfg = DecoderConfig(
        vocab_size=tokenizer().vocab_size, d_model=4, n_layers=1, n_heads=1,
        n_kv_heads=1, head_dim=4, d_ff=4,
    )  # fmt: skip
    seen = {}

    def train(folder, cfg, params, examples, training, seed, tokenizer, *rest):
        rows = batches(
            examples, batch_size=training.batch_size, length=training.length,
            pad_id=tokenizer.pad_id, seed=seed, packing=True,
        )  # fmt: skip
        seen["examples"] = examples
        steps = math.ceil(training.epochs * rows.steps_per_epoch)
        return {"steps": steps, "tokens_per_epoch": rows.tokens_per_epoch}

    monkeypatch.setattr(stages, "train", train)
    monkeypatch.setattr(stages, "load", lambda *a: Loaded(cfg, {}, tokenizer(), {}))
    monkeypatch.setattr(stages, "save_pretrained", lambda *a, **k: None)

    def run(kind, **more):
        given = {"data": data, "start": "x", "kind": kind, "training": TRAINING,
                 "dtype": "float32", "seed": 0} | more  # fmt: skip
        seen.clear()
        value = stages.finetune(tmp_path, **given)
        return seen.get("examples", []), value

    return run


def texts(examples, kind="sft") -> list[tuple[str, str]]:
    """(prompt, target) of examples, as text."""
    codec = Codec(tokenizer(), Format("base", kind))
    return [
        (codec.text(e.tokens[e.weights == 0]), codec.text(e.tokens[e.weights > 0]))
        for e in examples
    ]


def expected(pairs, kind="sft", thoughts=None) -> list[tuple[str, str]]:
    form = Format("base", kind)
    thoughts = thoughts or [p.thought if kind == "cot" else None for p in pairs]
    return [
        (form.prompt(pair.state), form.target(pair.tactic, thought))
        for pair, thought in zip(pairs, thoughts, strict=True)
    ]


def test_the_same_steps_are_learned_with_and_without_thoughts(data, learn):
    """Lean-CoT and SFT at equal data: prompts of the same states, the same tactics."""
    pairs = world.read_pairs(data)
    own = [pair for pair in pairs if pair.thought is not None]
    assert 0 < len(own) < len(pairs)
    with_thoughts, _ = learn("cot")
    assert texts(with_thoughts, "cot") == expected(own, "cot")
    without, _ = learn("sft")
    assert texts(without) == expected(own)
    every, _ = learn("sft", annotated=False)
    assert texts(every) == expected(pairs)


def test_controls_change_the_thoughts_alone(data, learn):
    """Shuffled: the same thoughts, none in its place. Filler: as long, and empty."""
    own = [pair for pair in world.read_pairs(data) if pair.thought is not None]
    form = Format("base", "cot")
    true = texts(learn("cot")[0], "cot")
    moved = texts(learn("cot", thoughts="shuffled")[0], "cot")
    assert [prompt for prompt, _ in moved] == [prompt for prompt, _ in true]
    said = [form.thought(target) for _, target in moved]
    assert sorted(said) == sorted(pair.thought for pair in own)
    filled, _ = learn("cot", thoughts="filler")
    lengths = [len(e.tokens) for e in learn("cot")[0]]
    assert [len(e.tokens) for e in filled] == lengths
    assert {form.thought(t).replace("so", "").strip() for _, t in texts(filled, "cot")}
    for _, target in texts(filled, "cot"):
        assert set(form.thought(target).split()) == {"so"}


def harvest(folder, *theorems: str, tactics=("h1",)) -> StageResult:
    """A round: of each theorem proofs of one step, `exact` and a name."""
    folder.mkdir()
    (step,) = STEPS
    rows = [
        Example(theorem, step["state"], f"exact {h}\n", f"exact {h}", (f"exact {h}",))
        for theorem in theorems
        for h in tactics
    ]
    write_jsonl(folder / "examples.jsonl", [row._asdict() for row in rows])
    return StageResult(folder, {"most": 3})


def test_regimes_learn_what_they_should(data, learn, tmp_path):
    """Joint: the known steps and all harvests; continue: the newest harvest alone.

    Without anything to learn the model stays.
    """
    one, two = harvest(tmp_path / "one", *"ab"), harvest(tmp_path / "two", *"cde")
    alone, _ = learn("sft")
    joint, _ = learn("sft", harvests=[one, two])
    assert texts(joint)[: len(alone)] == texts(alone)
    assert len(joint) == len(alone) + 5
    newest, value = learn("sft", harvests=[two], known=False)
    assert len(newest) == 3 and value["steps"] > 0
    assert texts(newest)[0][1] == "exact h1\n"
    empty, value = learn("sft", harvests=[harvest(tmp_path / "no")], known=False)
    assert empty == [] and (value["steps"], value["tokens"]) == (0, 0)


def test_updates_or_tokens_of_another_training_are_taken_over(learn, tmp_path):
    """The number of updates exactly; of tokens within half an update."""
    _, cot = learn("cot")
    other = StageResult(tmp_path, cot)
    _, same = learn("sft", updates_of=other)
    assert same["steps"] == cot["steps"] and same["places"] == cot["places"]
    _, equal = learn("sft", tokens_of=other)
    an_update = equal["tokens"] / equal["steps"]
    assert abs(equal["tokens"] - cot["tokens"]) <= an_update / 2
    # More epochs, as a row holds more steps without thoughts.
    assert equal["epochs"] > cot["epochs"]


def test_what_two_rounds_prove_is_learned_once(data, learn, tmp_path):
    """By theorem and script, three of a theorem in all; continue drops nothing."""
    one = harvest(tmp_path / "one", *"ab", tactics=("h1", "h2"))
    two = harvest(tmp_path / "two", *"bc", tactics=("h2", "h3", "h4"))
    alone, value = learn("sft")
    assert (value["proofs"], value["repeated_proofs"]) == (0, 0)
    joint, value = learn("sft", harvests=[one, two])
    # Of a two, of b two and one of h3 and h4, of c three.
    assert len(joint) == len(alone) + 2 + 3 + 3
    left_out = (value["repeated_proofs"], value["proofs_beyond"])
    assert value["proofs"] == 8 and left_out == (1, 1)
    newest, value = learn("sft", harvests=[two], known=False)
    assert len(newest) == value["proofs"] == 6
    assert (value["repeated_proofs"], value["proofs_beyond"]) == (0, 0)


def test_controls_train_as_long_as_a_joint_round(learn, tmp_path):
    """Without thoughts on proofs for as many tokens as with, within half an update.

    And on known steps alone for as many updates as with proofs, exactly. As long as a
    training that made no update is none.
    """
    names = [f"t{i}" for i in range(30)]
    harvests = [harvest(tmp_path / "one", *names, tactics=("h1", "h2", "h3"))]
    _, star = learn("cot", harvests=harvests)
    star = StageResult(tmp_path, star)
    examples, ei = learn("sft", harvests=harvests)
    as_long, tokens = learn("sft", harvests=harvests, tokens_of=star)
    assert texts(as_long) == texts(examples)
    an_update = tokens["tokens"] / tokens["steps"]
    assert abs(tokens["tokens"] - star.value["tokens"]) <= an_update / 2
    assert tokens["steps"] > ei["steps"], "or there is nothing to see"
    known, longer = learn("sft", updates_of=StageResult(tmp_path, ei))
    assert texts(known) == texts(learn("sft")[0])
    assert longer["steps"] == ei["steps"] > learn("sft")[1]["steps"]
    for name in ("updates_of", "tokens_of"):
        none = StageResult(tmp_path, {"steps": 0, "tokens": 0})
        examples, value = learn("sft", **{name: none})
        assert examples == [] and (value["steps"], value["tokens"]) == (0, 0)
    with pytest.raises(ValueError, match="updates_of, tokens_of: expected one of"):
        learn("sft", updates_of=star, tokens_of=star)


def test_long_examples_lose_the_beginning_of_their_prompt():
    """As many tokens as there may be, the last ones; a target is never cut."""
    weights = np.repeat([0.0, 1.0], [6, 4]).astype(np.float32)
    example = TokenizedExample(np.arange(10, dtype=np.int32), weights)
    for length in (10, 12):
        assert stages.cut(example, length) is example
    short = stages.cut(example, 7)
    np.testing.assert_array_equal(short.tokens, range(3, 10))
    np.testing.assert_array_equal(short.weights, [0, 0, 0, 1, 1, 1, 1])
    assert len(stages.cut(example, 5).tokens) == 5
    # The first token of a target has to be predicted from something.
    assert stages.cut(example, 4) is example


def test_what_a_format_cannot_hold_is_left_out(learn, data, tmp_path):
    """A tactic with a fence inside, with thoughts; counted."""
    pairs = [pair for pair in world.read_pairs(data) if pair.thought is not None]
    rows = [pair._asdict() for pair in pairs]
    rows[1]["tactic"] = "exact ```h1"
    write_jsonl(tmp_path / "known.jsonl", rows)
    made = StageResult(tmp_path, {})
    with_thoughts, value = learn("cot", data=made)
    assert value["unwritable"] == 1 and len(with_thoughts) == len(pairs) - 1
    assert learn("sft", data=made)[1]["unwritable"] == 0


def test_nothing_that_is_learned_has_a_rule_of_the_novel_split(data):
    """By the names of rules: known proofs, statements to try, the test."""
    for name in ("statements", "test"):
        for row in world.read_rows(data, (name,)):
            assert not set(row["shapes"]) & NOVEL, row["name"]
    novel = world.read_rows(data, ("novel",))
    assert all(set(row["shapes"]) & NOVEL for row in novel)
    statements = {row["statement"] for row in novel}
    known = world.read_pairs(data)
    first = {row["states"][0] for row in novel}
    assert not first & {pair.state for pair in known}
    tried = {row["statement"] for row in world.read_rows(data, ("statements", "test"))}
    assert not statements & tried


# --- stages -------------------------------------------------------------------------


def declared(variant: str) -> dict:
    config = named(CONFIGS.get_config(variant), "internlm2-7b")
    return {handle.name: handle for handle in declare(config).handles}


@pytest.mark.parametrize("variant, seed", [("report", 0), ("paper_base", 42)])
def test_rounds_go_on_as_their_regime_says(variant, seed):
    """Joint from SFT with all harvests, continue from the last with its own alone.

    Each round's proofs are by the model before it; both regimes share the first.
    """
    found = declared(variant)
    for chain, first in (("star", "cot"), ("ei", "sft-data")):
        gathered = [
            [f"gather-{chain}-1-{seed}", f"gather-{chain}-{regime}-2-{seed}"]
            for regime in ("joint", "continue")
        ]
        for regime, names in zip(("joint", "continue"), gathered, strict=True):
            before = first
            for number in (1, 2):
                own = f"{chain}-{regime}-{number}"
                inputs = found[f"{own}-{seed}"].inputs
                gather = found[names[number - 1]].inputs
                assert gather["model"].name == f"{before}-{seed}"
                learned = [stage.name for stage in inputs["harvests"]]
                if regime == "joint":
                    assert inputs["start"].name == f"sft-{seed}"
                    assert learned == names[:number] and inputs.get("known", True)
                else:
                    assert inputs["start"].name == f"{before}-{seed}"
                    assert learned == names[number - 1 : number]
                    assert inputs["known"] is False
                before = own
    longer = found[f"cot-longer-{seed}"].inputs
    assert longer["updates_of"].name == f"star-joint-2-{seed}"
    tokens = found[f"sft-tokens-{seed}"].inputs
    assert tokens["tokens_of"].name == f"cot-{seed}"
    data, cot = (found[f"{name}-{seed}"].inputs for name in ("sft-data", "cot"))
    assert data["training"] == cot["training"] and data["start"] is cot["start"]


def test_the_report_goes_on_from_the_miniature():
    """In the same folder it finds all but what follows the last round, and the page."""
    one, three = declared("mini"), declared("report")
    again = {name for name in one if one[name].fingerprint != three[name].fingerprint}
    longer = {"cot-longer-0", "prove-cot-longer-0", "predict-cot-longer-0"}
    assert again == longer | {"report"}


@pytest.mark.parametrize("variant", ["paper_base", "paper_plus"])
def test_published_models_are_trained_as_in_the_original(variant):
    """By name: rates, epochs, batches; K, N, S; where each thing is asked."""
    found = declared(variant)
    era = variant.removeprefix("paper_")
    sft, cot = found["sft-42"].inputs, found["cot-42"].inputs
    assert sft["start"] == "internlm2-7b" and not sft["annotated"]
    star = found["star-continue-1-42"].inputs
    for inputs, epochs in ((sft, 1.0), (cot, 2.0), (star, 1.0)):
        training, optimizer = inputs["training"], inputs["training"].optimizer
        assert (training.epochs, training.batch_size, training.length) == (
            epochs, 128, 2048,
        )  # fmt: skip
        # A fifth of one epoch, whatever the number of epochs.
        assert optimizer.warmup * epochs == pytest.approx(0.2)
        assert (optimizer.lr, optimizer.end_factor) == (2e-5, 0.0)
        assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.999, 1e-8)
        assert (optimizer.weight_decay, optimizer.clip_norm) == (0.0, 1.0)
    prove, gather = found["prove-cot-42"].inputs, found["gather-star-1-42"].inputs
    assert (prove["sampled"].trajectories, prove["sampled"].tactics) == (64, 50)
    tried = gather["iteration"].sampled
    assert (tried.trajectories, tried.tactics, tried.repeat) == (32, 5, 1)
    assert tried.stop_all_on_first and gather["iteration"].most == 3
    assert prove["drawn"].temperature == gather["drawn"].temperature == 0.7
    assert (prove["sampled"].seconds, tried.seconds) == (600.0, 30.0)
    search = found["search-sft-mean-42"].inputs["rules"]
    assert search.seconds == 600.0
    assert (search.expansions, search.candidates, search.beam) == (50, 32, True)
    projects = {split: p.project for split, p in prove["provers"].items()}
    assert projects["novel"] == projects["statements"] != projects["test"]
    untuned = found["prove-untuned-42"].inputs
    assert untuned["kind"] == ("few-shot" if era == "base" else "sft")
    assert untuned["model"] == "internlm2-7b"
    rounds = {name for name in found if name.startswith("star-joint")}
    assert len(rounds) == (2 if era == "base" else 1)
    for name, handle in found.items():
        if "era" in handle.inputs:
            assert handle.inputs["era"] == era, name
    thoughts = found["thoughts"].inputs["thoughts"]
    asked = (thoughts.seed, thoughts.per_file, thoughts.per_theorem, thoughts.steps)
    base = era == "base"
    assert asked == ((42, 5, 4, None) if base else (42, None, 4, 140_000))
    assert found["report"].inputs["published"] == era


def test_given_thoughts_are_asked_of_nobody():
    """With a file there is no stage that asks."""
    config = named(CONFIGS.get_config("paper_base"), "internlm2-7b")
    config.published.thoughts.file = "thoughts.jsonl"
    found = {handle.name: handle for handle in declare(config).handles}
    assert "thoughts" not in found
    assert found["data"].inputs["thoughts"] == "thoughts.jsonl"


@pytest.mark.parametrize("change, message", [
    (["drawn.temperature=0.0"], "drawn.temperature: .* sampled.trajectories = "),
    (["thought_drawn.temperature=0.0", "counts=(1,)", "sampled.trajectories=1"],
     "config: thought_drawn.temperature: .* iteration.sampled.trajectories = "),
    (["miniature.annotated=0.0", "controls=('shuffled',)"], "annotated: .* at least 2"),
    (["miniature.annotated=0.0", "controls=()"], "miniature.annotated: .* at least 1"),
    (["sampled.seconds=0.0"], "config.sampled.seconds: expected > 0"),
])  # fmt: skip
def test_what_could_not_be_is_refused_before_anything_runs(change, message):
    """Many trajectories without a temperature; thoughts of no theorem: by key."""
    config = CONFIGS.get_config("mini")
    with config.unlocked():
        for one in change:
            key, _, value = one.partition("=")
            config.update_from_flattened_dict({key: ast.literal_eval(value)})
    with pytest.raises(ConfigError, match=message):
        declare(config)


def test_one_trajectory_may_be_greedy():
    """Everywhere one: what is refused is that they would be copies."""
    config = CONFIGS.get_config("mini")
    config.drawn.temperature, config.counts = 0.0, (1,)
    config.sampled.trajectories = config.iteration.sampled.trajectories = 1
    assert declare(config).handles
    with config.best_first.unlocked():
        config.best_first.beam = False
    with pytest.raises(ConfigError, match="best_first.candidates = "):
        declare(config)


@pytest.mark.parametrize("change, message", [
    ({"model": {"d_model": 8}}, "model: expected with a miniature, and only there"),
    ({"miniature": {}, "model": {}}, "miniature, published: expected one of the two"),
    ({"published": None}, "miniature, published: expected one of the two"),
])  # fmt: skip
def test_settings_are_of_a_miniature_or_published(change, message):
    """The message names the setting."""
    config = named(CONFIGS.get_config("paper_base"), "internlm2-7b").to_dict()
    from ml_collections import config_dict

    with pytest.raises(ValueError, match=message):
        declare(config_dict.ConfigDict(config | change))
