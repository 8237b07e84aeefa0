"""MT-Bench and Vicuna-Bench: FastChat's questions, prompts and rules, the policy's answers, the config's judge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from harness import (
    UNREAD_METRICS,
    DataError,
    EvaluationTask,
    Evaluator,
    Example,
    Judgment,
    Message,
    Metric,
    Paper,
    Prompt,
    Questions,
    Sampling,
    Score,
    unread_shares,
)
from harness_plugins.evaluators.fastchat import files as fastchat
from harness_plugins.evaluators.fastchat import matches as fastchat_matches
from harness_plugins.evaluators.fastchat.files import Published, Row
from harness_plugins.evaluators.fastchat.matches import Bench
from harness_plugins.evaluators.fastchat.scores import pair_scores, question_scores, tie_scores
from harness_plugins.evaluators.shown import Shown

# FastChat's names of who won a comparison, for the first model.
OUTCOMES = {"model_1": "won", "model_2": "lost", "tie": "tied", "error": "not read"}
PAPER = Paper("Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", "2306.05685")


class _FastChatBench(Evaluator):
    """An evaluator of one of FastChat's sets of questions."""

    version: ClassVar[int] = 2
    judged: ClassVar[bool] = True
    reads_split: ClassVar[bool] = False
    paper: ClassVar[Paper | None] = PAPER
    turns: ClassVar[int]
    categories: ClassVar[tuple[str, ...]]
    published: ClassVar[Mapping[str, Published]]  # field -> the file that `fetch` puts there

    questions: str = Field("", description="FastChat's question.jsonl of this set")
    prompts: str = Field("data/judge_prompts.jsonl", description="FastChat's judge_prompts.jsonl")
    references: str | None = Field(None, description="reference answers for math, reasoning and coding; null judges without")
    fetch: bool = Field(False, description="download what is not there from FastChat's repository, checked by hash")
    mode: tuple[Literal["single", "pair"], ...] = Field(("single",), min_length=1, description="`single`, `pair`, or both")
    opponent: str = Field("baseline", description="for `pair`: `baseline`, a row's label, or a FastChat answer file (*.jsonl)")
    max_tokens: int = Field(1024, ge=1, description="the longest answer to one turn, in tokens")
    judge: dict[str, Any] = Field(default_factory=dict, description="changed fields of the config's `judge` section")

    def metrics(self) -> Sequence[Metric]:
        found = []
        if "single" in self.mode:
            found.append(Metric("score", "rating from 1 to 10, mean over questions and turns", primary=True, bounds=(1, 10)))
            found += [
                Metric(f"turn_{turn + 1}", f"rating of turn {turn + 1}", bounds=(1, 10))
                for turn in range(self.turns)
                if self.turns > 1
            ]
            found += [
                Metric(category, f"rating in {category}, mean over turns", bounds=(1, 10)) for category in self.categories
            ]
        if "pair" in self.mode:
            first = "single" not in self.mode
            found += [
                Metric("win_rate", f"wins against {self.opponent} and half of the ties", primary=first, bounds=(0, 1)),
                Metric("win", f"won against {self.opponent} in both orders", bounds=(0, 1)),
                Metric("tie", "won by neither in both orders", higher_is_better=None, bounds=(0, 1)),
                Metric("loss", f"lost against {self.opponent} in both orders", higher_is_better=False, bounds=(0, 1)),
                Metric("agreement", "share of pairs on which both orders agree", bounds=(0, 1)),
            ]
        return (*found, *UNREAD_METRICS)

    def opponents(self) -> Sequence[str]:
        return () if "pair" not in self.mode or self.opponent.endswith(".jsonl") else (self.opponent,)

    def problems(self) -> Sequence[tuple[str, str]]:
        return [(name, fix) for name, path in self._files() if (fix := self._wrong(name, Path(path)))]

    def _wrong(self, name: str, path: Path) -> str:
        """Return a file's fault with the fix; '' if none. A copy at the place where `fetch` puts it must be FastChat's."""
        known = self.published.get(name)
        if not path.is_file():
            fetched = "; or set `fetch: true`" if known else ""
            return "" if self.fetch and known else f"there is no such file: give the path of FastChat's{fetched}"
        if not self.fetch or known is None or str(path) != type(self).model_fields[name].default:
            return ""
        unlike = known.unlike(path.read_bytes())
        return unlike and f"it {unlike}: delete it to have it fetched again, or give the path of a copy of your own"

    def prepare(self) -> None:
        for name, path in self._files():
            if self.fetch and name in self.published and not Path(path).is_file():
                fastchat.fetch(Path(path), self.published[name])

    def cautions(self) -> Sequence[str]:
        if self.references is not None:
            return ()
        *others, last = (category for category in self.categories if category in fastchat.NEED_REFERENCES)
        alone = f"{', '.join(others)} and {last}"
        return (f"{alone} were judged without reference answers, which FastChat judges them with (references = null)",)

    def fingerprint(self) -> str:
        """Return a hash of the files' contents, with the published hash for a file that is still to be fetched.

        A rule for pairs that came after `version` 2 is hashed too."""
        digest = hashlib.sha256(b"equal answers tie\n" if "pair" in self.mode else b"")
        for name, path in self._files():
            here = Path(path).is_file()
            content = hashlib.sha256(Path(path).read_bytes()).hexdigest() if here else self.published[name].sha256
            digest.update(f"{name} {content}\n".encode())
        return digest.hexdigest()[:32]

    def benchmark_prompts(self, shipped: Path | None = None) -> Sequence[Prompt]:
        """The first turn of every question; the second is about the answer to it."""
        questions = fastchat.read_lines(Path(self.questions), ("question_id", "turns"))
        return [Prompt.of(str(row["question_id"]), str(row["turns"][0])) for row in questions if row["turns"]]

    def asks(self, examples: Sequence[Example], opponents: int) -> Questions | None:
        """None before the files are there. Of the prompts the longest counts, and every turn with what was said before it."""
        if not all(Path(path).is_file() for _, path in self._files()):
            return None
        bench = self._load()
        longest = max(len((row["system_prompt"] + row["prompt_template"]).encode()) for row in bench.prompts.values())
        given = {number: sum(len(turn.encode()) for turn in _turns(row)) for number, row in bench.references.items()}
        met = opponents + self.opponent.endswith(".jsonl")
        sides = (1 if "single" in self.mode else 0) + (2 * 2 * met if "pair" in self.mode else 0)
        calls = ((1 if "single" in self.mode else 0) + (2 * met if "pair" in self.mode else 0)) * self.turns
        tokens = 0
        for question in bench.questions:
            known = longest + sum(len(turn.encode()) for turn in question["turns"]) + given.get(question["question_id"], 0)
            tokens += calls * known + sides * self.turns * self.turns * self.max_tokens
        return Questions(calls * len(bench.questions), tokens)

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        bench = self._load()
        answers = self._answer(task, bench, None)
        fastchat.write_lines(task.files / "model_answer" / f"{fastchat.file_name(task.label)}.jsonl", list(answers.values()))
        shown = Shown()
        if "single" in self.mode:
            yield from self._single(task, bench, answers, shown)
        if "pair" in self.mode:
            yield from self._pair(task, bench, answers, shown)
        shown.write(task.files)

    def _files(self) -> list[tuple[str, str]]:
        files = [("questions", self.questions), ("prompts", self.prompts)]
        files += [("references", self.references)] if self.references is not None else []
        return files + ([("opponent", self.opponent)] if "pair" in self.mode and self.opponent.endswith(".jsonl") else [])

    def _load(self) -> Bench:
        self.prepare()  # on a machine that does not share the folder of the one that planned
        questions = fastchat.read_lines(Path(self.questions), ("question_id", "category", "turns"))
        if unknown := sorted({row["category"] for row in questions} - set(self.categories)):
            raise DataError(f"{self.questions}: {self.name} has no category {unknown[0]!r}: is it another set's file?")
        prompts = fastchat.read_lines(Path(self.prompts), ("name", "type", "system_prompt", "prompt_template", "output_format"))
        references = fastchat.read_answers(Path(self.references)) if self.references is not None else {}
        missing = [row["question_id"] for row in questions if references and fastchat_matches.needs_reference(row)]
        if absent := [question for question in missing if question not in references]:
            raise DataError(f"{self.references} has no reference answer to question {absent[0]}, which is judged with one")
        return Bench(tuple(questions), {row["name"]: row for row in prompts}, references)

    def _answer(self, task: EvaluationTask, bench: Bench, row: str | None) -> dict[int, Row]:
        """Answers to all turns at FastChat's temperature of each category, by the policy or by an opponent's row."""
        said: dict[int, list[str]] = {question["question_id"]: [] for question in bench.questions}
        levels = sorted({fastchat_matches.temperature(question["category"]) for question in bench.questions})
        for turn in range(self.turns):
            for level in levels:
                asked = [item for item in bench.questions if fastchat_matches.temperature(item["category"]) == level]
                prompts = [_dialogue(item, said[item["question_id"]]) for item in asked if turn < len(item["turns"])]
                sampling = Sampling(1, level, max_tokens=self.max_tokens)
                for item, (response,) in zip(asked, task.respond_to(prompts, sampling, row), strict=True):
                    said[item["question_id"]].append(response.text)
        return {number: fastchat.answer_row(number, row or task.label, turns) for number, turns in said.items()}

    def _single(self, task: EvaluationTask, bench: Bench, answers: Mapping[int, Row], shown: Shown) -> Iterator[Score]:
        rounds = [(question, turn) for turn in self._rounds() for question in bench.questions]
        matches = [
            fastchat_matches.single_match(bench, question, answers[question["question_id"]], turn, task.label)
            for question, turn in rounds
        ]
        played = fastchat_matches.play(task, matches, fastchat_matches.read_rating)
        fastchat.write_lines(task.files / "model_judgment" / "single.jsonl", [row for row, _ in played])
        for (question, turn), (row, judgments) in zip(rounds, played, strict=True):
            scores = list(question_scores(self.name, self.turns, row, question["category"]))
            shown.answer(scores[0].example, *_exchange(question, answers[question["question_id"]], turn))
            verdict = "not read" if row["score"] == fastchat.UNREAD else f"rated {row['score']:g}"
            for judgment in judgments:
                shown.judgment(scores[0].example, verdict, judgment.answer.text)
            yield from (*scores, *_unread(scores[0], judgments))

    def _pair(self, task: EvaluationTask, bench: Bench, answers: Mapping[int, Row], shown: Shown) -> Iterator[Score]:
        everyone: list[Row] = []
        for number, (name, others) in enumerate(self._others(task, bench, answers)):
            asked = []
            for turn in self._rounds():
                for question in bench.questions:
                    pair = (answers[question["question_id"]], others[question["question_id"]])
                    if _turns(pair[0])[:turn] == _turns(pair[1])[:turn]:  # the baseline against itself, say
                        yield from tie_scores(self.name, question["question_id"], turn, number)
                    else:
                        asked.append((question, turn, pair))
            matches = [
                fastchat_matches.pair_match(bench, question, pair, turn, (task.label, name)) for question, turn, pair in asked
            ]
            played = fastchat_matches.play(task, matches, fastchat_matches.read_winner) if matches else []
            everyone += [row for row, _ in played]
            for (question, turn, pair), (row, judgments) in zip(asked, played, strict=True):
                scores = list(pair_scores(self.name, question["question_id"], turn, row, number))
                shown.answer(scores[0].example, *_exchange(question, pair[0], turn))
                for winner, order, judgment in zip(("g1_winner", "g2_winner"), ("first", "second"), judgments, strict=True):
                    verdict = f"{OUTCOMES[row[winner]]} against {name}, shown {order}"
                    shown.judgment(scores[0].example, verdict, judgment.answer.text, number)
                yield from (*scores, *_unread(scores[0], judgments))
        fastchat.write_lines(task.files / "model_judgment" / "pair.jsonl", everyone)

    def _others(
        self, task: EvaluationTask, bench: Bench, answers: Mapping[int, Row]
    ) -> Iterator[tuple[str, Mapping[int, Row]]]:
        """The opponents' names and answers: rows by label, the row itself where it is the baseline, or a file."""
        for label in sorted(task.opponents()):
            yield label, answers if label == task.label else self._answer(task, bench, label)
        if self.opponent.endswith(".jsonl"):
            given = fastchat.read_answers(Path(self.opponent))
            if absent := [item["question_id"] for item in bench.questions if item["question_id"] not in given]:
                raise DataError(f"{self.opponent} has no answer to question {absent[0]}")
            yield Path(self.opponent).stem, given

    def _rounds(self) -> range:
        return range(1, self.turns + 1)


class MtBench(_FastChatBench):
    """MT-Bench: 80 questions of two turns, rated from 1 to 10 or compared in both orders, by FastChat's rules."""

    name = "mt_bench"
    turns = 2
    questions: str = Field("data/mt_bench/question.jsonl", description="MT-Bench's question.jsonl")
    references: str | None = Field(
        "data/mt_bench/reference_answer/gpt-4.jsonl",
        description="reference answers for math, reasoning and coding; null judges without",
    )
    categories = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
    published: ClassVar[Mapping[str, Published]] = {
        "questions": fastchat.MT_QUESTIONS,
        "prompts": fastchat.PROMPTS,
        "references": fastchat.MT_REFERENCES,
    }


class VicunaBench(_FastChatBench):
    """Vicuna-Bench: 80 questions of one turn, rated from 1 to 10 or compared in both orders, by FastChat's rules."""

    name = "vicuna_bench"
    turns = 1
    questions: str = Field("data/vicuna_bench/question.jsonl", description="Vicuna-Bench's question.jsonl")
    categories = (
        "generic",
        "knowledge",
        "roleplay",
        "common-sense",
        "fermi",
        "counterfactual",
        "coding",
        "math",
        "writing",
    )
    published: ClassVar[Mapping[str, Published]] = {
        "questions": fastchat.VICUNA_QUESTIONS,
        "prompts": fastchat.PROMPTS,
    }


def _unread(beside: Score, judgments: Sequence[Judgment]) -> Iterator[Score]:
    """Yield why judgments of a question could not be read, beside its `unparsed`, which FastChat's row has."""
    for metric, value in unread_shares(judgments).items():
        if metric != "unparsed":
            yield replace(beside, metric=metric, value=value)


def _turns(row: Row) -> list[str]:
    """Return the texts of a FastChat answer, turn by turn."""
    return list(row["choices"][0]["turns"])


def _exchange(question: Row, answer: Row, turn: int) -> tuple[str, str]:
    """Return a turn's prompt for people, with what was said before it, and the answer to it."""
    texts = _turns(answer)
    before = [
        f"user: {asked}\n\nassistant: {said}\n\nuser: "
        for asked, said in zip(question["turns"][: turn - 1], texts, strict=False)
    ]
    return f"{''.join(before)}{question['turns'][turn - 1]}", texts[turn - 1]


def _dialogue(question: Row, said: Sequence[str]) -> Prompt:
    """The prompt of the next turn: the turns so far, each with the answer to it."""
    messages = [Message("user", question["turns"][0])]
    for answer, turn in zip(said, question["turns"][1:], strict=False):
        messages += [Message("assistant", answer), Message("user", turn)]
    return Prompt(f"{question['question_id']}:{len(said) + 1}", tuple(messages))
