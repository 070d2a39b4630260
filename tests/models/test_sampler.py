"""The sampler equals transformers, the exact distribution, and itself in any batch."""

import collections
import itertools

import jax
import numpy as np
import pytest
import scipy.stats
from helpers import forward
from helpers.forward import TINY
from helpers.sampling import FIVE, KEY, SLIDING, params_of, random_prompts, truncated
from hypothesis import given, settings
from hypothesis import strategies as st

from models import sampler, slots
from models.errors import PromptError
from models.pretrained import from_pretrained
from models.sampling import EOS, LENGTH, STOP, Sampling

PROMPTS = random_prompts(6, 8)


def generate(prompts=PROMPTS, rules=None, key=KEY, cfg=TINY, params=None, **options):
    options = {"max_new_tokens": 8, "slots": 8} | options
    params = params_of(cfg) if params is None else params
    return sampler.generate(cfg, params, prompts, rules or Sampling(), key, **options)


def assert_same(got, want):
    """Equal tokens, lengths and reasons; log-probs equal up to rounding."""
    for field in ("tokens", "lengths", "reasons"):
        a, b = getattr(got, field), getattr(want, field)
        np.testing.assert_array_equal(a, b, err_msg=field)
    for field in ("log_probs", "sampling_log_probs"):
        a, b = getattr(got, field), getattr(want, field)
        np.testing.assert_allclose(a, b, atol=1e-4, err_msg=field)


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen2-sliding", "qwen3", "llama-dynamic"]
)
def test_greedy_equals_transformers(checkpoints, name):
    """32 greedy tokens of a ragged batch equal `generate`, windows and EOS included."""
    import torch

    made = checkpoints(name)
    ours = from_pretrained(made.folder)
    lengths = [20, 17, 24, 19]
    if ours.cfg.rope.kind == "dynamic":
        lengths = [17]  # torch scales a whole batch by its longest row
    rng = np.random.default_rng(8)
    prompts = [rng.integers(0, 61, n).tolist() for n in lengths]
    tokens, _, mask = forward.rows(prompts, max(lengths), left=True)

    theirs = made.model.generate(
        torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long(),
        do_sample=False, max_new_tokens=32, eos_token_id=None, pad_token_id=0,
    )[:, max(lengths) :].tolist()  # fmt: skip
    eos = theirs[0][17]
    rollout = sampler.generate(
        ours.cfg, ours.params, prompts, Sampling(temperature=0, eos_ids=(eos,)), KEY,
        max_new_tokens=32, max_length=64, slots=2,
    )  # fmt: skip
    for row, want in enumerate(theirs):
        n = want.index(eos) + 1 if eos in want else 32
        assert rollout.response(row) == want[:n]
        assert rollout.reason(row) == ("eos" if eos in want else "length")


@pytest.fixture(scope="module")
def alone():
    """All responses to PROMPTS, three samples each."""
    return generate(samples=3)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_batch_does_not_matter(alone, data):
    """Any prompts in any order, slots and groups draw what their row ids say."""
    chosen = data.draw(
        st.lists(st.sampled_from(range(6)), min_size=1, max_size=6, unique=True)
    )
    rows = [i * 3 + g for i in chosen for g in range(3)]
    got = generate(
        [PROMPTS[i] for i in chosen],
        samples=3,
        row_ids=rows,
        slots=data.draw(st.sampled_from([2, 8]), "slots"),
        prefill_rows=data.draw(st.sampled_from([1, 2]), "prefill_rows"),
    )
    np.testing.assert_array_equal(got.tokens, alone.tokens[rows])
    np.testing.assert_allclose(got.log_probs, alone.log_probs[rows], atol=1e-4)


def test_padding_does_not_matter(alone):
    """A much longer neighbour widens every cache and changes no response."""
    longer = generate([*PROMPTS, list(range(30))], samples=3, slots=16)
    assert_same(jax.tree.map(lambda x: x[:18], longer), alone)


def test_shrinking_does_not_matter():
    """With and without moving the last rows to fewer slots."""
    budgets = [1, 2, 8, 1, 2, 1]
    options = dict(samples=4, slots=32, max_new_tokens=budgets)
    assert_same(generate(shrink=True, **options), generate(shrink=False, **options))


def test_shared_prefix_does_not_matter():
    """A prefix given once equals the prefix in front of every prompt, window or not."""
    prefix = random_prompts(1, 13, seed=9)[0] + [1, 2, 3]
    got = generate(prefix=prefix, cfg=SLIDING)
    assert_same(got, generate([prefix + p for p in PROMPTS], cfg=SLIDING, slots=6))


def test_key_replays_and_steps_differ(alone):
    """One key, one result; fold_in of a step changes it, and so does every sample."""
    assert_same(generate(samples=3), alone)
    steps = [generate(key=jax.random.fold_in(KEY, step)).tokens for step in range(2)]
    assert not np.array_equal(*steps)
    assert len({tuple(row) for row in alone.tokens[:3].tolist()}) == 3


def test_legacy_keys(alone):
    """Raw uint32 keys draw what typed keys of the same data draw."""
    assert_same(generate(samples=3, key=jax.random.key_data(KEY)), alone)


@pytest.mark.parametrize(
    "rules", [Sampling(), Sampling(temperature=0.7, top_k=3), Sampling(top_p=0.8)]
)
def test_distribution_is_exact(rules):
    """20,000 responses of two tokens: all outcomes by chi-square against the model."""
    params, prompt, n = params_of(FIVE, seed=2), [3, 1, 4], 20_000
    rollout = generate(
        [prompt],
        rules,
        cfg=FIVE,
        params=params,
        samples=n,
        slots=1024,
        max_new_tokens=2,
    )
    rows = forward.rows([prompt + [first] for first in range(5)], 4)
    logits = forward.logits(FIVE, params, *rows)

    def distribution(logits):
        logits = np.array(logits, np.float64) / rules.temperature
        order = np.argsort(-logits)
        probs = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        mass_before = np.cumsum(probs[order]) - probs[order]
        kept = order[mass_before < rules.top_p][: rules.top_k or 5]
        out = np.zeros(5)
        out[kept] = probs[kept] / probs[kept].sum()
        return out

    first = distribution(logits[0, 2])
    exact = np.stack([first[a] * distribution(logits[a, 3]) for a in range(5)]).ravel()
    counts = np.bincount(rollout.tokens @ [5, 1], minlength=25)
    assert counts[exact == 0].sum() == 0
    possible = exact > 0
    assert possible.sum() == {0: 25, 3: 9}.get(rules.top_k) or rules.top_p < 1
    assert n * exact[possible].min() > 5
    test = scipy.stats.chisquare(counts[possible], n * exact[possible])
    assert test.pvalue > 1e-3
    sampled = np.exp(rollout.sampling_log_probs.sum(1))
    np.testing.assert_allclose(sampled, exact[rollout.tokens @ [5, 1]], rtol=1e-4)


@pytest.fixture(scope="module")
def endless():
    """Prompts over a vocabulary of five, and two responses each without an ending."""
    prompts = random_prompts(40, 4, vocab_size=5, seed=5)
    rollout = generate(
        prompts, cfg=FIVE, params=params_of(FIVE), samples=2, max_new_tokens=12
    )
    return prompts, rollout


ENDINGS = [
    Sampling(eos_ids=(4,), stop=((1, 2), (3, 3, 0), (0, 4))),
    Sampling(eos_ids=(0, 2)),
    Sampling(stop=((3, 1, 3), (2,))),
]


@pytest.mark.parametrize("rules", ENDINGS)
def test_endings(endless, rules, monkeypatch):
    """Responses end exactly where an endless one first meets an ending, across refills.

    Prompt tokens never count towards a stop sequence; EOS wins over STOP over LENGTH;
    the tokens that end a response stay in it, with their log-probs.
    """
    prompts, endless = endless
    budgets = np.random.default_rng(6).integers(1, 13, 40).tolist()
    pauses = []  # responses of unfinished rows at every refill
    decode = slots.decode

    def watched(*args):
        state = decode(*args)
        running = np.asarray(state.reason) == 0
        lengths = np.asarray(state.generated)[running]
        tokens = np.asarray(state.tokens)[running]
        pauses.extend(tuple(t[:n]) for t, n in zip(tokens, lengths, strict=True))
        return state

    monkeypatch.setattr(slots, "decode", watched)
    got = generate(
        prompts, rules, cfg=FIVE, params=params_of(FIVE), samples=2, slots=4,
        max_new_tokens=budgets,
    )  # fmt: skip
    seen = collections.Counter()
    for row in range(80):
        want, reason = truncated(endless.tokens[row], rules, budgets[row // 2])
        assert got.response(row) == want
        assert got.reasons[row] == reason
        n = len(want)
        np.testing.assert_allclose(
            got.log_probs[row, :n], endless.log_probs[row, :n], atol=1e-4
        )
        assert not got.log_probs[row, n:].any() and not got.tokens[row, n:].any()
        assert (got.mask[row] == (np.arange(12) < n)).all()
        seen[got.reason(row)] += 1
        seen["at once"] += n == 1 and reason in (EOS, STOP)
        stop = next((s for s in rules.stop if tuple(want[-len(s) :]) == s), ())
        inside = [tuple(want[: n - i]) for i in range(1, len(stop))]
        seen["straddles"] += any(head in pauses for head in inside)
        text = prompts[row // 2] + want
        start = len(text) - n
        seen["in the prompt"] += any(
            text[end - len(stop) : end] == list(stop)
            for stop in rules.stop
            for end in range(start + 1, start + len(stop))
        )
    assert seen["length"]
    assert bool(seen["eos"]) == bool(rules.eos_ids)
    assert bool(seen["stop"]) == bool(rules.stop)
    if len(rules.stop) > 1:
        assert seen["straddles"]
    if rules is ENDINGS[0]:
        assert seen["at once"] and seen["in the prompt"]


def test_budget_per_prompt():
    """Each prompt has its own budget; without endings every response fills it."""
    budgets = [1, 8, 3, 2, 5, 8]
    rollout = generate(max_new_tokens=budgets, samples=2)
    assert rollout.lengths.tolist() == [b for b in budgets for _ in range(2)]
    assert (rollout.reasons == LENGTH).all()


def test_prompts_and_prefix_are_prefilled_once(monkeypatch):
    """Sixteen samples of six prompts: six rows are prefilled, and the prefix once."""
    rows = collections.Counter()
    prefill, prefill_prefix = slots.prefill, slots.prefill_prefix

    def counted(cfg, params, prefix, prefix_length, tokens, lengths):
        rows["prompts"] += len(
            {(*row, n) for row, n in zip(tokens, lengths, strict=True)}
        )
        return prefill(cfg, params, prefix, prefix_length, tokens, lengths)

    def counted_prefix(*args):
        rows["prefix"] += 1
        return prefill_prefix(*args)

    monkeypatch.setattr(slots, "prefill", counted)
    monkeypatch.setattr(slots, "prefill_prefix", counted_prefix)
    rollout = generate(samples=16, prefix=[1, 2, 3], max_new_tokens=2)
    assert rollout.tokens.shape == (96, 2)
    assert rows == {"prompts": 6, "prefix": 1}


def test_rollout_fields(alone):
    """Rows are (prompt, sample) in order; prompts come back padded with lengths."""
    for row, prompt in enumerate(itertools.chain(*zip(*[PROMPTS] * 3, strict=True))):
        assert alone.prompt_lengths[row] == len(prompt)
        assert alone.prompts[row, : len(prompt)].tolist() == prompt
    assert (alone.log_probs < 0).all() and (alone.mask == 1).all()


def test_responses_stream_as_they_finish():
    """Short responses arrive before long ones, each once, and reach the callback."""
    budgets = [8, 1, 8, 1, 8, 1]
    rows = [r.row for r in sampler.stream(
        TINY, params_of(TINY), PROMPTS, Sampling(), KEY, max_new_tokens=budgets, slots=2
    )]  # fmt: skip
    assert sorted(rows) == list(range(6)) and rows != sorted(rows)
    heard = []
    generate(max_new_tokens=budgets, slots=2, on_response=lambda r: heard.append(r.row))
    assert heard == rows


def test_no_prompts():
    """An empty list gives an empty rollout."""
    rollout = generate([])
    assert rollout.tokens.shape == (0, 8) and rollout.prompts.shape == (0, 0)


def test_compilations_are_bounded():
    """Ragged workloads of short prompts have one decode, one insert, one prefill."""
    functions = (slots.decode, slots.insert, slots.prefill)
    rules = Sampling(temperature=0.9)

    def compiled():
        before = [f._cache_size() for f in functions]
        for seed in range(12):
            some = [*random_prompts(7 + seed % 3, 12, seed=seed), [1] * 12]
            budgets = [8] + [1 + (i * seed) % 8 for i in range(len(some) - 1)]
            generate(some, rules, max_new_tokens=budgets, slots=4, prefill_rows=2)
        return [f._cache_size() - b for f, b in zip(functions, before, strict=True)]

    decodes, inserts, prefills = compiled()
    # However long the prompts, and however many are left for the last group.
    # None where another test had the same program.
    assert max(decodes, inserts, prefills) <= 1 and decodes == 1
    assert compiled() == [0, 0, 0]


def test_greedy_sampling_needs_no_key():
    """Invariance: None, and any key, give the same bits."""
    rules = Sampling(temperature=0)
    runs = [generate(rules=rules, samples=2, key=k) for k in (None, KEY)]
    for field, got in runs[0]._asdict().items():
        np.testing.assert_array_equal(got, getattr(runs[1], field), err_msg=field)


@pytest.mark.parametrize(
    "changed, message",
    [
        (
            {"prompts": [[1], [2] * 30]},
            "prompt 1 has 30 tokens; .* over the limit of 32",
        ),
        ({"prompts": [[1], []]}, "prompt 1 is empty"),
        ({"prompts": [[1], [5, 31]]}, "prompt 1: token 31 .* vocabulary of 31"),
        ({"prompts": [[-1]]}, "prompt 0: token -1"),
        ({"prefix": [99]}, "prefix: token 99"),
        ({"prefix": [1] * 24}, "prompt 0 .* prefix of 24"),
        ({"max_new_tokens": 0}, "prompt 0: max_new_tokens is 0"),
        ({"max_new_tokens": [8, 0, 8, 8, 8, 8]}, "prompt 1: max_new_tokens is 0"),
        ({"max_new_tokens": [8]}, "max_new_tokens: expected one number, or .* got 1"),
        ({"samples": 0}, "samples: expected at least 1, got 0"),
        ({"slots": 0}, "slots: expected at least 1"),
        ({"prefill_rows": 0}, "prefill_rows: expected at least 1"),
        ({"row_ids": [1, 2]}, "row_ids: expected 6 ids, got 2"),
        ({"rules": Sampling(eos_ids=(31,))}, "Sampling.eos_ids: 31"),
        ({"key": None}, "key: None, .* for the temperature 1.0"),
        ({"key": None, "rules": Sampling(temperature=0.5)}, "temperature 0.5"),
    ],
)
def test_bad_requests_are_named(changed, message, monkeypatch):
    """An impossible request is refused before any compute, by `stream` itself."""
    monkeypatch.setattr(slots, "prefill", None)
    monkeypatch.setattr(slots, "empty", None)
    with pytest.raises(ValueError, match=message) as caught:
        generate(max_length=32, **changed)
    if message.startswith("prompt"):
        assert isinstance(caught.value, PromptError)


def test_errors_come_at_the_call():
    """`stream` checks its request when it is called, not at the first response."""
    with pytest.raises(PromptError, match="prompt 0 is empty"):
        sampler.stream(TINY, None, [[]], Sampling(), KEY, max_new_tokens=1)


@given(st.integers(1, 10_000), st.sampled_from([4, 8, 16]))
def test_buckets(n, least):
    """The smallest of least * {1, 1.5, 2, 3, 4, 6, ...} that holds n."""
    sizes = sorted(
        least * x for k in range(14) for x in (2**k, 3 * 2**k / 2) if least * x >= n
    )
    assert sampler.bucket(n, least) == sizes[0]
