"""Facts about a board and its rows that are no statistic: how a row came about (`provenance`), what rows shared (`sharing`).

Every field may be absent, since a board holds only what its writer knew; a field that this version does not know is kept as
it is, so that a board of a newer version is written again without loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from harness.board.views.text import plain


class FactMapping(BaseModel, Mapping[str, Any]):
    """Known facts as typed fields, and all facts that are set, known or not, as a mapping: `facts["judges"]`."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Self:
        """Read facts as JSON would hold them: paths and sets become text and lists, NaN the text `nan`.

        Raises:
            pydantic.ValidationError: a known fact has another type.
        """
        return facts if isinstance(facts, cls) else cls.model_validate(plain(facts))

    def __getitem__(self, name: str) -> Any:
        if name not in self.model_fields_set:
            raise KeyError(name)
        # A fact may have the name of a method, such as `items`: those are looked up where pydantic keeps unknown fields.
        extra = self.__pydantic_extra__ or {}
        return extra[name] if name in extra else getattr(self, name)

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        yield from (name for name in type(self).model_fields if name in self.model_fields_set)
        yield from self.__pydantic_extra__ or ()

    def __len__(self) -> int:
        return len(self.model_fields_set)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class ComponentFacts(FactMapping):
    """A component with the fields it was configured with; `fingerprint` identifies files and packages it depends on."""

    name: str | None = None
    version: int | str | None = None
    fields: dict[str, object] = {}
    fingerprint: str | None = None


class ModelFacts(FactMapping):
    """The starting model: a hub repository at a commit, or made from the training text (`scratch`), and its hashes."""

    hub: str | None = None
    commit: str | None = None
    scratch: bool | None = None
    hash: str | None = None
    chat_template_sha256: str | None = None


class RoundFacts(FactMapping):
    """One round of training: its data builder, its objective, a trainer other than the host's, and the settings by name."""

    data: ComponentFacts | None = None
    objective: ComponentFacts | None = None
    trainer: ComponentFacts | None = None
    training: dict[str, object] = {}
    reference: str | None = None


class JudgeEntry(FactMapping):
    """A judge's model, the versions that its servers reported, and counts of calls, tokens and judgments."""

    model: str = ""
    versions: list[str] = []
    judge_calls: int = 0
    judge_tokens: int = 0
    judgments: int = 0
    unparsed: int = 0
    declined: int = 0
    cut_off: int = 0
    cut_off_reasons: list[str] = []


class DataFacts(FactMapping):
    """The data of one seed and round: counts of prompts, groups and pairs, and where the ids of its responses come from.

    `dropped` counts prompts without a group by reason; `means` are what the builder measured, averaged over groups.
    """

    prompts: int = 0
    groups: int = 0
    pairs: int = 0
    dropped: dict[str, int] = {}
    responses: dict[str, int] = {}
    means: dict[str, int | float | None] = {}
    judge: JudgeEntry | None = None


class ServedFacts(FactMapping):
    """A model that only a server has: its name there, and the address or the declared name that identifies it."""

    model: str = ""
    base_url: str | None = None
    name: str | None = None


class EvaluatorNotes(FactMapping):
    """An evaluator's notes about one seed; versions, few-shot counts and opponents by task.

    `absent`: metric -> why the row's model cannot give it.
    """

    absent: dict[str, str] | None = None

    versions: dict[str, object] | None = None
    shots: dict[str, object] | None = None
    opponents: dict[str, object] | None = None
    model_hash: str | None = None


class ImportedFiles(FactMapping):
    """Files that an importer read scores from; each has a `name` and a `sha256`."""

    tool: str = ""
    evaluator: str = ""
    files: list[dict[str, str]] = []


class Provenance(FactMapping):
    """How a row came about. `models`, `data` and the inner level of `notes` go by seed, `judges` and `notes` by evaluator.

    `checkpoint` or `served` is the row's model where it is none of the comparison's own.
    `budget` and the source `trained_on` are set where rows of the board have different ones. The row answers under `prefix`.

    A published row has `source`, `table` and the numbers as `printed`; a merged one the name of the `board` it was on.
    """

    method: str | None = None
    model: ModelFacts | None = None
    rounds: list[RoundFacts] = []
    budget: dict[str, object] = {}
    trained_on: ComponentFacts | None = None
    prefix: str | None = None
    seed_offset: int | None = None
    backend: ComponentFacts | None = None
    precision: dict[str, str] = {}
    models: dict[str, str] = {}
    judges: dict[str, JudgeEntry] = {}
    notes: dict[str, dict[str, EvaluatorNotes]] = {}
    data: dict[str, list[DataFacts]] = {}
    imported: list[ImportedFiles] = []
    checkpoint: ModelFacts | None = None
    served: ServedFacts | None = None
    source: str | None = None
    table: str | None = None
    printed: dict[str, str] = {}
    board: str | None = None


class OverlapEntry(FactMapping):
    """Training prompts of one split that hold a benchmark's question, `same` of them word for word, out of `of`."""

    of: int = 0
    prompts: int = 0
    same: int = 0
    questions: int = 0


class BenchmarkEntry(FactMapping):
    """How far the training prompts hold a benchmark's questions; `unknown` says why they were not compared."""

    unknown: str | None = None
    questions: int = 0
    splits: dict[str, OverlapEntry] = {}


class ScreeningEntry(FactMapping):
    """Counts of the source's rows: those kept by split, those left out by reason."""

    kept: dict[str, int] = {}
    dropped: dict[str, int] = {}
    too_long: dict[str, dict[str, int]] = {}
    contaminated: dict[str, dict[str, int]] = {}
    benchmarks: dict[str, BenchmarkEntry] = {}


class MergedBoard(FactMapping):
    """A board that a merged one was made from, with the hash of its JSON."""

    name: str = ""
    created: str = ""
    sha256: str = ""
    rows: int = 0


class SharingFacts(FactMapping):
    """Work that rows shared, in stages and in seconds, with what the run was: its command, library versions and source data."""

    stages_requested: int | None = None
    stages_run: int | None = None
    stages_reused: int | None = None
    distinct: int | None = None
    seconds_alone: int | float | None = None
    seconds_shared: int | float | None = None
    seconds_saved: int | float | None = None
    by_kind: dict[str, list[int]] = {}
    command: str | None = None
    versions: dict[str, str] = {}
    data: ScreeningEntry = ScreeningEntry()
    merged: list[MergedBoard] = []
    restated: MergedBoard | None = None
