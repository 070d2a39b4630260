"""Learned tokens spell answers and their ends; a prompt is a prefix of its training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import collate
from data.chat import LAYOUTS, load_template, show_batch, show_weights
from data.errors import DataError
from data.formats import Completion, Conversation, Turn
from data.jinja_chat import jinja_layout
from data.segments import mark, split_marked
from data.tokenizers import char_tokenizer, load_tokenizer

CHAT = Conversation(
    (
        Turn("system", "Be brief."),
        Turn("user", "hello there"),
        Turn("assistant", "hi, how are you?", train=True),
        Turn("user", "two plus </s> three<|im_end|>"),
        Turn("assistant", "five", train=True),
    )
)
NAMES = ["vicuna_v1", "alpaca", "llama2"]
LLAMA2_JINJA = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + "
    "m.content.strip() + ' [/INST]' }}{% elif m.role == 'assistant' %}"
    "{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
TAGGED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHARS = char_tokenizer("".join(map(chr, [10, *range(32, 127)])))


def learned(example, tokenizer):
    """The text of each learned run of tokens."""
    edges = np.flatnonzero(np.diff(np.pad(example.weights, 1)))
    return [
        tokenizer.decode(example.tokens[a:b], skip_special=False)
        for a, b in edges.reshape(-1, 2)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_prompt_is_a_prefix_of_its_training_example(any_folder, name):
    """encode(c) starts with encode_prompt(c), and the next token is learned."""
    template = load_template(name, load_tokenizer(any_folder))
    for n in (3, 5):
        example = template.encode(Conversation(CHAT.turns[:n]))
        prompt = template.encode_prompt(Conversation(CHAT.turns[: n - 1]))
        assert example.tokens[: len(prompt)].tolist() == prompt
        assert example.weights[len(prompt) - 1 : len(prompt) + 1].tolist() == [0, 1]
        assert example.weights[-1] == 1  # the end-of-turn token


@pytest.mark.parametrize("name", NAMES)
def test_learned_tokens_spell_the_answers(any_folder, name):
    """Learned runs decode to each answer and the EOS, and nothing else."""
    tokenizer = load_tokenizer(any_folder)
    runs = learned(load_template(name, tokenizer).encode(CHAT), tokenizer)
    eos = tokenizer.special_names["eos_token"]
    assert [run.replace(eos, "|").replace(" ", "") for run in runs] == [
        "hi,howareyou?|",
        "five|",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_control_tokens_in_messages_stay_text(any_folder, name):
    """One EOS per answer, whatever the messages spell; the text itself survives."""
    tokenizer = load_tokenizer(any_folder)
    example = load_template(name, tokenizer).encode(CHAT)
    assert (example.tokens == tokenizer.eos_id).sum() == 2
    assert "two plus </s> three<|im_end|>" in tokenizer.decode(example.tokens)


def test_vicuna_ids_equal_the_whole_text(any_folder):
    """Split at no word, the template's ids are those of the joined text."""
    tokenizer = load_tokenizer(any_folder)
    turns = Conversation(CHAT.turns[1:3])
    template = load_template("vicuna_v1", tokenizer)
    eos = tokenizer.special_names["eos_token"]
    text = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's "
        "questions. "
        f"USER: hello there ASSISTANT: hi, how are you?{eos}"
    )
    whole = tokenizer.encode(text, control=True, add_special=True)
    assert template.encode(turns).tokens.tolist() == whole


TEXT_OF = {
    "vicuna_v1": "S USER: a ASSISTANT: b</s>USER: c ASSISTANT:",
    "alpaca": "S\n\n### Instruction:\na\n\n### Response:b</s>"
    "\n\n### Instruction:\nc\n\n### Response:",
    "llama2": "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\na [/INST] b </s><s>[INST] c [/INST]",
}


@pytest.mark.parametrize("name", NAMES)
def test_rendered_text_is_the_published_one(name):
    """render_prompt in closed form, and its characters are the prompt's tokens."""
    turns = [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    conversation = Conversation(tuple(Turn(*turn) for turn in turns))
    template = load_template(name, CHARS)
    assert template.render_prompt(conversation) == TEXT_OF[name]
    ids = template.encode_prompt(conversation)
    assert CHARS.decode(ids, skip_special=False) == TEXT_OF[name]


def test_alpaca_has_two_prompts():
    """With an input the prompt announces and shows it; without, it does neither."""
    template = load_template("alpaca", CHARS)
    short = template.render_prompt(Conversation((Turn("user", "Add."),)))
    long = template.render_prompt(Conversation((Turn("user", "Add.", context="1 2"),)))
    assert "input" not in short.lower()
    assert "paired with an input" in long
    assert long.endswith("### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:")


def test_plain_learns_the_completion():
    """prompt and completion, character by character, then EOS."""
    template = load_template("plain", CHARS)
    example = template.encode(Completion("1+1=", "2"))
    assert CHARS.decode(example.tokens, skip_special=False) == "1+1=2</s>"
    assert example.weights.tolist() == [0, 0, 0, 0, 1, 1]
    assert template.stop_ids == (CHARS.eos_id,)


def test_untrained_turns_have_no_weight():
    """train=False removes an answer's weights and changes no token."""
    turns = list(CHAT.turns)
    turns[2] = Turn("assistant", turns[2].text, train=False)
    template = load_template("vicuna_v1", CHARS)
    all_of_it, last = template.encode(CHAT), template.encode(Conversation(tuple(turns)))
    assert all_of_it.tokens.tolist() == last.tokens.tolist()
    assert learned(last, CHARS) == [" five</s>"]


def hf(folder, template):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    return tokenizer


def bind(tokenizer, source):
    tokenizer.chat_template = source
    return load_template("checkpoint", tokenizer)


def messages(conversation):
    return [{"role": t.role, "content": t.text} for t in conversation.turns]


def test_chatml_by_name_equals_the_jinja_template_and_transformers(byte_bpe):
    """Named chatml == the checkpoint's own == apply_chat_template, prompts too."""
    tokenizer = load_tokenizer(byte_bpe)
    named, own = load_template("chatml", tokenizer), load_template(None, tokenizer)
    theirs = hf(byte_bpe, tokenizer.chat_template)
    plain = Conversation(CHAT.turns[:3])
    for a, b in zip(named.encode(CHAT), own.encode(CHAT), strict=True):
        assert a.tolist() == b.tolist()
    ids = theirs.apply_chat_template(messages(plain), return_dict=False)
    assert own.encode(plain).tokens.tolist() == ids
    ids = theirs.apply_chat_template(
        messages(plain)[:2], add_generation_prompt=True, return_dict=False
    )
    assert own.encode_prompt(plain) == named.encode_prompt(plain) == ids
    assert learned(own.encode(CHAT), tokenizer) == [
        "hi, how are you?<|im_end|>",
        "five<|im_end|>",
    ]
    assert own.stop_ids == (2, 0)


def test_marks_equal_transformers_sanitizing(byte_bpe):
    """User text with control tokens encodes as with sanitize_control_tokens=True."""
    tokenizer = load_tokenizer(byte_bpe)
    theirs = hf(byte_bpe, tokenizer.chat_template)
    ids = theirs.apply_chat_template(
        messages(CHAT), sanitize_control_tokens=True, return_dict=False
    )
    assert load_template(None, tokenizer).encode(CHAT).tokens.tolist() == ids


def test_generation_tags_equal_the_derived_spans_and_transformers(byte_bpe):
    """Tagged template == untagged one == transformers' assistant mask."""
    tokenizer = load_tokenizer(byte_bpe)
    plain = Conversation(CHAT.turns[:3])
    derived, tagged = load_template(None, tokenizer), bind(tokenizer, TAGGED)
    for a, b in zip(derived.encode(CHAT), tagged.encode(CHAT), strict=True):
        assert a.tolist() == b.tolist()
    assert derived.encode_prompt(CHAT) == tagged.encode_prompt(CHAT)
    theirs = hf(byte_bpe, TAGGED).apply_chat_template(
        messages(plain), return_dict=True, return_assistant_tokens_mask=True
    )
    example = tagged.encode(plain)
    assert example.tokens.tolist() == theirs["input_ids"]
    assert example.weights.tolist() == theirs["assistant_masks"]


@pytest.mark.parametrize("folder", ["sentencepiece_folder", "metaspace", "prepend"])
def test_llama2_jinja_equals_transformers(folder, request):
    """Ids of a Llama-2 template equal apply_chat_template's, also for many turns."""
    folder = request.getfixturevalue(folder)
    turns = ("hello there", "hi", "and you?", "well")
    chat = Conversation(
        tuple(
            Turn(("user", "assistant")[i % 2], t, i % 2 == 1)
            for i, t in enumerate(turns)
        )
    )
    ours = bind(load_tokenizer(folder), LLAMA2_JINJA)
    theirs = hf(folder, LLAMA2_JINJA).apply_chat_template(
        messages(chat), return_dict=False
    )
    example = ours.encode(chat)
    assert example.tokens.tolist() == theirs
    assert learned(example, ours.tokenizer) == ["hi </s>", "well </s>"]


BAD_TEMPLATES = {
    "{% for %}": "template",
    "{{ raise_exception('no system role') }}": "no system role",
    "{{ messages[0].nope.deeper }}": "nope",
    "{{ ''.__class__.__mro__ }}": "unsafe",
    "{{ messages.append(1) }}": "unsafe|append",
    "{{ 1 / 0 }}": "division",
    "{{ messages | length }}": "does not start with",
    "{% for m in messages %}{{ m.content }}{% endfor %}": "control token",
    "{% generation %}a{% endgeneration %}": "1 generations",
}


@pytest.mark.parametrize("source", BAD_TEMPLATES)
def test_bad_templates_are_data_errors(source):
    """Broken, malicious and unlearnable templates say what is wrong with them."""
    tokenizer = char_tokenizer("ab")
    with pytest.raises(DataError, match=BAD_TEMPLATES[source]):
        bind(tokenizer, source).encode(CHAT)


def test_date_of_a_template_is_fixed():
    """strftime_now gives the same day at any time: the data is the same tomorrow."""
    source = "{{ strftime_now('%Y-%m-%d') }}"
    (segment,) = jinja_layout(source)((Turn("user", "a"),), CHARS)
    assert segment.text == "2024-07-26"


def test_unsuitable_templates_are_errors():
    """Unknown names, missing tokens and wrong turns are named before anything runs."""
    with pytest.raises(DataError, match="did you mean 'vicuna_v1'"):
        load_template("vicuna", CHARS)
    with pytest.raises(DataError, match=r"<\|im_start\|> and <\|im_end\|>"):
        load_template("chatml", CHARS)
    with pytest.raises(DataError, match="no chat template; name one of"):
        load_template(None, CHARS)
    twice = Conversation((Turn("user", "a"), Turn("user", "b"), CHAT.turns[-1]))
    for name in NAMES:
        with pytest.raises(
            DataError, match=r"messages\[1\].role.*expected 'assistant'"
        ):
            load_template(name, CHARS).encode(twice)
    with pytest.raises(DataError, match="one prompt and one completion"):
        load_template("plain", CHARS).encode(CHAT)
    untrained = Conversation((Turn("user", "a"), Turn("assistant", "b")))
    with pytest.raises(DataError, match="no token of this row is learned"):
        load_template("vicuna_v1", CHARS).encode(untrained)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["</s>", "<s>", "<", "/s>", "a", "\ufdd0", "\ufdd1"])))
def test_marks_keep_the_text(parts):
    """Joined without marks it is the text; odd pieces are the control spellings."""
    text = "".join(parts)
    clean = text.replace("\ufdd0", "").replace("\ufdd1", "")
    pieces = split_marked(mark(text, CHARS.special))
    assert "".join(pieces) == clean
    assert set(pieces[1::2]) <= set(CHARS.special)
    assert not any(s in piece for piece in pieces[::2] for s in CHARS.special)


def test_weights_are_shown_for_every_token():
    """One line per token with its spelling; unlearned ones have a dot for a weight."""
    example = load_template("plain", CHARS).encode(Completion("1+1=", "2"))
    lines = show_weights(example, CHARS).splitlines()[1:]
    assert [line.split()[2] for line in lines] == [".", ".", ".", ".", "1", "1"]
    assert [line.split()[3] for line in lines][-2:] == ["'2'", "'</s>'"]
    shown = show_batch(collate([[example, example]], 16, 0), CHARS)
    assert shown.count("'='") == 2 and "segment 2, 6 tokens" in shown


def test_every_layout_is_tested_here():
    """A new layout needs its row in these tests."""
    assert set(LAYOUTS) == {*NAMES, "chatml", "plain"}
