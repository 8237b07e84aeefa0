"""Checks of sources, importers, backends and methods."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

from harness.api.interfaces import Backend, Importer, Source
from harness.api.methods import Method
from harness.api.registry import Registry
from harness.api.types import Dataset, Example, Prompt, Response, Sampling, SplitName
from harness.config.rows import Resolver
from harness.config.schema import Budget
from harness.errors import DataError, Problem
from harness.models.tokenization import ChatTemplate
from harness.sandbox.untrained import ScriptedPolicy
from harness.testing.resuming import check_resuming
from harness.testing.verdict import Fault, Finding, run
from harness.training.settings import TrainingSettings


def check_importer(importer: Importer) -> Iterator[Finding]:
    """Check that an importer refuses a file that is not its tool's."""
    yield run("foreign file", partial(_refuses_foreign, importer))


def _refuses_foreign(importer: Importer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "foreign.json"
        path.write_text('{"nothing": "of any tool"}\n', encoding="utf-8")
        fix = "raise harness.DataError, naming the file and what it should be"
        try:
            returned: Any = importer.read([path])
            rows = list(returned) if hasattr(returned, "__iter__") else None
        except DataError as error:
            if path.name not in str(error):
                raise Fault(f"the error does not name the file ({error})", fix) from error
            return
        if rows is None:
            raise Fault(f"read() returned {type(returned).__name__}", f"yield harness.Imported values; else {fix}")
        raise Fault(f"a file of another tool gave {len(rows)} rows and no error", fix)


def check_source(source: Source) -> Iterator[Finding]:
    """Every check of a source; it is loaded twice, with the fields it is given."""
    loaded: list[Dataset] = []
    yield (first := run("load", partial(_loads, source, loaded)))
    for name, check in (("splits", _splits), ("provides", _provides), ("determinism", _source_repeats)):
        if first.status == "passed":
            yield run(name, partial(check, source, loaded[0]))
        else:
            yield Finding(name, "not run", "there are no data", "see above")


def _loads(source: Source, loaded: list[Dataset]) -> None:
    data = source.load()
    if not isinstance(data, Dataset):
        raise Fault(f"load() returned {type(data).__name__}", "return harness.Dataset(splits)")
    loaded.append(data)
    if empty := [split for split in ("train", "heldout") if not data[split]]:
        raise Fault(f"the split {empty[0]!r} is empty", "give prompts to train on and others to evaluate on")
    _check_examples(data)
    for split, size in source.sizes().items():
        if split not in get_args(SplitName):
            raise Fault(f"sizes() names a split {split!r}", f"write one of {', '.join(get_args(SplitName))}")
        if len(data[split]) > size:
            raise Fault(f"sizes() says {size} for {split!r}, which has {len(data[split])}", "say how many there are at most")
    for example in (*data["train"][:50], *data["heldout"][:50]):
        try:
            json.dumps(example.metadata, allow_nan=False)
        except (TypeError, ValueError) as error:
            said = f"metadata of {example.prompt.id!r} cannot be written as JSON ({error})"
            raise Fault(said, "use text, finite numbers, lists and mappings") from error


def _check_examples(data: Dataset) -> None:
    for split, rows in data.splits.items():
        for row in rows:
            prompt = getattr(row, "prompt", None)
            if not isinstance(row, Example) or not isinstance(prompt, Prompt):
                kind = type(row).__name__ if prompt is None else f"an example whose prompt is {type(prompt).__name__}"
                raise Fault(f"the split {split!r} holds {kind}", "give harness.Example(harness.Prompt.of(id, text), target)")


def _splits(source: Source, data: Dataset) -> None:
    """Check that no evaluated prompt is trained on, and that no id stands for two prompts."""
    heldout = {example.prompt.messages for example in data["heldout"]}
    for split in ("sft", "train", "tuning"):
        shared = heldout & {example.prompt.messages for example in data[split]}
        if shared:
            text = next(iter(shared))[-1].content
            raise Fault(
                f"{len(shared)} prompts are in {split!r} and in 'heldout' ({text[:60]!r})", "split by the prompt's text"
            )
    named: dict[str, Prompt] = {}
    for example in (row for rows in data.splits.values() for row in rows):
        if named.setdefault(example.prompt.id, example.prompt) != example.prompt:
            raise Fault(f"two prompts are called {example.prompt.id!r}", "give every prompt an id of its own")


def _provides(source: Source, data: Dataset) -> None:
    rows = (*data["train"], *data["heldout"])
    if "target" in source.offers() and not any(example.target for example in rows):
        raise Fault("it says that it provides targets, and no example has one", "set Example.target, or change `provides`")
    if "ranked" in source.offers() and not any(len(example.ranked) > 1 for example in rows):
        raise Fault("it says that it provides rankings, and no example has two responses", "set Example.ranked, best first")
    if "gold" in source.offers():
        marks = source.gold(rows[0], Response("an answer"))
        if "total" not in marks or not all(isinstance(value, int | float) for value in marks.values()):
            raise Fault(f"gold() returned {dict(marks)!r}", "return numbers by name, 'total' among them")
    if "benchmarks" in source.offers():
        with tempfile.TemporaryDirectory() as folder:
            source.write_benchmarks(Path(folder))
            if not list(Path(folder).rglob("*.yaml")):
                raise Fault("write_benchmarks() wrote no task file", "write lm-eval task files (*.yaml) into the folder")


def _source_repeats(source: Source, data: Dataset) -> None:
    if source.load() != data or source.fingerprint() != source.fingerprint():
        raise Fault(
            "two loads differ", "let fields and files decide alone: seed what is drawn with a field, sort what is listed"
        )


def check_backend(backend: Backend) -> Iterator[Finding]:
    """Check a backend on an untrained model of 40,000 parameters."""
    yield run("generate", partial(_generates, backend))
    if backend.resumes:
        yield run("resuming", partial(_resumes, backend))


def _resumes(backend: Backend) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_resuming(backend, ScriptedPolicy(Path(folder)))


def _generates(backend: Backend) -> None:
    prompts = [Prompt.of("a", "name two fruits ."), Prompt.of("b", "name one fruit that is not red . answer in short .")]
    sampling = Sampling(n=3, max_tokens=8, seed=1)
    seen: list[tuple[int, int]] = []
    with tempfile.TemporaryDirectory() as folder, backend.session(policy := ScriptedPolicy(Path(folder))) as generate:
        answers = _rows(generate(prompts, sampling, lambda done, total: seen.append((done, total))))
        again = generate(prompts, sampling)
    if [len(row) for row in answers] != [sampling.n] * len(prompts):
        raise Fault(f"it gave {[len(row) for row in answers]} answers", f"give {sampling.n} per prompt, in the prompts' order")
    if not all(isinstance(response, Response) for row in answers for response in row):
        raise Fault("an answer is no harness.Response", "return harness.Response(text, finished, tokens)")
    if [[(r, r.ids) for r in row] for row in again] != [[(r, r.ids) for r in row] for row in answers]:
        raise Fault("one seed gives two answers", "draw with a generator seeded by sampling.seed, whatever ran before")
    if any((response.tokens or 0) > sampling.max_tokens for row in answers for response in row):
        raise Fault("an answer is longer than sampling.max_tokens", "stop there, and set Response.finished to False")
    template = ChatTemplate(policy.tokenizer)
    if any(response.ids is not None and not template.is_as_sampled(response) for row in answers for response in row):
        fix = "make answers with harness.ChatTemplate(policy.tokenizer).sampled(ids, finished), or leave ids out"
        raise Fault("an answer's ids are not those of its text", fix)
    if any(set(policy.stop_ids) & set((response.ids or ())[:-1]) for row in answers for response in row):
        raise Fault("an answer goes on after a token that ends it", "end it at each of policy.stop_ids")
    if not seen or seen[-1] != (len(prompts) * sampling.n,) * 2:
        raise Fault(f"report was called with {seen}", "call report(done, total) in responses, the last time with all of them")


def _rows(answers: Any) -> list[list[Response]]:
    if not isinstance(answers, list) or not all(isinstance(row, list) for row in answers):
        raise Fault(f"generate() returned {type(answers).__name__}", "return a list of prompts' lists of harness.Response")
    return answers


def check_method(method: Method, registry: Registry) -> Iterator[Finding]:
    """Check that a method's parts exist and take the fields that it sets."""
    yield run("parts", partial(_parts, method, registry))


def _parts(method: Method, registry: Registry) -> None:
    if not method.description.strip():
        raise Fault("it has no description", "say in one line what it does")
    problems: list[Problem] = []
    Resolver(registry, problems).rows({"method": method.name}, "methods.0", TrainingSettings(), Budget())
    if problems:
        first = problems[0]
        raise Fault(
            f"{first.field.removeprefix('methods.0').lstrip('.') or 'it'} = {first.value!r}: {first.fix}",
            "mend the Method that harness_methods returns",
        )
