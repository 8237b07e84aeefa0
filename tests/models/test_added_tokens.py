"""Special tokens added to a checkpoint: ids, rows, record; and OpenChat's template, whose end of turn one lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import ConfigError
from harness.api.registry import Registry
from harness.api.types import Message, Prompt, Response
from harness.config import resolve
from harness.errors import DataError
from harness.models.checkpoint import Checkpoint, checkpoint_folder
from harness.models.load import load, load_model, load_tokenizer, read_config
from harness.models.options import LoadOptions
from harness.models.tokenization import ChatTemplate

TURN = "<|end_of_turn|>"
OPENCHAT = (
    "{% for m in messages %}{{ 'GPT4 Correct ' + ('User: ' if m['role'] == 'user' else 'Assistant: ') + m['content'] }}"
    "<|end_of_turn|>{% endfor %}{% if add_generation_prompt %}GPT4 Correct Assistant:{% endif %}"
)
RAW: dict[str, Any] = {
    "name": "tokens",
    "source": {"name": "sandbox", "sft": 8, "train": 8, "tuning": 0, "heldout": 4},
    "sft": {"epochs": 1},
    "budget": {"prompts": 8},
    "methods": ["sft"],
    "evaluators": ["response_stats"],
    "baseline": "sft",
}


def test_rows_are_the_mean_of_all_others_and_a_saved_model_has_them(tmp_path: Path) -> None:
    base = checkpoint_folder("sandbox")
    before, old = load_model(base), load_tokenizer(base)
    model, tokenizer = load(base, LoadOptions(added_tokens=["<|a|>", "<|b|>"]))
    ids = tokenizer.convert_tokens_to_ids(["<|a|>", "<|b|>"])
    assert ids == [len(old), len(old) + 1]
    assert tokenizer.encode("x<|a|>y", add_special_tokens=False).count(ids[0]) == 1
    for end in ("get_input_embeddings", "get_output_embeddings"):
        one, two = getattr(before, end)().weight, getattr(model, end)().weight
        assert torch.equal(two[: len(old)], one[: len(old)])
        torch.testing.assert_close(two[len(old) : len(old) + 2], one[: len(old)].mean(0).expand(2, -1))
    after = model.state_dict()
    kept = {name: value for name, value in before.state_dict().items() if value.shape == after[name].shape}
    assert len(kept) > 5 and all(torch.equal(value, after[name]) for name, value in kept.items())
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, words = load(tmp_path)
    assert words.convert_tokens_to_ids(["<|a|>", "<|b|>"]) == ids
    assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert read_config(tmp_path)["harness_added_tokens"] == {"<|a|>": ids[0], "<|b|>": ids[1]}


def test_openchats_template_ends_a_turn_with_the_added_token() -> None:
    prompt, answer = Prompt("p", (Message("user", "Is tea hot?"),)), Response("Yes.")
    folder, options = checkpoint_folder("sandbox"), LoadOptions(chat_template=OPENCHAT)
    with pytest.raises(DataError, match="ends"):
        ChatTemplate(load_tokenizer(folder, options)).response_ids(prompt, answer)
    template = ChatTemplate(load_tokenizer(folder, replace(options, added_tokens=(TURN,))))
    end = template.tokenizer.convert_tokens_to_ids(TURN)
    assert template.end_id == end
    assert template.response_ids(prompt, answer)[-1] == end
    assert template.prompt_ids(prompt).count(end) == 1


def test_tokens_are_part_of_the_checkpoints_identity_and_of_its_provenance(tmp_path: Path) -> None:
    (tmp_path / "openchat.jinja").write_text(OPENCHAT)
    model = {"path": "sandbox", "chat_template": str(tmp_path / "openchat.jinja"), "add_tokens": [TURN]}
    checkpoint = resolve({**RAW, "model": model}, Registry.load()).checkpoint
    assert checkpoint is not None and checkpoint.options.added_tokens == (TURN,)
    assert checkpoint.provenance()["added_tokens"] == (TURN,)
    assert checkpoint.digest != replace(checkpoint, options=replace(checkpoint.options, added_tokens=None)).digest
    assert Checkpoint.of({**checkpoint.as_dict(), "options": {**vars(checkpoint.options), "added_tokens": [TURN]}}).digest == (
        checkpoint.digest  # as a worker reads it from JSON
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"add_tokens": ["<|x|>", "<|x|>"]}, "list each token once"),
        ({"add_tokens": [" "]}, "none that is blank"),
        ({"add_tokens": ["KNOWN"]}, "is a token of this model already"),
        ({"add_tokens": ["<|x|>"], "adapter": "folder"}, "which `adapter` takes as they are"),
    ],
)
def test_what_cannot_be_added_is_one_error(changes: dict[str, Any], problem: str) -> None:
    if changes["add_tokens"] == ["KNOWN"]:
        changes = {"add_tokens": [load_tokenizer(checkpoint_folder("sandbox")).convert_ids_to_tokens(7)]}
    with pytest.raises(ConfigError, match=problem):
        resolve({**RAW, "model": {"path": "sandbox", **changes}}, Registry.load())
