"""benchmarks/mutants.py: which changes it makes, which tests it chooses, and runs over a package of two functions."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "mutants.py"


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("mutants", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def changes(mutants: ModuleType, source: str) -> list[tuple[int, str, str]]:
    return [(mutant.line, mutant.before, mutant.after) for mutant in mutants.mutants_of("a.py", source.encode())]


@pytest.mark.parametrize(
    "source, expected",
    [
        ("x = a <= b", [("a <= b", "(a < b)")]),
        ("x = a is None", [("a is None", "(a is not None)")]),
        ("x = a + b", [("a + b", "(a - b)")]),
        ("x += y", [("x += y", "x -= y")]),
        ("x = a and b", [("a and b", "(a or b)")]),
        ("x = not a", [("not a", "(a)")]),
        ("x = 3", [("3", "4")]),
        ("x = 1.5", [("1.5", "3.0")]),
        ("x = 0.0", [("0.0", "1.0")]),
        ("x = True", [("True", "False")]),
        ("y = a if b else c", [("b", "(not (b))")]),
        ("[a for a in b if a]", [("a", "(not (a))")]),
        ("f(x)", [("f(x)", "pass")]),
        ("def f():\n    return x", [("x", "None")]),
        ("if x:\n    raise E", [("x", "(not (x))"), ("raise E", "pass")]),
        ("for a in b:\n    continue", [("continue", "break")]),
        ("while x > y:\n    break", [("x > y", "(not (x > y))"), ("x > y", "(x >= y)"), ("break", "continue")]),
    ],
)
def test_a_change_of_each_kind(mutants: ModuleType, source: str, expected: list[tuple[str, str]]) -> None:
    assert [(before, after) for _, before, after in changes(mutants, source)] == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""A text."""',
        "x: Annotated[int, 3]",
        "def f(x: Literal[1]) -> Literal[2]: ...",
        "@dataclass(frozen=True)\nclass A: ...",
        'x = f"{a + 1}"',
        "if TYPE_CHECKING:\n    x = 1",
        "zip(a, b, strict=True).x",
        "Mode = Literal[1, 2]",
        'x = a / "b"',
        "def f():\n    return None",
    ],
)
def test_what_no_test_should_notice_is_left_as_it_is(mutants: ModuleType, source: str) -> None:
    assert changes(mutants, source) == []


def test_an_opposite_is_made_once(mutants: ModuleType) -> None:
    assert changes(mutants, "if not a:\n    x.y = b") == [(1, "not a", "(a)")]
    assert changes(mutants, "if a == b:\n    x.y = b") == [(1, "a == b", "(a != b)")]


def test_a_change_is_made_in_its_place_behind_letters_of_several_bytes(mutants: ModuleType) -> None:
    source = 'x = ["ä€", a < b]  # ö\ny = a < b\n'.encode()
    first, second = mutants.mutants_of("a.py", source)
    assert first.apply(source).decode() == 'x = ["ä€", (a <= b)]  # ö\ny = a < b\n'
    assert second.apply(source).decode() == 'x = ["ä€", a < b]  # ö\ny = (a <= b)\n'


def test_a_default_is_computed_at_import_and_a_body_is_not(mutants: ModuleType) -> None:
    default, body = mutants.mutants_of("a.py", b"class A:\n    def f(self, x=1):\n        x += y\n")
    assert (default.before, default.at_import, body.before, body.at_import) == ("1", True, "x += y", False)


def test_the_quickest_tests_of_a_line_are_chosen(mutants: ModuleType) -> None:
    source = b"def f(x):\n    return (x\n        + 1)\nLIMIT = 5\n"
    inside = next(mutant for mutant in mutants.mutants_of("a.py", source) if mutant.before == "1")
    imported = next(mutant for mutant in mutants.mutants_of("a.py", source) if mutant.before == "5")
    assert (inside.line, inside.statement, inside.at_import, imported.at_import) == (3, 2, False, True)
    records = [
        {
            "seconds": {"slow": 9.0, "quick": 1.0, "beside": 0.1},
            "lines": {"a.py": {"1": [""], "2": ["slow", "quick", "set-up"]}},
        },
        {"seconds": {"elsewhere": 0.2}, "lines": {"a.py": {"1": [""], "4": [""]}, "b.py": {"2": ["elsewhere"]}}},
    ]
    # A test whose fixture reached the line comes after those that reach it themselves.
    assert list(mutants.tests_of(inside, records)) == ["quick", "slow", "beside"]
    assert list(mutants.tests_of(inside, records, limit=2.0)) == ["quick", "beside"]
    assert list(mutants.tests_of(imported, records)) == ["quick", "slow", "beside"]
    assert mutants.tests_of(inside, records[1:]) == {}


MODULE = """
def doubled(a):
    return a * 2

def unused(a):
    return a
"""
TESTS = """
from harness.store.sizes import doubled

def test_doubled():
    assert doubled(0) == 0
"""
DRIVER = """
import sys
import mutants
mutants.PRELOADED, mutants.TESTS = (), {"harness/store": ("tests/store",)}
sys.exit(mutants.main(["harness/store", *sys.argv[1:]]))
"""


def test_a_run_ends_where_it_was_stopped_and_reports_what_no_test_noticed(tmp_path: Path) -> None:
    for name, text in {
        "harness/__init__.py": "",
        "harness/store/__init__.py": "",
        "harness/store/sizes.py": MODULE,
        "tests/store/test_sizes.py": TESTS,
        ".gitignore": "runs/\n__pycache__/\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(SCRIPT, tmp_path / "benchmarks")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", DRIVER, *arguments]
        return subprocess.run(command, cwd=tmp_path / "benchmarks", capture_output=True, text=True, check=False, timeout=300)

    def results() -> dict[tuple[str, str], Any]:
        kept = json.loads((tmp_path / "runs" / "mutants" / "results.json").read_text())
        return {(result["before"], result["after"]): result for result in kept.values()}

    first = run("--seed", "3", "--count", "2")
    assert "[2/2]" in first.stdout, first.stdout + first.stderr
    begun = results()
    assert len(begun) == 2
    whole = run("--all")
    assert whole.returncode == 1, whole.stdout + whole.stderr
    assert "[3/4]" in whole.stdout and "[2/4]" not in whole.stdout
    assert begun.items() <= results().items()
    assert {change: result["outcome"] for change, result in results().items()} == {
        ("a * 2", "None"): "killed",
        ("a * 2", "(a / 2)"): "survived",
        ("2", "3"): "survived",
        ("a", "None"): "uncovered",
    }
    assert "harness/store: 1 of 4 noticed (1 killed, 0 timeout, 2 survived, 1 uncovered)" in whole.stdout
    assert "survived harness/store/sizes.py:3: a * 2  ->  (a / 2)" in whole.stdout
    assert "uncovered harness/store/sizes.py:6: a  ->  None" in (tmp_path / "runs" / "mutants" / "report.txt").read_text()
    assert (tmp_path / "runs" / "mutants" / "tree" / "harness" / "store" / "sizes.py").read_text() == MODULE

    with (tmp_path / "tests" / "store" / "test_sizes.py").open("a") as file:
        file.write("\n\ndef test_doubled_three():\n    assert doubled(3) == 6\n")
    again = run("--all", "--again")
    assert "[2/4]" in again.stdout and "[1/4]" not in again.stdout  # what was killed is not run again
    assert "3 of 4 noticed (3 killed, 0 timeout, 0 survived, 1 uncovered)" in again.stdout


def test_a_path_outside_is_refused(mutants: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        mutants.main(["harness/training"])
    assert "harness/training: no module; choose files or folders within harness/store" in capsys.readouterr().err
