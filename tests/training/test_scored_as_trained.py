"""What is evaluated is what was trained: the way that a GPU takes, forced on a CPU by a context whose device is `cuda`."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl_twin import preference_groups

from harness.api.registry import Registry
from harness.api.types import Example, Group, Response, Score
from harness.config import describe
from harness.models.checkpoint import Checkpoint
from harness.models.load import cast, load_model, load_tokenizer
from harness.models.logps import TokenRow, score
from harness.models.options import LoadOptions, Use, weights_dtype
from harness.models.tokenization import ChatTemplate
from harness.run.graph import CHECKPOINT, Graph
from harness.run.stages import RUNNERS
from harness.run.stages.context import Context
from harness.run.stages.services import PolicyServices, Services
from harness.store import Artifact, Store
from harness.store.environment import environment
from harness.training import trainer
from harness.training.batch import PLAIN
from harness.training.settings import LoraSettings, TrainingSettings
from harness_plugins.backends.transformers import TransformersBackend
from harness_plugins.baselines.dpo import DPO
from harness_plugins.evaluators.preference_accuracy import PreferenceAccuracy
from harness_plugins.sources.sandbox import Sandbox

GPU = {**environment(), "device": "cuda"}
GROUPS, SOURCE = "a" * 32, "b" * 32


DEFAULT = LoadOptions()


def examples(groups: Sequence[Group]) -> list[Example]:
    """Held-out pairs."""
    return [Example(group.prompt, None, (group.chosen.text, group.rejected[0].text), {}) for group in groups]


@dataclass(frozen=True)
class Outcome:
    """Margins of held-out pairs, in nats.

    Attributes:
        evaluated: as `preference_accuracy` gives them.
        trained: those of the trainer's own weights, in its process and before anything was stored, in float32.
        halved: of the stored model as it was scored once: weights in bfloat16.
        first: the margin that the first step logged.
        facts: of the train stage.
        stored: the trained model.
    """

    evaluated: list[float]
    trained: list[float]
    halved: list[float]
    first: float
    facts: dict[str, Any]
    stored: Artifact


@dataclass(frozen=True)
class Way:
    """From a checkpoint through reference, training and evaluation, each a stage as a run makes it.

    Attributes:
        folder: the checkpoint.
        place: an empty folder for the store.
        device: whose rules decide the types of weights and products.
        options: how the checkpoint is loaded.
    """

    folder: Path
    place: Path
    device: dict[str, str]
    options: LoadOptions = DEFAULT

    def run(self, settings: TrainingSettings, training: Sequence[Group], pairs: Sequence[Example]) -> Outcome:
        start = f"{CHECKPOINT}start"
        checkpoints = {"start": Checkpoint(str(self.folder), options=self.options).as_dict()}
        context = Context(Store(self.place / "store"), Registry.load(), checkpoints, lambda *_: None, environment=self.device)
        with context.store.draft("groups", GROUPS) as draft:
            draft.write_lines("groups.jsonl", [asdict(group) for group in training])
        with context.store.draft("source", SOURCE) as draft:
            draft.facts |= {"splits": {"heldout": len(pairs)}, "dropped": {}}
            draft.write_json("source.json", describe(Sandbox()))
            draft.write_lines("heldout.jsonl", [asdict(pair) for pair in pairs])
        graph, inputs, kind = Graph(self.device), {"groups": GROUPS, "model": start}, self.device["device"]
        view = {"view": PLAIN, "objective": None, **settings.precision_payload(kind)}
        inputs[f"reference:{PLAIN}"] = graph.add("reference", "reference", view, dict(inputs))
        payload = {"objective": describe(DPO()), "settings": settings.payload(kind), "seed": 0}
        key = graph.add("train", "train", payload, inputs)
        asked = {"evaluator": describe(PreferenceAccuracy()), "backend": describe(TransformersBackend()), "seed": 0}
        asked |= {"split": "heldout", "prompts": None}
        last = graph.add("evaluate", "evaluate", asked, {"source": SOURCE, "model": key, "start": start})
        own: list[float] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, "train", _watched(trainer.train, lambda policy: own.extend(self._margins(policy, pairs))))
            for stage in graph.stages.values():
                with context.store.draft(stage.kind, stage.key) as draft:
                    RUNNERS[stage.kind](stage, context, draft)
        scores = [Score(*row) for row in context.store.open(last).read_lines("scores.jsonl")]
        model = context.store.open(key)
        halves = [context.load_model(place, "generation") for place in (key, start)]
        first = next(iter(model.read_lines("history.jsonl")))["margin"]
        return Outcome(
            [found.value for found in scores if found.metric == "margin"],
            own,
            self._margins(halves[0], pairs, halves[1]),
            first,
            model.facts,
            model,
        )

    def _margins(self, policy: Any, pairs: Sequence[Example], start: Any = None) -> list[float]:
        """Of a model in memory against one in memory, or else against the start in float32."""
        start = start or load_model(self.folder, self.options, use="scoring")
        template = ChatTemplate(load_tokenizer(self.folder))
        rows = [
            TokenRow(tuple(template.prompt_ids(pair.prompt)), tuple(template.response_ids(pair.prompt, Response(text))))
            for pair in pairs
            for text in pair.ranked
        ]
        h = [own - other for own, other in zip(score(policy.eval(), rows), score(start, rows), strict=True)]
        return [chosen - rejected for chosen, rejected in zip(h[::2], h[1::2], strict=True)]


def _watched(train: Callable[..., Any], look: Callable[[Any], None]) -> Callable[..., Any]:
    """`train`, and a look at the policy in the trainer's memory after it."""

    def watched(policy: Any, *arguments: Any, **keywords: Any) -> Any:
        trained = train(policy, *arguments, **keywords)
        look(whole(policy))
        return trained

    return watched


def whole(policy: Any) -> Any:
    """A copy in float32, as the trainer's own: its adapters are float32 whatever lies beneath them."""
    return cast(copy.deepcopy(policy), "float32")


def worst(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def one_step(learning_rate: float, **changes: Any) -> TrainingSettings:
    return TrainingSettings(learning_rate=learning_rate, prompts_per_batch=4, warmup_share=0.0, **changes)


@pytest.fixture(scope="session")
def real_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first four layers of SmolLM2-135M-Instruct with its tokenizer, where `harness fetch smollm2` has put it."""
    whole = Path(os.environ.get("HARNESS_CACHE") or "~/.cache/harness").expanduser() / "smollm2"
    if not (whole / "config.json").is_file():
        pytest.skip(f"no SmolLM2 in {whole}: `harness fetch smollm2` gets it")
    folder = tmp_path_factory.mktemp("layers")
    AutoModelForCausalLM.from_pretrained(whole, num_hidden_layers=4, dtype=torch.bfloat16).save_pretrained(folder)
    load_tokenizer(whole).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)], ids=["all weights", "adapters"])
def test_a_small_step_is_evaluated_as_it_was_trained(tiny_checkpoint: Path, tmp_path: Path, lora: LoraSettings | None) -> None:
    training, pairs = preference_groups(4), examples(preference_groups(24)[4:])
    settings = one_step(1e-6 if lora is None else 1e-4, lora=lora)
    found = Way(tiny_checkpoint, tmp_path, GPU).run(settings, training, pairs)
    largest = max(map(abs, found.trained))
    assert len(found.evaluated) == 20 and largest > 0
    assert worst(found.evaluated, found.trained) <= min(1e-3, 0.05 * largest)
    assert worst(found.halved, found.trained) > 5 * worst(found.evaluated, found.trained)  # what bfloat16 would have said
    assert found.first == 0  # trained in bfloat16 products, as is its reference
    assert {weight.dtype for weight in load_file(found.stored / "model" / "model.safetensors").values()} == {torch.float32}


def test_a_small_step_on_real_layers_is_evaluated_as_it_was_trained(real_layers: Path, tmp_path: Path) -> None:
    training, pairs = preference_groups(4), examples(preference_groups(24)[4:])
    found = Way(real_layers, tmp_path, GPU).run(one_step(1e-6), training, pairs)
    assert len(found.evaluated) == 20
    assert worst(found.evaluated, found.trained) <= 1e-3 < max(map(abs, found.trained))
    assert worst(found.halved, found.trained) > 1e-2
    assert found.first == 0


@pytest.mark.parametrize(
    ("options", "use", "cpu", "gpu"),
    [
        (LoadOptions(), "training", "float32", "float32"),
        (LoadOptions(), "scoring", "float32", "float32"),
        (LoadOptions(), "generation", "float32", "bfloat16"),
        (LoadOptions(dtype="bfloat16"), "training", "bfloat16", "bfloat16"),
        (LoadOptions(dtype="bfloat16"), "scoring", "float32", "float32"),
        (LoadOptions(dtype="float32"), "generation", "float32", "float32"),
        (LoadOptions(dtype="bfloat16", trained=True), "training", "float32", "float32"),
        (LoadOptions(dtype="bfloat16", trained=True), "generation", "bfloat16", "bfloat16"),
        (LoadOptions(dtype="bfloat16", trained=True, storage="bfloat16"), "training", "bfloat16", "bfloat16"),
    ],
)
def test_the_type_of_weights_goes_by_their_use(
    tiny_checkpoint: Path, options: LoadOptions, use: Use, cpu: str, gpu: str
) -> None:
    for device, dtype in (("cpu", cpu), ("cuda", gpu)):
        assert weights_dtype(options, device, use) == dtype
        model = load_model(tiny_checkpoint, options, use=use, device=device)
        assert {str(weight.dtype) for weight in model.parameters()} == {f"torch.{dtype}"}


def test_what_is_scored_is_the_model_that_a_dtype_rounds(tiny_checkpoint: Path) -> None:
    """The digits that `model.dtype` takes away are gone in training and generation too."""
    rounded = load_model(tiny_checkpoint, LoadOptions(dtype="bfloat16"), use="training").state_dict()
    scored = load_model(tiny_checkpoint, LoadOptions(dtype="bfloat16"), use="scoring").state_dict()
    assert all(torch.equal(scored[name], rounded[name].float()) for name in rounded)
    whole = load_model(tiny_checkpoint, use="scoring").state_dict()
    assert any(not torch.equal(scored[name], whole[name]) for name in whole)


def test_attention_of_16_bits_alone_is_replaced_for_scores(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = AutoModelForCausalLM.from_pretrained

    def watched(folder: Path, **keywords: Any) -> Any:
        asked.append(keywords["attn_implementation"])
        return real(folder, **{**keywords, "attn_implementation": "eager"})

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", watched)
    for attention in ("flash_attention_2", "eager"):
        for use in ("training", "scoring"):
            load_model(tiny_checkpoint, LoadOptions(attn_implementation=attention), use=use)
    assert asked == ["flash_attention_2", "sdpa", "eager", "eager"]


def test_products_are_not_rounded_while_scoring(tiny) -> None:
    """Neither a caller's autocast nor its setting for float32 products reaches a score, and both are as before afterwards."""
    model, _ = tiny
    rows = [TokenRow((7, 8), (9, 10, 11))]
    right, seen = score(model, rows), []
    model.register_forward_pre_hook(
        lambda *_: seen.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
    )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert score(model, rows) == right
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == [("highest", False)]


def test_one_of_two_models_is_in_memory(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """On a GPU generation and scoring take weights of different types; on a CPU they share one model."""
    for device, kinds in ((GPU, ["bfloat16", "float32", "bfloat16"]), ({**GPU, "device": "cpu"}, ["float32"] * 3)):
        context = Context(
            Store(tmp_path / device["device"]),
            Registry.load(),
            {"tiny": Checkpoint(str(tiny_checkpoint)).as_dict()},
            lambda *_: None,
            environment=device,
        )
        policy = PolicyServices(Services(context), f"{CHECKPOINT}tiny", TransformersBackend())
        models = [policy.model, policy.loaded[0], policy.model]
        assert [str(model.dtype).removeprefix("torch.") for model in models] == kinds
        assert (models[0] is models[1]) == (device["device"] == "cpu")


def test_adapters_on_rounded_weights_lose_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """`model.dtype: bfloat16` is how the start lies in memory; what training adds is kept in float32."""
    settings = one_step(1e-5, lora=LoraSettings(rank=4))
    way = Way(tiny_checkpoint, tmp_path, GPU, LoadOptions(dtype="bfloat16"))
    found = way.run(settings, preference_groups(4), examples(preference_groups(12)[4:]))
    largest = max(map(abs, found.trained))
    assert largest > 0 and worst(found.evaluated, found.trained) <= 0.05 * largest
    assert "rounding" not in found.facts and found.first == 0
    stored = load_file(found.stored / "model" / "model.safetensors")
    again = load_model(found.stored / "model", use="training").state_dict()
    assert all(torch.equal(again[name], stored[name]) for name in stored)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)], ids=["all weights", "adapters"])
@pytest.mark.parametrize("rate", [1e-3, 1e-6])
def test_what_a_smaller_storage_loses_of_an_update_is_measured(
    tiny_checkpoint: Path, tmp_path: Path, lora: LoraSettings | None, rate: float
) -> None:
    way = Way(tiny_checkpoint, tmp_path, {**GPU, "device": "cpu"}, LoadOptions(storage="bfloat16"))
    found = way.run(one_step(rate, lora=lora), preference_groups(4), examples(preference_groups(8)[4:]))
    exact = Way(tiny_checkpoint, tmp_path / "exact", {**GPU, "device": "cpu"}).run(
        one_step(rate, lora=lora), preference_groups(4), examples(preference_groups(8)[4:])
    )
    assert "rounding" not in exact.facts
    files = (found.stored / "model", exact.stored / "model", tiny_checkpoint)
    stored, trained, start = (load_file(folder / "model.safetensors") for folder in files)
    assert {weight.dtype for weight in stored.values()} == {torch.bfloat16}
    assert all(torch.equal(stored[name], trained[name].bfloat16()) for name in trained)
    moved = {name: trained[name] != start[name] for name in trained}
    kept = sum(int((moved[name] & (stored[name] == start[name].bfloat16())).sum()) for name in moved)
    total = sum(int(changed.sum()) for changed in moved.values())
    rounding = found.facts["rounding"]
    assert (rounding["dtype"], rounding["moved"]) == ("bfloat16", total)
    assert rounding["kept"] == pytest.approx(kept / total)
    assert rounding["kept"] > 0.9 if rate == 1e-6 else 0 < rounding["kept"] < 0.9
    assert rounding["error"] > 1 if rate == 1e-6 else rounding["error"] < 2
    again = load_model(found.stored / "model", use="training")
    assert {weight.dtype for weight in again.parameters()} == {torch.float32}  # trained on in float32, from what was stored
