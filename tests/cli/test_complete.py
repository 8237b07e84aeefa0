"""Shell completion, asked as a shell asks: by the variables of Typer's completion scripts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app, complete

LEADERBOARDS = Path(__file__).resolve().parents[2] / "leaderboards"
BOARD = LEADERBOARDS / "smollm2"


def completed(line: str) -> list[str]:
    """Return the values that bash is given for the last word of a line; "" for a line that ends in a space."""
    words = line.split(" ")
    variables = {"_HARNESS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    result = CliRunner().invoke(app, prog_name="harness", env=variables)
    assert result.exit_code == 0, result.output
    return result.output.split()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.yaml").write_text("methods: [sft, {method: dpo, label: gentle}]\n")
    (tmp_path / "broken.yaml").write_text("methods: [\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "other.yaml").write_text("{}\n")
    (tmp_path / "notes.txt").write_text("\n")
    (tmp_path / "leaderboards").symlink_to(LEADERBOARDS)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("_HARNESS")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "offered", "not_offered"),
    [
        ("harness compare qu", {"quickstart"}, {"mine.yaml"}),
        ("harness compare ", {"quickstart", "first-look", "mine.yaml", "more/"}, {"notes.txt", "more/other.yaml"}),
        ("harness plan more/", {"more/other.yaml"}, {"quickstart"}),
        ("harness compare --methods sf", {"sft", "sft_continued"}, {"dpo"}),
        ("harness compare --methods sft,dp", {"sft,dpo"}, {"sft,sft"}),
        ("harness compare mine.yaml --methods g", {"gentle"}, {"sft"}),
        ("harness compare broken.yaml --methods sf", set(), {"sft"}),
        ("harness plugins show simp", {"simpo"}, {"dpo"}),
        ("harness analyze l", {"list"}, {"all"}),
        ("harness power leaderboards/sm", {"leaderboards/smollm2"}, {"leaderboards/quickstart"}),
        ("harness power leaderboards/smollm2 --metric preference_accuracy/p", {"preference_accuracy/pair_accuracy"}, {"dpo"}),
        ("harness export leaderboards/smollm2 self", {"self_contrast"}, {"sft"}),
        ("harness export leaderboards/nothing self", set(), {"self_contrast"}),
    ],
)
def test_values_are_completed(here: Path, line: str, offered: set[str], not_offered: set[str]) -> None:
    values = set(completed(line))
    assert offered <= values and not values & not_offered
    assert all(value.startswith(line.rpartition(" ")[2]) for value in values)


def test_each_value_has_a_line_of_help(here: Path) -> None:
    assert dict(complete.configs("first"))["first-look"] == "packaged"
    assert dict(complete.components("simpo"))["simpo"].startswith("method: ")
