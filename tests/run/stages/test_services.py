"""Services through the store: what was asked for once is found again; one engine at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.api.registry import Registry
from harness.api.types import Prompt, Response, Sampling
from harness.errors import StageError
from harness.models.checkpoint import Checkpoint
from harness.models.logps import TokenRow, score
from harness.models.reward import RewardModel
from harness.models.sentence import SentenceEmbedder
from harness.models.tokenization import ChatTemplate
from harness.run.records import Description
from harness.run.stages import services as module
from harness.run.stages.context import Context, Engine, read_answers, read_groups
from harness.run.stages.services import PolicyServices, Services, policy_name, reward_service
from harness.store import Store
from harness_plugins.backends import TransformersBackend

PROMPTS = [Prompt.of("a", "name two fruits ."), Prompt.of("b", "name a fruit .")]
RESPONSES = [[Response("pear"), Response("plum")], [Response("fig")]]


@pytest.fixture
def context(tmp_path: Path, tiny_checkpoint: Path) -> Context:
    return Context(
        Store(tmp_path / "store"),
        Registry.load(),
        {"0123456789abcdef0123": Checkpoint(str(tiny_checkpoint)).as_dict()},
        lambda done, total, note: None,
        secret={"KEY": "value"}.get,
    )


def test_a_reward_is_computed_once(context: Context, tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, services = RewardModel(model=str(tiny_classifier)), Services(context)
    first = reward_service(services, model, PROMPTS, RESPONSES)
    assert [len(row) for row in first] == [2, 1]
    monkeypatch.setattr(module, "RewardScorer", lambda *asked: pytest.fail("computed again"))
    assert reward_service(services, model, PROMPTS, RESPONSES) == first
    assert len(set(services.ledger.used)) == 1
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        reward_service(services, model, PROMPTS, [[Response("pear"), Response("lemon")], [Response("fig")]])


def test_a_policy_loads_what_is_asked_for_and_tells_its_name(context: Context) -> None:
    policy = PolicyServices(Services(context), "checkpoint:0123456789abcdef0123", TransformersBackend())
    assert policy.name == policy_name("0123456789abcdef0123") == "policy-0123456789abcdef"
    assert policy.logs.is_dir() and (policy.folder / "config.json").exists()
    assert policy.tokenizer is policy.tokenizer and "model" not in vars(policy)
    assert policy.secret("KEY") == "value"
    with pytest.raises(StageError, match="OTHER is not set"):
        policy.secret("OTHER")
    answers = policy.respond(PROMPTS, Sampling(n=3, max_tokens=4))
    assert [len(row) for row in answers] == [3, 3]
    assert answers == policy.respond(PROMPTS, Sampling(n=3, max_tokens=4))


def test_samples_keep_their_ids_through_the_store_and_are_scored_on_them(context: Context) -> None:
    policy = PolicyServices(Services(context), "checkpoint:0123456789abcdef0123", TransformersBackend())
    sampling = Sampling(n=2, max_tokens=6, seed=4)
    first = policy.respond(PROMPTS, sampling)
    drawn = [replace(policy, services=Services(context)).respond(PROMPTS, sampling), first]
    ids = [[[response.ids for response in row] for row in rows] for rows in drawn]
    assert ids[0] == ids[1] and all(ids for row in ids[0] for ids in row)
    # The same text by other ids of it: another score, of another key.
    words = first[0][0].ids[:-1] if first[0][0].finished else first[0][0].ids
    assert words, "the first sample says something"
    spaced = [[replace(first[0][0], ids=(*first[0][0].ids[:-1], policy.tokenizer.pad_token_id, first[0][0].ids[-1]))], []]
    plain = policy.logps(PROMPTS, [[first[0][0]], []])
    assert ChatTemplate(policy.tokenizer).is_as_sampled(spaced[0][0])
    assert policy.logps(PROMPTS, spaced)[0][0] < plain[0][0]
    template = ChatTemplate(policy.tokenizer)
    rows = [TokenRow(tuple(template.prompt_ids(PROMPTS[0])), response.ids) for response in (first[0][0], spaced[0][0])]
    assert [plain[0][0], policy.logps(PROMPTS, spaced)[0][0]] == score(policy.model, rows)


def test_scores_by_the_shared_prefix_layout_have_a_key_of_their_own(context: Context) -> None:
    services = [Services(context), Services(context, scoring_layout="shared_prefix")]
    padded, shared = (PolicyServices(each, "checkpoint:0123456789abcdef0123", TransformersBackend()) for each in services)
    for row, expected in zip(shared.logps(PROMPTS, RESPONSES), padded.logps(PROMPTS, RESPONSES), strict=True):
        assert row == pytest.approx(expected, rel=1e-5) and row
    assert set(services[0].ledger.used).isdisjoint(services[1].ledger.used) and services[1].ledger.used


def test_answers_of_before_are_readable(context: Context) -> None:
    with context.store.draft("samples", "a" * 32) as draft:
        draft.write_lines("answers.jsonl", [[["pear", True, 2], ["fig", False, None, [7, 8]]]])
    (row,) = read_answers(context.store.open("a" * 32))
    assert row == [Response("pear", True, 2), Response("fig", False)] and [r.ids for r in row] == [None, (7, 8)]
    with context.store.draft("groups", "b" * 32) as draft:
        old = {"text": "pear", "finished": True, "tokens": 2}
        prompt = asdict(PROMPTS[0])
        row = {"prompt": prompt, "chosen": old, "rejected": [{**old, "ids": [7, 3]}], "info": {}}
        draft.write_lines("groups.jsonl", [row])
    (group,) = read_groups(context.store.open("b" * 32))
    assert (group.chosen.ids, group.rejected[0].ids) == (None, (7, 3))


def test_a_policy_names_every_end_token(context: Context, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "several")
    (folder / "generation_config.json").write_text('{"eos_token_id": [40, 3]}')
    several = replace(context, checkpoints={"several": Checkpoint(str(folder)).as_dict()})
    policy = PolicyServices(Services(several), "checkpoint:several", TransformersBackend())
    assert policy.stop_ids == (3, 40) and "model" not in vars(policy)
    rows = policy.respond(PROMPTS, Sampling(n=512, max_tokens=8))
    assert {response.ids[-1] for row in rows for response in row if response.finished} == {3, 40}


def test_one_engine_runs_at_a_time_and_is_ended() -> None:
    said: list[str] = []

    @contextmanager
    def session(name: str) -> Iterator[str]:
        said.append(f"start {name}")
        try:
            yield name
        finally:
            said.append(f"end {name}")

    engine = Engine()
    for name in ("a", "a", "b"):
        assert engine.use(name, lambda name=name: session(name)) == name
    engine.stop()
    engine.stop()
    assert said == ["start a", "end a", "start b", "end b"]
    assert engine.use("b", lambda: session("b")) == "b"
    assert said[-1] == "start b"


def test_a_component_whose_files_changed_since_planning_is_refused(context: Context, tiny_classifier: Path) -> None:
    reward = {"model": str(tiny_classifier)}
    described = {"name": "best_of_n", "version": 1, "fields": {"reward": reward}, "fingerprint": "another"}
    with pytest.raises(StageError, match=r"no longer what the plan was made for \('another' then"):
        context.component("data", Description(**described))
    fingerprint = RewardModel(**reward).weights
    assert context.component("data", Description(**{**described, "fingerprint": fingerprint})).reward.model == str(
        tiny_classifier
    )


def test_an_embedder_asks_for_the_hub_only_with_a_revision() -> None:
    ((field, fix),) = SentenceEmbedder(model="WhereIsAI/UAE-Large-V1", pooling="cls").problems("embedder")
    assert field == "embedder.revision" and "commit" in fix


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_cosines_of_bfloat16_products_have_a_key_of_their_own(
    context: Context, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.run.stages.groups import BuilderServices

    asked: list[dict[str, object]] = []
    monkeypatch.setattr(Services, "scored", lambda services, kind, payload, *rest: asked.append(payload))
    services = Services(replace(context, environment={**context.environment, "device": device}))
    policy = PolicyServices(services, "checkpoint:0123456789abcdef0123", TransformersBackend())
    task = BuilderServices(services, [], 1, None, None, policy, policy, 0, 4)
    (tmp_path / "model.safetensors").write_bytes(b"0")
    task.similarity(SentenceEmbedder(model=str(tmp_path)), [])
    task.similarity("hidden", [])
    assert [payload.get("products") for payload in asked] == ["bfloat16" if device == "cuda" else None, None]


def whole_run(reports: list[tuple[int, int, str]], total: int) -> None:
    """Assert that reports run once from 0 to `total`, and never backwards."""
    assert {of for _, of, _ in reports} == {total}
    counts = [done for done, _, _ in reports]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == total
    assert counts.index(total) >= len(counts) - 2  # the last response, and the end of its block


def reported(context: Context) -> tuple[Context, list[tuple[int, int, str]]]:
    reports: list[tuple[int, int, str]] = []
    return replace(context, report=lambda *report: reports.append(report)), reports


def test_blocks_of_samples_are_one_progress(context: Context) -> None:
    watched, reports = reported(context)
    policy = PolicyServices(Services(watched), "checkpoint:0123456789abcdef0123", TransformersBackend())
    policy.respond(PROMPTS, Sampling(n=8, max_tokens=4))
    whole_run(reports, 16)
    assert [done for done, _, _ in reports if done] == [2, 2, 4, 4, 8, 8, 16, 16]
    assert reports[-1][2] == "sample 16 of 16"


def test_blocks_that_are_in_the_store_count(context: Context) -> None:
    PolicyServices(Services(context), "checkpoint:0123456789abcdef0123", TransformersBackend()).respond(
        PROMPTS, Sampling(n=4, max_tokens=4)
    )
    watched, reports = reported(context)
    policy = PolicyServices(Services(watched), "checkpoint:0123456789abcdef0123", TransformersBackend())
    policy.respond(PROMPTS, Sampling(n=8, max_tokens=4))
    whole_run(reports, 16)
    assert [done for done, _, _ in reports] == [0, 2, 4, 8, 16, 16]


def test_self_rewardings_samples_and_judgments_are_one_progress(context: Context) -> None:
    """Four samples a prompt and three judgments of each: 32 responses for two prompts, over two requests."""
    import random

    from harness.api.types import Example
    from harness.run.stages.context import StageProgress
    from harness.run.stages.groups import BuilderServices
    from harness_plugins.baselines.self_rewarding import SelfRewarding

    builder, (watched, reports) = SelfRewarding(judge={"kind": "written", "max_tokens": 8}), reported(context)
    assert builder.responses_per_prompt() == 16
    services = Services(replace(watched, report=StageProgress(watched.report, 32)))
    policy = PolicyServices(services, "checkpoint:0123456789abcdef0123", TransformersBackend())
    examples = [Example(prompt, None, (), {}) for prompt in PROMPTS]
    source = context.component("source", Description(name="sandbox", version=1, fields={}))
    task = BuilderServices(services, examples, 1, random.Random(0), source, policy, policy, 0, 4)
    list(builder.build(task))
    whole_run(reports, 32)
    assert 8 in [done for done, _, _ in reports]  # the samples' share: a quarter


def test_progress_of_unknown_length_never_goes_backwards_and_leaves_room() -> None:
    from harness.run.stages.context import StageProgress

    reports: list[tuple[int, int, str]] = []
    progress = StageProgress(lambda *report: reports.append(report))
    for total in (4, 4, 100):
        for done in range(total + 1):
            progress(done, total, "")
    counts = [done for done, _, _ in reports]
    assert counts == sorted(counts) and {of for _, of, _ in reports} == {1000}
    assert (counts[0], counts[4], counts[9], counts[-1]) == (0, 900, 990, 999)
