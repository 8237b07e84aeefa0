"""The command line as a user meets it: help, output for people and for scripts, mistakes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.api.registry import Registry
from harness.cli import main

COMMANDS = [
    [],
    ["compare"],
    ["analyze"],
    ["plan"],
    ["data"],
    ["report"],
    ["status"],
    ["serve-policy"],
    ["verify"],
    ["import"],
    ["power"],
    ["diff"],
    ["merge"],
    ["publish"],
    ["doctor"],
    ["new"],
    ["plugins"],
    ["plugins", "list"],
    ["plugins", "show"],
    ["cache"],
    ["cache", "ls"],
    ["cache", "verify"],
    ["cache", "gc"],
    ["cache", "export"],
    ["cache", "import"],
    ["plugins", "check"],
    ["sandbox"],
    ["runs"],
    ["sandbox", "show"],
    ["sandbox", "mark"],
    ["sandbox", "train"],
]
QUESTION = "name two fruits but not apple . answer separated by commas ."


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_STORE", raising=False)
    path = tmp_path / "tiny.yaml"
    raw = {
        "name": "tiny",
        "source": "sandbox",
        "model": {"path": str(tiny_checkpoint)},
        "methods": ["sft", "null", "dpo", {"method": "self_contrast", "label": "contrast"}],
        "evaluators": ["gold_reward"],
        "baseline": "sft",
    }
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test's own handlers stay

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(left.value.code or 0), out, err

    return run


def refused(run: Any, *arguments: str, code: int = 2) -> str:
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    return str(err)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_shows_an_example(command: Sequence[str], harness: Any) -> None:
    code, out, _ = harness(*command, "--help")
    assert code == 0
    assert f"harness {' '.join(command)}".strip() in out.split("Example", 1)[1]


def test_help_and_version_import_nothing_heavy() -> None:
    check = "\nfinally:\n    print(sorted({'torch', 'transformers', 'numpy', 'pluggy', 'psutil'} & set(sys.modules)))"
    for option in ("--help", "--version"):
        code = f"import sys\nfrom harness.cli import main\nsys.argv = ['harness', '{option}']\ntry:\n    main(){check}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] in ("[]", "['pluggy']")


def test_plan_counts_and_leaves_no_store(config: Path, harness: Any) -> None:
    code, out, err = harness("plan", str(config))
    assert (code, err) == (0, "")
    assert out.startswith("tiny · 4 rows × 2 seeds, baseline sft")
    assert re.search(r"remain to run, about \d+ (s|min) on \d+ CPU cores?,\s+within a factor of 3", out)
    assert "seeds are not sampled" not in out
    alone = harness("plan", str(config), "--seeds", "3")
    assert alone[0] == 0 and "One seed: seeds are not sampled" in " ".join(alone[1].split())
    assert [path.name for path in config.parent.iterdir()] == ["tiny.yaml"]


def test_plan_for_scripts(config: Path, harness: Any) -> None:
    code, out, _ = harness("plan", str(config), "--json", "--methods", "dpo,contrast,spin", "--seeds", "3")
    answer = json.loads(out)
    assert code == 0
    assert answer["name"] == "tiny"
    assert {"key", "kind", "title", "rows", "in_store", "inputs"} == set(answer["stages"][0])
    titles = [stage["title"] for stage in answer["stages"]]
    assert "intervals will be over prompts alone" in answer["one_seed"]
    assert (answer["families"][0]["name"], answer["families"][0]["tests"]) == ("primary metrics", 3)
    assert {"train dpo · seed 3", "train contrast · seed 3", "train spin · seed 3"} <= set(titles)
    assert not any("null" in title for title in titles)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "a,b"], "--seeds 'a,b': write whole numbers with commas, for example --seeds 0,1"),
        (["--seeds", ""], "--seeds '': write whole numbers with commas"),
        (["--methods", "dop"], "methods.1.method = 'dop': no method is called so; did you mean 'dpo'?"),
        (["--set", "nonsense"], "--set 'nonsense': write it as key=value"),
        (["--set", "buget.prompts=3"], "buget = {'prompts': 3}: no such field; did you mean 'budget'?"),
        (["--set", "training.max_gradient_norm=.inf"], "training.max_gradient_norm = inf: it should be a finite number"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "compare"])
def test_options_that_make_no_sense(command: str, options: list[str], said: str, config: Path, harness: Any) -> None:
    err = refused(harness, command, str(config), *options)
    assert err.startswith("error: ")
    assert said in err
    assert [path.name for path in config.parent.iterdir()] == ["tiny.yaml"]


def test_methods_of_odd_shape_are_a_problem_and_no_crash(config: Path, harness: Any) -> None:
    err = refused(harness, "plan", str(config), "--set", "methods=[[1], sft, {label: [x]}]", "--methods", "dop")
    assert "did you mean 'dpo'?" in err


def test_a_config_that_is_not_there(config: Path, harness: Any) -> None:
    assert "did you mean 'quickstart'?" in refused(harness, "plan", "quikstart")
    assert "no config at no/such.yaml" in refused(harness, "compare", "no/such.yaml")
    assert "is a folder: give the path of a YAML file in it" in refused(harness, "compare", str(config.parent))


@pytest.mark.parametrize("command", ["plan", "compare"])
def test_a_store_that_cannot_be_written(command: str, config: Path, harness: Any) -> None:
    err = refused(harness, command, str(config), "--store", str(config), code=4)
    assert "choose another with --store" in err


def test_the_store_of_the_environment(config: Path, harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_STORE", str(config))
    assert str(config) in refused(harness, "compare", str(config), code=4)


def test_plugins_list(harness: Any) -> None:
    code, out, _ = harness("plugins", "list")
    assert code == 0
    assert "self_contrast" in out
    _, out, _ = harness("plugins", "list", "--kind", "objective", "--json")
    rows = json.loads(out)
    assert {row["kind"] for row in rows} == {"objective"}
    assert {"dpo", "sft", "simpo", "sr_dpo"} <= {row["name"] for row in rows}
    assert all(row["distribution"] == "alignment-harness" and row["summary"] for row in rows)
    assert "--kind 'objectiv': did you mean 'objective'" in refused(harness, "plugins", "list", "--kind", "objectiv")
    _, out, _ = harness("plugins", "list", "--kind", "analysis", "--json")
    (row,) = [row for row in json.loads(out) if row["name"] == "data-accuracy"]
    assert (row["module"], row["summary"][:14]) == ("harness_plugins.self_contrast", "How many negat")
    _, out, _ = harness("plugins", "show", "data-accuracy")
    assert "How many negatives are really worse" in out and "needs  gold, target" in out


def test_plugins_show(harness: Any) -> None:
    code, out, _ = harness("plugins", "show", "self_contrast")
    assert code == 0
    assert "negatives = 1  integer ≥ 1, ≤ 64" in out
    assert "m, negatives per prompt" in out
    assert "2404.00604" in out
    _, out, _ = harness("plugins", "show", "self_contrast", "--json")
    assert [document["kind"] for document in json.loads(out)] == ["data", "method"]
    err = refused(harness, "plugins", "show", "self_contrst")
    assert err == "error: nothing is called 'self_contrst': did you mean 'self_contrast'?\n"


def test_every_component_can_be_shown(harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry.load()
    monkeypatch.setattr(Registry, "load", lambda *_: registry)  # once, and not for every component
    _, out, _ = harness("plugins", "list", "--json")
    for row in json.loads(out):
        code, shown, _ = harness("plugins", "show", row["name"])
        assert code == 0
        assert row["name"] in shown


def test_sandbox_show_and_mark(harness: Any) -> None:
    code, out, _ = harness("sandbox", "show", "--count", "2", "--json", "--split", "heldout")
    assert code == 0
    first, _ = [json.loads(line) for line in out.splitlines()]
    assert set(first["answers"]) == {"target", "preferred", "other"}
    code, out, _ = harness("sandbox", "mark", first["prompt"], first["answers"]["target"], "--json")
    assert code == 0
    assert json.loads(out)["total"] == pytest.approx(first["gold"]["target"], abs=0.006)
    _, out, _ = harness("sandbox", "mark", first["prompt"], first["answers"]["target"])
    assert out.startswith(f"gold {first['gold']['target']:.2f} of 10")


@pytest.mark.parametrize(("split", "count"), [("sft", 3), ("train", 1), ("tuning", 1), ("heldout", 1)])
def test_every_question_that_is_shown_can_be_marked(split: str, count: int, harness: Any) -> None:
    _, out, _ = harness("sandbox", "show", "--count", str(count), "--json", "--split", split, "--seed", "3")
    for shown in map(json.loads, out.splitlines()):
        code, out, _ = harness("sandbox", "mark", shown["prompt"], shown["answers"]["other"], "--seed", "3", "--json")
        assert code == 0
        assert json.loads(out)["total"] == pytest.approx(shown["gold"]["other"], abs=0.006)


def test_sandbox_mistakes(harness: Any, tmp_path: Path) -> None:
    assert "--split 'held': did you mean 'heldout'?" in refused(harness, "sandbox", "show", "--split", "held")
    assert "the sandbox has no question 'a'" in refused(harness, "sandbox", "mark", "a", "b")
    assert "Missing argument" in refused(harness, "sandbox", "mark", QUESTION)
    (tmp_path / "file").touch()
    err = refused(harness, "sandbox", "train", "--out", str(tmp_path / "file" / "x"), code=4)
    assert "choose another folder with --out" in err


def test_report_mistakes(harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no board at runs/quickstart/board.json: run `harness compare` first" in refused(harness, "report")
    board = tmp_path / "board.json"
    for text, said in (
        ("{", "cannot be read as a board"),
        ("[]", "has schema None"),
        ('{"schema": 1}', "is not a whole board"),
    ):
        board.write_text(text)
        assert said in refused(harness, "report", str(tmp_path))
        assert said in refused(harness, "report", str(board))


def test_report_writes_what_it_renders_and_nothing_else(harness: Any, tmp_path: Path) -> None:
    content = {
        **{"schema": 1, "name": "tiny \u202e", "description": "", "created": "now", "harness": {}, "config": {}},
        **{"baseline": "sft", "metrics": [], "rows": [], "sharing": {}, "examples": "examples.jsonl"},
        "statistics": {"interval": "", "test": "", "correction": "", "draws": 1, "flips": 1, "level": 0.95},
    }
    board = tmp_path / "board.json"
    board.write_text(json.dumps(content))
    code, out, _ = harness("report", str(tmp_path), "--json")
    assert code == 0 and out.isascii() and json.loads(out)["name"] == content["name"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["board.csv", "board.json", "board.md", "index.html"]
    assert json.loads(board.read_text()) == content
    for name in ("/tmp/harness-stolen", "../x"):
        board.write_text(json.dumps(content | {"examples": name}))
        assert f"examples = {name!r}: give a file name without a folder" in refused(harness, "report", str(tmp_path))
    assert not Path("/tmp/harness-stolen").exists() and not (tmp_path.parent / "x").exists()


def test_an_error_shows_escape_sequences_from_files_as_text(harness: Any, tmp_path: Path) -> None:
    (tmp_path / "board.json").write_text('{"schema": "1"}')
    folder = tmp_path / "a\x1b[2Jb"
    said = refused(harness, "report", str(folder))
    assert "\x1b" not in said and "\\x1b[2Jb" in said


def test_doctor(harness: Any, tmp_path: Path) -> None:
    code, out, _ = harness("doctor", "--json", "--store", str(tmp_path / "not" / "yet"))
    findings = json.loads(out)
    assert [finding["check"] for finding in findings] == [
        "python",
        "libraries",
        "plugins",
        "sandbox",
        "memory",
        "devices",
        "engines",
        "disk",
    ]
    assert code == (1 if any(finding["fix"] for finding in findings) else 0)
    _, out, _ = harness("doctor")
    assert len([line for line in out.splitlines() if line.startswith(("ok ", "FIX "))]) == len(findings)


def test_an_unknown_command_is_a_usage_error(harness: Any) -> None:
    assert "No such command 'comprae'" in refused(harness, "comprae")
    assert "No such option: --sead" in refused(harness, "compare", "--sead", "1")


def test_plugins_check(harness: Any) -> None:
    code, out, _ = harness("plugins", "check", "dpo", "preference", "--set", "beta=0.3")
    assert code == 0
    assert out.startswith("objective 'dpo' of alignment-harness ") and "  ok   mask\n" in out
    code, out, _ = harness("plugins", "check", "dpo", "--set", "beta=-1", "--json")
    verdicts = {verdict["kind"]: verdict for verdict in json.loads(out)}
    assert code == 1
    assert verdicts["method"]["ok"] and not verdicts["objective"]["ok"]
    (failed,) = [finding for finding in verdicts["objective"]["findings"] if finding["status"] == "failed"]
    assert "beta = -1" in failed["said"] and failed["fix"]
    assert refused(harness, "plugins", "check", "dop") == "error: nothing is called 'dop': did you mean 'dpo'?\n"


@pytest.mark.parametrize("name", ["spin_iterated", "self_contrast", "lm_eval"])
def test_plugins_show_prints_no_json(name: str, harness: Any) -> None:
    code, out, _ = harness("plugins", "show", name)
    assert code == 0 and not re.search(r'[{}]|"\w+":', out)


def test_a_method_is_shown_in_words(harness: Any) -> None:
    out = harness("plugins", "show", "spin_iterated")[1]
    assert "  round 3  learning_rate_factor: 0.2, reference: previous\n" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpus", "9"], "--gpus 9: PyTorch sees no GPUs here; give fewer, or 0"),
        (["--ray-address", "a:1"], "--ray-address is for --executor ray"),
        (["--executor", "ray"], "--executor ray needs Ray: pip install 'alignment-harness[ray]'"),
        (["--track", "wandb"], "--track wandb: wandb is not installed"),
    ],
)
def test_what_is_asked_for_and_not_there_is_an_error_before_compute(
    options: list[str], said: str, config: Path, harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ray", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("harness.store.environment.device_kind", lambda: "cpu")
    assert said in refused(harness, "compare", str(config), *options)
    assert not (config.parent / "runs").exists()


def test_new(harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = harness("new", "objective", "my_loss", "--json")
    assert code == 0
    assert json.loads(out)["folder"] == "harness-my-loss"
    assert (tmp_path / "harness-my-loss" / "harness_my_loss.py").is_file()
    assert "harness-my-loss exists" in refused(harness, "new", "objective", "my_loss")
    assert "KIND 'objectiv': did you mean 'objective'" in refused(harness, "new", "objectiv", "my_loss")
    _, out, _ = harness("new", "data-builder", "my_data")
    assert out.splitlines()[1] == "next: pip install -e ./harness-my-data  ·  harness plugins check my_data"
    _, out, _ = harness("new", "evaluator", "my_measure", "--into", "plugins")
    assert out.splitlines()[1] == "next: pip install -e plugins/harness-my-measure  ·  harness plugins check my_measure"


def test_power_of_a_design(harness: Any) -> None:
    design = ["--prompts", "200", "--seeds", "3", "--prompt-deviation", "1.2", "--seed-deviation", "0.05"]
    code, out, err = harness("power", *design)
    assert (code, err) == (0, "")
    assert out.startswith("the design: 3 seeds × 200 prompts show a difference of 0.") and "80% of the time" in out
    code, out, _ = harness("power", *design, "--difference", "0.2", "--tests", "5", "--rows", "9", "--json")
    (answer,) = json.loads(out)
    assert answer["alpha"] == pytest.approx(0.01) and answer["prompts_needed"] > 200
    assert "give a board, or a design: --prompts, --seeds and --prompt-deviation" in refused(harness, "power", "--seeds", "3")


def test_publish_diff_and_merge(board_folder: Path, tmp_path: Path, harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    code, out, _ = harness("publish", str(board_folder), "--to", str(site), "--dry-run")
    assert code == 0 and "none written" in out and not site.exists()
    assert harness("publish", str(board_folder), "--to", str(site))[0] == 0 and (site / "index.html").is_file()
    assert harness("diff", str(board_folder), str(site / "tiny"))[1] == "No difference in settings, rows or scores.\n"
    code, out, _ = harness("merge", str(board_folder), str(site / "tiny"), "--out", str(tmp_path / "both"), "--json")
    assert code == 0 and len(json.loads(out)["rows"]) == 2
    assert harness("verify", str(tmp_path / "both"))[0] == 1  # as far as there is evidence: the board was made in a test
    assert "holds one of the boards" in refused(harness, "merge", str(board_folder), "--out", str(board_folder))
    assert "needs --repository" in refused(harness, "publish", str(board_folder), "--to", "hub")
    to_hub = ["publish", str(board_folder), "--to", "hub", "--repository", "me/boards"]
    calls: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, name, **said: calls.append((name, said)))

    def upload(self: object, folder_path: Path, **said: Any) -> Any:
        calls.append((str((folder_path / "README.md").read_text()), said))
        return type("Commit", (), {"commit_url": "https://hub/commit"})

    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", upload)
    assert harness(*to_hub, "--dry-run")[0] == 0 and calls == []
    code, out, _ = harness(*to_hub)
    assert (code, out.splitlines()[-1]) == (0, "https://hub/commit")
    assert calls[0] == ("me/boards", {"repo_type": "space", "space_sdk": "static", "exist_ok": True})
    assert "sdk: static" in calls[1][0] and calls[1][1]["repo_id"] == "me/boards"
    code, out, _ = harness(*to_hub, "--kind", "model", "--row", "dpo", "--dry-run", "--json")
    assert json.loads(out)["metadata"]["model-index"][0]["name"] == "boards"

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route to hub")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", offline)
    assert "me/boards was not written to: no route to hub; log in" in refused(harness, *to_hub)


def test_publish_writes_workflows_once(tmp_path: Path, harness: Any) -> None:
    assert harness("publish", "--workflows", str(tmp_path))[0] == 0
    assert (tmp_path / ".github" / "workflows" / "verify-boards.yaml").is_file()
    assert "exists already" in refused(harness, "publish", "--workflows", str(tmp_path))


@pytest.fixture
def board_folder(tmp_path: Path) -> Path:
    """A written board of two rows."""
    from harness.api.types import Metric, Score
    from harness.board import RowResult, build_board

    def row(label: str, lift: float) -> RowResult:
        runs = {seed: [Score(f"e{i}", "win", (i * 7 + seed) % 5 + lift) for i in range(20)] for seed in (0, 1)}
        return RowResult(label, "pairs", "dpo", 1, "measured", {"gold": runs}, {}, {}, {})

    board = build_board(
        name="tiny",
        description="",
        config={},
        baseline="sft",
        rows=[row("sft", 0.0), row("dpo", 0.5)],
        metrics={"gold": [Metric("win", "wins", primary=True)]},
        examples=[],
        sharing={},
        created="2025-01-01",
        warnings=(),
    )
    board.write(tmp_path / "board")
    return tmp_path / "board"
