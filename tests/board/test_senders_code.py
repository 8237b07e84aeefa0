"""A stranger's board is not computed again where its config would run code of the stranger's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.board import Board
from harness.config.file import load_raw
from harness.errors import DataError
from harness.run.recompute import recompute as compute_again
from harness.run.recompute import senders_code

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"methods": ["sft", {"trainer": {"name": "command", "command": "touch ran"}}]}, "methods.1.trainer.command"),
        ({"methods": [{"trainer": {"name": "command", "version_command": "touch ran"}}]}, "methods.0.trainer.version_command"),
        ({"evaluators": [{"name": "verifier", "verifier": {"checker": "os:system"}}]}, "evaluators.0.verifier.checker"),
        ({"reward": {"checker": "os:system"}}, "reward.checker"),
        ({"model": {"path": "theirs", "trust_remote_code": True}}, "model.trust_remote_code"),
    ],
)
def test_code_of_the_sender_is_refused_before_anything_runs(
    part: dict[str, Any], named: str, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    board.write(tmp_path / "theirs")
    file = tmp_path / "theirs" / "board.json"
    content = json.loads(file.read_text())
    content["config"] |= part
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"{named} = .*--run-programs"):
        compute_again(tmp_path / "theirs", 1, folder=tmp_path / "again", seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs"]


def test_the_packaged_configs_name_no_code() -> None:
    configs = sorted(ROOT.glob("configs/*.yaml"))
    assert len(configs) > 5
    assert {path.name for path in configs if list(senders_code(load_raw(path)))} == set()
