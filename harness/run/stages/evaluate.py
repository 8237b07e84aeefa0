"""Run one evaluator on one policy: scores per example."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from harness.api.interfaces import Evaluator, Source
from harness.api.types import (
    Example,
    JudgeAnswer,
    Judgment,
    Message,
    Prompt,
    ReadResponse,
    Response,
    Sampling,
    Score,
    divide,
)
from harness.api.types.thoughts import opens_thought
from harness.errors import StageError, UnavailableError
from harness.models.judge.judge import Judge
from harness.models.logps import exact_products
from harness.models.reward import Reward
from harness.models.templates import tokenizer_difference
from harness.models.tokenization import ChatTemplate
from harness.run.graph import CHECKPOINT, Stage
from harness.run.plan import run_sampling
from harness.run.records import (
    AnswersInputs,
    AnswersPayload,
    EvaluatedPayload,
    EvaluateFacts,
    EvaluateInputs,
    EvaluatePayload,
    Facts,
)
from harness.run.stages.context import Context, StageProgress, read_answers, read_dataset
from harness.run.stages.groups import read_source
from harness.run.stages.live import Live
from harness.run.stages.services import PolicyServices, Services, judge_facts, reward_values, stage_judge
from harness.store import Artifact, ArtifactDraft

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


SHOWN_METRICS = 2  # whose means a stage reports when it ends
FILES = "files"  # folder of the files that an evaluator writes beside its scores
ABSENT = "absent"  # the note of metrics that a row's model cannot give -> why


def run_evaluate(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Evaluate; every score must be a finite number of a declared metric."""
    payload = EvaluatePayload.of(stage)
    evaluator: Evaluator = context.component("evaluator", payload.evaluator)
    report, context = context.report, replace(context, report=StageProgress(context.report), shards=stage.after)
    services, judge = Services(context), stage_judge(payload, context)
    with context.scratch() as folder:
        task = _task(stage, evaluator, services, folder, draft.folder / FILES)
        task.asked = judge
        task.files.mkdir()
        with exact_products():
            scores = _scores(evaluator, task, context.live)
    _check(scores, evaluator)
    report(1, 1, _means(scores, evaluator))
    draft.write_lines("scores.jsonl", [score_fields(score) for score in scores])
    if not any(task.files.iterdir()):
        task.files.rmdir()
    facts = EvaluateFacts(
        **services.ledger.facts(),
        **({"judge": judge_facts(payload, judge)} if judge else {}),
        **({"notes": task.notes} if task.notes else {}),
    )
    draft.facts |= facts.as_json()


def ask_evaluation(stage: Stage, services: Services) -> None:
    """Compute a shard's part of what an evaluator asks for before it looks at a number."""
    evaluator: Evaluator = services.context.component("evaluator", EvaluatePayload.of(stage).evaluator)
    with services.context.scratch() as folder, exact_products():
        task = _task(stage, evaluator, services, folder, folder / FILES)
        task.files.mkdir()
        for _ in evaluator.evaluate(task):
            pass


def _task(stage: Stage, evaluator: Evaluator, services: Services, folder: Path, files: Path) -> EvaluatorServices:
    """Return the task of an evaluation, without a judge."""
    payload, inputs, context = EvaluatePayload.of(stage), EvaluateInputs.of(stage), services.context
    services = replace(services, scoring_layout=payload.scoring_layout)
    backend = context.component("backend", payload.backend)
    source, samplings = context.store.open(inputs.source), evaluator.samplings()
    prepared = {
        run_sampling(sampling, payload.seed): read_answers(context.store.open(inputs.answers[str(number)]))
        for number, sampling in enumerate(samplings)
    }
    return EvaluatorServices(
        examples=evaluated_examples(payload, source),
        seed=payload.seed,
        folder=folder,
        files=files,
        label=payload.label,
        source=read_source(source, context),
        model=PolicyServices(services, inputs.model, backend),
        start=PolicyServices(services, inputs.start, backend),
        prepared=prepared,
        # An evaluator that draws no answers beforehand gets the opponents' models instead.
        others={label: read_answers(context.store.open(key)) if samplings else [] for label, key in inputs.opponents.items()},
        models={label: PolicyServices(services, key, backend) for label, key in inputs.opponents.items() if not samplings},
        reader=AnswerReader.model_validate(payload.response) if payload.response is not None else None,
        writers={label: PolicyServices(services, key, backend) for label, key in payload.opponent_models.items()},
        prefix=payload.prefix,
        prefixes=payload.opponent_prefixes,
    )


def _scores(evaluator: Evaluator, task: EvaluatorServices, live: Live) -> list[Score]:
    """Return the scores; those that the row's model cannot give are noted as absent, with the reason."""
    scores = list[Score]()
    try:
        for score in evaluator.evaluate(task):  # one by one: those before an error are kept
            scores.append(score)
            live.score(score.metric, score.value)
    except UnavailableError as error:
        given = {score.metric for score in scores}
        absent = [metric.name for metric in evaluator.metrics() if metric.name not in given and not metric.optional]
        task.notes[ABSENT] = dict.fromkeys(absent, str(error))
    return scores


class AnswerReader(BaseModel):
    """Looks for thoughts in a policy's answers, and removes them where evaluators must not read them.

    Attributes:
        thinking: `evaluation.response.thinking`: `strip` removes them, `keep` only counts them.
    """

    thinking: str
    delimiters: list[tuple[str, str]]

    def read(self, policy: PolicyServices, prompts: Sequence[Prompt], answers: list[list[Response]]) -> list[list[Response]]:
        """Return answers as evaluators read them."""
        template = None if policy.is_served else ChatTemplate(policy.tokenizer)
        read = []
        for prompt, row in zip(prompts, answers, strict=True):
            opened = template is not None and opens_thought(template.render(prompt.messages), self.delimiters)
            read.append([self._read(template, response, opened) for response in row])
        return read

    def _read(self, template: ChatTemplate | None, response: Response, opened: bool) -> Response:
        """A template of a reasoning model may open the thought itself: an answer cut off within it holds no delimiter.

        Of a served model's answer only the whole is counted in tokens: a thought's are in proportion to its characters.
        """
        parts = divide(response.text, self.delimiters, opened=opened)
        thoughts = 0
        if parts.thought and template is not None:
            thoughts = len(template.tokenizer(parts.thought, add_special_tokens=False)["input_ids"])
        elif parts.thought:
            thoughts = round((response.tokens or 0) * len(parts.thought) / len(response.text))
        text, tokens = response.text, response.tokens
        if tokens is not None:  # as sampled: the same text may be spelt in fewer tokens
            thoughts = tokens if parts.thought and not parts.answer and not response.finished else min(thoughts, tokens)
        if self.thinking == "strip":
            text, tokens = parts.answer, None if tokens is None else tokens - thoughts
        ids = response.ids if text == response.text else None
        return ReadResponse(text, response.finished, tokens, ids, whole=response, thought_tokens=thoughts, closed=parts.closed)


def _means(scores: Sequence[Score], evaluator: Evaluator) -> str:
    """Return the means of the first primary metrics in one line, for whoever watches the run."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for score in scores:
        values[score.metric].append(score.value)
    metrics = sorted(evaluator.metrics(), key=lambda metric: not metric.primary)  # the primary ones first, else as listed
    shown = [metric.name for metric in metrics if metric.name in values][:SHOWN_METRICS]
    return ", ".join(f"{name} {fmean(values[name]):.4g}" for name in shown)


def score_fields(score: Score) -> list[str | float]:
    """Return a score as `Score(*fields)` reads it; the question only where there is one."""
    fields: list[str | float] = [score.example, score.metric, score.value, score.sample]
    return [*fields, score.question] if score.question else fields


def _check(scores: Sequence[Score], evaluator: Evaluator) -> None:
    declared = {metric.name for metric in evaluator.metrics()}
    for score in scores:
        if score.metric not in declared:
            raise StageError(
                f"evaluator {evaluator.name!r} gave a score of {score.metric!r}, which its metrics() does not name"
            )
        if not math.isfinite(score.value):
            raise StageError(
                f"evaluator {evaluator.name!r} gave {score.value} for {score.metric!r} of example {score.example!r}"
            )


@dataclass
class EvaluatorServices:
    """`EvaluationTask` for evaluators.

    Attributes:
        prefix: of every prompt that the row answers; judges, rewards and gold read its answers under the prompt without it.
        prefixes: those of opponents that answer here, by label.
    """

    examples: Sequence[Example]
    seed: int
    folder: Path
    source: Source
    model: PolicyServices
    start: PolicyServices
    prepared: Mapping[Sampling, list[list[Response]]]
    files: Path
    label: str = ""
    others: Mapping[str, list[list[Response]]] = field(default_factory=dict)
    models: Mapping[str, PolicyServices] = field(default_factory=dict)
    asked: Judge | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    reader: AnswerReader | None = None
    writers: Mapping[str, PolicyServices] = field(default_factory=dict)
    prefix: str = ""
    prefixes: Mapping[str, str] = field(default_factory=dict)

    def respond(self, sampling: Sampling) -> list[list[Response]]:
        asked, prompts = run_sampling(sampling, self.seed), [example.prompt for example in self.examples]
        prepared = self.prepared.get(asked)
        return self._read(prompts, self.model.respond(prefixed(prompts, self.prefix), asked) if prepared is None else prepared)

    def respond_to(self, prompts: Sequence[Prompt], sampling: Sampling, row: str | None = None) -> list[list[Response]]:
        policy = self.model if row is None else self.models[row]
        prefix = self.prefix if row is None else self.prefixes.get(row, "")
        return self._read(prompts, policy.respond(prefixed(prompts, prefix), run_sampling(sampling, self.seed)), row)

    def opponents(self) -> Mapping[str, list[list[Response]]]:
        prompts = [example.prompt for example in self.examples]
        return {label: self._read(prompts, answers, label) if answers else answers for label, answers in self.others.items()}

    def _read(self, prompts: Sequence[Prompt], answers: list[list[Response]], row: str | None = None) -> list[list[Response]]:
        """Answers as the comparison wants them read, by the template of the row that gave them.

        Rows that start from one model share a template, so that the opponents' models are known only where some do not.
        """
        writer = self.model if row is None else self.writers.get(row, self.model)
        return answers if self.reader is None else self.reader.read(writer, prompts, answers)

    def judge(
        self, conversations: Sequence[Sequence[Message]], parse: Callable[[JudgeAnswer], Any], **parameters: Any
    ) -> list[Judgment]:
        self.model.services.only_whole()
        if self.asked is None:
            raise StageError("this evaluator asks a judge and does not say so: set `judged = True` in its class")
        return self.asked.judge(conversations, parse, parameters)

    def note(self, name: str, value: Any) -> None:
        self.notes[name] = value

    def logps(self, responses: Sequence[Sequence[Response]], *, reference: bool = False) -> list[list[float]]:
        prompts = [example.prompt for example in self.examples]
        if reference:
            self._check_tokenizers()
        # The policy's own answers are scored as it sampled them: without its thoughts they are another sequence.
        sampled = [[_whole(response) for response in row] for row in responses]
        if reference:
            return self.start.logps(prompts, sampled)
        return self.model.logps(prefixed(prompts, self.prefix), sampled)  # the distribution that the row answers with

    def _check_tokenizers(self) -> None:
        """Raise UnavailableError where the row's model reads other tokens than its start: probabilities do not compare."""
        if self.model.reference == self.start.reference or not self.model.reference.startswith(CHECKPOINT):
            return
        if (difference := tokenizer_difference(self.model.tokenizer, self.start.tokenizer)) is not None:
            raise UnavailableError(f"its tokenizer differs from the starting model's ({difference})")

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        return self.source.gold(example, response)

    def reward(self, model: Reward, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        return reward_values(model, self.model.services, self.asked, self.examples, responses)

    def benchmarks(self) -> Path:
        folder = self.folder / "benchmarks"
        folder.mkdir(exist_ok=True)
        self.source.write_benchmarks(folder)
        return folder

    def policy(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self.prefix:
            raise UnavailableError("the row answers under a prefix, and this evaluator asks the model itself, without one")
        self.model.services.only_whole()
        return self.model.loaded


def _whole(response: Response) -> Response:
    return response.whole if isinstance(response, ReadResponse) and response.whole else response


def run_answers(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Draw the answers that an evaluator said it will ask for."""
    payload, context = AnswersPayload.of(stage), replace(context, shards=stage.after)
    policy, prompts = answering(stage, payload, context)
    tokens = policy.draw(draft, context.store.partial(stage.key), prompts, payload.drawn, "answer")
    draft.facts |= Facts(tokens_generated=tokens).as_json()


def answering(stage: Stage, payload: AnswersPayload, context: Context) -> tuple[PolicyServices, list[Prompt]]:
    """Return the policy that answers, and its prompts."""
    inputs, backend = AnswersInputs.of(stage), context.component("backend", payload.backend)
    examples = evaluated_examples(payload, context.store.open(inputs.source))
    policy = PolicyServices(Services(context), inputs.model, backend)
    return policy, prefixed([example.prompt for example in examples], payload.prefix)


def prefixed(prompts: Sequence[Prompt], prefix: str) -> list[Prompt]:
    """Return the prompts with a prefix before the last user turn; as they are without one."""
    return [prompt.prefixed(prefix) for prompt in prompts] if prefix else list(prompts)


def evaluated_examples(payload: EvaluatedPayload, source: Artifact) -> tuple[Example, ...]:
    """Return the examples of the split that a stage evaluates."""
    return read_dataset(source)[payload.split][payload.first : payload.prompts]
