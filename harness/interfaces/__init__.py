"""What a plugin implements. A component is a frozen pydantic model: its fields are its hyper-parameters, with bounds and
descriptions; its methods are its behaviour. Class variables say what it is called, where it comes from and what it needs.
"""

from harness.interfaces.analysis import Analysis
from harness.interfaces.backend import Backend, Chunks, Generate, Policy, ResumableGenerate
from harness.interfaces.builder import BuildTask, DataBuilder
from harness.interfaces.component import Component
from harness.interfaces.evaluator import EvaluationTask, Evaluator
from harness.interfaces.importer import Importer
from harness.interfaces.objective import Objective
from harness.interfaces.source import Source

__all__ = [
    "Analysis",
    "Backend",
    "BuildTask",
    "Chunks",
    "Component",
    "DataBuilder",
    "EvaluationTask",
    "Evaluator",
    "Generate",
    "Importer",
    "Objective",
    "Policy",
    "ResumableGenerate",
    "Source",
]
