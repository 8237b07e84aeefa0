"""A judge as evaluators use it: questions in, judgments out; what was asked before costs nothing.

Rules read an answer without its thoughts, and only if it came to its end. One that cannot be read is asked for once more, in a
slot of its own; if that cannot be read either, the judgment stays unparsed. A declined question is unparsed at once. Both are
counted, and never scored. Answers are written to the store as they arrive, those that arrive together at
once, and count as given only when they are on the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from harness.api.types import JudgeAnswer, Judgment, Message
from harness.api.types.judgments import DECLINED
from harness.errors import StageError
from harness.models.client import Clock
from harness.models.judge.answers import JudgeAnswers, JudgeCost, Kept, question_key
from harness.models.judge.budget import BudgetSpent, JudgeBudget
from harness.models.judge.client import JudgeClient, judge_client
from harness.models.judge.reading import as_read
from harness.models.judge.settings import JudgeSettings
from harness.store import Store

Conversation = Sequence[Message]
Parse = Callable[[JudgeAnswer], Any]
Report = Callable[[int, int, str], None]
Arrived = asyncio.Queue[Kept | JudgeCost | None]  # answers, what was paid for none, and the end
SLOTS = (0, 1)
REPEATS_FROM = 2  # the slots after those are for questions that are asked again to see whether the verdict is the same
ANSWERING = ("temperature", "max_tokens", "seed")  # settings that an evaluator's parameters may stand over


@dataclass
class Tally:
    """Counts of one stage's questions: everything it used, and in `paid` what was not cached and had to be paid now."""

    calls: int = 0
    tokens: int = 0
    usd: float | None = 0.0
    unparsed: int = 0
    declined: int = 0
    cut_off: int = 0
    judgments: int = 0
    ends: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    repeated: dict[str, list[Any]] = field(default_factory=dict)  # question -> its verdicts, as far as they could be read
    paid: JudgeCost = field(default_factory=JudgeCost)

    def note(self, judgments: Sequence[Judgment]) -> None:
        """Count judgments, and those of them that have no value."""
        self.judgments += len(judgments)
        self.unparsed += sum(not judgment.parsed for judgment in judgments)
        self.declined += sum(judgment.declined for judgment in judgments)
        cut_off = [judgment for judgment in judgments if judgment.cut_off]
        self.cut_off += len(cut_off)
        self.ends |= {judgment.answer.finish for judgment in cut_off}

    def facts(self) -> dict[str, object]:
        """Return the counts for the artifact; what was paid now is a matter of the run and left out."""
        return {
            "judge_calls": self.calls,
            "judge_tokens": self.tokens,
            "judge_usd": self.usd,
            "judgments": self.judgments,
            "unparsed": self.unparsed,
            "declined": self.declined,
            "cut_off": self.cut_off,
            "cut_off_reasons": sorted(self.ends),
            "versions": sorted(self.versions - {""} or self.versions),  # an answer without one adds none
            **({"repeated": self.repeated} if self.repeated else {}),
        }


@dataclass
class Judge:
    """One judge on behalf of one stage.

    Args:
        run: names the run whose budget it is; its processes judge one after another, so that concurrency and budget hold for
            all of them together.
        key: the API key, or None.
        repeats: whether questions are asked again, as the settings say.
    """

    settings: JudgeSettings
    store: Store
    run: str
    key: str | None
    report: Report
    clock: Clock = field(default_factory=Clock)
    tally: Tally = field(default_factory=Tally)
    repeats: bool = False

    def judge(self, conversations: Sequence[Conversation], parse: Parse, parameters: Mapping[str, Any]) -> list[Judgment]:
        """One judgment per conversation, in their order.

        Raises:
            StageError: the budget is spent, or the judge cannot be reached; what was answered is kept.
            StoreError: what was answered cannot be kept; nothing more is asked.
        """
        settings, extra = _asked(self.settings, parameters)
        with (
            self.store.claim(f"judging-{self.run}"),
            closing(JudgeAnswers(self.store.root, self.run)) as answers,
        ):
            asking = _Asking(self, settings, extra, answers, parse)
            judgments = asking.run(conversations)
            if self.repeats and settings.repeats:
                self.tally.repeated |= asking.repeat(dict(zip(map(tuple, conversations), judgments, strict=True)))
        self.tally.note(judgments)
        return judgments


def _plain(verdict: Any) -> str | int | float:
    """Return a verdict as JSON keeps it: a plugin may read an answer as anything, of which the text tells what is equal."""
    return verdict if isinstance(verdict, str | int | float) else repr(verdict)


def _asked(settings: JudgeSettings, parameters: Mapping[str, Any]) -> tuple[JudgeSettings, dict[str, object]]:
    """The settings with an evaluator's parameters, and those that no setting is for; who is asked is the config's to say."""
    settable = {name: value for name, value in parameters.items() if name in ANSWERING}
    return settings.changed(settable), {name: value for name, value in parameters.items() if name not in settable}


@dataclass
class _Asking:
    """One call of `Judge.judge`."""

    judge: Judge
    settings: JudgeSettings
    extra: Mapping[str, object]
    answers: JudgeAnswers
    parse: Parse

    def run(self, conversations: Sequence[Conversation]) -> list[Judgment]:
        distinct = list(dict.fromkeys(tuple(conversation) for conversation in conversations))
        judgments: dict[Conversation, Judgment] = {}
        unread = distinct
        for slot in SLOTS:
            answered = self._answered(unread, slot)
            self._count(answered.values())
            judgments |= {asked: self._read(answer) for asked, answer in answered.items()}
            unread = [asked for asked in unread if not judgments[asked].parsed and not judgments[asked].declined]
        return [judgments[tuple(conversation)] for conversation in conversations]

    def repeat(self, judgments: Mapping[Conversation, Judgment]) -> dict[str, list[Any]]:
        """Ask a share of the questions again, word for word. Their first verdicts are what is scored.

        A question's key decides whether it is one of them, so that they are the same in every run, and answers are cached.

        Returns:
            the question's key -> its verdicts, the first one first, without those that could not be read.
        """
        keys = {asked: question_key(self._question(asked, 0)) for asked, first in judgments.items() if first.parsed}
        chosen = [asked for asked, key in keys.items() if int(key[:8], 16) < self.settings.repeat_share * 16**8]
        verdicts = {asked: [_plain(judgments[asked].value)] for asked in chosen}
        for slot in range(REPEATS_FROM, REPEATS_FROM + self.settings.repeats):
            answered = self._answered(chosen, slot)
            self._count(answered.values())
            for asked, answer in answered.items():
                if (again := self._read(answer)).parsed:
                    verdicts[asked].append(_plain(again.value))
        return {keys[asked]: listed for asked, listed in verdicts.items()}

    def _read(self, answer: JudgeAnswer) -> Judgment:
        """The judgment of an answer. No rule, of whatever plugin, sees a thought or an answer that was cut off."""
        answer = as_read(answer, self.settings.reasoning_delimiters, self.settings.max_tokens)
        return Judgment(answer, self.parse(answer) if answer.finished else None)

    def _answered(self, conversations: Sequence[Conversation], slot: int) -> dict[Conversation, JudgeAnswer]:
        """Each conversation's answer in a slot: from the store, or asked now."""
        keys = {tuple(conversation): question_key(self._question(conversation, slot)) for conversation in conversations}
        kept = self.answers.find(keys.values())
        missing = [conversation for conversation, key in keys.items() if key not in kept]
        if missing:
            asyncio.run(self._ask_all({conversation: keys[conversation] for conversation in missing}, slot))
            kept = self.answers.find(keys.values())
        return {conversation: kept[key] for conversation, key in keys.items()}

    def _question(self, conversation: Conversation, slot: int) -> dict[str, object]:
        judge = {**self.settings.identity, "extra": self.extra}
        return {"judge": judge, "messages": [vars(message) for message in conversation], "slot": slot}

    async def _ask_all(self, keys: Mapping[Conversation, str], slot: int) -> None:
        """Ask the questions of `keys` side by side, and keep each answer under its key.

        Raises:
            StageError: the first error of any; what was answered is kept.
        """
        judge, budget = self.judge, JudgeBudget(self.settings, self.answers.spent())
        arrived: Arrived = asyncio.Queue()
        before = budget.spent
        opening = judge_client(self.settings, judge.key, budget, arrived.put_nowait, self.extra, judge.clock)
        async with opening as client:

            async def ask(item: tuple[Conversation, str]) -> None:
                conversation, key = item
                answer, cost = await client.ask(conversation)
                arrived.put_nowait(Kept(key, self._question(conversation, slot), answer, cost))

            writer = asyncio.create_task(self._write(arrived, len(keys), client))
            try:
                await client.server.for_each(keys.items(), ask, min(self.settings.concurrency, len(keys)))
            except BudgetSpent as error:
                fix = "what it answered is kept: raise the limit and run again"
                raise StageError(f"the judge's budget is spent ({error}); {fix}") from None
            finally:  # whatever happened, what was answered is written
                arrived.put_nowait(None)
                await writer
        judge.tally.paid += budget.spent - before

    async def _write(self, arrived: Arrived, total: int, client: JudgeClient) -> None:
        """Write what arrives, and stop the asking where that fails: further answers would be paid for and lost."""
        try:
            await self._write_all(arrived, total, client.budget)
        except Exception as error:
            client.server.stop(error)
            raise

    async def _write_all(self, arrived: Arrived, total: int, budget: JudgeBudget) -> None:
        """Write answers while others are under way: all that have arrived by now at a time."""
        done, ended = 0, False
        while not ended:
            batch = [await arrived.get()]
            while not arrived.empty():
                batch.append(arrived.get_nowait())
            ended = None in batch
            answers = [item for item in batch if isinstance(item, Kept)]
            lost = sum((item for item in batch if isinstance(item, JudgeCost)), JudgeCost())
            if answers or lost.calls:
                await asyncio.to_thread(self.answers.keep, answers, lost)
                done += len(answers)
                self.judge.report(done, total, f"judged {done:,} of {total:,}, ${budget.spent.usd:.2f} spent")

    def _count(self, answers: Any) -> None:
        price, tally = self.settings.usd, self.judge.tally
        for answer in answers:
            tally.calls += 1
            tally.tokens += answer.input_tokens + answer.output_tokens
            cost = price.of(answer.input_tokens, answer.output_tokens) if price else None
            tally.usd = None if tally.usd is None or cost is None else tally.usd + cost
            if answer.finish != DECLINED:  # older stores hold the judge's name there, which is no version
                tally.versions.add(answer.model)
