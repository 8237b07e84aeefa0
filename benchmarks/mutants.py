"""Break the code one place at a time and see whether a test notices: a mutation run, `make mutants`.

    python benchmarks/mutants.py --count 100 --seed 0
    python benchmarks/mutants.py harness/store/locks.py --all
    python benchmarks/mutants.py --again

A mutant is one change of one operator, comparison, condition, number, truth value, returned value or statement. The script
works in a copy of the tree under `runs/mutants/`. It first runs the tests that belong to the chosen folders (`TESTS`) and
records which test runs which line, and for how long. For each mutant it then runs only the tests that reach its line, the
quickest first, and stops at the first failure. A mutant is

    killed      when a test fails,
    timeout     when the tests do not end in time: a test noticed, too,
    survived    when all these tests pass,
    uncovered   when no test in this process reaches the line.

Results are kept after each mutant, so that a run that was stopped goes on where it was: delete the folder to begin anew.
`results.json` holds all of them, `report.txt` those that no test noticed; docs/mutants.md explains the ones that may stay.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import coverage
import pytest

ROOT = Path(__file__).resolve().parents[1]
SELECT = "not slow and not gpu and not network"
# The folders to mutate, and the tests that are asked about them.
TESTS = {
    "harness/store": ("tests/store", "tests/run/executors/test_lock.py"),
    "harness/models/judge": ("tests/models/judge", "tests/plugins/test_pairwise_judge.py"),
    "harness/board": ("tests/board", "tests/test_statistics.py", "tests/fuzz/test_fuzz_boards.py"),
    "plugins": ("tests/plugins", "tests/analysis", "tests/cli", "tests/test_observers.py", "tests/models/test_reward.py"),
}
# It starts processes for minutes, which nothing here can look into.
LEFT_OUT = ("tests/plugins/test_third_party.py",)
# Imported once before a process is forked for each mutant: they take seconds, and no mutant changes them.
PRELOADED = ("scipy.stats", "torch", "transformers", "datasets", "openai", "pydantic")
TEST_SECONDS = 60.0  # per mutant: slower tests of its line are left out
# A fixture's seconds were counted for the first test that used it, which may be left out; tests/cli has one of minutes.
SET_UP_SECONDS = 300.0
OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


# Mutants of a source


@dataclass(frozen=True)
class Mutant:
    """One change: the bytes from `start` to `end` of the file at `path` become `after`.

    `line` is its first line, `statement` the first line of its statement; one `at_import` is outside of all functions.
    """

    path: str
    line: int
    statement: int
    at_import: bool
    kind: str
    before: str
    after: str
    start: int
    end: int

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line}:{self.start}: {self.before} -> {self.after}"

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """Return all mutants of a source text, in its order; each compiles.

    Left out, because no test should notice: annotations, decorators, texts, the insides of f-strings (Python 3.11 does not know
    their positions), imports for type checkers, and `strict=True` (of `zip`).
    """
    # `ast` counts columns in UTF-8 bytes.
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    mutants = []
    for node, kind, after, statement, at_import in _changes(ast.parse(source), 1, True):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before = " ".join(source[start:end].decode().split())
        mutant = Mutant(path, node.lineno, statement, at_import, kind, before, after, start, end)
        try:
            compile(mutant.apply(source), path, "exec")
        except SyntaxError:  # such as `break` replaced where the loop ended
            continue
        mutants.append(mutant)
    return sorted(mutants, key=lambda mutant: (mutant.start, mutant.end, mutant.after))


def _changes(node: ast.AST, statement: int, at_import: bool) -> Iterator[tuple[Any, str, str, int, bool]]:
    """Yield the changes of `node` and of all below it: the node, the kind, the new text, and its place."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
        return
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return
    if isinstance(node, ast.stmt):
        statement = node.lineno
    for changed, kind, after in _changes_of(node):
        yield changed, kind, after, statement, at_import
    function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                # The defaults of arguments are computed where the function is defined, its body is not.
                yield from _changes(child, statement, at_import and not (function and field == "body"))


def _changes_of(node: ast.AST) -> Iterator[tuple[ast.AST, str, str]]:
    """Yield the changes of this node itself."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in OPERATORS:
            yield node, "comparison", _changed(node, lambda twin: twin.ops.__setitem__(0, OPERATORS[type(operator)]()))
        case ast.BinOp(left=left, right=right) if _is_text(left) or _is_text(right):
            pass
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in OPERATORS:
            yield node, "operator", _changed(node, lambda twin: setattr(twin, "op", OPERATORS[type(operator)]()))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, "condition", f"({ast.unparse(operand)})"
        case ast.Constant(value=bool(value)):
            yield node, "constant", str(not value)
        case ast.Constant(value=int(value)):
            yield node, "constant", str(value + 1)
        case ast.Constant(value=float(value)):
            yield node, "constant", repr(value * 2 or 1.0)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if _is_changed_to_its_opposite(test):
            pass
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield test, "condition", f"(not ({ast.unparse(test)}))"
        case ast.comprehension(ifs=[test, *_]) if not _is_changed_to_its_opposite(test):
            yield test, "condition", f"(not ({ast.unparse(test)}))"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield value, "return", "None"
        case ast.Break():
            yield node, "statement", "continue"
        case ast.Continue():
            yield node, "statement", "break"
        case ast.Raise() | ast.Expr(value=ast.Call() | ast.Await()):
            yield node, "statement", "pass"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_changed_to_its_opposite(test: ast.AST) -> bool:
    match test:
        case ast.UnaryOp(op=ast.Not()):
            return True
        case ast.Compare(ops=[ast.Eq() | ast.NotEq() | ast.Is() | ast.IsNot() | ast.In() | ast.NotIn()]):
            return True
        case _:
            return False


def _changed(node: ast.AST, change: Callable[[Any], object]) -> str:
    twin = copy.deepcopy(node)
    change(twin)
    text = ast.unparse(twin)
    return text if isinstance(node, ast.AugAssign) else f"({text})"


# The copy of the tree, and pytest in a process of its own


def copy_tree(tree: Path) -> None:
    """Copy all files that git knows or would add; what was unchanged stays, with its compiled form."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    names = [name for name in os.fsdecode(listed.stdout).split("\0") if name and (ROOT / name).is_file()]
    for name in names:
        if not (tree / name).is_file() or (tree / name).read_bytes() != (ROOT / name).read_bytes():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            write(tree / name, (ROOT / name).read_bytes())
    for path in [path for path in tree.rglob("*.py") if str(path.relative_to(tree)) not in names and not path.is_symlink()]:
        path.unlink()
    # The packages whose folders have other names; see [tool.setuptools.package-dir].
    for link, folder in (("harness_plugins", "plugins"), ("harness/configs", "../configs")):
        if not (tree / link).is_symlink():
            (tree / link).symlink_to(folder)


def write(path: Path, source: bytes) -> None:
    """Write a file and remove its compiled form, which Python trusts where size and second are the same."""
    path.write_bytes(source)
    if path.suffix == ".py":
        Path(cache_from_source(str(path))).unlink(missing_ok=True)


def forked(call: Callable[..., int], arguments: tuple[Any, ...], seconds: float) -> int | None:
    """Return the status of a call in a forked process, or None when it took longer; its children end with it."""
    process = multiprocessing.get_context("fork").Process(target=_in_session, args=(call, arguments))
    process.start()
    process.join(seconds)
    late = process.is_alive()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    return None if late else process.exitcode


def _in_session(call: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    sys.exit(call(*arguments))


class Selection:
    """A pytest plugin that keeps the named tests, in their order."""

    def __init__(self, names: Sequence[str]) -> None:
        self.places = {name: place for place, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.places), key=lambda item: self.places[item.nodeid])


def run_pytest(tree: Path, files: Sequence[str], log: Path, plugins: Sequence[object], *options: str) -> int:
    """Run tests of the copied tree; return pytest's exit status."""
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        os.chdir(tree)
        # Before the installed packages: `harness` and `harness_plugins` are the copy's, in child processes, too.
        sys.path.insert(0, str(tree))
        os.environ["PYTHONPATH"] = str(tree)
        arguments = ["-q", "-m", SELECT, "-p", "no:cacheprovider", "--basetemp", str(tree.parent / "tmp")]
        # A preloaded package brought a plugin's own package (anyio).
        arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        return int(pytest.main([*arguments, *options, *files], plugins=list(plugins)))


# Which test runs which line


class Recorder:
    """A pytest plugin that records each test's seconds, and the lines that it runs as contexts of coverage."""

    def __init__(self, coverage: Any) -> None:
        self.coverage = coverage
        self.seconds: Counter[str] = Counter()
        self.passed: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: Any) -> None:
        # A fixture that several tests share runs in the set-up of the first: its lines count for all tests of the file.
        self.coverage.switch_context("set-up")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: Any) -> None:
        self.coverage.switch_context(item.nodeid)

    def pytest_runtest_teardown(self, item: Any) -> None:
        self.coverage.switch_context("set-up")

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)


def record(tree: Path, file: str, target: Path) -> int:
    """Run a file of tests with coverage; write each passed test's seconds, and the tests of each line of each module."""
    os.chdir(tree)
    folders = [str(tree / folder) for folder in TESTS]
    measured = coverage.Coverage(data_file=None, config_file=False, include=[f"{folder}/*" for folder in folders])
    recorder = Recorder(measured)
    measured.start()
    status = run_pytest(tree, [file], target.with_suffix(".log"), [recorder])
    measured.stop()
    data = measured.get_data()
    lines = {
        str(Path(path).resolve().relative_to(tree)): data.contexts_by_lineno(path) for path in sorted(data.measured_files())
    }
    seconds = {name: recorder.seconds[name] for name in sorted(recorder.passed)}
    target.write_text(json.dumps({"status": status, "seconds": seconds, "lines": lines}))
    return status


def tests_of(mutant: Mutant, records: Sequence[dict[str, Any]], limit: float = TEST_SECONDS) -> dict[str, float]:
    """Return the tests that reach a mutant's line with their seconds, in order: the quickest first, `limit` seconds in all.

    A test whose own body reaches the line goes before one that shares a fixture which does. A line that runs when its module
    is imported has all tests of the module.
    """
    near: dict[str, float] = {}
    far: dict[str, float] = {}
    for entry in records:
        lines = entry["lines"].get(mutant.path, {})
        if mutant.at_import:
            contexts = {context for names in lines.values() for context in names}
        else:
            # An expression that goes on below its first line is not always counted as a line of its own.
            contexts = set(lines.get(str(mutant.line)) or lines.get(str(mutant.statement), ()))
        near.update({name: entry["seconds"][name] for name in contexts if name in entry["seconds"]})
        if "set-up" in contexts:
            far.update({name: seconds for name, seconds in entry["seconds"].items() if name not in contexts})
    chosen: dict[str, float] = {}
    for name, seconds in [*sorted(near.items(), key=lambda item: item[1]), *sorted(far.items(), key=lambda item: item[1])]:
        if not chosen or sum(chosen.values()) + seconds <= limit:
            chosen[name] = seconds
    return chosen


# A run


def digest(*texts: bytes) -> str:
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def records_of(work: Path, folder: str, sources: dict[str, bytes]) -> list[dict[str, Any]]:
    """Return what each file of a folder's tests runs; only files that changed, or whose sources did, are run again."""
    tree = work / "tree"
    files = [
        str(path.relative_to(tree))
        for name in TESTS[folder]
        for path in ([tree / name] if name.endswith(".py") else sorted((tree / name).rglob("test_*.py")))
        if str(path.relative_to(tree)) not in LEFT_OUT
    ]
    state = digest(*(path.encode() + source for path, source in sorted(sources.items()) if path.startswith(f"{folder}/")))
    (work / "records").mkdir(parents=True, exist_ok=True)
    records = []
    for number, file in enumerate(files, 1):
        target = work / "records" / f"{file.replace('/', '-')}-{digest(state.encode(), (tree / file).read_bytes())}.json"
        if not target.is_file():
            begun = time.monotonic()
            forked(record, (tree, file, target), 1200.0)
            print(f"[{number}/{len(files)}] {file}: {time.monotonic() - begun:.0f} s", flush=True)
        if not target.is_file():
            raise SystemExit(f"{file} could not be run, or not within 20 minutes; see {target.with_suffix('.log')}")
        entry = json.loads(target.read_text())
        if entry["status"] not in (0, 5):  # 5: no test is selected
            print(f"{file}: tests fail without a mutant, they are left out; see {target.with_suffix('.log')}")
        records.append(entry)
    return records


def try_mutant(work: Path, mutant: Mutant, source: bytes, tests: dict[str, float]) -> dict[str, Any]:
    """Return a mutant's result: its outcome, the number of tests chosen, seconds."""
    if not tests:
        return {**asdict(mutant), "outcome": "uncovered", "tests": 0, "seconds": 0.0}
    path = work / "tree" / mutant.path
    files = sorted({name.partition("::")[0] for name in tests})
    begun = time.monotonic()
    write(path, mutant.apply(source))
    try:
        arguments = (work / "tree", files, work / "mutant.log", [Selection(list(tests))], "-x")
        status = forked(run_pytest, arguments, SET_UP_SECONDS + 5 * sum(tests.values()))
    finally:
        write(path, source)
    outcome = "timeout" if status is None else "survived" if status == 0 else "killed"
    return {**asdict(mutant), "outcome": outcome, "tests": len(tests), "seconds": round(time.monotonic() - begun, 1)}


def report(results: Sequence[dict[str, Any]]) -> str:
    """Return the counts by folder, and each mutant that no test noticed."""
    lines = []
    for folder in TESTS:
        counts = Counter(result["outcome"] for result in results if result["path"].startswith(f"{folder}/"))
        if counts:
            noticed = counts["killed"] + counts["timeout"]
            each = ", ".join(f"{counts[name]} {name}" for name in ("killed", "timeout", "survived", "uncovered"))
            lines.append(f"{folder}: {noticed} of {counts.total()} noticed ({each})")
    for outcome in ("survived", "uncovered"):
        for result in results:
            if result["outcome"] == outcome:
                lines.append(f"{outcome} {result['path']}:{result['line']}: {result['before']}  ->  {result['after']}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return 0 when each mutant was noticed, 1 otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="*", default=list(TESTS), help=f"files or folders within {', '.join(TESTS)}")
    parser.add_argument("--count", type=int, default=100, help="mutants to draw (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument("--all", action="store_true", help="every mutant of the paths in place of a draw")
    parser.add_argument("--again", action="store_true", help="run those again that no test noticed, after the tests changed")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no mutant later than this")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "mutants", help="where the copy and results are kept")
    parser.add_argument("--list", action="store_true", help="print the mutants and run none")
    options = parser.parse_args(arguments)

    paths = [path.rstrip("/") for path in options.paths]
    folders = [folder for folder in TESTS if any(f"{path}/".startswith(f"{folder}/") for path in paths)]
    sources = {
        str(path.relative_to(ROOT)): path.read_bytes() for folder in TESTS for path in sorted((ROOT / folder).rglob("*.py"))
    }
    chosen = [name for name in sources if any(f"{name}/".startswith(f"{path}/") for path in paths)]
    if not chosen:
        parser.error(f"{', '.join(paths)}: no module; choose files or folders within {', '.join(TESTS)}")
    mutants = [mutant for name in chosen for mutant in mutants_of(name, sources[name])]
    if not options.all:
        random.Random(options.seed).shuffle(mutants)
        mutants = mutants[: options.count]
    if options.list:
        print("\n".join(mutant.name for mutant in mutants))
        return 0

    for name in PRELOADED:
        __import__(name)
    work = options.work.resolve()
    copy_tree(work / "tree")
    records = {folder: records_of(work, folder, sources) for folder in folders}
    kept = work / "results.json"
    results = json.loads(kept.read_text()) if kept.is_file() else {}
    names = {f"{digest(sources[mutant.path])} {mutant.name}": mutant for mutant in mutants}
    final = ("killed", "timeout") if options.again else ("killed", "timeout", "survived", "uncovered")
    done = [name for name in names if name in results and results[name]["outcome"] in final]
    begun, waiting = time.monotonic(), [name for name in names if name not in done]
    for number, name in enumerate(waiting, 1):
        if time.monotonic() - begun > 60 * options.minutes:
            print(f"{options.minutes:g} minutes are over; the same command goes on")
            break
        mutant = names[name]
        folder = next(folder for folder in folders if mutant.path.startswith(f"{folder}/"))
        result = try_mutant(work, mutant, sources[mutant.path], tests_of(mutant, records[folder]))
        results[name] = result
        kept.with_suffix(".part").write_text(json.dumps(results, indent=1))
        kept.with_suffix(".part").replace(kept)
        rest = (time.monotonic() - begun) / number * (len(waiting) - number) / 60
        print(
            f"[{len(done) + number}/{len(mutants)}] {result['outcome']} {mutant.path}:{mutant.line}: "
            f"{mutant.before[:60]} -> {mutant.after[:60]} ({result['seconds']} s; about {rest:.0f} min left)",
            flush=True,
        )
    # In the order of the sources; what was begun with other mutants stays in the file, and out of this report.
    shown = [results[name] for name in names if name in results]
    shown.sort(key=lambda result: (result["path"], result["start"]))
    text = report(shown)
    (work / "report.txt").write_text(text)
    print(text, end="")
    return int(any(result["outcome"] in ("survived", "uncovered") for result in shown))


if __name__ == "__main__":
    sys.exit(main())
