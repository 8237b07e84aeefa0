"""Compute a sample of a board's stages again, on this machine, and compare them with what its evidence says they gave.

Everything else that `harness verify` does holds a board against its own evidence, which whoever made the board has written.
Here the verifier draws stages, which the sender could not foresee, makes them from the config alone in a store of their own,
and compares. With the sender's library versions and kind of processor a stage gives the same bytes (docs/reproducibility.md).
Elsewhere it is compared by its numbers: scores per example, log-probabilities in a training's log, tokens of answers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb, isfinite
from pathlib import Path
from typing import Any

from harness.api.registry import Registry
from harness.api.types import Score
from harness.board.board import Board, board_scores
from harness.board.evidence import StageEvidence, StagesEvidence
from harness.board.files import Scores
from harness.config import resolve_each
from harness.config.problems import quoted
from harness.errors import DataError
from harness.run.evidence import HISTORY, SCORE_LINES
from harness.run.executors.events import EventFanout
from harness.run.executors.local import LocalExecutor
from harness.run.graph import SERVED, VERSIONS, Graph, Stage, joined
from harness.run.plan import largest_plan
from harness.run.records import EvaluateInputs
from harness.run.stages.context import CHECKPOINT_MINUTES, read_answers
from harness.store import MANIFEST, Artifact, Store, key_of
from harness.store.environment import cpu_kind

HERE = "transformers"  # the backend that generates in the harness itself
PROGRAM = "command"  # the trainer that runs a program
SHARES = (0.01, 0.05, 0.1, 0.25)  # of forged stages, for which the chance of finding one is stated
TIMES = frozenset({"used", "made_seconds", "charged_seconds", "judge"})  # facts that two computations need not share
# On another kind of machine: the least share of equal scores or tokens, and the largest mean difference of log-probabilities.
EQUAL_SHARE, NATS = 0.9, 0.05


@dataclass(frozen=True)
class RecomputedStage:
    """A stage that was made again.

    Attributes:
        drawn: by the verifier; False for one that a drawn stage needs, which is compared as well.
        same: it gave the same files and facts.
        difference: what differs, in words; "" where it is the same, or within the tolerances of another kind of machine.
        close: how close it is where its bytes differ; "" where they do not, or nothing tells.
        seconds: to make it.
    """

    title: str
    key: str
    drawn: bool
    same: bool
    difference: str
    close: str
    seconds: float


@dataclass(frozen=True)
class Recomputation:
    """The result of computing a sample again.

    Attributes:
        seed: of the draw.
        eligible: stages that could be drawn.
        skipped: reason -> number of stages that cannot be made again here.
        otherwise: evaluations that its config does not give here, as components have other versions, or it is another config.
        exact: the versions and the kind of processor are the sender's, so that bytes are compared.
    """

    seed: int
    eligible: int
    skipped: Mapping[str, int]
    otherwise: int
    exact: bool
    stages: tuple[RecomputedStage, ...]
    seconds: float

    @property
    def drawn(self) -> int:
        """The number of stages that were drawn."""
        return sum(stage.drawn for stage in self.stages)

    @property
    def differences(self) -> list[str]:
        """A sentence for each stage that is not what the evidence says."""
        return [f"stage {each.title} ({each.key}): {each.difference}" for each in self.stages if each.difference]

    @property
    def undecided(self) -> list[str]:
        """A sentence for each stage of which nothing can be told here."""
        sentences = [
            f"stage {each.title} ({each.key}): its bytes differ on this other kind of machine, and no numbers tell how much"
            for each in self.stages
            if not (each.same or each.difference or each.close)
        ]
        if self.otherwise:
            sentences.append(
                f"{self.otherwise} evaluations are not what the board's config gives here: its components have other versions, "
                "or it is the config of another board. Install the version that the board names to draw them too."
            )
        return sentences

    def chance(self, share: float) -> float:
        """Return how likely the draw would have met a forged stage, if this share of the stages that it is from were forged."""
        return chance_of_finding(self.eligible, self.drawn, share)


def chance_of_finding(stages: int, drawn: int, share: float) -> float:
    """Return the chance that at least one of `drawn` stages, out of `stages`, is among the forged share (hypergeometric)."""
    forged = min(stages, max(1, round(share * stages))) if stages else 0
    return 1.0 - comb(stages - forged, drawn) / comb(stages, drawn) if stages and drawn <= stages else 0.0


def senders_code(config: object, place: str = "") -> Iterator[str]:
    """Yield the places of a config that would run code which its writer chose: even a plan asks such programs their version."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            at = f"{place}.{name}" if place else str(name)
            program = name in ("command", "version_command") and isinstance(value, str)
            function = name == "checker" and isinstance(value, str) and ":" in value
            if program or function or (name == "trust_remote_code" and value is True):
                yield f"{at} = {quoted(repr(value))}"
            yield from senders_code(value, at)
    elif isinstance(config, list | tuple):
        for number, value in enumerate(config):
            yield from senders_code(value, f"{place}.{number}")


def recompute(
    path: Path, count: int, *, folder: Path, seed: int, workers: int = 1, run_programs: bool = False
) -> Recomputation:
    """Draw stages of a board, make them and what they need from its config, and compare.

    The board's config is run with the plugins that are installed here. Read it first: it names data and models.

    Args:
        count: stages to draw; all that can be made again, if there are fewer.
        folder: for a store of its own, which the caller removes.
        seed: of the draw: the verifier's, so that the sender could not know it.
        run_programs: whether programs, functions and checkpoints' code that the config names may run here.

    Raises:
        DataError: the board has no stages in its evidence, or none that its config gives here; or its config would run code
            of its writer, and `run_programs` is not set.
        ConfigError: the config cannot be resolved here: a plugin, the data or the model is missing.
        StageError: a stage cannot be made here.
    """
    began = time.monotonic()
    board = Board.read(path)
    if not run_programs and (code := list(senders_code(board.config))):
        raise DataError(
            f"{path}: its config runs code that its writer chose ({'; '.join(code)}): read it, and allow it with --run-programs"
        )
    runs = board.evidence.runs if board.evidence else ()
    if len(runs) != 1:
        raise DataError(f"{path}: its evidence has the stages of {len(runs) or 'no'} runs, and a sample needs those of one")
    run = runs[0]
    graph = joined({each.start: largest_plan(each) for each in resolve_each(board.config, Registry.load(), str(path))})
    keys = keys_there(graph, run)
    finished = {key for key, stage in run.stages.items() if stage.manifest and stage.payload is not None}
    here = {key: own for own, key in keys.items() if key in finished}
    otherwise = _otherwise(run, here)
    if not here:
        raise DataError(f"{path}: its config gives none of its stages here: compare its versions with `harness doctor`'s")
    reasons = {key: reason for own, key in keys.items() if key in here and (reason := _not_here(graph.stages[own]))}
    skipped = _with_descendants(graph, {here[key]: reason for key, reason in reasons.items()})
    eligible = sorted(key for key, own in here.items() if own not in skipped)
    drawn = random.Random(seed).sample(eligible, min(count, len(eligible)))
    needed = graph.ancestors(*(here[key] for key in drawn))
    store = _make(replace(graph, stages={own: stage for own, stage in graph.stages.items() if own in needed}), folder, workers)
    exact = run.environment == dict(graph.environment) and run.versions == VERSIONS and run.cpu == cpu_kind()
    stages = [
        _compared(store.open(own), run.stages[keys[own]], keys[own], drawn, exact, _Board(board, board_scores(path), run))
        for own in graph.stages
        if own in needed and keys[own] in finished
    ]
    counts: dict[str, int] = {}
    for own in skipped.keys() & set(here.values()):
        counts[skipped[own]] = counts.get(skipped[own], 0) + 1
    return Recomputation(seed, len(eligible), counts, len(otherwise), exact, tuple(stages), time.monotonic() - began)


def keys_there(graph: Graph, run: StagesEvidence) -> dict[str, str]:
    """Return the key of each stage here -> the key that it had where the board was made, with the versions of that machine."""
    keys: dict[str, str] = {}
    for own, stage in graph.stages.items():  # parents come first
        inputs = {name: keys.get(key, key) for name, key in stage.inputs.items()}
        payload = {name: keys.get(value, value) if isinstance(value, str) else value for name, value in stage.payload.items()}
        environment = None if stage.kind == "source" else run.environment
        keys[own] = key_of(stage.kind, run.versions.get(stage.kind, 0), payload, inputs, environment)
    return keys


def _otherwise(run: StagesEvidence, here: Collection[str]) -> list[str]:
    """Return the keys of rows' evaluations that the config does not give here: it, or a component's version, is another."""
    of_rows = {key for plan in run.plans if plan.row is not None for keys in plan.evaluations.values() for key in keys}
    return sorted(key for key in of_rows & run.stages.keys() if key not in here and run.stages[key].manifest)


def _not_here(stage: Stage) -> str:
    """Return why a stage cannot be made again; "" where it can."""
    if "judge" in stage.payload:
        return "a judge's verdicts"
    trainer = stage.payload.get("trainer")
    if isinstance(trainer, Mapping) and trainer.get("name") == PROGRAM:
        return "trained by another program"
    if any(key.startswith(SERVED) for key in stage.inputs.values()):
        return "answers of a served model"
    backend = stage.payload.get("backend")
    if isinstance(backend, Mapping) and backend.get("name") != HERE:
        return f"generated by another program ({backend.get('name')})"
    return ""


def _with_descendants(graph: Graph, reasons: Mapping[str, str]) -> dict[str, str]:
    """Return the stages that cannot be made again, with all that are made from what they gave."""
    found = dict(reasons)
    for own, stage in graph.stages.items():
        if own not in found and (before := next((key for key in stage.parents if key in found), None)) is not None:
            found[own] = f"made from {found[before].removeprefix('made from ')}"
    return found


def _make(graph: Graph, folder: Path, workers: int) -> Store:
    """Make all stages of a graph in a store of their own.

    Raises:
        DataError: one fails.
    """
    store = Store(folder / "store")
    settings = {
        "store": str(store.root),
        "checkpoints": graph.checkpoints,
        "checkpoint_minutes": CHECKPOINT_MINUTES,
        "judges": {},
    }
    outcome = LocalExecutor(workers, settings, folder / "logs").run(graph, set(), EventFanout(()))
    for key, reason in outcome.failed.items():
        raise DataError(f"stage {graph.stages[key].title} cannot be made here: {reason}")
    return store


@dataclass(frozen=True)
class _Board:
    """The numbers of a board that a stage can be compared by."""

    board: Board
    scores: Scores
    run: StagesEvidence

    def of_evaluation(self, key: str) -> list[Score] | None:
        """Return the scores that an evaluation gave; None where no row has them as they are."""
        for plan in self.run.plans:
            for name, keys in plan.evaluations.items():
                if plan.row is not None and tuple(keys) == (key,):
                    listed = self.scores.get(plan.row, {}).get(name, {}).get(plan.seed, ())
                    return list(listed)[: self.run.stages[key].scores or 0]
        return None

    def of_answers(self, key: str) -> list[str] | None:
        """Return the texts that a stage drew, the first of each prompt; None where the board shows none of them."""
        for plan in self.run.plans:
            for keys in plan.evaluations.values():
                stage = self.run.stages.get(keys[0]) if keys else None
                if plan.row is None or stage is None or stage.payload is None:
                    continue
                drawn = list(EvaluateInputs.of(Stage(keys[0], "evaluate", "", {}, stage.inputs)).answers.values())
                texts = [example.answers[plan.row] for example in self.board.example_rows if plan.row in example.answers]
                if drawn[:1] == [key] and texts and plan.seed == min(each.seed for each in self.run.plans):
                    return texts
        return None


def _compared(
    made: Artifact, there: StageEvidence, key: str, drawn: Sequence[str], exact: bool, board: _Board
) -> RecomputedStage:
    """Compare one stage with its evidence."""
    manifest = made.read_json(MANIFEST)
    files = _differing(manifest["files"], there.files)
    facts = _differing(_facts(manifest), _facts(there.manifest))
    same, close, difference = not files and not facts, "", ""
    if not same:
        close, within = _closeness(made, there, key, board)
        what = ", ".join([*files, *(f"the fact {name}" for name in facts)])
        if exact:
            difference = f"other {what} than the evidence says" + (f" ({close})" if close else "")
        elif close and not within:
            difference = f"beyond the tolerances of another kind of machine: {close}"
    return RecomputedStage(there.title, key, key in drawn, same, difference, close, made.seconds)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names whose values differ, or that only one has."""
    return [name for name in sorted({*one, *other}) if name not in one or name not in other or one[name] != other[name]]


def _facts(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    facts = manifest.get("facts")
    return {name: value for name, value in facts.items() if name not in TIMES} if isinstance(facts, Mapping) else {}


def _closeness(made: Artifact, there: StageEvidence, key: str, board: _Board) -> tuple[str, bool]:
    """Return in words how close a stage is to its evidence, "" where nothing tells, and whether it is within the tolerances."""
    if SCORE_LINES in there.files and (before := board.of_evaluation(key)) is not None:
        after = [Score(*fields) for fields in made.read_lines(SCORE_LINES)]
        pairs = list(zip(before, after, strict=False))
        equal = sum(abs(a.value - b.value) <= 1e-6 * max(1.0, abs(a.value)) for a, b in pairs)
        share = equal / max(len(before), len(after), 1)
        return f"{share:.1%} of {len(before):,} scores are the same", share >= EQUAL_SHARE
    if there.history:
        after_lines = list(made.read_lines(HISTORY))
        gaps = list(_gaps(there.history, after_lines))
        mean = sum(gaps) / len(gaps) if gaps else float("inf")
        enough = len(after_lines) == len(there.history) and mean <= NATS
        return f"log-probabilities in its log are {mean:.3g} nats off on average", enough
    if there.manifest.get("kind") == "answers" and (texts := board.of_answers(key)):
        again = [drawn[0].text for drawn in read_answers(made)[: len(texts)]]
        share = _equal_words(texts, again)
        return f"{share:.1%} of the words of {len(texts)} answers are the same", share >= EQUAL_SHARE
    return "", False


def _gaps(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Iterator[float]:
    """Yield the differences of log-probabilities, or of losses where a log has none, in nats."""
    for one, other in zip(before, after, strict=False):
        names = [name for name in one if name.endswith("_logp")] or ["loss"]
        for name in names:
            a, b = one.get(name), other.get(name)
            if isinstance(a, int | float) and isinstance(b, int | float) and isfinite(a) and isfinite(b):
                yield abs(a - b)


def _equal_words(before: Sequence[str], after: Sequence[str]) -> float:
    """Return the share of words that are equal at their place, which stand for the tokens: the board has no ids."""
    equal = total = 0
    for one, other in zip(before, after, strict=False):
        a, b = one.split(), other.split()
        total += max(len(a), len(b))
        equal += sum(x == y for x, y in zip(a, b, strict=False))
    return equal / total if total else 1.0
