"""One component of each kind, from outside the project."""

from harness import Analysis, Backend, DataBuilder, Evaluator, Importer, Method, Objective, Source, Trainer, hookimpl
from third_party_methods.analysis import HalfTargets
from third_party_methods.backend import Parrot
from third_party_methods.builder import Truncated
from third_party_methods.evaluator import FirstWord
from third_party_methods.importer import FirstWords
from third_party_methods.objective import Squared
from third_party_methods.source import Sums
from third_party_methods.trainer import Shrunk


@hookimpl
def harness_data_builders() -> list[type[DataBuilder]]:
    return [Truncated]


@hookimpl
def harness_objectives() -> list[type[Objective]]:
    return [Squared]


@hookimpl
def harness_evaluators() -> list[type[Evaluator]]:
    return [FirstWord]


@hookimpl
def harness_backends() -> list[type[Backend]]:
    return [Parrot]


@hookimpl
def harness_sources() -> list[type[Source]]:
    return [Sums]


@hookimpl
def harness_importers() -> list[type[Importer]]:
    return [FirstWords]


@hookimpl
def harness_methods() -> list[Method]:
    return [Method(name="tp_method", description="Half targets as negatives", data="tp_truncated", objective="tp_squared")]


@hookimpl
def harness_trainers() -> list[type[Trainer]]:
    return [Shrunk]


@hookimpl
def harness_analyses() -> list[type[Analysis]]:
    return [HalfTargets]
