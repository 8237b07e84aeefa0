"""The judges of a comparison: the config's, with the changes of those that ask it."""

from __future__ import annotations

from pydantic import ValidationError

from harness.api.interfaces import Component, DataBuilder, Trainer
from harness.config.problems import ABSENT, problems_of
from harness.config.unresolved import UnresolvedConfig
from harness.models.judge.settings import BUILDERS, JudgeSettings, judge_changes


def judges_of(unresolved: UnresolvedConfig) -> dict[str, JudgeSettings]:
    """By the evaluator's label; the config's own under `BUILDERS`, where a data builder or a trainer asks one."""
    judge = unresolved.config.judge if unresolved.config else None
    return {**_evaluators_judges(unresolved, judge), **_builders_judge(unresolved, judge)}


def _evaluators_judges(unresolved: UnresolvedConfig, judge: JudgeSettings | None) -> dict[str, JudgeSettings]:
    """The judge of every evaluator that asks one: the config's, with the evaluator's own changes."""
    found = {}
    for item in unresolved.evaluators:
        evaluator = item.evaluator
        if not evaluator.asks_judge():
            continue
        if judge is None:
            _miss(unresolved, evaluator.name)
        elif (own := _changed(unresolved, judge, evaluator, item.place)) is not None:
            found[item.label] = own
    return found


def _builders_judge(unresolved: UnresolvedConfig, judge: JudgeSettings | None) -> dict[str, JudgeSettings]:
    """The config's judge, where a data builder or a trainer asks one."""
    rounds = [(place, round_) for place, row in unresolved.placed_rows() for round_ in row.rounds]
    placed: list[tuple[str, DataBuilder | Trainer | None]] = [(f"{place}.data", round_.builder) for place, round_ in rounds]
    placed += [(f"{place}.trainer", round_.trainer) for place, round_ in rounds]
    asking = [(place, builder) for place, builder in placed if builder is not None and builder.asks_judge()]
    if not asking:
        return {}
    if judge is None:
        _miss(unresolved, asking[0][1].name)
        return {}
    for place, builder in asking:
        _changed(unresolved, judge, builder, place)
    return {BUILDERS: judge}


def _changed(unresolved: UnresolvedConfig, judge: JudgeSettings, component: Component, place: str) -> JudgeSettings | None:
    """The judge with the changes in a component's field `judge`, or its reward's; None with problems noted."""
    try:
        return judge.changed(judge_changes(component.model_dump()))
    except ValidationError as error:
        field = "judge" if hasattr(component, "judge") else "reward.judge"
        unresolved.problems += problems_of(error, JudgeSettings, f"{place}.{field}")
        return None


def _miss(unresolved: UnresolvedConfig, name: str) -> None:
    """There is no judge to ask; what is wrong with a section that is there is said by `validate`."""
    if unresolved.raw.get("judge") is None:
        fix = f"{name!r} asks a judge: add a section such as `judge: {{model: …, base_url: …, api_key_env: …}}`"
        unresolved.note("judge", ABSENT, fix)
