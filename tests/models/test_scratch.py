"""A starting model from nothing, at the size of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.api.types import Message
from harness.errors import DataError, StageError
from harness.models.scratch import ScratchModel, build_model, build_tokenizer, train_from_scratch

WORDS = ("red", "green", "blue", "yellow", "white")
SMALL = ScratchModel(
    vocabulary_size=320, hidden_size=16, layers=1, heads=2, intermediate_size=32, epochs=12, tokens_per_step=160, max_length=64
)
LONG = (Message("user", "never " * 100), Message("assistant", "ever " * 100))
DIALOGUES = [
    (Message("user", f"say {word} {count} times"), Message("assistant", " ".join([word] * count)))
    for word in WORDS
    for count in (1, 2, 3)
]
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Tea?"},
    {"role": "assistant", "content": "Yes, tea."},
    {"role": "user", "content": "Milk?"},
    {"role": "assistant", "content": "No."},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float], list[tuple[int, int, str]]]:
    folder, reports = tmp_path_factory.mktemp("scratch") / "new", []
    facts = train_from_scratch(SMALL, [*DIALOGUES, LONG], folder, lambda *report: reports.append(report))
    return folder, facts, reports


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(SMALL, DIALOGUES)


def test_the_loss_falls_and_the_facts_add_up(trained: tuple[Path, dict[str, float], list[tuple[int, int, str]]]) -> None:
    _, facts, reports = trained
    first = float(reports[0][2].split()[1])
    assert facts["final_loss"] < 0.8 * first
    assert facts["dialogues"] == len(DIALOGUES)
    assert facts["left_out"] == 1
    assert facts["steps"] % 10
    assert [done for done, _, _ in reports] == [*range(10, int(facts["steps"]), 10), facts["steps"]]
    assert {total for _, total, _ in reports} == {facts["steps"]}


def test_what_is_saved_can_be_loaded(trained: tuple[Path, dict[str, float], list[tuple[int, int, str]]]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, facts, _ = trained
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (folder / "model.safetensors").is_file()
    assert model.num_parameters() == facts["parameters"]
    assert tokenizer.model_max_length == model.config.max_position_embeddings == SMALL.max_length
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.vocab_size == len(tokenizer) == facts["vocabulary"]
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    counted = sum(len(tokenizer.apply_chat_template(_dicts(turns), return_dict=False)) for turns in DIALOGUES)
    assert facts["tokens"] == SMALL.epochs * counted


def test_the_template_marks_what_the_assistant_said(tokenizer: Any) -> None:
    encoded = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    assert tokenizer.decode(ids) == (
        "<|bos|><|system|>Be kind.<|end|><|user|>Tea?<|end|><|assistant|>Yes, tea.<|end|>"
        "<|user|>Milk?<|end|><|assistant|>No.<|end|>"
    )
    assert tokenizer.decode([token for token, said in zip(ids, mask, strict=True) if said]) == "Yes, tea.<|end|>No.<|end|>"


def test_a_prompt_and_its_response_are_the_dialogue(tokenizer: Any) -> None:
    whole = tokenizer.apply_chat_template(TALK, return_dict=False)
    prompt = tokenizer.apply_chat_template(TALK[:-1], add_generation_prompt=True, return_dict=False)
    assert whole == prompt + tokenizer("No.")["input_ids"] + [tokenizer.eos_token_id]


def test_only_the_template_begins_a_text(tokenizer: Any) -> None:
    ids = tokenizer(tokenizer.apply_chat_template(TALK, tokenize=False))["input_ids"]
    assert ids == tokenizer.apply_chat_template(TALK, return_dict=False)
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.bos_token_id not in tokenizer("say red")["input_ids"]


@pytest.mark.parametrize("text", ["", " two  spaces ", "naïve “quotes” 茶 🫖", "\x00\x7f\n\t\r\n", "don 't stop , now ."])
def test_any_text_survives(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_generator_alone(tmp_path: Path) -> None:
    import torch

    def weights(seed: int) -> bytes:
        recipe = SMALL.model_copy(update={"seed": seed, "epochs": 2})
        train_from_scratch(recipe, DIALOGUES, tmp_path / f"{seed}")
        return (tmp_path / f"{seed}" / "model.safetensors").read_bytes()

    before = torch.get_rng_state()
    once = weights(3)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)
    assert weights(3) == once
    assert weights(4) != once


def test_padding_is_not_learnt_from(tokenizer: Any) -> None:
    """Two rows of different length in one batch have the mean loss of their tokens apart."""
    import torch

    from harness.models.scratch import _batches

    model = build_model(SMALL, tokenizer).eval()
    rows = [tokenizer.apply_chat_template(_dicts(turns), return_dict=False) for turns in (DIALOGUES[0], DIALOGUES[2])]
    assert len(rows[0]) != len(rows[1])
    with torch.no_grad():
        (together,) = (model(input_ids=ids, labels=labels).loss.item() for ids, labels in _batches(rows, [[0, 1]]))
        apart = [model(input_ids=ids, labels=labels).loss.item() for ids, labels in _batches(rows, [[0], [1]])]
    tokens = [len(row) - 1 for row in rows]
    assert together == pytest.approx(
        sum(loss * count for loss, count in zip(apart, tokens, strict=True)) / sum(tokens), abs=1e-5
    )


def test_every_step_is_within_its_tokens_and_every_row_is_seen_once_an_epoch() -> None:
    from harness.models.scratch import _steps

    lengths = [5, 40, 12, 33, 7, 64, 21] * 9
    steps = _steps(SMALL.model_copy(update={"epochs": 3, "tokens_per_step": 60}), lengths)
    assert sorted(row for step in steps for row in step) == sorted(3 * list(range(len(lengths))))
    assert all(len(step) == 1 or len(step) * max(lengths[row] for row in step) <= 60 for step in steps)


def test_nothing_short_enough_is_an_error_that_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model\.scratch\.max_length = 64: none of 1 dialogues is that short; raise it"):
        train_from_scratch(SMALL, [LONG], tmp_path)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_no_number_stops_before_the_weights_are_none(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """From the third step on."""
    import torch

    made = []

    def broken(*given: Any) -> Any:
        model, steps = build_model(*given), []

        def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
            steps.append(1)
            if len(steps) < 3:
                return None
            if what == "loss":
                return output * float("nan")
            output.register_hook(lambda gradient: gradient * float("nan"))
            return None

        model.get_output_embeddings().register_forward_hook(hook)
        made.append(model)
        return model

    monkeypatch.setattr("harness.models.scratch.build_model", broken)
    with pytest.raises(StageError, match=rf"the {what} of the model .* is nan at step 3 of \d+: lower model\.scratch"):
        train_from_scratch(SMALL, DIALOGUES, tmp_path)
    assert all(weight.isfinite().all() for weight in made[0].parameters())


def test_heads_must_fit() -> None:
    with pytest.raises(ValidationError, match="hidden_size 20 is not a multiple of 2 × heads = 8"):
        ScratchModel(hidden_size=20, heads=4)


def _dicts(turns: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in turns]
