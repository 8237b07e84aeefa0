"""The `alpaca_eval` package at work: annotations asked through our judge, and its figures from them."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import DataError, EvaluationTask, JudgeAnswer, Message
from harness_plugins.evaluators.alpaca_eval.glm import Glm

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from sklearn.linear_model import LogisticRegressionCV

SENT = frozenset({"temperature", "max_tokens", "top_p", "logprobs", "top_logprobs", "stop", "seed"})
UNREAD = JudgeAnswer("", "")
REASONS = ("declined", "cut_off")  # why a judgment has no value
PASSING = ("date", "time_per_example")  # of annotations: not the same in two equal runs

Row = dict[str, Any]


class Fitted(NamedTuple):
    """A regression of the package: features with the column `preference`, weights of its lines, and scikit-learn's model."""

    data: pd.DataFrame
    weights: pd.Series
    model: LogisticRegressionCV


class Figures:
    """The figures that the package computes from annotations.

    Attributes:
        summary: its own figures, in per cent where it gives per cent.
        preferences: instruction -> metric -> value; only where the judgment could be read. Of the length-controlled win rate
            these are pseudo-values, whose mean is the package's number: the GLM's predictions vary far less than its fit.
        uncontrolled: why there is no length-controlled win rate although the hub's files are there; None where there is one.
    """

    def __init__(
        self, summary: Mapping[str, float], preferences: Mapping[str, Mapping[str, float]], uncontrolled: str | None = None
    ) -> None:
        self.summary, self.preferences, self.uncontrolled = dict(summary), preferences, uncontrolled


def figures(annotations: Sequence[Row], instructions: Sequence[str], hub: Path | None) -> Figures:
    """Compute win rates by the package; the length-controlled one only with the hub's files.

    The package takes a row's position for its instruction's number: rows are put at the place of their instruction first,
    so that an unread judgment or another order moves no difficulty to another instruction.
    """
    _check_installed()
    import pandas as pd

    place = {instruction: number for number, instruction in enumerate(instructions)}
    table = pd.DataFrame(list(annotations))
    table.index = pd.Index([place[instruction] for instruction in table["instruction"]])
    table = table.sort_index()
    table["preference"] = table["preference"].astype(float)
    table = table[table["preference"].notna()]
    if table.empty:
        raise DataError("no judgment of AlpacaEval could be read: does the judge give what its annotator asks for?")
    controlled, uncontrolled = None, None
    with package() as alpaca_eval:
        if hub is None:
            summary = alpaca_eval.metrics.get_winrate(table)
        else:
            with _files_of(alpaca_eval, hub), _fits(alpaca_eval) as fits:
                summary = alpaca_eval.metrics.get_length_controlled_winrate(table, save_weights_dir=None)
            try:
                controlled = _pseudo_values(table, fits, summary["length_controlled_winrate"] / 100)
            except ValueError as error:
                uncontrolled = str(error)
    values: dict[str, dict[str, float]] = {}
    for position, (_, row) in enumerate(table.iterrows()):
        preference = float(row["preference"] or 1.5) - 1
        discrete = 0.5 if preference == 0.5 else float(preference > 0.5)
        values[row["instruction"]] = {"win_rate": preference, "discrete_win_rate": discrete}
        if controlled is not None:
            values[row["instruction"]]["length_controlled_win_rate"] = float(controlled[position])
    return Figures({name: float(value) for name, value in summary.items()}, values, uncontrolled)


def _pseudo_values(table: pd.DataFrame, fits: Sequence[Fitted], win_rate: float) -> NDArray[np.float64]:
    """Return a pseudo-value for each row of the table; its mean is the package's win rate, from 0 to 1.

    Raises:
        ValueError: leaving an instruction out leaves no fit.
    """
    import numpy as np

    if not fits or len(table) < 2:  # the reference against itself is 0.5 by construction; one verdict has no error
        return np.full(len(table), win_rate)
    data, weights, model = fits[-1]
    strength = 1.0 / np.ravel(model.C_)[0]  # of the L1 penalty
    return Glm(
        features=data.drop(columns=["preference"]).to_numpy(dtype=np.float64),
        targets=data["preference"].to_numpy(dtype=np.float64),
        weights=weights.to_numpy(dtype=np.float64),
        lengths=(table["output_1"].str.len() - table["output_2"].str.len()).to_numpy(dtype=np.float64),
        penalty=strength * np.sign(model.coef_[0]),
    ).pseudo_values(win_rate)


def annotate(
    task: EvaluationTask, annotator: str, reference: Sequence[Row], outputs: Sequence[Row]
) -> tuple[list[Row], dict[str, dict[str, float]], dict[str, str]]:
    """Ask the task's judge about all pairs; return the package's annotations, and by instruction `REASONS` and its words."""
    import pandas as pd

    with package() as alpaca_eval:
        try:
            pairs = alpaca_eval.annotators.PairwiseAnnotator(annotators_config=annotator, caching_path=None, seed=0)
        except (OSError, AssertionError, TypeError, ValueError) as error:
            raise DataError(f"annotator = {annotator!r}: the package has no such annotator ({error})") from error
        if len(pairs.annotators) != 1:
            raise DataError(f"annotator = {annotator!r}: it has {len(pairs.annotators)} annotators, and one is asked at a time")
        single = next(iter(pairs.annotators.values()))
        if single.batch_size != 1:
            raise DataError(f"annotator = {annotator!r}: it puts {single.batch_size} pairs into a question; take one with one")
        single.fn_completions = completions = _Completions(task, single, alpaca_eval)
        annotations = pairs.annotate_head2head(pd.DataFrame(list(reference)), pd.DataFrame(list(outputs)), chunksize=None)
    kept = [{name: value for name, value in row.items() if not name.endswith(PASSING)} for row in annotations]
    return [{name: _plain(value) for name, value in row.items()} for row in kept], completions.reasons, completions.words


def annotator_size(annotator: str) -> tuple[int, int | None] | None:
    """Bytes of an annotator's prompt and the longest answer it asks for, from its files alone; None without them."""
    import yaml

    spec = importlib.util.find_spec("alpaca_eval")
    root = Path(spec.origin).parent / "evaluators_configs" if spec and spec.origin else Path()
    folder = Path(annotator) if Path(annotator).is_dir() else root / annotator
    try:
        (config,) = yaml.safe_load((folder / "configs.yaml").read_text(encoding="utf-8")).values()
        prompt = next(path for path in (root / config["prompt_template"], folder / config["prompt_template"]) if path.is_file())
        limit = (config.get("completions_kwargs") or {}).get("max_tokens")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, yaml.YAMLError):
        return None
    return prompt.stat().st_size, limit


class _Completions:
    """Stands for the package's client: prompts in, completions in its form out.

    Attributes:
        reasons: instruction -> `REASONS` of its judgment, which the package keeps no column for.
        words: instruction -> what the judge said.
    """

    def __init__(self, task: EvaluationTask, single: Any, alpaca_eval: Any) -> None:
        self.task, self.single, self.alpaca_eval = task, single, alpaca_eval
        self.instructions: list[str] = []
        self.reasons: dict[str, dict[str, float]] = {}
        self.words: dict[str, str] = {}
        self._make_prompts, single._make_prompts = single._make_prompts, self.make_prompts

    def make_prompts(self, *args: Any, **fields: Any) -> Any:
        """The annotator's prompts, with a note of whose they are: it is asked with prompts alone."""
        prompts, rows = self._make_prompts(*args, **fields)
        self.instructions = list(rows["instruction"])
        return prompts, rows

    def __call__(self, prompts: Sequence[str], model_name: str, **parameters: Any) -> dict[str, list[Any]]:
        if refused := sorted(set(parameters) - SENT):
            raise DataError(f"annotator: it asks with {', '.join(refused)}, which this judge's client does not send")
        conversations = [
            [Message(turn["role"], turn["content"]) for turn in self.alpaca_eval.utils.prompt_to_chatml(prompt.strip())]
            for prompt in prompts
        ]
        judgments = self.task.judge(conversations, self._read, **parameters)
        for instruction, judgment in zip(self.instructions, judgments, strict=True):
            self.reasons[instruction] = {name: float(getattr(judgment, name)) for name in REASONS}
            self.words[instruction] = judgment.answer.text
        # The package reads completions itself: of an answer that is no verdict it is shown nothing.
        answers = [judgment.answer if judgment.parsed else UNREAD for judgment in judgments]
        return {
            "completions": [answer.text or " " for answer in answers],
            "completions_all": [_choice(answer) for answer in answers],
            "price_per_example": [math.nan] * len(answers),
            "time_per_example": [math.nan] * len(answers),
        }

    def _read(self, answer: JudgeAnswer) -> float | None:
        """A preference by the annotator's own parser; None where it finds none."""
        completion = _choice(answer) if self.single.completion_key == "completions_all" else answer.text
        try:
            parsed = list(self.single.fn_completion_parser(completion))
        except Exception:  # whatever the package's parsers raise at nonsense
            return None
        read = parsed[0] if len(parsed) == 1 else None
        return None if read is None or math.isnan(float(read)) else float(read)


def _choice(answer: JudgeAnswer) -> Row:
    """An answer as the package keeps it."""
    top = [{"token": token, "logprob": logprob} for token, logprob in answer.top_logprobs or ()]
    return {
        "text": answer.text,
        "logprobs": {"content": [{"top_logprobs": top}]},
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }


def _check_installed() -> None:
    if importlib.util.find_spec("alpaca_eval") is None:
        raise DataError("AlpacaEval is not installed: pip install 'alignment-harness[judge]'")


@contextlib.contextmanager
def package() -> Iterator[Any]:
    """`alpaca_eval`, kept from changing what is not its own: the root logger, scikit-learn's settings, warnings."""
    _check_installed()
    import sklearn

    root = logging.getLogger()
    level = root.level
    try:
        with warnings.catch_warnings(), sklearn.config_context():
            warnings.simplefilter("ignore")
            try:
                import alpaca_eval.annotators
                import alpaca_eval.metrics
                import alpaca_eval.utils
            except ImportError as error:
                raise DataError(f"AlpacaEval cannot be imported ({error}): pip install 'alignment-harness[judge]'") from error
            root.setLevel(logging.CRITICAL)
            yield alpaca_eval
    finally:
        root.setLevel(level)


@contextlib.contextmanager
def _files_of(alpaca_eval: Any, folder: Path) -> Iterator[None]:
    """The package's download of the hub's files replaced by a folder."""
    module = alpaca_eval.metrics.glm_winrate
    before = module.hf_hub_download
    module.hf_hub_download = lambda filename, **rest: str(folder / filename)
    try:
        yield
    finally:
        module.hf_hub_download = before


@contextlib.contextmanager
def _fits(alpaca_eval: Any) -> Iterator[list[Fitted]]:
    """Note the regressions that the package fits, since it returns none of them."""
    module = alpaca_eval.metrics.glm_winrate
    before, fits = module.fit_LogisticRegressionCV, list[Fitted]()

    def fit(data: pd.DataFrame, *args: Any, sample_weight: pd.Series, **settings: Any) -> Any:
        model = before(data, *args, sample_weight=sample_weight, **settings)
        fits.append(Fitted(data, sample_weight, model))
        return model

    module.fit_LogisticRegressionCV = fit
    try:
        yield fits
    finally:
        module.fit_LogisticRegressionCV = before


def _plain(value: Any) -> Any:
    """A value as JSON: NaN is nothing."""
    return None if isinstance(value, float) and math.isnan(value) else value
