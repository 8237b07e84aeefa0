"""How vLLM's server is started."""

from __future__ import annotations

from harness.models.serve import vllm_command


def test_vllm_is_started_without_the_checkpoints_own_defaults() -> None:
    command = vllm_command("py", "/x y", "policy-1", "81", ["--max-model-len", "99"])
    assert command[:3] == ["py", "-m", "vllm.entrypoints.openai.api_server"]
    pairs = dict(zip(command[3::2], command[4::2], strict=True))
    assert (pairs["--model"], pairs["--served-model-name"], pairs["--port"]) == ("/x y", "policy-1", "81")
    assert (pairs["--generation-config"], pairs["--max-model-len"]) == ("vllm", "99")
