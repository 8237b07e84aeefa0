"""Special tokens added to a checkpoint: ids, rows, record; and OpenChat's template, whose end of turn one lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from harness.api.types import Message, Prompt, Response
from harness.cli import app
from harness.errors import DataError
from harness.models.added_tokens import add_special_tokens
from harness.models.checkpoint import checkpoint_folder, checkpoint_hash
from harness.models.load import load_model, load_tokenizer
from harness.models.options import LoadOptions
from harness.models.tokenization import ChatTemplate

OPENCHAT = (
    "{% for m in messages %}{{ 'GPT4 Correct ' + ('User: ' if m['role'] == 'user' else 'Assistant: ') + m['content'] }}"
    "<|end_of_turn|>{% endfor %}{% if add_generation_prompt %}GPT4 Correct Assistant:{% endif %}"
)


def test_rows_are_the_mean_of_all_others_and_the_rest_stays(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["tokens", "sandbox", "--add", "<|a|>", "--add", "<|b|>", "--out", str(tmp_path / "new"), "--json"]
    )
    assert result.exit_code == 0, result.output
    base, new = checkpoint_folder("sandbox"), tmp_path / "new"
    before, after = load_model(base), load_model(new)
    tokenizer, old = load_tokenizer(new), load_tokenizer(base)
    record = json.loads(result.stdout)
    assert record["ids"] == [len(old), len(old) + 1] == tokenizer.convert_tokens_to_ids(["<|a|>", "<|b|>"])
    assert tokenizer.encode("x<|a|>y", add_special_tokens=False).count(len(old)) == 1
    for end in ("get_input_embeddings", "get_output_embeddings"):
        one, two = getattr(before, end)().weight, getattr(after, end)().weight
        assert torch.equal(two[: len(old)], one[: len(old)])
        mean = one[: len(old)].mean(0).expand(2, -1)
        torch.testing.assert_close(two[len(old) : len(old) + 2], mean, rtol=0.01, atol=0.001)  # stored in 16 bits
    kept = {name: value for name, value in before.state_dict().items() if value.shape == after.state_dict()[name].shape}
    assert len(kept) > 5 and all(torch.equal(value, after.state_dict()[name]) for name, value in kept.items())
    written = json.loads((new / "config.json").read_text())
    assert written["harness_added_tokens"] == {
        "tokens": ["<|a|>", "<|b|>"],
        "ids": record["ids"],
        "initial": f"mean of the {len(old):,} rows before them",
        "base": f"hash:{checkpoint_hash(base)}",
    }
    assert written["vocab_size"] == after.get_input_embeddings().weight.shape[0]
    assert {str(value.dtype) for value in load_file(new / "model.safetensors").values()} == {
        str(value.dtype) for value in load_file(base / "model.safetensors").values()
    }


def test_openchats_template_ends_a_turn_with_the_added_token(tmp_path: Path) -> None:
    prompt, answer = Prompt("p", (Message("user", "Is tea hot?"),)), Response("Yes.")
    options = LoadOptions(chat_template=OPENCHAT)
    with pytest.raises(DataError, match="ends"):
        ChatTemplate(load_tokenizer(checkpoint_folder("sandbox"), options)).response_ids(prompt, answer)
    record = add_special_tokens("sandbox", ["<|end_of_turn|>"], tmp_path / "new")
    template = ChatTemplate(load_tokenizer(tmp_path / "new", options))
    assert template.end_id == record.ids[0]
    assert template.response_ids(prompt, answer)[-1] == record.ids[0]
    assert template.prompt_ids(prompt).count(record.ids[0]) == 1


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [(["<|x|>", "<|x|>"], "given twice"), ([" "], "it is empty"), (["the"], "a token of sandbox already")],
)
def test_what_cannot_be_added_is_refused_before_anything_is_written(tokens: list[str], problem: str, tmp_path: Path) -> None:
    if tokens == ["the"]:
        tokens = [next(iter(load_tokenizer(checkpoint_folder("sandbox")).get_vocab()))]
    with pytest.raises(DataError, match=problem):
        add_special_tokens("sandbox", tokens, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="holds something already"):
        add_special_tokens("sandbox", ["<|x|>"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
