"""Rows that are models from elsewhere: what they take in a plan, and whether servers can be asked before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.config import Comparison
from harness.errors import Problem
from harness.run.graph import Graph
from harness.run.records import AnswersPayload


@dataclass(frozen=True)
class RowElsewhere:
    """A planned row that trains nothing.

    Attributes:
        model: where it is from: a hub repository at a commit, a checkpoint's hash, or a name at a server.
        stages: its stages of evaluation; `waiting` of them are not in the store.
        answers: asked per evaluated prompt, by stages that draw them beforehand.
        cost: of its making: unknown here.
    """

    label: str
    kind: str
    model: str
    stages: int
    waiting: int
    answers: int
    cost: str = "not measured here"

    def line(self) -> str:
        """Return the row for people."""
        plural = "stage" if self.stages == 1 else "stages"
        return (
            f"{self.label}: {self.kind} {self.model}, trains nothing; {self.stages} {plural} of evaluation, {self.waiting} to "
            f"run, {self.answers} answers a prompt; cost {self.cost}"
        )


def rows_elsewhere(comparison: Comparison, graph: Graph, held: Callable[[str], bool]) -> list[RowElsewhere]:
    """Return the rows of a plan that are models from elsewhere.

    Args:
        held: whether the store has a stage's artifact.
    """
    rows = []
    for config in comparison.rows:
        if not config.is_as_it_is:
            continue
        row = next(row for row in graph.rows if row.label == config.label)
        stages = [graph.stages[key] for key in graph.needed_by(row) if graph.stages[key].inputs.get("model") == row.model]
        drawn = [AnswersPayload.of(stage).drawn for stage in stages if stage.kind == "answers"]
        rows.append(
            RowElsewhere(
                config.label,
                config.kind,
                _model(
                    config.checkpoint.provenance() if config.checkpoint else config.served.identity if config.served else {}
                ),
                len(stages),
                sum(not held(stage.key) for stage in stages),
                sum(sampling.n if sampling.temperature else 1 for sampling in drawn),
            )
        )
    return rows


def _model(facts: Mapping[str, object]) -> str:
    if "model" in facts:
        return f"{facts['model']} at {facts['base_url']}"
    if "hub" in facts:
        return f"{facts['hub']}@{str(facts['commit'])[:12]}"
    return str(facts["name"] if "name" in facts else facts["hash"])


def served_problems(
    comparison: Comparison, graph: Graph, held: Callable[[str], bool], variables: Mapping[str, str]
) -> list[Problem]:
    """Return a problem for each served row that is still to be asked and cannot be: no key, no server, another model there.

    Args:
        held: whether the store has a stage's artifact.
        variables: the environment, in which keys are looked for.
    """
    waiting = {row.label for row in rows_elsewhere(comparison, graph, held) if row.waiting}
    problems = []
    rows = {config.label: config for config in comparison.rows}
    for index, entry in enumerate(comparison.config.methods):
        label = "" if entry.served is None else entry.label or entry.served.model
        if label not in waiting or (served := rows[label].served) is None:
            continue
        field = f"methods.{index}.served"
        if served.api_key_env and not variables.get(served.api_key_env):
            fix = (
                "this environment variable is not set: put the server's key into it, or leave it out for a server without keys"
            )
            problems.append(Problem(f"{field}.api_key_env", served.api_key_env, fix))
        elif problem := served.problem(variables.get(served.api_key_env) if served.api_key_env else None):
            name, fix = problem
            problems.append(Problem(f"{field}.{name}", getattr(served, name), fix))
    return problems
