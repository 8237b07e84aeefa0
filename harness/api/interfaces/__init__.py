"""The interfaces that plugins implement.

A component is a frozen pydantic model: its fields are its hyper-parameters, with bounds and descriptions; its methods are its
behaviour. Class variables hold its name, its paper and its needs.
"""

from harness.api.interfaces.analysis import Analysis
from harness.api.interfaces.backend import Backend, Chunks, Generate, Policy, ResumableGenerate
from harness.api.interfaces.builder import BuildTask, DataBuilder
from harness.api.interfaces.component import Component, Paper
from harness.api.interfaces.evaluator import EvaluationTask, Evaluator, Importer
from harness.api.interfaces.objective import Objective
from harness.api.interfaces.source import Source
from harness.api.interfaces.trainer import BudgetUnit, Trainer, TrainingTask, TrainingUse

__all__ = [
    "Analysis",
    "Backend",
    "BudgetUnit",
    "BuildTask",
    "Chunks",
    "Component",
    "DataBuilder",
    "EvaluationTask",
    "Evaluator",
    "Generate",
    "Importer",
    "Objective",
    "Paper",
    "Policy",
    "ResumableGenerate",
    "Source",
    "Trainer",
    "TrainingTask",
    "TrainingUse",
]
