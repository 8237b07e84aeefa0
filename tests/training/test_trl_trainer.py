"""The trainer `trl`: its DPO is our DPO step by step; all TRL trainers run, count, resume and are checked while planning."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from models.judge.scripted import ScriptedJudge
from trl_twin import preference_groups

from harness.api.registry import Registry
from harness.config import describe, resolve
from harness.config.checks import unused_settings
from harness.errors import ConfigError, StageError
from harness.models.checkpoint import Checkpoint
from harness.models.judge.settings import BUILDERS, JudgeSettings
from harness.run.costs import used_budget
from harness.run.estimates.judge import judge_estimates
from harness.run.graph import CHECKPOINT, Graph
from harness.run.plan import plan
from harness.run.records import TrainFacts
from harness.run.stages import run_stage
from harness.run.stages.context import Context, Report, save_checkpoint
from harness.run.stages.start import run_source
from harness.store import Artifact, Store

GROUPS, SOURCE = "a" * 32, "b" * 32
SETTINGS = {"prompts_per_batch": 4, "learning_rate": 0.002, "epochs": 1}
SANDBOX = {"name": "sandbox", "version": 1, "fields": {"sft": 4, "train": 12, "tuning": 4, "heldout": 4}}


def quiet(done: int, total: int, note: str) -> None:
    pass


def run(
    folder: Path,
    checkpoint: Path,
    payload: dict[str, Any],
    inputs: dict[str, str],
    report: Report = quiet,
    minutes: float = 10,
    **context_fields: Any,
) -> Artifact:
    """Make one train stage in a store that has twelve groups and the sandbox's rows."""
    store, checkpoints = Store(folder), {"tiny": Checkpoint(str(checkpoint)).as_dict()}
    context = Context(store, Registry.load(), checkpoints, report, checkpoint_minutes=minutes, **context_fields)
    if not store.holds(GROUPS):
        with store.draft("groups", GROUPS) as draft:
            draft.write_lines("groups.jsonl", [asdict(group) for group in preference_groups(12)])
    if not store.holds(SOURCE):
        source = context.registry.get("source", "sandbox").component(**SANDBOX["fields"])
        graph = Graph()
        stage = graph.stages[graph.add("source", "source", {"source": describe(source)}, {})]
        with store.draft("source", SOURCE) as draft:
            run_source(stage, context, draft)
    graph = Graph()
    key = graph.add("train", "train", payload, {"model": f"{CHECKPOINT}tiny", **inputs})
    store.sweep()
    run_stage(graph.stages[key], context)
    return store.open(key)


def trl(name: str, **fields: Any) -> dict[str, Any]:
    """A trainer's description, as a plan writes it."""
    component = Registry.load().get("trainer", "trl").component(trainer=name, **fields)
    return {"trainer": dict(describe(component)), "settings": SETTINGS, "seed": 3, "examples": [0, 12], "max_tokens": 6}


def test_trl_dpo_is_our_dpo_step_by_step(tmp_path: Path, tiny_checkpoint: Path) -> None:
    from harness.models.load import load_model, load_tokenizer
    from harness.models.logps import score
    from harness.models.tokenization import ChatTemplate
    from harness.training.batch import tokenize
    from harness_plugins.baselines.dpo import DPO

    theirs = run(tmp_path / "store", tiny_checkpoint, trl("dpo"), {"groups": GROUPS, "source": SOURCE})
    store, template = Store(tmp_path / "store"), ChatTemplate(load_tokenizer(tiny_checkpoint))
    model = load_model(tiny_checkpoint, use="scoring")
    with store.draft("reference", "c" * 32) as draft:
        draft.write_lines(
            "logps.jsonl", [list(score(model, g.rows())) for g in tokenize(preference_groups(12), template, DPO())]
        )
    payload = {"objective": dict(describe(DPO())), "settings": SETTINGS, "seed": 3}
    ours = run(tmp_path / "store", tiny_checkpoint, payload, {"groups": GROUPS, "reference:": "c" * 32})
    curves = [[row["loss"] for row in artifact.read_lines("history.jsonl")] for artifact in (ours, theirs)]
    assert len(curves[0]) == len(curves[1]) == 3
    assert max(abs(one - other) for one, other in zip(*curves, strict=True)) < 1e-4
    assert abs(curves[0][-1] - curves[0][0]) > 1e-3  # it has moved, so equality says something
    rates = [[row["learning_rate"] for row in artifact.read_lines("history.jsonl")] for artifact in (ours, theirs)]
    assert rates[0] == pytest.approx(rates[1], rel=1e-9)
    one, other = (load_model(artifact / "model", use="scoring").state_dict() for artifact in (ours, theirs))
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-4
    ours_used, theirs_used = TrainFacts.of(ours), TrainFacts.of(theirs)
    for unit in ("prompts", "pairs", "updates", "tokens_trained"):
        assert getattr(ours_used, unit) == getattr(theirs_used, unit), unit


@pytest.mark.parametrize("name", ["sft", "kto", "cpo", "orpo"])
def test_offline_trainers_run_and_count(name: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    artifact = run(tmp_path / "store", tiny_checkpoint, trl(name), {"groups": GROUPS, "source": SOURCE})
    facts = TrainFacts.of(artifact)
    assert (facts.prompts, facts.updates, facts.notes) == (12, 3, [])
    assert facts.pairs == (0 if name == "sft" else 12) and facts.tokens_trained > 12 * 10
    assert all(row["gradient_norm"] > 0 for row in artifact.read_lines("history.jsonl"))


@pytest.mark.parametrize("name", ["grpo", "rloo", "online_dpo"])
def test_online_trainers_run_on_prompts_and_count(name: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    answers = 2 if name == "online_dpo" else 4
    arguments = {} if name == "online_dpo" else {"arguments": {"num_generations": answers}}
    artifact = run(tmp_path / "store", tiny_checkpoint, trl(name, reward="gold", **arguments), {"source": SOURCE})
    facts = TrainFacts.of(artifact)
    assert (facts.updates, facts.reward_calls) == (3, 12 * answers)
    assert 12 * answers <= facts.tokens_generated <= 12 * answers * 6  # max_tokens
    assert facts.tokens_trained > facts.tokens_generated
    rows = list(artifact.read_lines("history.jsonl"))
    assert len(rows) == 3 and all("reward" in row for row in rows)


def test_a_reward_model_is_asked_in_golds_place(tmp_path: Path, tiny_checkpoint: Path, tiny_classifier: Path) -> None:
    reward = {"model": str(tiny_classifier)}
    payload = trl("rloo", reward=reward)
    facts = TrainFacts.of(run(tmp_path / "store", tiny_checkpoint, payload, {"source": SOURCE}))
    assert facts.reward_calls == 24 and "reward" in payload["trainer"]["fingerprint"]


def test_adapters_are_merged_into_the_whole_model(tmp_path: Path, tiny_checkpoint: Path) -> None:
    payload = trl("dpo")
    payload["settings"] = {**SETTINGS, "lora": {"rank": 4}}
    artifact = run(tmp_path / "store", tiny_checkpoint, payload, {"groups": GROUPS, "source": SOURCE})
    assert (artifact / "adapter").is_dir() and not TrainFacts.of(artifact).notes
    assert not list((artifact / "model").glob("adapter*"))


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_killed_at_a_step_it_goes_on_from_its_checkpoint(name: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]; "
        "import test_trl_trainer as t; "
        f"t.killed({name!r}, {str(tmp_path)!r}, {str(tiny_checkpoint)!r})"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    seen: list[int] = []
    artifact = resumed(name, tmp_path, tiny_checkpoint, lambda done, total, note: seen.append(done))
    assert min(seen) >= 1 and TrainFacts.of(artifact).updates == 3
    assert [row["step"] for row in artifact.read_lines("history.jsonl")] == [1, 2, 3]
    whole = run(tmp_path / "other", tiny_checkpoint, *arguments_of(name))
    assert list(whole.read_lines("history.jsonl")) == list(artifact.read_lines("history.jsonl"))
    assert TrainFacts.of(whole).tokens_trained == TrainFacts.of(artifact).tokens_trained


def arguments_of(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    if name == "dpo":
        return trl("dpo"), {"groups": GROUPS, "source": SOURCE}
    return trl("grpo", reward="gold", arguments={"num_generations": 4}), {"source": SOURCE}


def resumed(name: str, folder: Path, checkpoint: Path, report: Report) -> Artifact:
    return run(folder / "store", checkpoint, *arguments_of(name), report=report, minutes=0)


def killed(name: str, folder: str, checkpoint: str) -> None:
    """Run the stage, and end this process after its second step."""

    def end(done: int, total: int, note: str) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    resumed(name, Path(folder), Path(checkpoint), end)


def test_a_step_that_leaves_the_numbers_ends_the_training(tmp_path: Path, tiny_checkpoint: Path) -> None:
    import torch

    from harness.models.load import load

    model, tokenizer = load(tiny_checkpoint)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    save_checkpoint(model, tokenizer, tmp_path / "broken")
    with pytest.raises(StageError, match="loss is nan at step 1"):
        run(tmp_path / "store", tmp_path / "broken", trl("dpo"), {"groups": GROUPS, "source": SOURCE})


def config(checkpoint: Path, **row: Any) -> dict[str, Any]:
    return {
        "name": "trl",
        "source": {"name": "sandbox", "sft": 4, "train": 12, "tuning": 4, "heldout": 4},
        "model": {"path": str(checkpoint)},
        "sft": None,
        "budget": {"prompts": 8},
        "methods": ["sft", {"label": "trl", **row}],
        "evaluators": ["response_stats"],
        "baseline": "sft",
    }


@pytest.mark.parametrize(
    ("row", "field", "fix"),
    [
        ({"trainer": {"trainer": "grpo"}}, "trainer", "maximises one: give `reward: gold`"),
        ({"data": "preference", "trainer": {"trainer": "dpo", "reward": "gold"}}, "trainer", "leave it out"),
        ({"trainer": {"trainer": "dpo"}}, "data", "trains on groups: name a data builder"),
        ({"data": "preference", "trainer": {"trainer": "grpo", "reward": "gold"}}, "data", "trains on prompts alone"),
        ({"method": "orpo", "trainer": {"trainer": "dpo"}}, "objective", "cannot train with it"),
        (
            {"data": "preference", "trainer": {"trainer": "dpo", "arguments": {"bta": 1}}},
            "trainer.arguments.bta",
            "no such argument",
        ),
        (
            {"data": "preference", "trainer": {"trainer": "dpo", "arguments": {"seed": 1}}},
            "trainer.arguments.seed",
            "leave it out",
        ),
        (
            {"data": "preference", "trainer": {"trainer": "dpo", "arguments": {"beta": "much"}}},
            "trainer.arguments.beta",
            "should be a valid number",
        ),
        (
            {"trainer": {"trainer": "grpo", "reward": "gold", "arguments": {"num_generations": 1}}},
            "trainer.arguments",
            "at least 2 generations",
        ),
        ({"data": "targets", "trainer": {"trainer": "dpo"}}, "data", "have no rejected response"),
        (
            {"trainer": {"trainer": "grpo", "reward": {"policy": "likelihood", "request": "a good one"}}},
            "trainer.reward.request",
            "it should contain {score}",
        ),
        ({"trainer": {"trainer": "grpo", "reward": "silver"}}, "trainer.reward", "gold for the source's mark"),
        (
            {"data": "preference", "trainer": {"trainer": "dpo"}, "budget": {"generated": 1000}},
            "budget.generated",
            "the trainer 'trl dpo' of the row 'trl' cannot keep to it: use budget.updates",
        ),
        (
            {"method": "ipo", "objective": {"normalize": "sum"}, "trainer": {"trainer": "dpo"}},
            "objective.normalize",
            "TRL's dpo has no such setting",
        ),
        (
            {"method": "dpo", "training": {"layout": "unique"}, "trainer": {"trainer": "dpo"}},
            "training.layout",
            "does not use it",
        ),
    ],
)
def test_what_cannot_be_is_said_while_planning(row: dict[str, Any], field: str, fix: str, tiny_checkpoint: Path) -> None:
    row = {**row, "trainer": {"name": "trl", **row["trainer"]}}
    with pytest.raises(ConfigError) as error:
        resolve(config(tiny_checkpoint, **row), Registry.load())
    problems = error.value.problems
    assert [problem.field for problem in problems] == [f"methods.1.{field}"] and fix in problems[0].fix


def test_settings_and_objective_are_carried_over_and_arguments_override(tiny_checkpoint: Path, tmp_path: Path) -> None:
    row = {
        "method": "dpo",
        "objective": {"beta": 0.3, "label_smoothing": 0.1},
        "training": {"learning_rate": 1e-3, "schedule": "constant", "warmup_share": 0.25, "weight_decay": 0.1, "epochs": 2},
        "trainer": {"name": "trl", "trainer": "dpo", "arguments": {"per_device_train_batch_size": 2}},
    }
    comparison = resolve(config(tiny_checkpoint, **row), Registry.load())
    (round_,) = comparison.rows[1].rounds
    made: Any = round_.trainer
    given = made.config(
        round_.objective, round_.training, tmp_path, seed=5, rows=16, prompts=16, max_tokens=8, limit={"updates": 7}
    )
    assert (given.beta, given.label_smoothing, given.loss_type) == (0.3, 0.1, ["sigmoid"])
    assert (given.learning_rate, given.weight_decay, given.lr_scheduler_type) == (1e-3, 0.1, "constant_with_warmup")
    assert (given.per_device_train_batch_size, given.max_steps, given.warmup_steps, given.seed) == (2, 7, 2, 5)
    assert comparison.rows[1].objective == "trl dpo" and comparison.rows[1].data == "preference"


def test_a_row_on_prompts_has_no_data_stage_and_its_key_has_what_it_uses(tiny_checkpoint: Path) -> None:
    row: dict[str, Any] = {"trainer": {"name": "trl", "trainer": "grpo", "reward": "gold"}}
    graph = plan(resolve({**config(tiny_checkpoint, **row), "seeds": [0]}, Registry.load()))
    assert not [stage for stage in graph if stage.kind in ("groups", "reference")]
    (stage,) = [stage for stage in graph if stage.kind == "train"]
    assert stage.payload["max_tokens"] == 64 and stage.payload["examples"] == [0, 8]
    assert "layout" not in stage.payload["settings"] and set(stage.inputs) == {"model", "source"}


@pytest.mark.parametrize("reward", [{"model": "sandbox"}, {"judge": {}}])
def test_the_configs_reward_is_meant_for_online_trainers_that_name_none(reward: Any, tiny_checkpoint: Path) -> None:
    online, offline = {"trainer": {"name": "trl", "trainer": "grpo"}}, {"name": "trl", "trainer": "dpo"}
    raw = {**config(tiny_checkpoint, **online), "reward": reward, "seeds": [0]}
    raw["judge"] = {"model": "judge", "base_url": "http://localhost:1/v1"}
    raw["methods"] += [
        {"label": "gold", "trainer": {"name": "trl", "trainer": "grpo", "reward": "gold"}},
        {"label": "dpo", "data": "preference", "trainer": offline},
    ]
    graph = plan(resolve(raw, Registry.load()))
    trained = {stage.title.split()[1]: stage.payload for stage in graph if stage.kind == "train"}
    rewards = {label: payload["trainer"]["fields"]["reward"] for label, payload in trained.items()}
    assert rewards["gold"] == "gold" and rewards["dpo"] is None and rewards["trl"].items() >= reward.items()
    assert ["judge" in payload for payload in trained.values()] == [label == "trl" and "judge" in reward for label in trained]


def test_a_judge_as_reward_needs_a_judge(tiny_checkpoint: Path) -> None:
    raw = config(tiny_checkpoint, trainer={"name": "trl", "trainer": "grpo", "reward": {"judge": {}}})
    with pytest.raises(ConfigError, match="'trl' asks a judge: add a section"):
        resolve(raw, Registry.load())
    comparison = resolve({**raw, "judge": {"model": "judge", "base_url": "http://localhost:1/v1"}}, Registry.load())
    (estimate,) = judge_estimates(comparison, plan(comparison), [], [])
    assert estimate.evaluations == 2  # the trainings of both seeds


def test_a_setting_of_the_section_that_the_trainer_does_not_use_is_a_warning(tiny_checkpoint: Path) -> None:
    raw = config(tiny_checkpoint, data="preference", trainer={"name": "trl", "trainer": "dpo"})
    assert unused_settings(resolve(raw, Registry.load())) == []
    comparison = resolve({**raw, "training": {**raw.get("training", {}), "layout": "unique"}}, Registry.load())
    (warning,) = unused_settings(comparison)
    assert "does not use training.layout" in warning


@pytest.mark.parametrize("readable", [True, False])
def test_the_judge_is_asked_and_what_it_does_not_rate_counts_as_the_lowest(
    readable: bool, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    payload = trl("rloo", reward={"judge": {"temperature": 0.5}})
    with ScriptedJudge(
        lambda prompt, times: f"Rating: [[{len(prompt) % 9 + 1}]]" if readable else "no idea"
    ).serving() as served:
        judge = JudgeSettings(model="judge", base_url=served.url)
        asked = judge.changed({"temperature": 0.5})
        payload |= {"judge": asked.identity, "reading": asked.reading}
        judges = {BUILDERS: judge.model_dump(mode="json")}
        artifact = run(tmp_path / "store", tiny_checkpoint, payload, {"source": SOURCE}, judges=judges)
    facts = TrainFacts.of(artifact)
    assert facts.judge is not None and facts.judge.judge_calls > 0 and facts.reward_calls == 24
    assert {body["temperature"] for body in served.bodies} == {0.5}
    rewards = [row["reward"] for row in artifact.read_lines("history.jsonl")]
    if readable:
        assert not facts.notes and all(1 <= reward <= 9 for reward in rewards) and len(set(rewards)) > 1
    else:
        assert rewards == [1.0, 1.0, 1.0]
        assert facts.notes[0].startswith("24 of 24 answers of the judge held no rating")


def test_a_prompt_without_a_reference_is_no_reward_of_0(tmp_path: Path, tiny_checkpoint: Path) -> None:
    payload = trl("rloo", reward={"checker": "gsm8k", "reference": "reference"})
    with pytest.raises(StageError, match="none of 8 examples has one"):
        run(tmp_path / "store", tiny_checkpoint, payload, {"source": SOURCE})


def test_generated_tokens_are_a_budget_that_the_learning_rate_follows(tmp_path: Path, tiny_checkpoint: Path) -> None:
    payload = trl("rloo", reward="gold")
    payload |= {"spending": {"unit": "generated", "amount": 400}, "settings": {**SETTINGS, "schedule": "linear"}}
    artifact = run(tmp_path / "store", tiny_checkpoint, payload, {"source": SOURCE})
    facts = TrainFacts.of(artifact)
    assert 400 - 48 < facts.tokens_generated <= 400  # a step is eight responses of six tokens at most
    assert facts.updates > 3 and facts.prompts == 12  # more than one pass
    rates = [row["learning_rate"] for row in artifact.read_lines("history.jsonl")]
    peak = rates.index(max(rates))
    assert rates[peak:] == sorted(rates[peak:], reverse=True) and rates[-1] < rates[peak] / 2
    assert used_budget([facts])["generated"] == facts.tokens_generated
    with pytest.raises(StageError, match=r"may generate 48 tokens, and the round's budget\.generated is 40: raise"):
        run(
            tmp_path / "store",
            tiny_checkpoint,
            {**payload, "spending": {"unit": "generated", "amount": 40}},
            {"source": SOURCE},
        )


def test_a_training_that_takes_too_long_is_ended(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(StageError, match="the trainer 'trl rloo' ran longer than its limit of 1e-07 hours"):
        run(tmp_path / "store", tiny_checkpoint, trl("rloo", reward="gold", hours=1e-7), {"source": SOURCE})
    fields = dict(trl("rloo", reward="gold")["trainer"]["fields"])
    assert "hours" not in fields  # so that keys of rows that leave it alone stay as they were


def test_the_policys_own_judgment_is_a_reward(tmp_path: Path, tiny_checkpoint: Path) -> None:
    payload = trl("grpo", reward={"policy": "likelihood"}, arguments={"num_generations": 4})
    artifact = run(tmp_path / "store", tiny_checkpoint, payload, {"source": SOURCE})
    assert TrainFacts.of(artifact).reward_calls == 48
    rewards = [row["reward"] for row in artifact.read_lines("history.jsonl")]
    assert len(rewards) == 3 and all(2 <= reward <= 10 for reward in rewards) and len(set(rewards)) == 3
