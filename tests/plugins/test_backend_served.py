"""Servers started for a checkpoint: their answers are those of this process, and none outlives who asked for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest
from pydantic import ValidationError

from harness import ChatTemplate, Sampling, StageError
from harness.models.generate import generate
from harness_plugins.backends.openai import OpenAIBackend
from harness_plugins.backends.vllm_server import VllmServerBackend

MAIN = f"{sys.executable} -c 'from harness.cli import main; main()'"
SERVE = f"{MAIN} serve-policy {{folder}} --name {{name}} --port {{port}}"


def served(**fields) -> OpenAIBackend:
    return OpenAIBackend(**{"command": SERVE, "engine": "harness 0.1.0", **fields})


def test_a_served_policy_answers_as_this_process_does(policy, prompts) -> None:
    greedy, drawn = Sampling(temperature=0, max_tokens=10), Sampling(n=3, max_tokens=10, seed=1)
    backend = served()
    assert list(backend.problems()) == [] and backend.serves_any_policy()
    with backend.session(policy) as ask:
        assert not policy.loaded
        answers, samples, again = ask(prompts, greedy), ask(prompts, drawn), ask(prompts, drawn)
        running = [process for process in psutil.Process().children(recursive=True) if "serve-policy" in process.cmdline()]
    assert len(running) == 2, "the server, and who watches over it"
    assert not any(process.is_running() for process in running)
    assert samples == again and [len(row) for row in samples] == [3, 3, 3]
    assert answers == generate(policy.model, policy.tokenizer, prompts, greedy)
    assert (policy.logs / "policy-test.log").exists()


def test_a_served_policy_tells_the_ids_it_sampled(policy, prompts) -> None:
    """However the prompts are sent; one server, whose start takes seconds, answers to all three."""
    greedy, drawn = Sampling(temperature=0, max_tokens=10), Sampling(n=8, max_tokens=10, seed=1)
    answers, samples = {}, {}
    with served().serving(policy) as (url, _):
        for send in ("ids", "text", "chat"):
            with served(command=None, base_url=url, dialect="vllm", send=send).session(policy) as ask:
                answers[send], samples[send] = ask(prompts, greedy), ask(prompts, drawn)
    expected = [row[0].ids for row in generate(policy.model, policy.tokenizer, prompts, greedy)]
    assert {send: [row[0].ids for row in rows] for send, rows in answers.items()} == dict.fromkeys(answers, expected)
    template = ChatTemplate(policy.tokenizer)
    for rows in samples.values():
        assert [len(row) for row in rows] == [8] * len(prompts)
        assert all(
            template.is_as_sampled(response) and response.tokens == len(response.ids) for row in rows for response in row
        )


def test_a_server_that_cannot_start_tells_why(policy) -> None:
    command = f"{sys.executable} -c \"import sys; print('no device', sys.argv); sys.exit(3)\" {{folder}} {{name}} {{port}}"
    with (
        pytest.raises(StageError, match=r"ended with code 3 before it answered(.|\n)*no device"),
        served(command=command).session(policy),
    ):
        raise AssertionError("no session")


def test_a_server_that_never_answers_is_ended(policy) -> None:
    command = f"{sys.executable} -c 'import signal; signal.pause()' {{folder}} {{name}} {{port}}"
    with (
        pytest.raises(StageError, match=r"did not answer within start_seconds = 0\.3"),
        served(command=command, start_seconds=0.3).session(policy),
    ):
        raise AssertionError("no session")
    assert [child for child in psutil.Process().children(recursive=True) if "signal.pause()" in " ".join(child.cmdline())] == []


def test_a_server_and_its_children_end_with_a_killed_parent() -> None:
    """The parent is killed with SIGKILL; the server's own child ignores SIGTERM."""
    server = """
        import subprocess, sys, signal
        code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        print(child.pid, flush=True)
        signal.pause()
    """
    parent = """
        import subprocess, sys
        command = [sys.executable, "-m", "harness.models.supervise", sys.executable, "-c", sys.argv[1]]
        supervisor = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        print(supervisor.pid, flush=True)
        supervisor.wait()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(parent), textwrap.dedent(server)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    started = [psutil.Process(int(process.stdout.readline())) for _ in range(2)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert psutil.wait_procs(started, timeout=60)[1] == []


def test_vllm_in_another_environment_tells_its_version(tmp_path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho vllm 0.33.0\n")
    python.chmod(0o755)
    backend = VllmServerBackend(python=str(python))
    assert (backend.fingerprint(), list(backend.problems())) == ("vllm 0.33.0", [])
    assert (backend.send, backend.dialect) == ("ids", "vllm")
    ((field, fix),) = VllmServerBackend(python=str(tmp_path / "none")).problems()
    assert field == "python" and "no vLLM" in fix
    assert VllmServerBackend(python="p").python == "p"
    with pytest.raises(ValidationError, match="python"):
        VllmServerBackend(python="")
