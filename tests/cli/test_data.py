"""`harness data`: what is shown is what is trained, id for id."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

import harness.training.sft as sft
import harness.training.trainer as trainer
from harness.api.interfaces import BuildTask, DataBuilder
from harness.api.registry import Registry
from harness.api.types import Example, Group, Message, Prompt, Response
from harness.cli import main
from harness.cli.data import pieces
from harness.config import resolve
from harness.config.file import find_config, load_raw
from harness.errors import DataError, StageError
from harness.models.load import load_tokenizer
from harness.models.scratch import CHAT_TEMPLATE, ScratchModel, build_tokenizer
from harness.models.tokenization import ChatTemplate
from harness.run.graph import Graph
from harness.run.plan import plan
from harness.run.records import Description, GroupsPayload
from harness.run.stages import run_stage
from harness.run.stages.context import Context
from harness.run.stages.preview import Preview, build_dry
from harness.store import Store
from harness.training.batch import TokenGroup
from harness_plugins.baselines.preference import Preference
from harness_plugins.baselines.self_rewarding import SelfRewarding
from harness_plugins.baselines.spin import Spin
from harness_plugins.sources.sandbox import Sandbox

KEYS = {"id", "row", "prompt_text", "prompt_ids", "responses"}
ROWS = ["sft", "dpo", "sr_dpo", "kto", "spin", "self_contrast", "only_prompting"]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run `harness data` in this process: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test's own handlers stay

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()  # what the test itself has run
        monkeypatch.setattr(sys, "argv", ["harness", "data", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return written(
        tmp_path,
        {
            "name": "tiny",
            "source": {"name": "sandbox", "sft": 12, "train": 12, "tuning": 2, "heldout": 4},
            "model": {"path": str(tiny_checkpoint)},
            "sft": {"epochs": 1, "batch_size": 4},
            "training": {"prompts_per_batch": 4},
            "generation": {"max_tokens": 6},
            "budget": {"prompts": 10},
            "methods": [*ROWS[:5], {"method": "self_contrast", "data": {"samples": 4, "keep": 0.5, "negatives": 2}}, ROWS[6]],
            "evaluators": ["gold_reward"],
            "seeds": [0],
            "baseline": "sft",
        },
    )


def written(folder: Path, raw: Mapping[str, Any]) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def planned(config: Path, store: Store) -> tuple[Any, Graph, Context]:
    registry = Registry.load()
    comparison = resolve(load_raw(find_config(config)), registry, str(config))
    graph = plan(comparison)
    context = Context(store, registry, graph.checkpoints, lambda done, total, note: None, graph.environment)
    return comparison, graph, context


def made(config: Path, folder: Path, kinds: Iterable[str], rows: Iterable[str] = ROWS) -> None:
    """Run the stages of these kinds that rows train by."""
    _, graph, context = planned(config, Store(folder))
    needed = graph.ancestors(*(key for row in graph.rows if row.label in rows for key in (row.model, *row.training)))
    for stage in graph:
        if stage.key in needed and stage.kind in kinds:
            run_stage(stage, context)


def shown(run: Any, *arguments: str) -> dict[str, list[dict[str, Any]]]:
    """What `--json` prints, by row."""
    code, out, err = run(*arguments, "--n", "1000", "--json")
    assert (code, err) == (0, "")
    rows: dict[str, list[dict[str, Any]]] = {}
    for item in json.loads(out):
        assert set(item) == KEYS
        assert all(set(response) == {"role", "text", "ids", "tokens"} for response in item["responses"])
        rows.setdefault(item["row"], []).append(item)
    return rows


def test_what_is_shown_is_what_is_trained(config: Path, harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shown(harness, str(config))
    store, trained, now = tmp_path / "store", {}, [""]
    tuned: list[list[dict[str, Any]]] = []
    train, build = trainer.train, sft._build

    def recorded(policy: Any, groups: Any, *more: Any, **options: Any) -> Any:
        trained[now[0]] = list(groups)
        return train(policy, groups, *more, **options)

    def recorded_sft(model: Any, tokenizer: Any, rows: Any, *more: Any) -> Any:
        tuned.append(rows)
        return build(model, tokenizer, rows, *more)

    monkeypatch.setattr(trainer, "train", recorded)
    monkeypatch.setattr(sft, "_build", recorded_sft)
    _, graph, context = planned(config, Store(store))
    rows = ["sft", "dpo", "sr_dpo", "kto", "spin"]
    needed = graph.ancestors(*(key for row in graph.rows if row.label in rows for key in (row.model, *row.training)))
    for stage in graph:
        if stage.key in needed:
            now[0] = stage.title
            run_stage(stage, context)

    assert [(row["input_ids"], row["completion_mask"]) for row in tuned[0]] == [
        (
            item["prompt_ids"] + item["responses"][0]["ids"],
            [0] * len(item["prompt_ids"]) + [1] * len(item["responses"][0]["ids"]),
        )
        for item in before["sft"]
    ]
    after = shown(harness, str(config), "--store", str(store))
    for label in ("dpo", "sr_dpo", "kto"):
        assert before[label] == after[label] and len(after[label]) == 10
    for label in rows[1:]:
        groups: list[TokenGroup] = trained[f"train {label} · seed 0"]
        assert [(group.id, list(group.prompts[""]), [list(ids) for ids in group.responses]) for group in groups] == [
            (item["id"], item["prompt_ids"], [response["ids"] for response in item["responses"]]) for item in after[label]
        ]
        assert {tuple(response["role"] for response in item["responses"]) for item in after[label]} == {("chosen", "rejected")}
    # What needs no sample is the same as in training; the sampled negative is there once the store has it.
    sampled = {item["id"]: item for item in after["spin"]}
    assert sampled and all(
        [*item["responses"], sampled[item["id"]]["responses"][1]] == sampled[item["id"]]["responses"]
        for item in before["spin"]
        if item["id"] in sampled
    )
    code, out, _ = harness(str(config), "--store", str(store), "--row", "spin", "--n", "1")
    assert code == 0 and "these groups are the store's" in out and "to be sampled" not in out


def test_views_and_mismatched_pairs_are_those_of_training(config: Path, harness: Any, tmp_path: Path) -> None:
    comparison, graph, context = planned(config, Store(tmp_path / "other"))
    (tmp_path / "scratch").mkdir()
    preview = Preview(comparison, graph, context, tmp_path / "scratch")
    refined, mismatched = preview.row("sr_dpo", 3), preview.row("kto", 3)
    objective = next(variant for variant in comparison.rows if variant.label == "sr_dpo").rounds[0].objective
    change = objective.views()["augmented"]
    for example, given in zip(refined.parts[0].examples, preview._dataset["train"], strict=False):
        assert list(example.views["augmented"]) == refined.template.prompt_ids(change(given.prompt)) != list(example.prompt_ids)
    ids = [example.prompt.id for example in preview._dataset["train"]]
    assert [example.partner for example in mismatched.parts[0].examples] == [ids[9], ids[0], ids[1]]
    _, out, _ = harness(str(config), "--row", "dpo", "--row", "sr_dpo", "--row", "kto", "--n", "1")
    assert "dpo, sr_dpo, kto\ndata preference → objectives dpo, sr_dpo, kto\n  10 prompts → 10 groups, 10 pairs" in out
    assert "view augmented of sr_dpo · " in out and "␣usefulness│␣rating" in out
    assert f"mismatched, of kto: responses of example {ids[9]} are scored after this prompt as well" in out


def test_builders_that_sample_show_what_needs_no_sample(config: Path, harness: Any) -> None:
    rows = shown(harness, str(config))
    train = {item["id"]: item for item in rows["dpo"]}
    targets = {example.prompt.id: example.target for example in Sandbox(sft=12, train=12, tuning=2, heldout=4).load()["train"]}
    for label in ("spin", "self_contrast"):
        assert len(rows[label]) == 10
        for item in rows[label]:
            assert item["prompt_ids"] == train[item["id"]]["prompt_ids"]
            assert [(given["role"], given["text"]) for given in item["responses"]] == [("chosen", targets[item["id"]])]
    assert len(rows["only_prompting"]) == 10 and all(item["responses"] == [] for item in rows["only_prompting"])
    _, out, _ = harness(str(config), "--row", "self_contrast", "--n", "1")
    assert "10 prompts; its builder asks for samples and scores of a model, which only a run can give" in out
    assert "rejected · 2 to be sampled by a run" in out


def test_nothing_is_left_behind(config: Path, harness: Any, tmp_path: Path) -> None:
    assert harness(str(config), "--row", "dpo")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_splits(config: Path, harness: Any) -> None:
    rows = shown(harness, str(config), "--split", "sft")
    assert {label: len(items) for label, items in rows.items()} == {"sft": 12}
    assert shown(harness, str(config), "--split", "sft", "--row", "dpo")["dpo"] == [
        {**item, "row": "dpo"} for item in rows["sft"]
    ]
    held_out = shown(harness, str(config), "--split", "heldout")["sft"]
    data = Sandbox(sft=12, train=12, tuning=2, heldout=4).load()["heldout"]
    assert [[(given["role"], given["text"]) for given in item["responses"]] for item in held_out] == [
        [("chosen", example.ranked[0]), ("rejected", example.ranked[1])] for example in data
    ]
    assert set(shown(harness, str(config), "--split", "train")) == set(ROWS) - {"sft"}
    _, out, _ = harness(str(config), "--split", "heldout", "--n", "1")
    assert "4 examples; nothing is trained on them; every row is evaluated on them" in out and "in the loss" not in out


def test_targets_that_do_not_fit_are_counted(config: Path, harness: Any) -> None:
    lengths = [
        len(item["prompt_ids"]) + len(item["responses"][0]["ids"])
        for item in shown(harness, str(config), "--row", "sft")["sft"]
    ]
    most = sorted(lengths)[len(lengths) // 2]
    over = sum(length > most for length in lengths)
    code, out, _ = harness(str(config), "--row", "sft", "--set", f"sft.max_length={most}", "--n", "1000")
    assert code == 0 and over
    assert f"dropped among the first 12: {over} longer than sft.max_length (sft.max_length = {most})" in out
    assert out.count("  example ") == 12 - over
    code, out, err = harness(str(config), "--row", "sft", "--set", f"sft.max_length={min(lengths) - 1}", "--json")
    assert (code, out) == (2, "")
    assert "row 'sft': no example of 12 can be fine-tuned on (12 longer than sft.max_length)" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--row", "dop"], "--row 'dop': no row of {config} has this label; did you mean 'dpo'?"),
        (["--split", "held"], "--split 'held': did you mean 'heldout'?"),
        (["--row", "dpo", "--set", "budget.prompts=13"], "budget.prompts"),
        (["--row", "sft", "--split", "train"], "row 'sft': it is the starting model and trains on nothing of the split train"),
        (["--row", "sft", "--set", "sft=null"], "row 'sft': it is the starting model as it is, which nothing is trained on"),
        (["--set", "sft=null", "--set", "methods=[sft]"], "no row trains on anything, since all are the starting model"),
        (["--set", "model.path=nobody/nothing"], "model.path = 'nobody/nothing': nobody/nothing at 'main' needs network"),
        (
            ["--set", "source={name: hub, dataset: nobody/nothing}", "--set", "evaluators=[response_stats]"],
            "source = 'hub': nobody/nothing at 'main' needs network",
        ),
        (["--set", "model={scratch: {}, path: x}"], "give exactly one of `path` and `scratch`"),
    ],
)
def test_mistakes(options: list[str], message: str, config: Path, harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, out, err = harness(str(config), *options, "--json")
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and message.format(config=config) in err


# Text of one's own, and a model made from it

TEXTS = [
    ("How do I print\n\n  x <|end|> y?", "print(x)  # 🎉 naïve", "\x1b[31mno ⟦│␣⟧"),
    ("And\tnow?", "def f():\n    code", "none"),
    ("Say it twice, please.", "it, it", "it"),
]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    rows = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in TEXTS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "heldout.jsonl").write_text(json.dumps({"prompt": "Last?", "chosen": "yes", "rejected": "no"}) + "\n")
    sizes = {"vocabulary_size": 300, "hidden_size": 8, "layers": 1, "heads": 1, "intermediate_size": 8, "epochs": 1}
    return written(
        tmp_path,
        {
            "name": "own",
            "source": {
                "name": "jsonl",
                "path": str(tmp_path / "rows.jsonl"),
                "splits": {"heldout": str(tmp_path / "heldout.jsonl")},
            }
            | {"tuning_share": 0},
            "model": {"scratch": {**sizes, "tokens_per_step": 64}},
            "sft": {"epochs": 1, "batch_size": 4},
            "budget": {"prompts": 3},
            "methods": ["sft", "dpo", "spin"],
            "evaluators": ["response_stats"],
            "seeds": [0],
            "baseline": "sft",
        },
    )


def test_a_model_made_from_nothing_has_the_tokenizer_that_is_shown(scratch: Path, harness: Any, tmp_path: Path) -> None:
    before = shown(harness, str(scratch))
    made(scratch, tmp_path / "store", ["source", "scratch"])
    model = next((tmp_path / "store" / "artifacts").glob("*/*/model"))
    vocabulary = load_tokenizer(model)
    assert shown(harness, str(scratch), "--store", str(tmp_path / "store")) == before
    for label in ("sft", "dpo"):
        for item in before[label]:
            assert vocabulary.decode(item["prompt_ids"]) == item["prompt_text"]
            for response in item["responses"]:
                assert vocabulary.decode(response["ids"]) == f"{response['text']}<|end|>"
                assert vocabulary.convert_ids_to_tokens(response["ids"]) == response["tokens"]
    assert {response["text"] for item in before["dpo"] for response in item["responses"]} == {
        text for _, *texts in TEXTS for text in texts
    }


def test_text_is_made_visible_and_nothing_of_it_reaches_the_terminal(scratch: Path, harness: Any) -> None:
    code, out, _ = harness(str(scratch), "--row", "dpo", "--n", "3")
    assert code == 0 and "\x1b" not in out and "\t" not in out
    plain = out.replace("│", "")
    assert "\\x1b[31mno␣" in plain and "\\u27e6\\u2502\\u2423\\u27e7" in plain.replace("⋯", "")
    assert "And\\tnow?" in plain and "def␣f():↵\n      ␣␣␣␣code⟦<|end|>⟧\n" in plain
    # A special token that is spelt out is words; the template's own are marked.
    lines = plain.splitlines()
    first = next(place for place, line in enumerate(lines) if line.strip().startswith("⟦<|bos|>⟧⟦<|user|>⟧How"))
    assert lines[first].endswith("print↵") and lines[first + 1].strip() == "↵"
    assert lines[first + 2].strip().replace("␣", " ").replace("⋯", "").endswith("x <|end|> y?⟦<|end|>⟧")
    assert lines[first + 3].strip() == "⟦<|assistant|>⟧"
    assert "🎉" in plain and "naïve" in plain.replace("⋯", "")


def byte_level() -> PreTrainedTokenizerFast:
    return build_tokenizer(ScratchModel(vocabulary_size=300), [(Message("user", "a two"), Message("assistant", "two"))])


def sentence_piece() -> PreTrainedTokenizerFast:
    """As Llama-2's: words begin with ▁, other characters are bytes, and a decoded text loses its first space."""
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁two", "▁t", "▁tw", "▁two"]
    merges = [("▁", "t"), ("▁t", "w"), ("▁tw", "o")]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=CHAT_TEMPLATE)


@pytest.mark.parametrize("build", [byte_level, sentence_piece])
@pytest.mark.parametrize("text", ["🎉 naïve", "  two\n\n", "two two", "漢字かな", "\u200b"])
def test_pieces_are_the_whole_text(text: str, build: Callable[[], PreTrainedTokenizerFast]) -> None:
    tokenizer = build()
    before, ids = tokenizer("two")["input_ids"], tokenizer(text)["input_ids"]
    parts = pieces(ChatTemplate(tokenizer), ids, before)
    assert len(parts) == len(ids) and "".join(parts) == tokenizer.decode([*before, *ids])[len("two") :]
    assert not any("\ufffd" in piece for piece in parts)
    if build is sentence_piece and text == "two two":
        assert parts == [" two", " two"]  # the spaces of an answer that was tokenized alone are seen


def test_rows_without_groups_say_why_and_others_are_shown(scratch: Path, harness: Any, tmp_path: Path) -> None:
    rows = [{"prompt": prompt, "completion": chosen} for prompt, chosen, _ in TEXTS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "heldout.jsonl").write_text(json.dumps({"prompt": "Last?", "completion": "yes"}) + "\n")
    reason = "row 'dpo': data builder 'preference' made no group from 3 prompts (fewer than two ranked responses: 3)"
    code, out, err = harness(str(scratch), "--row", "dpo", "--json")
    assert (code, out) == (2, "") and reason in err
    code, out, err = harness(str(scratch), "--json")
    assert code == 2 and reason in err
    assert {item["row"] for item in json.loads(out)} == {"sft", "spin"}
    code, out, err = harness(str(scratch))
    assert code == 2 and reason in err and "supervised fine-tuning" in out


# Builders on answers that were made up

EXAMPLES = [Example(Prompt.of(str(number), f"question {number}"), f"target {number}", ("best", "worst")) for number in range(5)]
BACKEND = Description(name="transformers", fields={})
PAYLOAD = GroupsPayload(builder=BACKEND, backend=BACKEND, max_tokens=8, examples=[0, 5], round=0, seed=0)


class Rejects(DataBuilder):
    """The policy's sample as chosen, where it is the better one; else the target; the worst ranked is always rejected."""

    name: ClassVar[str] = "rejects"

    def build(self, task: BuildTask) -> Iterable[Group]:
        samples = task.sample(2)
        for example, answers, marks in zip(task.examples, samples, task.logps(samples), strict=True):
            chosen = answers[0] if marks[0] > 0 else Response(example.target or "")
            yield Group(example.prompt, chosen, (Response(example.ranked[-1]), answers[1]))


class Broken(DataBuilder):
    """It fails by itself, or on what it sampled."""

    name: ClassVar[str] = "broken"

    samples: bool = False

    def build(self, task: BuildTask) -> Iterable[Group]:
        if self.samples:
            task.sample(1)
        raise KeyError("mistake")


def dry(builder: DataBuilder, examples: list[Example] = EXAMPLES) -> Any:
    return build_dry(builder, examples, PAYLOAD, Sandbox(), 2)


def test_only_what_every_sample_would_give_is_taken_for_known() -> None:
    built = dry(Rejects())
    assert [item.prompt.id for item in built.partial] == ["0", "1", "2", "3", "4"]
    for item in built.partial:
        assert item.chosen is None and [response.text for response in item.rejected] == ["worst"]
        assert item.unsampled == {"chosen": 1, "rejected": 1}


def test_what_is_dropped_whatever_is_sampled_is_counted() -> None:
    examples = [*EXAMPLES[:3], Example(EXAMPLES[3].prompt)]
    built = dry(Spin(), examples)
    assert [(item.prompt.id, item.chosen.text) for item in built.partial] == [(str(n), f"target {n}") for n in range(3)]
    assert built.dropped == {"no target": 1}
    note = "dropped whatever is sampled, of the first 4: 1 no target"
    assert note in built.notes(SimpleNamespace(builder=Spin(), objective=None))


def test_prompts_alone_where_samples_decide_everything() -> None:
    built = dry(SelfRewarding())
    assert [(item.prompt.id, item.chosen, item.rejected) for item in built.partial] == [(str(n), None, ()) for n in range(5)]
    assert not built.dropped


def test_a_builder_that_fails() -> None:
    with pytest.raises(StageError, match="data builder 'broken' failed: KeyError: 'mistake'"):
        dry(Broken())
    assert len(dry(Broken(samples=True)).partial) == 5


def test_a_builder_that_samples_is_tried_on_a_few_and_any_other_builds_all() -> None:
    many = [Example(Prompt.of(str(number), "q"), "t", ("a", "b", "c")) for number in range(200)]
    assert len(dry(Spin(), many).partial) == 64
    built = dry(Preference(), many)
    task = SimpleNamespace(examples=many, rng=random.Random("groups 0 0 preference"))
    assert built.groups == list(Preference().build(task)) and len(built.groups) == 200


def test_a_source_that_is_wrong_is_one_error(scratch: Path, harness: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "chosen": "b"\n')
    code, out, err = harness(str(scratch))
    assert (code, out) == (2, "") and "rows.jsonl" in err and DataError.exit_code == 2
