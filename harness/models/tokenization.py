"""Text to token ids, by the checkpoint's own chat template: the only place where a prompt meets a response.

A response's ids are those of the rendered dialogue after the prompt. The dialogue is rendered once with the answer in its
place and once up to where the answer begins; what lies between the two ends is what the model is trained to write: the space
that the template puts before an answer (`ASSISTANT: The`), its words, and the token that ends the turn. It is tokenized in its
place, never alone: a SentencePiece tokenizer puts a space before a text that stands alone.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from harness.api.types import Message, Prompt, Response
from harness.errors import DataError
from harness.models.rendering import TemplateLimitError, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SENTINEL = "sentinel"
_ANCHOR = "<|harness:anchor|>"
# A thought as reasoning models write it. Templates may leave earlier ones out, and may write an empty one before an answer.
_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL)
_EMPTY_THOUGHT = re.compile(r"\s*<(think|thinking|thought|reasoning)>\s*</\1>\s*")
_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")

Span = tuple[int, int]


@dataclass(frozen=True)
class _Opening:
    """A prompt, rendered up to where its answer begins.

    Attributes:
        spans: the places of its turns' words in `text`.
        start: where the last special token of the template begins. A tokenizer reads what follows one by itself, so an answer's
            ids are found from there on, without the turns before it.
        head: how many of `ids` come before `start`.
    """

    messages: tuple[Message, ...]
    text: str
    spans: tuple[Span, ...]
    ids: tuple[int, ...]
    start: int
    head: int


class ChatTemplate:
    """Renders prompts and responses as ids.

    Raises:
        DataError: the tokenizer has no chat template, or a prompt would begin with two BOS tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise DataError(
                "the model's tokenizer has no chat template: name one as `model.chat_template` (zephyr, openchat, llama-2, … "
                "or a .jinja file), or set it in the checkpoint (chat_template.jinja); none is assumed"
            )
        self.tokenizer = tokenizer
        self._last: _Opening | None = None  # a prompt has several responses, asked for one after the other

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Return the prompt's ids up to and including the words that open the assistant's turn.

        A special token spelt out in a turn is words, as it is in a response.

        Raises:
            DataError: the template refuses the dialogue or leaves out words of it, or it would begin with two BOS tokens.
        """
        return list(self._opening(prompt).ids)

    def prompt_text(self, prompt: Prompt) -> str:
        """Return the text that `prompt_ids` are the ids of."""
        return self._opening(prompt).text

    def response_ids(self, prompt: Prompt, response: Response) -> list[int]:
        """Return the ids of a response to `prompt`: what the rendered dialogue holds after the prompt.

        They begin where the prompt's ids end. They include the white space that the template writes before an answer, and the
        token that ends the turn if the response was finished. A response that still has the ids it was sampled as keeps them.
        Where a token of the dialogue would straddle the boundary (`…: ` + `The`, read together as `:` and ` The`), the prompt
        keeps the ids that a policy is given when it answers, and the response's text is tokenized from there.

        Raises:
            DataError: the template refuses the dialogue, leaves out words of the answer, or opens it with other words than a
                prompt ends with; or no ids continue the prompt's to the dialogue's text.
        """
        if response.ids is not None and self.is_as_sampled(response):
            return list(response.ids)
        return self._tokenized(prompt, response)

    def is_as_sampled(self, response: Response) -> bool:
        """Return whether a response's text is still that of its sampled ids; False for one without ids or with edited text."""
        if not response.ids:
            return False
        if not response.finished and response.ids[-1] in self.stop_ids():
            return False  # a builder said that the turn goes on
        return self.text_of(response.ids, finished=response.finished) == response.text

    def sampled(self, ids: Sequence[int], finished: bool) -> Response:
        """Return the response that was sampled as `ids`, with the one that ended the turn if it was `finished`."""
        return Response(self.text_of(ids, finished=finished), finished, len(ids), tuple(ids))

    def text_of(self, ids: Sequence[int], *, finished: bool = False) -> str:
        """Return the text of sampled ids as `Response.text` holds it: without special tokens, trimmed.

        Args:
            finished: leave the last id out: it ended the turn, whether the tokenizer calls it special or not.
        """
        words = [token for token in (ids[:-1] if finished else ids) if token not in self._skipped_ids]
        # After a token: a SentencePiece decoder takes one space off a text that stands alone, and so one off an indentation.
        text = self._decode([self.end_id, *words])
        before = self._decode([self.end_id])
        return self.trimmed(text.removeprefix(before) if text.startswith(before) else self._decode(words))

    def trimmed(self, text: str) -> str:
        """Return generated text as `Response.text` holds it.

        The space that the template opens an answer with, blank lines before it and white space after it are left out, and so is
        a single space before the first word, which many tokenizers write there. The indentation of the first line stays.
        """
        text = _BLANK_LINES.sub("", text.removeprefix(self.lead)).rstrip()
        return text[1:] if text[:1] == " " and not text[1:2].isspace() else text

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """Return the dialogue as text; errors as of `rendering.render`."""
        return render(self.tokenizer, messages, add_generation_prompt=add_generation_prompt)

    @cached_property
    def lead(self) -> str:
        """The text that the template writes between a prompt's end and an answer: nothing, white space or an empty thought."""
        dialogue = [Message("user", "hi")]
        prompt = self.render(dialogue)
        whole = self.render([*dialogue, Message("assistant", _SENTINEL)], add_generation_prompt=False)
        return whole.removeprefix(prompt).partition(_SENTINEL)[0] if whole.startswith(prompt) else ""

    @cached_property
    def _tail(self) -> str:
        """All that the template writes after an answer that ends the dialogue."""
        dialogue = [Message("user", "hi"), Message("assistant", _SENTINEL)]
        return self.render(dialogue, add_generation_prompt=False).rpartition(_SENTINEL)[2]

    @cached_property
    def end_id(self) -> int:
        """The token that ends an assistant's turn: the first one that the template writes after the response's words.

        Raises:
            DataError: it writes none, and the tokenizer has none; or it writes a word of the text's own vocabulary, at which
                answers would be cut.
        """
        tail = self._tail.strip()
        ids: list[int] = self.tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
        end = ids[0] if ids else self.tokenizer.eos_token_id
        if end is None:
            raise DataError("neither the chat template nor the tokenizer says how an assistant's turn ends")
        unknown = bool(ids) and end == self.tokenizer.unk_token_id and not tail.startswith(str(self.tokenizer.unk_token))
        if unknown or (end not in self.tokenizer.all_special_ids and end not in self.tokenizer.added_tokens_decoder):
            raise DataError(
                f"the chat template ends an assistant's turn with {tail[:20]!r}, which is no special token of this tokenizer, "
                "so an answer would end at an ordinary word: name another model.chat_template"
            )
        return int(end)

    def stop_ids(self, generation_eos: int | Sequence[int] | None = None) -> tuple[int, ...]:
        """Return every token that ends a response, the template's own first, the tokenizer's `eos_token` among them.

        Engines end at that one whatever they are asked, and training adds it to a checkpoint's generation configuration.

        Args:
            generation_eos: `eos_token_id` of the checkpoint's generation_config.json, one or several (`generation_eos`).
        """
        others = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos or ())
        own = self.tokenizer.eos_token_id
        return tuple(dict.fromkeys([self.end_id, *others, *([] if own is None else [int(own)])]))

    def _opening(self, prompt: Prompt) -> _Opening:
        if self._last is None or self._last.messages != prompt.messages:
            self._last = self._open(prompt)
        return self._last

    def _open(self, prompt: Prompt) -> _Opening:
        text = self._rendered(prompt, prompt.messages, asked=True)
        spans = self._check_words(prompt, text)
        ids = self._encode(text, spans)
        if len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos_token_id:
            both = "one of the chat template's and one of the tokenizer's: fix the template"
            raise DataError(f"prompt {prompt.id} begins with two BOS tokens, {both}")
        # A tokenizer starts anew after a special token. What precedes the prompt's last one is therefore never tokenized again
        # with a response: only `text[start:]`, whose ids are `ids[head:]`, is.
        start = self._last_special(text, spans)
        rest = self._encode(text[start:], _moved(spans, -start))
        head = len(ids) - len(rest)
        if ids[head:] != rest:  # this tokenizer does look back: tokenize all of the prompt with each response
            start = head = 0
        return _Opening(prompt.messages, text, spans, tuple(ids), start, head)

    def _last_special(self, text: str, spans: Sequence[Span]) -> int:
        """Return the place of the last special token that the template itself writes; 0 without one."""
        places = self._special_words.finditer(text) if self._special_words else ()
        outside = [
            place.start() for place in places if not any(low < place.end() and place.start() < high for low, high in spans)
        ]
        return outside[-1] if outside else 0

    def _rendered(self, prompt: Prompt, messages: Sequence[Message], *, asked: bool) -> str:
        from jinja2 import TemplateError

        try:
            return self.render(messages, add_generation_prompt=asked)
        except TemplateError as error:
            raise DataError(f"prompt {prompt.id}: the chat template refuses it: {error}{_system_fix(prompt)}") from error
        except TemplateLimitError as error:
            raise DataError(f"prompt {prompt.id}: {error}: read the template before you use it") from error

    def _check_words(self, prompt: Prompt, text: str) -> tuple[Span, ...]:
        """The place of every turn in the rendered prompt; earlier thoughts may be left out, nothing else.

        Raises:
            DataError: a turn is not there, or not whole.
        """
        spans, start = [], 0
        before = self._between(prompt, text)
        for number, message in enumerate(prompt.messages):
            if before:  # a turn that spells a special token out must not be taken for the template's own
                start = max(text.find(before[number], start), 0) + len(before[number])
            # In order, unless the template moves a turn (Mistral's writes the system turn before the last user turn).
            span = _place(message.content, text, start) or _place(message.content, text, 0)
            if span is None and message.role == "assistant":
                span = _place(_THOUGHT.sub("", message.content), text, start)
            if span is None:
                raise DataError(
                    f"prompt {prompt.id}: the chat template leaves its {message.role} turn out, or words of it "
                    f"({_excerpt(message.content)}){_system_fix(prompt) or '; name another model.chat_template'}"
                )
            spans.append(span)
            start = span[1]
        return tuple(spans)

    def _between(self, prompt: Prompt, text: str) -> list[str]:
        """The template's words before each turn, where a turn spells special tokens out; else, or if turns move, empty."""
        special = self._special_words
        if special is None or not any(special.search(message.content) for message in prompt.messages):
            return []
        # The same dialogue is rendered with a mark in place of each turn: what lies between marks are the template's own words.
        marks = [f"§{number}§" for number in range(len(prompt.messages))]
        marked = [Message(message.role, mark) for message, mark in zip(prompt.messages, marks, strict=True)]
        rest, before = self._rendered(prompt, marked, asked=True), []
        for mark in marks:
            words, present, rest = rest.partition(mark)
            if not present:
                return []
            before.append(words)
        return before if text.startswith(before[0]) else []

    def _tokenized(self, prompt: Prompt, response: Response) -> list[int]:
        opening = self._opening(prompt)
        whole = self._rendered(prompt, (*prompt.messages, Message("assistant", response.text)), asked=False)
        if not whole.startswith(opening.text):
            raise DataError(f"prompt {prompt.id}: {self.opening_problem(opening.text, whole, response.text)}")
        body = whole[len(opening.text) :]
        if not body.endswith(self._tail):
            raise DataError(
                f"prompt {prompt.id}: the chat template ends this answer with {body[-20:]!r} and others with {self._tail!r}: "
                "fix the template, or name another model.chat_template"
            )
        end = len(body) - len(self._tail)  # of the words
        if "".join(response.text.split()) not in "".join(body[:end].split()):
            raise DataError(
                f"prompt {prompt.id}: the chat template leaves out words of the answer ({_excerpt(response.text)}): remove "
                "them from the data, or name another model.chat_template"
            )
        words = (len(self.lead) if body.startswith(self.lead) else 0, end)
        if response.finished:
            end += len(self._through_end(self._tail))
        near = opening.text[opening.start :]
        spans = (*_moved(opening.spans, -opening.start), *_moved((words,), len(near)))
        ids = self._encode(near + body[:end], spans)
        asked = opening.ids[opening.head :]
        # The response is what follows the prompt's ids, unless a token spans both: then the prompt alone has other ids than it
        # has before this response, and the split is looked for in the text.
        split = tuple(ids[: len(asked)]) == asked
        ids = ids[len(asked) :] if split else self._across(prompt, opening, body[:end], words, ids)
        if response.finished and ids[-1:] != [self.end_id]:
            ids.append(self.end_id)  # a template that writes no end of turn itself
        return ids

    def opening_problem(self, prompt: str, whole: str, answer: str) -> str:
        """Say how the words before an answer in training differ from those that a prompt ends with."""
        shared = next((place for place, pair in enumerate(zip(prompt, whole, strict=False)) if pair[0] != pair[1]), len(whole))
        start = max(0, shared - 20)
        trained = (whole[start:].partition(answer)[0] if answer else whole[start:])[:60]
        return (
            f"the chat template opens an answer with {trained!r} where a prompt ends with {prompt[start:]!r}, so "
            "that a policy would be asked in other words than it was trained in: fix the template, pass it arguments by "
            "model.chat_template_kwargs (such as enable_thinking: false), or name another model.chat_template"
        )

    def _across(self, prompt: Prompt, opening: _Opening, body: str, words: Span, whole: Sequence[int]) -> list[int]:
        """Ids that continue the prompt's where tokenizing the whole dialogue gives a token that straddles the boundary.

        The text after the boundary is tokenized as it is after a special token, alone, and after a line break; the first
        whose text joins the prompt's to that of the dialogue is taken.
        """
        text, asked = self._decode(whole), opening.ids[opening.head :]
        line = self._encode("\n", ())
        after_line = self._encode("\n" + body, ((words[0] + 1, words[1] + 1),))
        candidates = [self._encode(body, (words,), anchored=True), self._encode(body, (words,))]
        if after_line[: len(line)] == line:
            candidates.append(after_line[len(line) :])
        for ids in candidates:
            if self._decode([*asked, *ids]) == text:
                return ids
        raise DataError(
            f"prompt {prompt.id}: this tokenizer has no ids for the answer that continue the prompt's "
            f"({opening.text[-20:]!r} + {body[:20]!r}): name another model.chat_template"
        )

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _through_end(self, tail: str) -> str:
        """The beginning of what follows an answer, through the token that ends the turn; nothing where it has none."""
        words = tail.lstrip()
        token = next((token for token in self._special if words.startswith(token)), None)
        return tail[: len(tail) - len(words) + len(token)] if token else ""

    @cached_property
    def _special(self) -> tuple[str, ...]:
        """Every token that ends or structures turns, as text, the longest first."""
        added = [str(token) for token in self.tokenizer.added_tokens_decoder.values()]
        return tuple(sorted({*added, *self.tokenizer.all_special_tokens}, key=lambda token: (-len(token), token)))

    @cached_property
    def _skipped_ids(self) -> frozenset[int]:
        """Special tokens proper, which are no words of a response."""
        added = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset(added | set(self.tokenizer.all_special_ids))

    @cached_property
    def _special_words(self) -> re.Pattern[str] | None:
        """Special tokens proper, as text; others that were added (such as `<think>`) are read as tokens wherever they stand."""
        tokens = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        tokens |= set(self.tokenizer.all_special_tokens)
        ordered = sorted(tokens, key=lambda token: (-len(token), token))
        return re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def _encode(self, text: str, spans: Sequence[Span], *, anchored: bool = False) -> list[int]:
        """Ids of a rendered dialogue. Special tokens that the template writes are tokens, those within `spans` are words.

        Args:
            anchored: as a piece of text is read after a special token, and not at the beginning of one.
        """
        special = self._special_words
        if special is None or not any(special.search(text, *span) for span in spans):
            return self._read(text, anchored=anchored)
        # Cut at the template's own special tokens; each piece between two is tokenized as it is after such a token.
        cuts = [m.span() for m in special.finditer(text) if not any(low < m.end() and m.start() < high for low, high in spans)]
        edges = [0, *(edge for cut in cuts for edge in cut), len(text)]
        ids: list[int] = []
        for number, (start, end) in enumerate(pairwise(edges)):
            if number % 2:
                ids.append(int(self.tokenizer.convert_tokens_to_ids(text[start:end])))
            elif start < end:
                ids += self._read(self._stripped(text, start, end), anchored=anchored or start > 0, words=True)
        return ids

    def _read(self, text: str, *, anchored: bool, words: bool = False) -> list[int]:
        """Ids of a text; with `words`, special tokens spelt out in it are words."""
        tokenizer = self._anchored if anchored else self.tokenizer
        ids: list[int] = tokenizer(_ANCHOR + text if anchored else text, add_special_tokens=False, split_special_tokens=words)[
            "input_ids"
        ]
        return ids[1:] if anchored else ids

    def _stripped(self, text: str, start: int, end: int) -> str:
        """A piece without the white space that the special tokens beside it take (`rstrip` and `lstrip` of an added token)."""
        added = {str(token): token for token in self.tokenizer.added_tokens_decoder.values()}
        before = next((token for name, token in added.items() if token.rstrip and text[:start].endswith(name)), None)
        after = next((token for name, token in added.items() if token.lstrip and text[end:].startswith(name)), None)
        piece = text[start:end]
        piece = piece.lstrip() if before else piece
        return piece.rstrip() if after else piece

    @cached_property
    def _anchored(self) -> PreTrainedTokenizerBase:
        """A copy of the tokenizer with one more token, after which it reads a text as after any special token."""
        from tokenizers import AddedToken

        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.add_tokens([AddedToken(_ANCHOR, special=False, normalized=False)])
        return tokenizer


def _moved(spans: Sequence[Span], by: int) -> tuple[Span, ...]:
    """Places in a text that begins `-by` characters later; those before its beginning are left out."""
    return tuple((low + by, high + by) for low, high in spans if low + by >= 0)


def _place(words: str, text: str, start: int) -> Span | None:
    """Return the place of `words` in `text` from `start` on: as they are, stripped, or with other white space between them."""
    for given in (words, words.strip()):
        place = text.find(given, start)
        if place >= 0:
            return place, place + len(given)
    parts = words.split()
    if not parts or "".join(parts) not in "".join(text[start:].split()):
        return None
    match = re.compile(r"\s*".join(map(re.escape, parts))).search(text, start)
    return match.span() if match else None


def is_lead(text: str) -> bool:
    """Return whether a template may write `text` between a prompt and its answer: white space, or an empty thought."""
    return not text.strip() or _EMPTY_THOUGHT.fullmatch(text) is not None


def _excerpt(text: str) -> str:
    words = " ".join(text.split())
    return repr(words if len(words) <= 40 else words[:40] + "…")


def _system_fix(prompt: Prompt) -> str:
    system = prompt.messages[0].role == "system"
    return "; set model.system_turns to merge to put the system turn before the first user turn" if system else ""
