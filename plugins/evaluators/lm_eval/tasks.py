"""lm-eval's tasks: found without reading all of its files, with data from local folders, with the papers' shots."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from harness import DataError, HarnessError, Prompt, decode, read_json_rows, read_lines
from harness_plugins.evaluators.lm_eval.engine import attributes

FEWSHOT_SEED = 1234  # lm-eval's own default
SUITE = "open_llm_leaderboard"
SHOTS = {"arc_challenge": 25, "hellaswag": 10, "winogrande": 5, "mmlu": 5, "truthfulqa_mc2": 0, "gsm8k": 5}
AVERAGE = "average"  # of the tasks that are reported, one metric of each
SUITE_REPORT = (
    "arc_challenge/acc_norm",
    "hellaswag/acc_norm",
    "winogrande/acc",
    "mmlu/acc",
    "truthfulqa_mc2/acc",
    "gsm8k/exact_match,strict-match",
    "gsm8k/exact_match,flexible-extract",
    AVERAGE,
)
SUITE_FOLDERS = ("arc", "hellaswag", "winogrande", "mmlu/default", "truthfulqa", "gsm8k")  # of lm-eval's task files
ASKING = ("question", "query", "problem", "prompt", "instruction", "goal", "sentence")  # columns of documents
OWN = Path(__file__).with_name("own")  # task files for what lm-eval does not ship
READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
SHARD = re.compile(r"-\d{5}-of-\d{5}$")
LOCAL = frozenset({*READERS.values(), "text", "arrow"})  # data sets that are no hub's


@dataclass
class Tasks:
    """lm-eval's tasks and groups for the given names, with their data."""

    tasks: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)

    def add(self, loaded: Mapping[str, Any]) -> None:
        self.tasks.update(loaded["tasks"])
        self.groups.update(loaded.get("groups", {}))

    def for_lm_eval(self) -> dict[str, Any]:
        return {"tasks": self.tasks, "groups": self.groups}

    def of(self, name: str) -> list[Any]:
        """A task, or all of a group; nothing where there is neither."""
        if name in self.groups:
            return list(self.groups[name].get_all_tasks())
        return [self.tasks[name]] if name in self.tasks else []

    def questions(self, limit: int | None) -> Iterator[Prompt]:
        """Yield the wordings of every document: the task's own, its words for decontamination, and the columns that ask."""
        for name, task in self.tasks.items():
            for number, document in zip(range(limit) if limit else count(), task.eval_docs, strict=False):
                texts = [task.doc_to_text(document), *(document.get(column) for column in ASKING)]
                if task.should_decontaminate():
                    texts.append(task.doc_to_decontamination_query(document))
                for text in dict.fromkeys(text for text in texts if isinstance(text, str) and text.strip()):
                    yield Prompt.of(f"{name}:{number}", text)

    def set_shots(self, shots: int | None, papers: bool) -> None:
        """As `lm_eval.simple_evaluate` does: a task that fixes 0 shots keeps 0. The suite's tasks get the papers' shots."""
        for task in self.tasks.values():
            fixed = task.get_config("num_fewshot")
            if fixed is None or (fixed != 0 and shots is not None):
                task.set_config(key="num_fewshot", value=shots or 0)
            task.set_fewshot_seed(seed=FEWSHOT_SEED)
        for name, number in SHOTS.items() if papers else ():
            for task in self.of(name):
                task.set_config(key="num_fewshot", value=number)


@dataclass(frozen=True)
class Finder:
    """A search for tasks and their data in folders.

    Attributes:
        folder: further task files, which stand over lm-eval's own of the same name.
        data: a folder that is laid out as the hub is: `<data set>/<configuration>/<split>.jsonl`.
        cache: where local files are read into.
    """

    folder: str | None
    data: str | None
    cache: Path

    def shipped(self, folder: Path) -> Mapping[str, Any]:
        """All tasks of a folder of a source's own."""
        import datasets.config
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_defaults=False, include_path=folder)
        with attributes(datasets.config, HF_DATASETS_CACHE=self.cache):
            return dict(manager.load(manager.all_subtasks))

    def named(self, names: Sequence[str]) -> Mapping[str, Any]:
        """Tasks by name, the suite by its tasks' names.

        Raises:
            HarnessError: lm-eval knows no such task.
            DataError: its data are not on this machine.
        """
        import datasets

        wanted = [name for given in names for name in (SHOTS if given == SUITE else (given,))]
        manager = self._manager(wanted)
        load = _Loader(self, datasets.load_dataset)
        with attributes(datasets, load_dataset=load):
            try:
                return dict(manager.load(wanted))
            except DataError:
                raise
            except (OSError, ValueError) as error:
                raise DataError(f"lm-eval cannot load {', '.join(names)}: {error}") from error

    def _manager(self, names: Sequence[str]) -> Any:
        """One that knows the names. Reading all of lm-eval's task files takes seconds: the suite's folders come first."""
        import lm_eval.tasks
        from lm_eval.tasks import TaskManager

        root = Path(lm_eval.tasks.__file__).parent
        own = [OWN, self.folder] if self.folder else [OWN]
        for folders in (own, [*(root / name for name in SUITE_FOLDERS), *own]):
            manager = TaskManager(include_defaults=False, include_path=folders)
            if set(names) <= set(manager.all_tasks):
                return manager
        manager = TaskManager(include_path=own)
        unknown = sorted(set(names) - set(manager.all_tasks))
        if unknown:
            raise HarnessError(f"lm-eval knows no task {', '.join(map(repr, unknown))}: `lm-eval ls tasks` lists them")
        return manager

    def files(self, path: str, name: str | None) -> dict[str, list[str]]:
        """Split -> its files in the data folder: `<split>.jsonl` (.json, .parquet, .csv), or as the hub cuts them."""
        if self.data is None:
            return {}
        root = Path(self.data) / path
        folders = (root / name,) if name else (root, root / "data", root / "default")
        return next((found for folder in folders if (found := _splits(folder))), {})


def _splits(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix in READERS:
            found.setdefault(SHARD.sub("", path.stem), []).append(str(path))
    return found


@dataclass(frozen=True)
class _Loader:
    """Stands for `datasets.load_dataset`: the data folder first, then what is in the hub's cache on this machine."""

    finder: Finder
    original: Any

    def __call__(self, path: str, name: str | None = None, **rest: Any) -> Any:
        from datasets.exceptions import DatasetGenerationError

        found = self.finder.files(path, name)
        if found:
            readers = {READERS[Path(file).suffix] for files in found.values() for file in files}
            if len(readers) > 1:
                raise DataError(f"the files of {path} in {self.finder.data} are of several formats: keep one")
            for file in (Path(file) for files in found.values() for file in files):
                _check(file)
            try:
                return self.original(readers.pop(), data_files=found, cache_dir=str(self.finder.cache))
            except DatasetGenerationError as error:
                problem = (str(error.__cause__ or error).splitlines() or ["no reason given"])[0]
                raise DataError(f"the files of {path} in {self.finder.data} cannot be read: {problem}") from error
        try:
            return self.original(path=path, name=name, **rest)
        except (OSError, ValueError) as error:
            if path in LOCAL:
                raise
            raise DataError(self._missing(path, name)) from error

    def _missing(self, path: str, name: str | None) -> str:
        place = f"{path}/{name}" if name else path
        asked = (
            f"`hf download {path} --repo-type dataset --local-dir {self.finder.data or 'DATA'}/{path}` where there is a network"
        )
        where = (
            f"put its splits at {self.finder.data}/{place}/<split>.jsonl"
            if self.finder.data
            else (f"set `data` to a folder DATA that holds DATA/{place}/<split>.jsonl")
        )
        return f"the hub's data set {path!r}{f' ({name})' if name else ''} is not on this machine: {where}, or run {asked}"


def _check(file: Path) -> None:
    """Refuse a text file that the readers of `datasets` fail at without naming the line.

    Raises:
        DataError: a line is not UTF-8, or of JSON lines one is not JSON.
    """
    if file.suffix == ".jsonl":
        for where, _, row in read_json_rows(file):
            if isinstance(row, ValueError):
                raise DataError(f"{where}: {row}") from row
    elif file.suffix != ".parquet":
        for number, line in read_lines(file):
            decode(line, f"{file}, line {number}")


def hash_of_files(folders: Iterable[str | None]) -> str:
    """Return a hash of the names and contents of all files in the folders; '' without folders."""
    whole = hashlib.sha256()
    seen = False
    for folder in folders:
        for path in _files(folder):
            seen = True
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            whole.update(f"{path.relative_to(str(folder)).as_posix()}\0{digest}\n".encode())
    return whole.hexdigest()[:32] if seen else ""


def _files(folder: str | None) -> Iterator[Path]:
    if folder is not None:
        root = Path(folder)
        for path in sorted(root.rglob("*")):
            parts = path.relative_to(root).parts
            if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in parts):
                yield path
