"""A light install: boards, plans and plugins without torch, and one line with the command where an extra is missing."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness.api.registry import Registry
from harness.config import resolve
from harness.config.file import find_config, load_raw
from harness.extras import EXTRA_OF, MODELS, MissingExtraError, missing_extra

ROOT = Path(__file__).resolve().parents[1]
MEASURED, PUBLISHED = ROOT / "leaderboards/smollm2", ROOT / "leaderboards/papers/sr-dpo-mt-bench"
BROUGHT_BY = {"aiohttp": "openai", "pandas": "datasets", "tokenizers": "transformers"}  # by a requirement of the extra
TRAIN = "pip install 'alignment-harness[train]'"
ANNOTATION = {"instruction": "Say a.", "output_1": "a", "output_2": "b", "generator_1": "one", "generator_2": "two"}
ANNOTATION |= {"annotator": "gpt-4", "preference": 2.0}

# Runs each list of arguments as `harness`, in a process that has no package of an extra.
LIGHT = """
import contextlib, io, json, sys
from importlib import metadata
from importlib.abc import MetaPathFinder

blocked, commands, board = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
version = metadata.version

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def version_of(name):
    if name.replace("-", "_") in blocked:
        raise metadata.PackageNotFoundError(name)
    return version(name)

sys.meta_path.insert(0, Blocker())
metadata.version = version_of

import harness
from harness.cli import main

answers = {}
for name, arguments in commands.items():
    sys.argv, out, err, code = ["harness", *arguments], io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    answers[name] = [code, out.getvalue(), err.getvalue()]
calls = {
    "harness.generate": lambda: harness.generate(None, None, [], None),
    "Board.to_pandas": lambda: harness.Board.read(board).to_pandas(),
    "harness.compare": lambda: harness.compare(),
}
for name in harness.__all__:
    getattr(harness, name)
for name, call in calls.items():
    try:
        call()
    except harness.HarnessError as error:
        answers[name] = [2, "", str(error)]
json.dump(answers, sys.stdout)
"""

WORKING = {
    "verify": ["verify", str(MEASURED)],
    "verify published": ["verify", str(PUBLISHED)],
    "report": ["report", str(MEASURED), "--out", "rendered"],
    "page": ["report", str(MEASURED), "--format", "html", "--out", "page"],
    "power": ["power", str(MEASURED)],
    "diff": ["diff", str(MEASURED), str(MEASURED)],
    "runs": ["runs", str(PUBLISHED.parent)],
    "merge": ["merge", str(PUBLISHED.with_suffix(".yaml")), "--out", "merged"],
    "publish": ["publish", str(PUBLISHED), "--to", "site"],
    "import": ["import", "lm-eval", "results", "--out", "imported"],
    "plan": ["plan", "--json", "--methods", "sft,dpo", "--seeds", "0"],
    "plugins list": ["plugins", "list", "--json"],
    "plugins show": ["plugins", "show", "dpo"],
    "new": ["new", "method", "my_method"],
    "new config": ["new", "config", "my-data"],
}
MISSING = {  # the command -> what its one line asks for
    "compare": TRAIN,
    "tune": TRAIN,
    "data": TRAIN,
    "plan --gpu a100-80gb": TRAIN,
    "plugins check dpo": TRAIN,
    "import alpaca-eval annotations.json --set official=false --out alpaca": "pip install 'alignment-harness[judge]'",
}
CALLS = ("harness.generate", "Board.to_pandas", "harness.compare")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("light")
    (folder / "annotations.json").write_text(json.dumps([ANNOTATION]))
    (folder / "results").mkdir()
    results = {"results": {"arc": {"acc,none": 0.5}}, "model_name": "org/m", "configs": {}, "versions": {}}
    (folder / "results" / "results_2026-01-01T00-00-00.000000.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, tuple[int, str, str]]:
    """Exit code, standard output and standard error of every command, and the messages of calls of the facade."""
    commands = {**WORKING, **{line: line.split() for line in MISSING}}
    program = [sys.executable, "-c", LIGHT, json.dumps(sorted(EXTRA_OF)), json.dumps(commands), str(MEASURED)]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: (code, out, err) for name, (code, out, err) in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", WORKING)
def test_what_boards_need_works_without_an_extra(answers: Any, name: str) -> None:
    code, out, err = answers[name]
    # The committed boards hold as far as there is evidence: published and older ones have none.
    assert code == (1 if name.startswith("verify") else 0) and out and not err, err


def test_their_results_are_whole(answers: Any, folder: Path) -> None:
    assert "The board holds" in answers["verify"][1]
    assert (folder / "site" / "index.html").is_file() and (folder / "page").exists()
    assert json.loads((folder / "imported" / "board.json").read_text())["rows"][0]["method"] == "org/m"


@pytest.mark.parametrize("line", MISSING)
def test_a_missing_extra_is_one_line_with_its_command(answers: Any, line: str) -> None:
    code, _, err = answers[line]
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert err.rstrip().endswith(f"not installed: {MISSING[line]}") and "No module named" not in err


@pytest.mark.parametrize("name", CALLS)
def test_the_facade_imports_and_its_calls_name_the_extra(answers: Any, name: str) -> None:
    assert answers[name][2].endswith(f"not installed: {TRAIN}")


def test_a_plan_names_what_it_could_not_check(answers: Any) -> None:
    planned = json.loads(answers["plan"][1])
    assert planned["unchecked"].keys() == {"model", "evaluators.4"} and "cpu" not in planned
    assert planned["unchecked"]["evaluators.4"] == "lm-eval is not installed: pip install 'alignment-harness[lm-eval]'"
    assert planned["unchecked"]["model"].endswith(TRAIN) and len(planned["stages"]) > 5 and planned["data"] is not None


def test_a_scaffolded_package_depends_on_what_it_trains_with(answers: Any, folder: Path) -> None:
    assert answers["new"][0] == 0
    project = tomllib.loads((folder / "harness-my-method" / "pyproject.toml").read_text())["project"]
    assert [name.partition(">=")[0] for name in project["dependencies"]] == ["alignment-harness[train]"]


def test_a_run_is_refused_where_a_plan_goes_on(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a package that models need; and of one that a single evaluator needs, among the config's problems."""
    raw = load_raw(find_config(None))
    monkeypatch.setattr(sys.modules["harness.config.resolve"], "is_installed", lambda package: package != "trl")
    with pytest.raises(MissingExtraError, match=r"trl is not installed: pip install 'alignment-harness\[train\]'"):
        resolve(raw, registry)
    assert resolve(raw, registry, offline=True).unchecked.keys() == {"model"}


def test_an_evaluator_without_its_package_is_a_problem_of_the_config(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.errors import ConfigError

    def problems(self: Any) -> Any:
        raise ModuleNotFoundError("No module named 'lm_eval'", name="lm_eval")

    monkeypatch.setattr(registry.get("evaluator", "lm_eval").component, "problems", problems)
    monkeypatch.setattr("harness.extras.is_installed", lambda package: package != "lm_eval")
    with pytest.raises(ConfigError) as caught:
        resolve(load_raw(find_config(None)), registry)
    (problem,) = caught.value.problems
    assert problem.field == "evaluators.4" and "alignment-harness[lm-eval]" in problem.fix


@pytest.mark.parametrize(("name", "known"), [("torch.nn", True), ("nothing_of_ours", False), ("numpy", False)])
def test_another_failed_import_is_no_missing_extra(name: str, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.extras.is_installed", lambda package: False)
    error = missing_extra(ModuleNotFoundError(f"No module named {name!r}", name=name))
    assert (str(error) == f"torch is not installed: {TRAIN}") if known else (error is None)


def test_a_module_that_an_installed_package_lacks_is_none_either() -> None:
    assert missing_extra(ModuleNotFoundError("No module named 'torch.nothing'", name="torch.nothing")) is None


def test_every_package_comes_with_its_extra_and_not_with_the_core() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {requirement.partition(">")[0].partition("[")[0].replace("-", "_") for requirement in requirements}

    distributions = {"fastchat": "fschat", "sklearn": "scikit_learn"}
    assert set(MODELS) <= EXTRA_OF.keys() and {EXTRA_OF[package] for package in MODELS} == {"train"}
    for package, extra in EXTRA_OF.items():
        needed = BROUGHT_BY.get(package, distributions.get(package, package))
        assert needed in names(project["optional-dependencies"][extra]), package
        assert needed not in names(project["dependencies"]), package
