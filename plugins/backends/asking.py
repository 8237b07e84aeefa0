"""A batch of prompts to a server: concurrent, with a seed for each request, by `n` where the server knows it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from harness import ChatTemplate, Chunks, Prompt, Response, Sampling, StageError
from harness_plugins.backends.client import Choice, Client, RefusedError, Reply

Send = Literal["chat", "text", "ids"]
Dialect = Literal["openai", "vllm"]
ENDED = frozenset({"stop", "eos", "eos_token", "stop_sequence"})  # other servers' words for `stop`
ONE_BY_ONE = b"1"  # kept with answers of a server that does not know `n`


@dataclass
class _Answers:
    """What was said to a request's prompts.

    Attributes:
        said: by the places of prompt and sample.
        whole: how many prompts have all their samples from an earlier process.
    """

    prompts: int
    n: int
    report: Callable[[int, int], None] | None
    chunks: Chunks | None
    said: dict[tuple[int, int], Response] = field(default_factory=dict)
    whole: int = 0

    def __post_init__(self) -> None:
        kept = self.chunks.responses if self.chunks else {}
        self.whole = len(kept)
        self.said |= {(place, index): response for place, row in kept.items() for index, response in enumerate(row)}

    def note(self, place: int, start: int, responses: list[Response], counts: bool) -> None:
        """More samples of a prompt; `counts` as of `Asking`."""
        self.said |= {(place, start + index): response for index, response in enumerate(responses)}
        if self.chunks is not None and all((place, index) in self.said for index in range(self.n)):
            self.chunks.add({place: self.of(place)}, b"" if counts else ONE_BY_ONE)
        if self.report is not None:
            self.report(len(self.said), self.prompts * self.n)

    def of(self, place: int) -> list[Response]:
        return [self.said[place, index] for index in range(self.n)]


@dataclass
class Asking:
    """One policy at one server.

    Attributes:
        model: its name there.
        stop_ids: every token that ends a response.
        own: whether the server answers with the policy's own checkpoint, so that its tokens are ours whatever is sent.
        counts: whether the server answers with `n` choices, as far as it was `tried`: with the first prompt, alone, so that
            what is asked afterwards does not depend on which answer came first.
    """

    client: Client
    model: str
    template: ChatTemplate
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
        """`sampling.n` responses per prompt."""
        answers = _Answers(len(prompts), sampling.n, report, chunks)
        if sampling.n > 1 and not self.tried:
            if answers.whole:
                self.tried, self.counts = True, chunks is not None and chunks.state != ONE_BY_ONE
            elif prompts:
                first = self._first(prompts[0], sampling)
                answers.note(0, 0, first, self.counts)
        wanted = [(place, start, size) for place in range(len(prompts)) for start, size in self._parts(sampling.n)]
        wanted = [part for part in wanted if part[:2] not in answers.said]
        with ThreadPoolExecutor(self.concurrency) as pool:
            asked = {pool.submit(self._ask, prompts[p], p, sampling, (s, size)): (p, s) for p, s, size in wanted}
            try:
                for done in as_completed(asked):
                    answers.note(*asked[done], done.result(), self.counts)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [answers.of(place) for place in range(len(prompts))]

    def _parts(self, n: int) -> list[tuple[int, int]]:
        """(first sample, how many) of the requests for one prompt."""
        return [(0, n)] if self.counts else [(index, 1) for index in range(n)]

    def _first(self, prompt: Prompt, sampling: Sampling) -> list[Response]:
        """Ask for n choices once; fewer, or a refusal, and `n` is not used again."""
        self.tried = True
        try:
            reply = self._request(prompt, 0, sampling, (0, sampling.n))
        except RefusedError:
            self.counts = False
            return []
        responses = self._responses(reply)[: sampling.n]
        self.counts = len(responses) == sampling.n
        return responses

    def _ask(self, prompt: Prompt, place: int, sampling: Sampling, part: tuple[int, int]) -> list[Response]:
        """The samples of one part, asked for until all are there."""
        start, size = part
        said: list[Response] = []
        while len(said) < size:
            said += self._responses(self._request(prompt, place, sampling, (start + len(said), size - len(said))))
        return said[:size]

    def _request(self, prompt: Prompt, place: int, sampling: Sampling, part: tuple[int, int]) -> Reply:
        start, size = part
        fields: dict[str, Any] = {
            "model": self.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": request_seed(sampling.seed, place, start),
        }
        if size > 1:
            fields["n"] = size
        if self.dialect == "vllm":
            fields["extra_body"] = self._vllm_fields()
        elif self.send != "chat":
            fields["stop"] = [self.template.tokenizer.decode([end]) for end in self.stop_ids]
        if self.send == "chat":
            messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
            return self.client.chat(messages, **fields)
        ids = self.template.prompt_ids(prompt)
        return self.client.complete(ids if self.send == "ids" else self._text(prompt, ids), **fields)

    def _vllm_fields(self) -> dict[str, Any]:
        """vLLM's own (and SGLang's): end at our tokens, tell the tokens, and let no generation config of the checkpoint in."""
        own = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True}
        if self.send == "chat":  # rendered by the server: a BOS is its template's business
            return {**own, "stop_token_ids": list(self.stop_ids)} if self.own else own
        return {**own, "stop_token_ids": list(self.stop_ids), "add_special_tokens": False}

    def _text(self, prompt: Prompt, ids: list[int]) -> str:
        """The prompt as text that the server reads as exactly `ids`: its tokenizer adds BOS unless it is told not to."""
        tokenizer = self.template.tokenizer
        if self.dialect == "vllm":
            return str(tokenizer.decode(ids))
        plain = str(tokenizer.decode(ids))
        for text in (plain, plain.removeprefix(str(tokenizer.bos_token or ""))):
            if tokenizer(text)["input_ids"] == ids:
                return text
        raise StageError(f"prompt {prompt.id} cannot be sent as text that is read as the same tokens: use `send: ids`")

    def _responses(self, reply: Reply) -> list[Response]:
        counts = self._token_counts(reply)
        return [self._response(choice, count) for choice, count in zip(reply.choices, counts, strict=True)]

    def _response(self, choice: Choice, tokens: int) -> Response:
        finished = choice.finish in ENDED
        if choice.ids is None or not self._ours(choice.ids):
            return Response(self.template.trimmed(choice.text), finished, tokens)
        missing = finished and choice.ids[-1] not in self.stop_ids  # some servers leave the end out
        ids = (*choice.ids, self.template.end_id) if missing else choice.ids
        return replace(self.template.sampled(ids, finished), tokens=tokens)

    def _ours(self, ids: Sequence[int]) -> bool:
        """Return whether ids are of the policy's vocabulary: the server has its model, or reads its ids and tells such."""
        return (self.own or self.send == "ids") and all(0 <= token < len(self.template.tokenizer) for token in ids)

    def _token_counts(self, reply: Reply) -> list[int]:
        """Tokens of each choice: told with the choice, or the usage of a single one, or the usage shared out by length."""
        if all(choice.ids is not None for choice in reply.choices):
            return [len(choice.ids or ()) for choice in reply.choices]
        if len(reply.choices) == 1 and reply.tokens is not None:
            return [reply.tokens]
        lengths = [
            len(self.template.tokenizer(choice.text, add_special_tokens=False)["input_ids"]) + (choice.finish in ENDED)
            for choice in reply.choices
        ]
        return lengths if reply.tokens is None else share_out(reply.tokens, lengths)


def request_seed(seed: int, place: int, sample: int) -> int:
    """A seed for one request, of 31 bits since some servers take no more."""
    digest = hashlib.sha256(f"{seed} {place} {sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to `weights` that add up to `total`; equal parts where all weights are 0."""
    weights = weights if sum(weights) else [1] * len(weights)
    edges, passed = [0], 0
    for weight in weights:
        passed += weight
        edges.append(round(total * passed / sum(weights)))
    return [after - before for before, after in pairwise(edges)]
