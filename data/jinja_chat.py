"""The checkpoint's own Jinja chat template, run in a sandbox: templates are untrusted.

What is learned is found in the rendered text: between the tags of `{% generation %}` if
the template has them, else from the end of the prompt that the template itself renders
for a turn to the first control token that it writes after the answer."""

import json
import re
from datetime import datetime
from functools import lru_cache

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data.errors import DataError
from data.segments import CLOSE, LEARN, OPEN, REST, Segment, mark
from data.tokenizers import special_pattern

# A template that asks for the date gets the one that Llama 3's falls back to: the same
# data must give the same tokens tomorrow.
TODAY = datetime(2024, 7, 26)


class _Generation(Extension):
    """Puts LEARN and REST around what `{% generation %}` encloses."""

    tags = frozenset({"generation"})

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        block = jinja2.nodes.CallBlock(self.call_method("_wrap"), [], [], body)
        return block.set_lineno(line)

    def _wrap(self, caller):
        return f"{LEARN}{caller()}{REST}"


def _raise(message):
    raise jinja2.TemplateError(message)


@lru_cache(maxsize=8)
def _compile(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda x, indent=None, **_: json.dumps(
        x, ensure_ascii=False, indent=indent
    )
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = TODAY.strftime
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise DataError(f"the checkpoint's chat template: {error}") from error


def jinja_layout(source: str):
    """The layout of a Jinja template. Raises DataError if it does not compile."""
    _compile(source)

    def layout(turns, tokenizer):
        if not turns or turns[-1].role != "assistant":
            text = render(source, turns, tokenizer, prompt=True)
        else:
            text = render(source, turns, tokenizer)
        if LEARN in text:
            spans = _tagged_spans(text, turns)
            text = text.replace(LEARN, "").replace(REST, "")
        else:
            spans = _derived_spans(source, turns, tokenizer, text)
        segments, at = [], 0
        for (start, end), train in spans:
            segments += [Segment(text[at:start]), Segment(text[start:end], train)]
            at = end
        return [*segments, Segment(text[at:])]

    return layout


def render(source: str, turns, tokenizer, prompt: bool = False) -> str:
    """The marked text of turns; `prompt`: with the opening of an assistant's turn."""
    messages = [
        {"role": t.role, "content": mark(t.full_text, tokenizer.special)} for t in turns
    ]
    try:
        return _compile(source).render(
            messages=messages, add_generation_prompt=prompt, **tokenizer.special_names
        )
    except Exception as error:  # the template is a program of unknown quality
        raise DataError(f"the checkpoint's chat template: {error}") from error


def _tagged_spans(text, turns):
    """Places of the generation tags' content in the text without tags."""
    answers = [turn.train for turn in turns if turn.role == "assistant"]
    spans, shift = [], 0
    for match in re.finditer(f"{LEARN}(.*?){REST}", text, re.DOTALL):
        start = match.start() - shift
        spans.append((start, start + len(match[1])))
        shift += 2
    if len(spans) != len(answers):
        raise DataError(
            f"the checkpoint's chat template tags {len(spans)} generations "
            f"for {len(answers)} assistant messages"
        )
    return list(zip(spans, answers, strict=True))


def _derived_spans(source, turns, tokenizer, text):
    """From each prompt's end to the first control token after the answer, inclusive."""
    control = special_pattern(tokenizer.special)
    spans = []
    for i, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        where = f"messages[{i}]: the checkpoint's chat template"
        prompt = render(source, turns[:i], tokenizer, prompt=True)
        if not text.startswith(prompt):
            raise DataError(
                f"{where} renders a prompt that the whole conversation does not start "
                "with, so what is learned here is unknown; name a built-in template"
            )
        start = len(prompt)
        end = _answer_end(text, start, control)
        answer = mark(turn.full_text, tokenizer.special).strip()
        if end is None or answer not in text[start:end]:
            raise DataError(
                f"{where} does not write the answer and then a control token that ends "
                "the turn right after its own prompt; name a built-in template"
            )
        spans.append(((start, end), turn.train))
    return spans


def _answer_end(text, start, control):
    for match in control.finditer(text, start):
        marked = text[match.start() - 1] == OPEN and text[match.end() :][:1] == CLOSE
        if not marked:
            return match.end()
    return None
