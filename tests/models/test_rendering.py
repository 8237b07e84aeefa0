"""Chat templates of other people: what loops or grows ends with an error, and what is rendered elsewhere is the same text."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from checkpoints import CHATML, FORGETFUL, GEMMA, INSTRUCT, make_tokenizer
from transformers import PreTrainedTokenizerBase

from harness.api.types import Message, Prompt
from harness.errors import DataError
from harness.models import rendering
from harness.models.rendering import TemplateLimitError, is_plain, render
from harness.models.templates import check_template, choose_template
from harness.models.tokenization import ChatTemplate

ASKED = [Message("user", "is tea hot ?")]
DOUBLING = "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}"
HOSTILE = {
    "loops": "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4,
    "two gigabytes": "{{ 'x' * 2000000000 }}",
    "a wide field": "{{ '%2000000000d' % 1 }}",
    "a wide filter": "{{ 'x' | center(2000000000) }}",
    "doubling": DOUBLING,
    "doubling of names": "{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
    "doubling of lists": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
    "too much text": "{{ 'x' * 20000000 }}",
    "replacing": "{% set a = 'x' %}" + "{% set a = a.replace('x', 'xxxxxxxx') %}" * 20 + "{{ a }}",
    "escapes": "{{ 'x' | tojson" + " | tojson" * 60 + " }}",
    "a macro in itself": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "a deep expression": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a deep block": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "no template": "{% for %}",
    "a method of python": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
}


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer(CHATML)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A second in place of ten."""
    monkeypatch.setattr(rendering, "SECONDS", 1.0)
    monkeypatch.setattr(rendering, "MEMORY_BYTES", 64 << 20)
    return


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_with_one_error(name: str, tokenizer: PreTrainedTokenizerBase, impatient: None) -> None:
    good = ChatTemplate(tokenizer).prompt_text(Prompt.of("p", "hi"))
    tokenizer.chat_template = HOSTILE[name]
    assert not is_plain(HOSTILE[name])
    with pytest.raises(DataError, match=r"^model\.chat_template: "):
        check_template(tokenizer)
    with pytest.raises(DataError):
        choose_template(tokenizer, None, "empty")
    tokenizer.chat_template = CHATML
    assert ChatTemplate(tokenizer).prompt_text(Prompt.of("p", "hi")) == good


def test_a_template_that_loops_for_one_dialogue_alone(tokenizer: PreTrainedTokenizerBase, impatient: None) -> None:
    """It passes every check before the run."""
    trap = f"{{% if 'magic' in messages[0]['content'] %}}{HOSTILE['loops']}{{% endif %}}{CHATML}"
    tokenizer.chat_template = trap
    check_template(tokenizer)
    template = ChatTemplate(tokenizer)
    with pytest.raises(DataError, match=r"prompt bad: the chat template .* 1 seconds"):
        template.prompt_ids(Prompt.of("bad", "magic"))
    assert template.prompt_ids(Prompt.of("good", "hi"))  # by another helper


TEMPLATES = {"chatml": CHATML, "instruct": INSTRUCT, "gemma": GEMMA, "forgetful": FORGETFUL}
DIALOGUES = [
    ASKED,
    [Message("user", "a"), Message("assistant", "\ud800 <|im_end|> 'é\n"), Message("user", " b ")],
    [Message("system", "be kind"), Message("user", "")],
    [Message("user", "x" * 300_000)],
]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("dialogue", DIALOGUES, ids=range(len(DIALOGUES)))
@pytest.mark.parametrize("asked", [True, False])
def test_a_helper_renders_as_this_process_does(name: str, dialogue: list[Message], asked: bool) -> None:
    from jinja2 import TemplateError

    tokenizer = make_tokenizer(TEMPLATES[name])
    texts: list[str] = []
    for template in (TEMPLATES[name], "{% set _ = 2 * 2 %}" + TEMPLATES[name]):  # a product is not plain
        tokenizer.chat_template = template
        assert is_plain(template) == ("*" not in template)
        try:
            texts.append(render(tokenizer, dialogue, add_generation_prompt=asked))
        except TemplateError as error:
            texts.append(str(error))
    assert texts[0] == texts[1]


def test_a_helper_is_started_once_and_ends_with_its_tokenizer() -> None:
    tokenizer = make_tokenizer("{% set _ = 2 * 2 %}" + CHATML)
    before = set(psutil.Process().children())
    for number in range(3):
        render(tokenizer, [Message("user", str(number))])
    (helper,) = set(psutil.Process().children()) - before
    del tokenizer
    gc.collect()
    assert not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE


def test_of_many_helpers_the_latest_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "MOST_HELPERS", 2)
    tokenizers = [make_tokenizer("{% set _ = 2 * 2 %}" + CHATML) for _ in range(4)]
    for tokenizer in tokenizers:
        render(tokenizer, ASKED)
    assert [rendering._slots[tokenizer]._helper is not None for tokenizer in tokenizers] == [False, False, True, True]
    assert render(tokenizers[0], ASKED) == render(tokenizers[3], ASKED)


def test_a_helper_that_is_killed_is_replaced(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{% set _ = 2 * 2 %}" + CHATML
    text = render(tokenizer, ASKED)
    slot = rendering._helper_of(tokenizer)
    assert slot._helper is not None
    os.kill(slot._helper.process, 9)
    with pytest.raises(TemplateLimitError):
        render(tokenizer, ASKED)
    assert render(tokenizer, ASKED) == text


def test_a_helper_holds_no_file_of_its_parent(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """A lock that a fork holds too is not free when this process releases it."""
    with (tmp_path / "lock").open("w"):
        tokenizer.chat_template = "{% set _ = 2 * 2 %}" + CHATML
        render(tokenizer, ASKED)
        slot = rendering._helper_of(tokenizer)
        assert slot._helper is not None
        links = [os.readlink(path) for path in Path(f"/proc/{slot._helper.process}/fd").iterdir()]  # noqa: PTH115
    assert sorted({link.partition(":")[0] for link in links}) == ["/dev/null", "pipe"]
    assert sum(link.startswith("pipe") for link in links) == 2
