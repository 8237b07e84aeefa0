"""What a finished run hands to the board."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.config import RowConfig
from harness.config.schema import Budget, RunSection
from harness.run.executors.events import Outcome
from harness.run.graph import Graph, RowPlan
from harness.run.results import Run, collect_examples, copy_files, run_warnings
from harness.store import Store
from harness.training.settings import TrainingSettings

UNTRAINED: Any = SimpleNamespace(
    config=SimpleNamespace(budget=SimpleNamespace(limit=None), training=TrainingSettings()), rows=[]
)


def trained(store: Store, key: str, **facts: Any) -> None:
    """Store a training's artifact with the facts that every version has written, and others."""
    with store.draft("train", key) as draft:
        draft.facts |= {"prompts": 4, "pairs": 4, "updates": 1, "tokens_trained": 40, **facts}
        draft.write_lines("history.jsonl", [{"loss": 0.5}])


def test_a_failed_row_names_the_stage_and_the_reason(tmp_path: Path) -> None:
    graph = Graph()
    data = graph.add("source", "data", {}, {})
    trained = graph.add("train", "train dpo · seed 0", {}, {"groups": data})
    scored = graph.add("evaluate", "gold of dpo", {}, {"model": trained})
    other = graph.add("evaluate", "gold of sft", {}, {"source": data})
    run = Run(None, graph, Store(tmp_path), Outcome(failed={trained: "a bug"}, skipped={scored: trained}))  # type: ignore[arg-type]
    assert run.failure(trained) == run.failure(scored) == "train dpo · seed 0: a bug"
    assert run.failure(other) is None


def test_an_evaluator_that_failed_leaves_the_rest_of_the_row(tmp_path: Path) -> None:
    graph = Graph()
    model = graph.add("train", "train dpo · seed 0", {}, {})
    gold, bench = (graph.add("evaluate", name, {"name": name}, {"model": model}) for name in ("gold", "bench"))
    graph.rows.append(RowPlan("dpo", 0, model, (), (model,), {"gold_reward": (gold,), "lm_eval": (bench,)}))
    store = Store(tmp_path)
    trained(store, model)
    run = Run(UNTRAINED, graph, store, Outcome(failed={bench: "no disk"}))
    assert run.failure(model) is None
    assert run_warnings(run) == ["dpo, seed 0: no scores of lm_eval, since it failed (bench: no disk)"]


def test_a_training_s_warning_names_its_rows_unless_all_share_it(tmp_path: Path) -> None:
    graph, store = Graph(), Store(tmp_path)
    for label, facts in (("dpo", {"layout_warning": "slow"}), ("ipo", {"layout_warning": "slow", "memory_warning": "cut"})):
        for seed in (0, 1):
            key = graph.add("train", f"train {label} · seed {seed}", {"label": label, "seed": seed}, {})
            graph.rows.append(RowPlan(label, seed, key, (), (key,), {}))
            trained(store, key, **facts)
    graph.rows.append(RowPlan("sft", 0, "", (), (), {}))  # trains nothing of its own
    assert run_warnings(Run(UNTRAINED, graph, store, Outcome())) == ["slow", "ipo: cut"]


def test_rows_that_go_through_their_prompts_more_often_are_named(tmp_path: Path) -> None:
    def warned(limit: int | None, **epochs: list[int]) -> list[str]:
        budget = Budget(prompts=8, updates=limit)
        rows = [
            RowConfig(label, label, "measured", None, None, 0, tuple(map(_round, counts)), len(counts), label, budget)
            for label, counts in epochs.items()
        ]
        comparison: Any = SimpleNamespace(config=SimpleNamespace(budget=budget, training=TrainingSettings()), rows=rows)
        return run_warnings(Run(comparison, Graph(), Store(tmp_path), Outcome()))

    told = (
        "rows go through their prompts a different number of times (1: dpo, spin; 3: ipo): budget.updates would hold them equal"
    )
    assert warned(None, sft=[], dpo=[1], ipo=[3], spin=[1, 1]) == [told]
    assert warned(None, sft=[], dpo=[2], spin=[2, 2]) == []
    assert warned(4, dpo=[1], ipo=[1]) == []


GROUPED_TRAINER = SimpleNamespace(title=lambda: "grouped", carries=frozenset(TrainingSettings.model_fields))


def _round(epochs: int) -> Any:
    return SimpleNamespace(trainer=GROUPED_TRAINER, training=SimpleNamespace(epochs=epochs))


def test_a_warning_of_the_shared_start_is_said_once(tmp_path: Path) -> None:
    graph, store = Graph(), Store(tmp_path)
    for seed, facts in enumerate(({"memory_warning": "cut"}, {"memory_warning": "cut"}, {"memory_warning": ""}, {})):
        key = graph.add("sft", f"SFT · seed {seed}", {"seed": seed}, {})
        graph.rows.append(RowPlan("sft", seed, key, (), (), {}))
        with store.draft("sft", key) as draft:
            draft.facts.update(facts)
    graph.add("sft", "SFT · seed 4", {"seed": 4}, {})  # failed: nothing of it is stored
    assert run_warnings(Run(UNTRAINED, graph, store, Outcome())) == ["cut"]


def test_a_row_whose_own_samples_were_all_tokenized_again_is_named_once(tmp_path: Path) -> None:
    graph, store = Graph(), Store(tmp_path)

    def add(label: str, *counts: dict[str, int]) -> None:
        for seed in (0, 1):
            keys = [graph.add("groups", label, {"row": label, "seed": seed, "round": n}, {}) for n in range(len(counts))]
            graph.rows.append(RowPlan(label, seed, "", tuple(keys), (), {}))
            for key, count in zip(keys, counts, strict=True):
                with store.draft("groups", key) as draft:
                    draft.facts |= {"prompts": 4, "groups": 4, "dropped": {}, **({"responses": count} if count else {})}

    add("spin", {"as_sampled": 0, "tokenized_again": 4, "from_dataset": 4}, {"as_sampled": 0, "tokenized_again": 2})
    add("only_prompting", {"as_sampled": 7, "tokenized_again": 1, "from_dataset": 0})
    add("dpo", {"as_sampled": 0, "tokenized_again": 0, "from_dataset": 8})
    add("of an older version", {})
    (told,) = run_warnings(Run(UNTRAINED, graph, store, Outcome()))
    assert told.startswith("spin: all 12 responses that are not the data's own were tokenized again from their text")


def test_examples_are_kept_back_where_the_config_says_so(tmp_path: Path) -> None:
    config = SimpleNamespace(run=RunSection(examples=False))
    run = Run(SimpleNamespace(config=config), Graph(), Store(tmp_path), Outcome())  # type: ignore[arg-type]
    assert collect_examples(run) == [] and RunSection().examples


def test_an_evaluator_s_own_questions_are_shown_with_all_rows_answers_and_judges_words(tmp_path: Path) -> None:
    graph, store = Graph(), Store(tmp_path)
    for row, seed in (("sft", 0), ("dpo", 0), ("dpo", 1)):
        model = graph.add("train", f"train {row} · seed {seed}", {"row": row, "seed": seed}, {})
        trained(store, model)
        key = graph.add("evaluate", "mt_bench", {"row": row, "seed": seed}, {"model": model, "source": model, "start": model})
        graph.rows.append(RowPlan(row, seed, model, (), (model,), {"mt_bench": (key,)}))
        with store.draft("evaluate", key) as draft:
            draft.write_lines("scores.jsonl", [])
            (draft.folder / "files").mkdir()
            question = {"example": "mt_bench:81:1", "prompt": "Write.", "target": None, "answer": f"{row} {seed}"}
            said = {"example": "mt_bench:81:1", "sample": 0, "verdict": "rated 7", "words": "w" * 9000}
            draft.write_lines("files/questions.jsonl", [question])
            draft.write_lines("files/judgments.jsonl", [said, said | {"sample": 1}] if row == "dpo" else [])
    config = SimpleNamespace(run=RunSection(), first_seeds=(0,))
    run = Run(SimpleNamespace(config=config), graph, store, Outcome())  # type: ignore[arg-type]
    (shown,) = collect_examples(run)
    assert (shown.id, shown.prompt, shown.target) == ("mt_bench:81:1", "Write.", None)
    assert shown.answers == {"sft": "sft 0", "dpo": "dpo 0"} and set(shown.judged) == {"dpo"}
    (said,) = shown.judged["dpo"]
    assert said["evaluator"] == "mt_bench" and said["verdict"] == "rated 7"
    assert said["words"] == f"{'w' * 8000} … (1,000 more characters)"


def test_what_evaluators_left_lies_beside_the_board(tmp_path: Path) -> None:
    graph, store = Graph(), Store(tmp_path / "store")
    keys = [graph.add("evaluate", name, {"name": name}, {}) for name in ("with files", "without", "of another row")]
    for key, content in zip(keys, ("answers", None, "others"), strict=True):
        with store.draft("evaluate", key) as draft:
            if content is not None:
                (draft.folder / "files" / "model_answer").mkdir(parents=True)
                (draft.folder / "files" / "model_answer" / "row.jsonl").write_text(content)
    graph.rows += [
        RowPlan("dpo", 0, "", (), (), {"mt_bench": (keys[0],), "gold_reward": (keys[1],)}),
        RowPlan("../dpo?", 1, "", (), (), {"mt_bench": (keys[2],)}),
        RowPlan("failed", 0, "", (), (), {"mt_bench": ("absent",)}),
    ]
    mine = tmp_path / "run" / "files" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("a user's own")
    for _ in range(2):
        copy_files(Run(SimpleNamespace(start=None), graph, store, Outcome()), tmp_path / "run")  # type: ignore[arg-type]
    found = {
        str(path.relative_to(tmp_path / "run")): path.read_text() for path in (tmp_path / "run").rglob("*.*") if path.is_file()
    }
    other = next(name for name in found if "seed-1" in name)
    assert found == {
        "files/mine.txt": "a user's own",
        "files/dpo/mt_bench/seed-0/model_answer/row.jsonl": "answers",
        other: "others",
    }
    assert other.startswith("files/_dpo_-")


def test_a_smaller_storage_says_what_it_loses(tmp_path: Path) -> None:
    graph, store = Graph(), Store(tmp_path)
    rounding = {"dtype": "bfloat16", "moved": 1_000, "kept": 0.9754, "error": 0.978}
    for kind, title in (("sft", "SFT · seed 0"), ("train", "train dpo · seed 0")):
        key = graph.add(kind, title, {}, {})
        if kind == "train":
            trained(store, key, rounding=rounding)
            continue
        with store.draft(kind, key) as draft:
            draft.facts["rounding"] = rounding
    graph.rows += [RowPlan("dpo", 0, key, (), (key,), {})]
    words = "moved 97.5% are stored as they were before; what rounding changes is 0.978 times as long as the update"
    assert run_warnings(Run(UNTRAINED, graph, store, Outcome())) == [
        f"stored in bfloat16, as model.storage asks: of 1,000 weights that {what} {words}" for what in ("SFT", "training")
    ]
