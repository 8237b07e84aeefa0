"""A batch of prompts to a server: concurrent, with a seed for each request, by `n` where the server knows it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from harness import (
    ChatTemplate,
    Chunks,
    DeclinedError,
    ModelClient,
    Prompt,
    RefusedError,
    ReplyChoice,
    Response,
    Sampling,
    StageError,
    TransientError,
)

Send = Literal["chat", "text", "ids"]
Dialect = Literal["openai", "vllm"]
CHAT, COMPLETIONS = "/chat/completions", "/completions"
ENDED = frozenset({"stop", "eos", "eos_token", "stop_sequence"})  # other servers' words for `stop`
DECLINED = "declined"  # the reason for the end of an answer that a server's filter withholds
ONE_BY_ONE = b"1"  # kept with answers of a server that does not know `n`
EMPTY_REPLIES = 2  # a server that answers without a choice so many times has declined


@dataclass(frozen=True)
class Sampled:
    """One answer of a server; empty where it was declined. `finish` is the server's reason; `ids` its tokens, if known."""

    text: str
    finish: str
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class SampledBatch:
    """The answers to one request, and how many tokens the server counted for all of them."""

    choices: tuple[Sampled, ...]
    tokens: int | None


@dataclass
class _Answers:
    """The responses to a request's prompts so far.

    Attributes:
        responses: by the places of prompt and sample.
        whole: how many prompts have all their samples from an earlier process.
    """

    prompts: int
    n: int
    report: Callable[[int, int], None] | None
    chunks: Chunks | None
    responses: dict[tuple[int, int], Response] = field(default_factory=dict)
    whole: int = 0

    def __post_init__(self) -> None:
        kept = self.chunks.responses if self.chunks else {}
        self.whole = len(kept)
        self.responses |= {(place, index): response for place, row in kept.items() for index, response in enumerate(row)}

    def note(self, place: int, start: int, responses: list[Response], counts: bool) -> None:
        """Add samples of a prompt; `counts` as of `Asking`."""
        self.responses |= {(place, start + index): response for index, response in enumerate(responses)}
        if self.chunks is not None and all((place, index) in self.responses for index in range(self.n)):
            self.chunks.add({place: self.of(place)}, b"" if counts else ONE_BY_ONE)
        if self.report is not None:
            self.report(len(self.responses), self.prompts * self.n)

    def of(self, place: int) -> list[Response]:
        return [self.responses[place, index] for index in range(self.n)]


@dataclass
class Asking:
    """One policy at one server.

    Attributes:
        client: open, on the event loop of `runner`.
        model: its name there.
        template: the policy's; None where only the server has it, which is then sent messages alone.
        stop_ids: every token that ends a response.
        own: whether the server answers with the policy's own checkpoint, so that its tokens are ours whatever is sent.
        counts: whether the server answers with `n` choices, as far as it was `tried`: with the first prompt, alone, so that
            what is asked afterwards does not depend on which answer came first.
    """

    client: ModelClient
    runner: asyncio.Runner
    model: str
    template: ChatTemplate | None
    send: Send
    dialect: Dialect
    concurrency: int
    stop_ids: tuple[int, ...]
    own: bool = True
    counts: bool = True
    tried: bool = False

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
        chunks: Chunks | None = None,
    ) -> list[list[Response]]:
        """Return `sampling.n` responses per prompt."""
        return self.runner.run(self._generate(prompts, sampling, _Answers(len(prompts), sampling.n, report, chunks)))

    async def _generate(self, prompts: Sequence[Prompt], sampling: Sampling, answers: _Answers) -> list[list[Response]]:
        # Whether the server knows `n` is found out with the first prompt alone; in a resumed stage, the kept state says it.
        if sampling.n > 1 and not self.tried:
            if answers.whole:
                self.tried, self.counts = True, answers.chunks is not None and answers.chunks.state != ONE_BY_ONE
            elif prompts:
                first = await self._first(prompts[0], sampling)
                answers.note(0, 0, first, self.counts)
        parts = [(place, start, size) for place in range(len(prompts)) for start, size in self._parts(sampling.n)]

        async def ask(part: tuple[int, int, int]) -> None:
            place, start, size = part
            responses = await self._ask(prompts[place], place, sampling, (start, size))
            answers.note(place, start, responses, self.counts)

        missing = [part for part in parts if part[:2] not in answers.responses]
        await self.client.for_each(missing, ask, self.concurrency)
        return [answers.of(place) for place in range(len(prompts))]

    def _parts(self, n: int) -> list[tuple[int, int]]:
        """(first sample, how many) of the requests for one prompt."""
        return [(0, n)] if self.counts else [(index, 1) for index in range(n)]

    async def _first(self, prompt: Prompt, sampling: Sampling) -> list[Response]:
        """Ask for n choices once; fewer, or a refusal, and `n` is not used again."""
        self.tried = True
        try:
            batch = await self._request(prompt, 0, sampling, (0, sampling.n))
        except RefusedError:
            self.counts = False
            return []
        responses = self._responses(batch)[: sampling.n]
        self.counts = len(responses) == sampling.n
        return responses

    async def _ask(self, prompt: Prompt, place: int, sampling: Sampling, part: tuple[int, int]) -> list[Response]:
        """Return the samples of one part, asked for until all are there: a server may give fewer choices than `n`."""
        start, size = part
        responses: list[Response] = []
        while len(responses) < size:
            rest = (start + len(responses), size - len(responses))
            responses += self._responses(await self._request(prompt, place, sampling, rest))
        return responses[:size]

    async def _request(self, prompt: Prompt, place: int, sampling: Sampling, part: tuple[int, int]) -> SampledBatch:
        """Return the answers to one request; `n` empty ones where a filter declines it: that ends no run."""
        start, size = part
        path, body = self._body(prompt, sampling, request_seed(sampling.seed, place, start), size)
        empty = 0

        async def attempt() -> SampledBatch:
            nonlocal empty
            reply = await self.client.attempt_completion(path, body)
            if not reply.choices:
                empty += 1
                if empty < EMPTY_REPLIES:
                    raise TransientError("an answer without choices", billed=True)
                return _declined(size)
            return SampledBatch(tuple(map(_sampled, reply.choices)), reply.output_tokens)

        try:
            return await self.client.persist(attempt)
        except DeclinedError as error:
            if error.too_long:  # a mistake of the config's, which an empty answer would hide
                raise
            return _declined(size)

    def _body(self, prompt: Prompt, sampling: Sampling, seed: int, n: int) -> tuple[str, dict[str, Any]]:
        """Return a request's path and body."""
        body: dict[str, Any] = {
            "model": self.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": seed,
        }
        if n > 1:
            body["n"] = n
        if self.dialect == "vllm":
            body |= self._vllm_fields()
        elif self.send != "chat" and self.template is not None:
            body["stop"] = [self.template.tokenizer.decode([end]) for end in self.stop_ids]
        if self.send == "chat":
            body["messages"] = [{"role": message.role, "content": message.content} for message in prompt.messages]
            return CHAT, body
        assert self.template is not None
        ids = self.template.prompt_ids(prompt)
        body["prompt"] = ids if self.send == "ids" else self._text(prompt, ids)
        return COMPLETIONS, body

    def _vllm_fields(self) -> dict[str, Any]:
        """Return vLLM's own fields (and SGLang's): stop at our tokens, return them, ignore the model's generation config."""
        fields = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True}
        if self.send == "chat":  # rendered by the server: a BOS is its template's business
            return {**fields, "stop_token_ids": list(self.stop_ids)} if self.own else fields
        return {**fields, "stop_token_ids": list(self.stop_ids), "add_special_tokens": False}

    def _text(self, prompt: Prompt, ids: list[int]) -> str:
        """Return the prompt as text that the server reads as exactly `ids`: its tokenizer adds BOS unless it is told not to."""
        assert self.template is not None
        tokenizer = self.template.tokenizer
        if self.dialect == "vllm":
            return str(tokenizer.decode(ids))
        plain = str(tokenizer.decode(ids))
        for text in (plain, plain.removeprefix(str(tokenizer.bos_token or ""))):
            if tokenizer(text)["input_ids"] == ids:
                return text
        raise StageError(f"prompt {prompt.id} cannot be sent as text that is read as the same tokens: use `send: ids`")

    def _responses(self, batch: SampledBatch) -> list[Response]:
        counts = self._token_counts(batch)
        return [self._response(choice, count) for choice, count in zip(batch.choices, counts, strict=True)]

    def _response(self, choice: Sampled, tokens: int | None) -> Response:
        finished = choice.finish in ENDED
        if self.template is None:
            return Response(choice.text.strip(), finished, tokens)
        if choice.ids is None or not self._ours(choice.ids):
            return Response(self.template.trimmed(choice.text), finished, tokens)
        missing = finished and choice.ids[-1] not in self.stop_ids  # some servers leave the end out
        ids = (*choice.ids, self.template.end_id) if missing else choice.ids
        return replace(self.template.sampled(ids, finished), tokens=tokens)

    def _ours(self, ids: Sequence[int]) -> bool:
        """Return whether ids are of the policy's vocabulary: the server has its model, or reads its ids and tells such."""
        assert self.template is not None
        return (self.own or self.send == "ids") and all(0 <= token < len(self.template.tokenizer) for token in ids)

    def _token_counts(self, batch: SampledBatch) -> list[int] | list[None]:
        """Return the tokens of each choice: its ids, the usage of a single choice, or the usage shared out by length.

        Lengths are counted in tokens; without a tokenizer in characters, and nothing is known where the server counts nothing.
        """
        if all(choice.ids is not None for choice in batch.choices):
            return [len(choice.ids or ()) for choice in batch.choices]
        if len(batch.choices) == 1 and batch.tokens is not None:
            return [batch.tokens]
        if self.template is None:
            if batch.tokens is None:
                return [None] * len(batch.choices)
            return share_out(batch.tokens, [len(choice.text) for choice in batch.choices])
        lengths = [
            len(self.template.tokenizer(choice.text, add_special_tokens=False)["input_ids"]) + (choice.finish in ENDED)
            for choice in batch.choices
        ]
        return lengths if batch.tokens is None else share_out(batch.tokens, lengths)


def _sampled(choice: ReplyChoice) -> Sampled:
    """Return a choice as it was written: a thought that the server keeps apart is put before the words again.

    A choice without words is one that was declined, and not one that its model ended.
    """
    text, finish = choice.text, DECLINED if choice.refused else choice.finish
    if choice.thought:
        # A thought that used up the length limit never ended.
        end = f"</think>{text or ''}" if text or choice.finish == "stop" else ""
        text = f"<think>{choice.thought}{end}"
    return Sampled("", DECLINED) if text is None else Sampled(text, finish, choice.token_ids)


def _declined(n: int) -> SampledBatch:
    return SampledBatch((Sampled("", DECLINED),) * n, 0)


def request_seed(seed: int, place: int, sample: int) -> int:
    """Return a seed for one request, of 31 bits since some servers take no more."""
    digest = hashlib.sha256(f"{seed} {place} {sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """Return whole numbers in proportion to `weights` that add up to `total`; equal parts where all weights are 0."""
    weights = weights if sum(weights) else [1] * len(weights)
    edges, passed = [0], 0
    for weight in weights:
        passed += weight
        edges.append(round(total * passed / sum(weights)))
    return [after - before for before, after in pairwise(edges)]
