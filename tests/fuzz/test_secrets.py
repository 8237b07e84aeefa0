"""Keys and passwords: refused in configs, and in no message, file or log of a run that fails for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import ConfigError, HarnessError, ModelClient, RefusedError, RetryPolicy, StageError
from harness.api.registry import Registry
from harness.config import resolve
from harness.config.problems import hidden
from harness.models.server import HttpReply, judge_server
from harness.run.compare import compare

KEY = "sk-live-0123456789abcdefghij"
REGISTRY = Registry.load()
BASE: dict[str, Any] = {
    "name": "secrets", "source": "sandbox", "model": {"path": "sandbox"}, "methods": ["sft"], "evaluators": ["gold_reward"],
    "baseline": "sft",
}  # fmt: skip
PLACES: dict[str, dict[str, Any]] = {
    "judge.api_key": {"judge": {"model": "m", "api_key": KEY}},
    "judge.api_key_env": {"judge": {"model": "m", "api_key_env": KEY}},
    "judge.base_url": {"judge": {"model": "m", "base_url": "https://me:hunter2-hunter2@host/v1"}},
    "evaluators.0.judge.api_key": {"evaluators": [{"name": "pairwise_judge", "judge": {"api_key": "short"}}]},
    "generation.backend.api_key": {"generation": {"backend": {"name": "openai", "api_key": "not like any known key"}}},
    "generation.backend.api_key_variable": {"generation": {"backend": {"name": "openai", "api_key_variable": "a-b-c"}}},
    "generation.backend.base_url": {"generation": {"backend": {"name": "openai", "base_url": "http://user:pass@host"}}},
    "generation.backend.command": {"generation": {"backend": {"name": "openai", "command": f"serve --api-key {KEY}"}}},
    "source.token": {"source": {"name": "hub", "dataset": "a/b", "token": "hf_abcdefghijklmnopqrst"}},
    "description": {"description": "run with HF_TOKEN=hf_abcdefghijklmnopqrst"},
    "tracking.wandb.password": {"tracking": {"wandb": {"password": "hunter2"}}},
}


@pytest.mark.parametrize("field", PLACES)
def test_a_secret_in_a_config_is_refused_and_not_repeated(field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({**BASE, **PLACES[field]}, REGISTRY)
    said = str(caught.value)
    assert f"{field} = (hidden): a config is copied into boards and logs" in said
    assert "put the secret into an environment variable, and give its name" in said
    assert not any(part in said for part in (KEY, "hunter2", "short", "known key", "a-b-c", "user:pass", "hf_abc"))


def test_names_of_variables_and_common_words_are_no_secrets() -> None:
    judge = {"model": "m", "base_url": "http://localhost:8000/v1", "api_key_env": "OPENAI_API_KEY", "max_total_tokens": 5}
    described = {"description": "sk-learn, a token of thanks, ratio 3:2@best, hf_hub", "judge": judge}
    assert resolve({**BASE, **described}, REGISTRY).config.description == described["description"]


def test_what_is_kept_of_a_command_line_holds_no_password() -> None:
    kept = hidden(f"harness compare --mirror s3://me:hunter2@bucket --set judge.model={KEY}")
    assert kept == "harness compare --mirror s3://(hidden)@bucket --set judge.model=(hidden)"


PLAIN = "correct horse 17"  # like no service's key, so that no pattern finds it: what hides it must know it


def echo(status: int, key: str = PLAIN) -> Any:
    """A server that repeats the key that it was sent, as some do."""
    return lambda asked: HttpReply({"error": {"message": f"Incorrect API key provided: {key}", "code": None}}, status)


@pytest.fixture(params=[401, *(pytest.param(status, marks=pytest.mark.slow) for status in (400, 500, 200))])
def echoing(request: pytest.FixtureRequest) -> Iterator[str]:
    import threading

    server = judge_server(echo(request.param), "judge")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.url
    server.shutdown()
    server.server_close()


def judged(url: str, checkpoint: Path) -> dict[str, Any]:
    return {
        **BASE,
        "source": {"name": "sandbox", "sft": 8, "train": 8, "tuning": 4, "heldout": 4},
        "model": {"path": str(checkpoint)},
        "sft": None,
        "budget": {"prompts": 4},
        "methods": ["sft", {"method": "dpo", "training": {"prompts_per_batch": 4}}],
        "judge": {
            "model": "judge",
            "base_url": url,
            "api_key_env": "TEST_SECRET_KEY",
            "attempts": 1,
            "price": {"input": 0, "output": 0},
        },
        "evaluators": ["gold_reward", {"name": "pairwise_judge", "opponent": "baseline", "max_tokens": 8}],
        "seeds": [0],
    }


def in_files(folder: Path, secret: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_a_judge_that_repeats_the_key_puts_it_into_no_file(
    echoing: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run in which the judge refuses, with the key in the environment: board, store, logs and messages."""
    monkeypatch.setenv("TEST_SECRET_KEY", PLAIN)
    variables: Mapping[str, str] = {"TEST_SECRET_KEY": PLAIN}
    said = ""
    try:
        board = compare(
            judged(echoing, tiny_checkpoint), folder=tmp_path / "run", store=tmp_path / "store", workers=1, variables=variables
        ).board
        said = board.to_json()
        assert "the judge 'judge' at" in said
    except HarnessError as error:
        said = str(error)
        assert "judge" in said
    out, err = capfd.readouterr()
    assert PLAIN not in said + out + err
    assert any(path.suffix == ".log" for path in tmp_path.rglob("*"))
    assert in_files(tmp_path, PLAIN) == []


@pytest.mark.parametrize("key", [KEY, PLAIN])
@pytest.mark.parametrize("status", [401, 500, 200])
def test_a_backends_server_that_repeats_the_key_is_quoted_without_it(status: int, key: str) -> None:
    import threading

    server = judge_server(echo(status, key), "model")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        client = ModelClient(server.url, key, RetryPolicy(1, 5.0))
        body = {"messages": [{"role": "user", "content": "hi"}], "model": "model"}
        with client.running() as runner, pytest.raises((StageError, RefusedError)) as caught:
            runner.run(client.complete("/chat/completions", body))
    finally:
        server.shutdown()
        server.server_close()
    assert key not in str(caught.value)
    assert server.url in str(caught.value)
