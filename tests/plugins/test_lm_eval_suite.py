"""The leaderboard's six on local data: exactly what lm-eval gives by itself for the same model and rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import lm_eval_data
import pytest
from pydantic import ValidationError

from harness import DataError, Score
from harness_plugins.evaluators import LmEval, LmEvalImporter
from harness_plugins.evaluators.lm_eval.lm_eval import _average
from harness_plugins.evaluators.lm_eval.tasks import SHOTS, SUITE_REPORT

REFERENCE = os.environ.get("HARNESS_REFERENCE_DATA")
TASKS = {"a": [0.0, 1.0], "b": [1.0], "c": [1.0, 0.0, 0.0, 0.0]}
TEXTS = [json.dumps(lm_eval_data.hellaswag(n)) + " Question: Answer: A. B. C. D. #### 12" for n in range(50)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Llama over bytes and a few merges, whose tokenizer begins every text with <s>."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokens.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokens.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    )
    tokens.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3, max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("bytes")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class PolicyTask:
    """The policy in memory."""

    examples = ()
    seed = 0

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.folder, self.notes = folder, {}
        self.loaded = (AutoModelForCausalLM.from_pretrained(checkpoint).eval(), AutoTokenizer.from_pretrained(checkpoint))

    def policy(self) -> Any:
        return self.loaded

    def note(self, name: str, value: Any) -> None:
        self.notes[name] = value


def redirected(data: Path, tasks: dict[str, int], folder: Path) -> list[str]:
    """Official task files whose data are redirected as lm-eval's manual says, put into `folder`; their names."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    root = Path(lm_eval.tasks.__file__).parent
    found = {}
    for path in [
        p
        for name in ("arc", "hellaswag", "winogrande", "mmlu/default", "truthfulqa", "gsm8k")
        for p in (root / name).glob("*.yaml")
    ]:
        config = load_yaml(path, resolve_func=False)
        name = str(config.get("task"))  # a list of a group
        if name in tasks or ("mmlu" in tasks and name.startswith("mmlu_")):
            found[name] = (path, config)
    folder.mkdir()
    for name, (path, config) in found.items():
        place = data / config["dataset_path"] / (config.get("dataset_name") or "data")
        files = {split.stem: str(split) for split in place.glob("*.jsonl")}
        shots = tasks["mmlu" if name.startswith("mmlu_") else name]
        changed = {"task": f"own_{name}", "dataset_path": "json", "dataset_name": None, "num_fewshot": shots}
        text = json.dumps({"include": str(path), "tag": [], **changed, "dataset_kwargs": {"data_files": files}})
        (folder / f"{name}.yaml").write_text(text)
    return sorted(f"own_{name}" for name in found)


def by_lm_eval(checkpoint: Path, data: Path, tasks: dict[str, int], folder: Path) -> dict[str, Any]:
    """`lm_eval.simple_evaluate`, which the command calls."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    names = redirected(data, tasks, folder)
    manager = TaskManager(include_defaults=False, include_path=str(folder))
    results = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(checkpoint), "dtype": "float32"}, device="cpu", batch_size=4,
        tasks=names, task_manager=manager, bootstrap_iters=0,
    )  # fmt: skip
    keep(results, folder.parent / "output")
    return dict(results["samples"])


def by_command(checkpoint: Path, data: Path, tasks: dict[str, int], folder: Path) -> dict[str, Any]:
    """lm-eval's own command: the documents that it writes."""
    names, output = redirected(data, tasks, folder), folder.parent / "output"
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={checkpoint},dtype=float32",
    ]
    command += ["--device", "cpu", "--batch_size", "4", "--tasks", ",".join(names), "--include_path", str(folder)]
    command += ["--output_path", str(output), "--log_samples"]
    apart = {"HF_HOME": str(folder.parent / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **apart})
    assert done.returncode == 0, done.stderr
    (run,) = output.iterdir()
    written = {name: next(run.glob(f"samples_{name}_2*.jsonl")).read_text(encoding="utf-8") for name in names}
    return {name: [json.loads(line) for line in text.splitlines()] for name, text in written.items()}


def keep(results: dict[str, Any], folder: Path) -> None:
    """What the command's `--output_path` and `--log_samples` write."""
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(folder))
    samples = results["samples"]
    tracker.general_config_tracker.model_name = tracker.general_config_tracker.model_name_sanitized = "tiny"
    tracker.save_results_aggregated({name: value for name, value in results.items() if name != "samples"}, samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)


def agree(scores: list[Score], samples: dict[str, Any], report: tuple[str, ...]) -> None:
    """Document by document."""
    for entry in report:
        name, _, rest = entry.partition("/")
        metric, _, chosen = rest.partition(",")
        own = {score.example: score.value for score in scores if score.metric == entry}
        theirs = {
            f"{task.removeprefix('own_')}:{row['doc_id']}": float(row[metric])
            for task, rows in samples.items()
            for row in rows
            if task.removeprefix("own_") == name or (name == "mmlu" and "_mmlu_" in task)
            if row["filter"] == (chosen or row["filter"])
        }
        assert own == pytest.approx(theirs, abs=1e-6)
        assert own


def test_tasks_by_name_give_what_lm_eval_gives_by_itself(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    lm_eval_data.write_typed(tmp_path / "data")
    tasks = {"hellaswag": 10, "winogrande": 10}
    report = ("hellaswag/acc_norm", "winogrande/acc")
    evaluator = LmEval(
        tasks=tuple(tasks), report=(*report, "average"), data=str(tmp_path / "data"), num_fewshot=10, apply_chat_template=False
    )
    task = PolicyTask(tmp_path / "scratch", checkpoint)
    scores = list(evaluator.evaluate(task))  # type: ignore[arg-type]
    assert capfd.readouterr().out == ""
    agree(scores, by_lm_eval(checkpoint, tmp_path / "data", tasks, tmp_path / "own"), report)
    (row,) = LmEvalImporter().read([tmp_path / "output"])
    assert row.label == "tiny" and row.whole
    assert row.facts["versions"] == {f"own_{name}": 1.0 for name in tasks}
    assert row.facts["shots"] == {f"own_{name}": 10 for name in tasks}
    read = [Score(s.example.removeprefix("own_"), s.metric.removeprefix("own_"), s.value) for s in row.scores]
    assert [score for score in read if score.metric in report] == [score for score in scores if score.metric in report]
    means = [fmean(score.value for score in scores if score.metric == metric) for metric in (*report, "average")]
    assert means[2] == pytest.approx((means[0] + means[1]) / 2) and means[0] != means[1]
    assert [metric.name for metric in row.metrics if metric.primary] == ["own_hellaswag/acc_norm", "own_winogrande/acc"]
    note = task.notes
    assert note["versions"] == {"hellaswag": 1.0, "winogrande": 1.0}
    assert note["shots"] == tasks
    assert note["batch_size"] == 64
    assert {f"own_{name}": digest for name, digest in note["documents"].items()} == row.facts["documents"]


def test_missing_data_are_named_with_the_place_to_put_them(checkpoint: Path, tmp_path: Path) -> None:
    lm_eval_data.write_typed(tmp_path / "data")
    evaluator = LmEval(tasks=("open_llm_leaderboard",), data=str(tmp_path / "data"))
    with pytest.raises(DataError) as caught:
        list(evaluator.evaluate(PolicyTask(tmp_path / "scratch", checkpoint)))  # type: ignore[arg-type]
    message = str(caught.value)
    assert "data set 'allenai/ai2_arc' (ARC-Challenge) is not on this machine" in message
    assert f"put its splits at {tmp_path}/data/allenai/ai2_arc/ARC-Challenge/<split>.jsonl" in message
    assert f"hf download allenai/ai2_arc --repo-type dataset --local-dir {tmp_path}/data/allenai/ai2_arc" in message


def test_the_suite_says_what_it_reports_and_files_are_part_of_the_key(tmp_path: Path) -> None:
    suite = LmEval(tasks=("open_llm_leaderboard",), data=str(tmp_path))
    assert suite.report == SUITE_REPORT
    assert not suite.templated
    assert suite.needs == frozenset()
    assert LmEval(**suite.model_dump()) == suite
    assert LmEval().fingerprint() == ""
    before = suite.fingerprint()
    lm_eval_data.write_typed(tmp_path / "more")
    assert suite.fingerprint() == before  # read once
    after = LmEval(tasks=("open_llm_leaderboard",), data=str(tmp_path)).fingerprint()
    assert before.startswith("lm-eval 0.") and after != before
    assert LmEval(tasks=("open_llm_leaderboard",), data=str(tmp_path / "none")).problems() == [
        ("data", f"{tmp_path}/none: no such folder")
    ]


def test_the_average_takes_one_metric_of_each_task_and_every_task_alike() -> None:
    suite = LmEval(tasks=("open_llm_leaderboard",))
    assert suite._averaged() == (*SUITE_REPORT[:5], "gsm8k/exact_match,strict-match")
    tasks = [[Score(f"{task}{place}", task, value) for place, value in enumerate(values)] for task, values in TASKS.items()]
    weighted = list(_average(tasks))
    assert fmean(score.value for score in weighted) == pytest.approx((0.5 + 1 + 0.25) / 3)
    assert len({score.example for score in weighted}) == 7 and {score.metric for score in weighted} == {"average"}
    with pytest.raises(ValidationError, match="a metric of two at least"):
        LmEval(tasks=("gsm8k",), report=("gsm8k/exact_match,strict-match", "average"))


def test_shards_and_other_formats_are_found(tmp_path: Path) -> None:
    import pandas as pd

    from harness_plugins.evaluators.lm_eval.tasks import Finder

    folder = tmp_path / "data" / "owner" / "set" / "main"
    folder.mkdir(parents=True)
    table = pd.DataFrame([{"question": "q", "answer": "a"}])
    for shard in range(2):
        table.to_parquet(folder / f"test-0000{shard}-of-00002.parquet")
    (folder / "README.md").write_text("no data")
    found = Finder(None, str(tmp_path / "data"), tmp_path).files("owner/set", "main")
    assert found == {"test": [str(folder / f"test-0000{shard}-of-00002.parquet") for shard in range(2)]}
    assert Finder(None, str(tmp_path / "data"), tmp_path).files("owner/set", "other") == {}
    assert Finder(None, None, tmp_path).files("owner/set", "main") == {}


@pytest.mark.slow
@pytest.mark.skipif(REFERENCE is None, reason="HARNESS_REFERENCE_DATA is not set")
def test_the_six_on_real_data_give_what_lm_evals_command_gives(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ARC, MMLU, TruthfulQA and GSM8K are real, HellaSwag and Winogrande typed."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "data"
    lm_eval_data.write_typed(data)
    lm_eval_data.write_real(data, Path(REFERENCE or ""), documents=4)
    task = PolicyTask(tmp_path / "scratch", checkpoint)
    scores = list(LmEval(tasks=("open_llm_leaderboard",), data=str(data)).evaluate(task))  # type: ignore[arg-type]
    assert len({score.example for score in scores if score.metric == "mmlu/acc"}) == 57 * 4
    assert task.notes["shots"]["mmlu"] == 5
    agree(scores, by_command(checkpoint, data, SHOTS, tmp_path / "own"), SUITE_REPORT[:-1])  # all but the average
