"""Reward models: tiny classifiers and a twin of Starling's layout, made here; padding and batches change nothing."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import torch

from harness.api.types import Message, Prompt, Response
from harness.errors import DataError
from harness.models import reward as module
from harness.models.load import load_tokenizer
from harness.models.reward import RewardModel, RewardScorer

PROMPTS = [
    Prompt.of("a", "name two fruits ."),
    Prompt("b", (Message("user", "name a fruit ."), Message("assistant", "pear"), Message("user", "one more , please ."))),
]
RESPONSES = [[Response("pear , plum"), Response("plum"), Response("pear , plum")], [Response("plum , pear , lemon , fig")]]


@pytest.fixture
def classifier(tiny_classifier: Path) -> Path:
    return tiny_classifier


def by_hand(folder: Path, messages: list[Message]) -> float:
    """The score head at the last token of the dialogue in its own template."""
    from transformers import LlamaForSequenceClassification

    tokenizer, model = load_tokenizer(folder), LlamaForSequenceClassification.from_pretrained(folder).eval()
    dialogue = [{"role": message.role, "content": message.content} for message in messages]
    ids = torch.tensor([tokenizer.apply_chat_template(dialogue, return_dict=False)])
    with torch.inference_mode():
        return float(model.score(model.model(ids).last_hidden_state[0, -1]))


def test_a_classifier_reads_the_whole_dialogue_to_its_last_token(classifier: Path) -> None:
    values, cut = RewardScorer(RewardModel(model=str(classifier))).rewards(PROMPTS, RESPONSES)
    assert cut == 0
    for prompt, row, given in zip(PROMPTS, RESPONSES, values, strict=True):
        expected = [by_hand(classifier, [*prompt.messages, Message("assistant", response.text)]) for response in row]
        assert given == pytest.approx(expected, abs=1e-5)
    assert values[0][0] == values[0][2] != values[0][1]


def test_a_padding_token_that_ends_turns_hides_nothing(classifier: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    tokenizer = load_tokenizer(classifier)
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.decode([tokenizer.eos_token_id])
    AutoModelForSequenceClassification.from_pretrained(classifier).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, other = RewardModel(model=str(tmp_path)), RewardModel(model=str(classifier))
    padded, plain = RewardScorer(model).rewards(PROMPTS, RESPONSES)[0], RewardScorer(other).rewards(PROMPTS, RESPONSES)[0]
    assert padded == [pytest.approx(row, abs=1e-5) for row in plain]


def test_batches_change_nothing(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RewardModel(model=str(classifier))
    together, _ = RewardScorer(model).rewards(PROMPTS, RESPONSES)
    monkeypatch.setattr(module, "TOKENS_PER_BATCH", 1)
    alone, _ = RewardScorer(model).rewards(PROMPTS, RESPONSES)
    assert together == [pytest.approx(row, abs=1e-5) for row in alone]


def test_a_dialogue_that_is_too_long_loses_its_beginning_and_is_counted(classifier: Path) -> None:
    values, cut = RewardScorer(RewardModel(model=str(classifier), max_tokens=8)).rewards(PROMPTS, RESPONSES)
    assert cut == 4
    assert values[0][0] != values[0][1]


@pytest.fixture(scope="module")
def starling(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """Starling's layout: the card's module's weights under its names, as safetensors, and Llama's tokenizer in small."""
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("starling")
    tokenizer = _bos_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(1)
    trunk = LlamaForCausalLM(config)
    head = torch.randn(1, 32)
    state = {f"transformer.{name}": value.clone() for name, value in trunk.model.state_dict().items()} | {"v_head.weight": head}
    save_file(state, folder / "model.safetensors")
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, {"head": head[0], **trunk.model.state_dict()}


def _bos_tokenizer():
    """Words, and a BOS that the tokenizer adds itself, as Llama's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [
        "<unk>",
        "<s>",
        "</s>",
        "[INST]",
        "[/INST]",
        *["name", "two", "one", "a", "fruits", "fruit", "pear", "plum", "lemon", "fig", "please", "more"],
        ".",
        ",",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<s>", "</s>", "[INST]", "[/INST]"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def test_starlings_layout_is_read_as_its_card_reads_it(starling) -> None:
    from transformers import LlamaConfig, LlamaModel

    folder, weights = starling
    trunk = LlamaModel(LlamaConfig.from_pretrained(folder)).eval()
    trunk.load_state_dict({name: value for name, value in weights.items() if name != "head"})
    values, _ = RewardScorer(RewardModel(model=str(folder), layout="starling")).rewards(PROMPTS[:1], RESPONSES[:1])
    for response, value in zip(RESPONSES[0], values[0], strict=True):
        ids = load_tokenizer(folder)(f"<s>[INST] name two fruits . </s> [/INST] {response.text}</s>")["input_ids"]
        with torch.inference_mode():
            expected = float(trunk(torch.tensor([ids])).last_hidden_state[0, -1] @ weights["head"])
        assert value == pytest.approx(expected, abs=1e-5)


def test_a_checkpoint_of_another_layout_is_refused(classifier: Path, starling) -> None:
    with pytest.raises(DataError, match=r"has not Starling's layout: it lacks v_head\.weight"):
        RewardScorer(RewardModel(model=str(classifier), layout="starling")).rewards(PROMPTS, RESPONSES)
    with pytest.raises(DataError, match="no chat template"):
        RewardScorer(RewardModel(model=str(starling[0]))).rewards(PROMPTS, RESPONSES)


def test_a_language_model_is_no_classifier(tiny_checkpoint: Path) -> None:
    with pytest.raises(DataError, match="it is no sequence classifier"):
        RewardScorer(RewardModel(model=str(tiny_checkpoint))).rewards(PROMPTS, RESPONSES)


def test_pickles_are_refused_and_places_are_checked_while_planning(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(random.Random(0).randbytes(9))
    ((field, fix),) = RewardModel(model=str(tmp_path)).problems("reward")
    assert field == "reward.model" and "convert" in fix
    ((field, fix),) = RewardModel(model="owner/name").problems("reward")
    assert field == "reward.revision" and "commit" in fix
    ((field, fix),) = RewardModel(model="not a folder").problems("reward")
    assert field == "reward.model" and "no such folder" in fix
    assert not RewardModel(model="owner/name", revision="abc").problems("reward")
    assert RewardModel(model="owner/name", revision="abc").weights == "owner/name@abc"


def test_weights_are_told_apart_by_content(classifier: Path, tmp_path: Path) -> None:
    first = RewardModel(model=str(classifier)).weights
    assert re.fullmatch("[0-9a-f]{32}", first)
    for file in classifier.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert RewardModel(model=str(tmp_path)).weights == first
    (tmp_path / "config.json").write_text("{}")
    assert RewardModel(model=str(tmp_path)).weights != first
