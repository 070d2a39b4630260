"""PPO's roles as adapters over one frozen base: one copy, same numbers, same files."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_ppo as tiny
from helpers.entry import CONFIGS, call, checkpoint
from helpers.tiny_run import exact, same_bits

from models import decoder, heads, reward_model
from models.adapters import LoRAConfig, detach, init_adapters, merge
from models.params import count, flatten_names
from models.peft_files import Loaded, load_adapters, save_adapters
from models.pretrained import from_pretrained
from models.sampling import Sampling
from train import ppo as ppo_lib
from train import ppo_run, ppo_terms
from train.errors import ConfigError
from train.lora import LoRASettings
from train.mesh import make_mesh
from train.ppo_roles import WHOLE, adapted_start, whole_start
from train.ppo_run import RewardSettings, RunConfig, check_adapted
from train.ppo_terms import response_scores, shared_scores, state_values

LORA = LoRASettings(rank=2, alpha=4.0)
RULES = Sampling(temperature=0.7, top_k=6, eos_ids=(tiny.EOS,))
ROWS = tiny.random_rows(np.random.default_rng(0), rows=4)


def random_adapters(seed, cfg=tiny.CFG, rank=2, scored=False) -> Loaded:
    """As after some training: b is not zero; with a head where `scored`."""
    lora = LoRAConfig(rank, 3.0 * rank)
    made = init_adapters(decoder.param_shapes(cfg), lora, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    made = jax.tree.map(
        lambda x: jnp.asarray(0.1 * rng.standard_normal(x.shape), x.dtype), made
    )
    key = jax.random.key(seed)
    head = heads.init_scalar_head(cfg.d_model, key, std=0.3) if scored else None
    return Loaded(made, lora, head)


def memory(cfg, begin) -> tuple[int, int]:
    """Bytes of the arguments of the update: of its memory analysis, and of their sum.

    The former only of adapters: the latter says the same.
    """
    settings = tiny.config(prompts=4, samples=1, minibatch=2)
    models, state = ppo_lib.start(
        cfg, begin.params, settings, begin.value, tiny.ADAM, tiny.ADAM, begin.roles
    )
    given = state, begin.reference, ROWS
    whole = sum(x.nbytes for x in jax.tree.leaves(given))
    if begin.adapters is None:
        return whole, whole
    update = ppo_lib.make_update(models, settings, tiny.SAMPLING, state)
    compiled = update.lower(*given, jax.random.key(0)).compile()
    return compiled.memory_analysis().argument_size_in_bytes, whole


def test_there_is_one_base_in_memory():
    """Of adapters: the base once, and less than a tenth of it for all that is trained.

    In full: policy, critic and reference, and two moments for each of the former two.
    """
    cfg = dataclasses.replace(
        tiny.CFG, d_model=128, d_ff=512, head_dim=64, n_layers=2, layer_loop="scan"
    )
    params = decoder.init_params(cfg, jax.random.key(0))
    base = 4 * count(params)
    small = adapted_start(cfg, params, LoRASettings(rank=1, alpha=1.0), None)
    found, given = memory(cfg, small)
    assert base < found < 1.1 * base
    assert found == pytest.approx(given, abs=64)  # the key
    judge = reward_model.RewardModel(cfg, reward_model.init(cfg, params), {})
    found, _ = memory(cfg, whole_start(params, judge, "none"))
    assert 6.8 * base < found < 7.1 * base


def test_roles_are_put_together_from_the_same_arrays():
    """Identity of arrays: one base in all four roles, what is trained in its own only.

    So a run may give away what it starts from: nothing that stays is part of it.
    """
    begin = adapted_start(
        tiny.CFG, tiny.policy(), LORA, random_adapters(1, scored=True),
        random_adapters(2),
    )  # fmt: skip
    critic = begin.value[1]

    def ids(tree):
        return {id(x) for x in jax.tree.leaves(tree)}

    policy = begin.roles.policy(begin.params, begin.reference)
    value = begin.roles.value(critic, begin.reference)["decoder"]
    judge = begin.judge.params["decoder"]
    assert ids(detach(policy)) == ids(detach(begin.reference)) == ids(tiny.policy())
    body = {name: part for name, part in tiny.policy().items() if name != "lm_head"}
    assert ids(detach(value)) == ids(detach(judge)) == ids(body)
    assert ids(policy) - ids(tiny.policy()) == ids(begin.params)
    assert not ids((begin.params, critic)) & ids((begin.judge.params, begin.reference))


@pytest.mark.parametrize("consume", [False, True])
def test_a_state_takes_the_arrays_that_are_given_away(consume):
    """Identity of buffers: all that is trained is in memory once, else twice."""
    judge = random_adapters(1, scored=True)
    begin = adapted_start(tiny.CFG, tiny.policy(), LORA, judge)
    _, state = ppo_lib.start(
        tiny.CFG, begin.params, tiny.config(), begin.value, tiny.ADAM, tiny.ADAM,
        begin.roles, consume=consume,
    )  # fmt: skip

    def buffers(*trees):
        return {x.unsafe_buffer_pointer() for x in jax.tree.leaves(trees)}

    given = buffers(begin.params, begin.value[1])
    taken = buffers(state.policy.params, state.value.params)
    assert taken == given if consume else not taken & given


def test_adapters_that_a_policy_starts_from_stay_with_the_reference():
    """Equality, exact, of old and reference log-probs; the base's are others."""
    own = random_adapters(2)
    begin = adapted_start(tiny.CFG, tiny.policy(), LORA, None, own)

    @jax.jit
    def scores(params):
        return response_scores(tiny.CFG, RULES, params, ROWS)[0]

    old = scores(begin.roles.policy(begin.params, begin.reference))
    np.testing.assert_array_equal(old, scores(begin.reference))
    merged = merge(tiny.policy(), own.adapters, own.lora.scale)
    np.testing.assert_allclose(old, scores(merged), atol=1e-5)
    assert np.abs(old - scores(tiny.policy())).max() > 0.01


def test_the_critic_starts_as_the_reward_model():
    """Equality: its values are the scores at the states before the tokens."""
    judge = random_adapters(3, rank=4, scored=True)
    begin = adapted_start(tiny.CFG, tiny.policy(), LORA, judge)
    architecture, critic = begin.value
    values = state_values(
        architecture, begin.roles.value(critic, begin.reference), ROWS
    )
    for i, length in enumerate(ROWS.lengths):
        start = ROWS.prompt_lengths[i]
        row = [*ROWS.prompts[i][:start], *ROWS.tokens[i][:length]]
        places = range(start - 1, start - 1 + length)
        scores = reward_model.score_places(
            begin.judge.cfg, begin.judge.params, [row], [list(places)]
        )[0]
        np.testing.assert_allclose(values[i, :length], scores, atol=1e-5)


def test_without_adapters_of_a_reward_model_the_critic_is_the_base():
    """Closed form: adapters that change nothing and a head of zeros give zero."""
    begin = adapted_start(tiny.CFG, tiny.policy(), LORA, None)
    architecture, critic = begin.value
    assert not np.any(critic["head"]["kernel"])
    critic = {**critic, "head": {"kernel": jnp.ones((tiny.CFG.d_model, 1))}}
    found = state_values(architecture, begin.roles.value(critic, begin.reference), ROWS)
    whole = {"decoder": tiny.policy(), "head": critic["head"]}
    np.testing.assert_allclose(
        found, state_values(tiny.CFG, whole, ROWS), rtol=1e-5, atol=1e-5
    )


def test_one_pass_gives_the_scores_of_separate_ones():
    """Equality to rounding: policy, reference, critic; adapters of different ranks."""
    settings = dataclasses.replace(LORA, base="nf4")
    judge = random_adapters(3, rank=4, scored=True)
    begin = adapted_start(tiny.CFG, tiny.policy(), settings, judge, random_adapters(2))
    own, critic = random_adapters(1).adapters, begin.value[1]

    @jax.jit
    def separate(own, critic, reference):
        policy = begin.roles.policy(own, reference)
        return (
            response_scores(tiny.CFG, RULES, policy, ROWS),
            response_scores(tiny.CFG, RULES, reference, ROWS),
            state_values(tiny.CFG, begin.roles.value(critic, reference), ROWS),
        )

    @jax.jit
    def shared(own, critic, reference):
        params = begin.roles.stacked(own, critic, reference)
        return shared_scores(tiny.CFG, RULES, params, critic["head"], ROWS)

    found, wanted = (f(own, critic, begin.reference) for f in (shared, separate))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, wanted
    )
    assert np.abs(wanted[0][0] - wanted[1][0]).max() > 0.01


@pytest.mark.parametrize(
    ("rows", "chunks", "mesh", "few"),
    [
        (4, 2, None, True),  # 2 rows of 3 + 5 tokens
        (20, 2, None, False),
        (20, 10, None, True),
        (8, 1, None, True),  # of two chunks: see `by_chunks`
        (16, 1, None, True),
        (18, 1, None, False),
        (4, 2, make_mesh(), False),
    ],
)
def test_one_pass_is_for_few_tokens(rows, chunks, mesh, few):
    """Closed form: rows of a chunk x their width, at most 64, and not on a mesh."""
    model = dataclasses.replace(tiny.CFG, mesh=mesh)
    given = tiny.random_rows(np.random.default_rng(0), rows=rows)
    assert ppo_terms.few_tokens(model, given, chunks) == few


def test_adapters_of_other_kernels_have_passes_of_their_own():
    """None in the place of stacked adapters: each role is then scored by itself."""
    other = dataclasses.replace(LORA, targets=("layers/attn/*",))
    judge = random_adapters(3, scored=True)
    begin = adapted_start(tiny.CFG, tiny.policy(), other, judge)
    roles = begin.params, begin.value[1], begin.reference
    assert begin.roles.stacked(*roles) is None
    assert WHOLE.stacked(*roles) is None


def test_an_update_of_few_tokens_scores_all_roles_by_one_pass(monkeypatch):
    """Equality to rounding of state and metrics with the limit at no tokens."""
    settings = tiny.config(prompts=4, samples=1, minibatch=4)
    begin = adapted_start(
        tiny.CFG, tiny.policy(), dataclasses.replace(LORA, base="nf4"),
        random_adapters(3, scored=True), random_adapters(2),
    )  # fmt: skip
    done, passes = [], []

    def counted(*args):
        passes.append(limit)
        return shared_scores(*args)

    monkeypatch.setattr(ppo_lib, "shared_scores", counted)
    for limit in (64, 0):
        monkeypatch.setattr(ppo_terms, "FEW_TOKENS", limit)
        models, state = ppo_lib.start(
            tiny.CFG, begin.params, settings, begin.value, tiny.ADAM, tiny.ADAM,
            begin.roles,
        )  # fmt: skip
        update = ppo_lib.make_update(models, settings, RULES)
        done.append(update(state, begin.reference, ROWS, jax.random.key(0)))
    assert passes == [64]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *done)
    assert not same_bits(done[0][0].value.params, begin.value[1])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run over an NF4 base; the update of all runs here is compiled once."""
    made, make = {}, ppo_lib.make_update

    def cached(models, cfg, *rest):
        if cfg not in made:
            made[cfg] = make(models, cfg, *rest)
        return made[cfg]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo_lib, "make_update", cached)
        folder = tmp_path_factory.mktemp("straight")
        yield tiny.run(folder, begin=tiny.adapted("nf4"))


def test_a_continued_run_has_the_same_bits(straight, tmp_path):
    """Equality, bit by bit; in checkpoints is what is trained, and no base."""
    begin = tiny.adapted("nf4")

    class Broken(Exception):
        pass

    def breaks(iteration):
        if iteration == 2:
            raise Broken

    with pytest.raises(Broken):
        tiny.run(tmp_path, begin=begin, before_update=breaks)
    again = tiny.run(tmp_path, begin=begin)
    assert same_bits(again.state, straight.state)
    assert exact(again.rows) == exact(straight.rows)
    trained = begin.params, begin.value[1]
    names = {n.rpartition("/")[2] for n in flatten_names(trained)}
    assert names == {"a", "b", "kernel"}  # the head's
    assert count(straight.state) < 3 * count(trained) + 10


def test_eight_devices_give_the_results_of_one(straight, tmp_path):
    """Equality to rounding: whole iterations over a base that is spread, 4 x 2 mesh."""
    done = tiny.script(tmp_path, "--mesh", "--lora", devices=8)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "state.npz") as arrays:
        spread = [arrays[name] for name in arrays.files]
    for a, b in zip(spread, jax.tree.leaves(straight.state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folders: a policy, adapters that it starts from, those of a reward model."""
    root = tmp_path_factory.mktemp("ppo_lora")
    cfg = from_pretrained(checkpoint(root / "policy", n_layers=1)).cfg
    for name, seed, scored in (("start", 0, False), ("judge", 1, True)):
        made, lora, head = random_adapters(seed, cfg, scored=scored)
        save_adapters(root / name, cfg, made, lora, "policy", head)
    rows = [{"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in range(4)]
    (root / "prompts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return root, cfg


SMALL = (
    "--config.ppo.iterations=1", "--config.ppo.prompts=4", "--config.ppo.minibatch=4",
    "--config.ppo.accum=1", "--config.ppo.max_new_tokens=6", "--config.ppo.epochs=1",
    "--config.ppo.fit_critic=8", "--config.sampling.slots=4",
    "--config.loop.tensorboard=False", "--config.loop.progress=False",
    "--config.dtype=float32", "--config.lora.rank=2", "--config.mesh.tensor=1",
)  # fmt: skip


def test_a_command_exports_what_it_trained(files, tmp_path):
    """Round trip: at no learning rate adapter/ is what it started from, hf/ the base
    with it merged in; the rewards are those of the adapters and head given.
    """
    root, cfg = files
    work = tmp_path / "w"
    done = call(
        ppo_run, f"--config={CONFIGS / 'ppo.py:qlora'}", *SMALL,
        "--config.optimizer.lr=1e-30", f"--config.policy={root / 'policy'}",
        f"--config.policy_adapter={root / 'start'}",
        f"--config.reward_model={root / 'judge'}",
        f"--config.prompts={root / 'prompts.jsonl'}", f"--workdir={work}",
    )  # fmt: skip
    assert done.code == 0, done.err
    own, written = (
        load_adapters(folder, cfg) for folder in (root / "start", work / "adapter")
    )
    assert written.lora.scale == own.lora.scale
    jax.tree.map(np.testing.assert_array_equal, own.adapters, written.adapters)
    params = from_pretrained(root / "policy", quantize="nf4").params
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        from_pretrained(work / "hf").params,
        merge(params, own.adapters, own.lora.scale),
    )
    row = json.loads((work / "metrics.jsonl").open().readline())
    assert row["train/kl/k3"] == pytest.approx(0, abs=1e-6)
    assert row["train/reward/model"] != 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lora": LoRASettings(2, dropout=0.1)},
            r"config\.lora\.dropout: expected 0, .* got 0\.1",
        ),
        ({"value_frozen": ("head/*",)}, r"config\.value_frozen: expected none"),
        (
            {"lora": LoRASettings(2, targets=("layers/z/*",))},
            r"config\.lora\.targets: .*matches no kernel",
        ),
        ({"lora": None, "policy_adapter": "x"}, r"config\.policy_adapter: x holds"),
    ],
)
def test_adapters_that_cannot_be_are_refused(changes, message):
    """Error: names the key, before weights are read."""
    cfg = RunConfig(policy="", prompts="", lora=LORA)
    with pytest.raises(ConfigError, match=message):
        check_adapted(dataclasses.replace(cfg, **changes), tiny.CFG)


def test_folders_of_adapters_are_told_from_models(files):
    """Error: adapters without their base, and those of a policy as a judge."""
    root, cfg = files
    run = RunConfig(
        policy="", prompts="", rewards=RewardSettings(model=1.0),
        reward_model=str(root / "judge"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"config\.reward_model: .*judge holds adap"):
        check_adapted(run, cfg)
    run = dataclasses.replace(run, lora=LORA, reward_model=str(root / "start"))
    with pytest.raises(ConfigError, match=r"config\.reward_model: .* has no head"):
        ppo_run.read_adapters(run, cfg)
