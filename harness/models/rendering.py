"""Render chat templates, which are programs of other people, within limits of time, memory and size.

Jinja's sandbox keeps a template from reaching anything, and not from looping for ever or building gigabytes. So a template is
rendered here if its own words show that it can do neither (`is_plain`), and otherwise in a helper: a fork of this process that
is started when it is first needed, has the same tokenizer, and can be killed. It is asked by JSON lines over pipes.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import resource
import select
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.api.types import Message
from harness.errors import DataError

if TYPE_CHECKING:
    from jinja2 import nodes
    from transformers import PreTrainedTokenizerBase

SECONDS = 10.0  # for one dialogue; a template takes less than a millisecond
MEMORY_BYTES = 512 << 20  # beyond what this process has
# A rendered dialogue has at most so many times the characters of its words and its template, and so many more.
TIMES, MORE = 16, 1_000_000
LONGEST_PLAIN = 50_000  # characters of a template whose words are looked at
DEEPEST_LOOP = 2
MOST_HELPERS = 4  # at a time; the one that was started first ends for another
GENERATION = re.compile(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}")
PLAIN_FILTERS = frozenset({"trim", "length", "count", "lower", "upper", "first", "last", "default", "d", "string", "safe"})
PLAIN_METHODS = frozenset({"strip", "lstrip", "rstrip", "startswith", "endswith"})

# What `model.system_turns` puts before a template.
MERGE_SYSTEM = (
    "{%- if messages and messages[0]['role'] == 'system' and messages|length > 1 -%}"
    "{%- set messages = [{'role': messages[1]['role'], 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}]"
    " + messages[2:] -%}{%- endif -%}"
)
EMPTY_SYSTEM = (
    "{%- if messages and messages[0]['role'] != 'system' -%}"
    "{%- set messages = [{'role': 'system', 'content': ''}] + messages -%}{%- endif -%}"
)


class TemplateLimitError(DataError):
    """A chat template took too long, too much memory, or wrote too much."""


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    template: str | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """Return a dialogue as text.

    Args:
        template: in place of the tokenizer's own.

    Raises:
        jinja2.TemplateError: the template refuses the dialogue, or fails.
        TemplateLimitError: it takes too long, too much memory, or writes too much.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]
    chosen = tokenizer.chat_template if template is None else template
    if isinstance(chosen, str) and is_plain(chosen):
        text: str = tokenizer.apply_chat_template(
            turns, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return text
    return _helper_of(tokenizer).render(turns, template, add_generation_prompt, str(chosen))


# Templates that are rendered here


@lru_cache(maxsize=512)
def is_plain(template: str) -> bool:
    """Return whether a template's own words show that it takes little time and memory for any dialogue.

    It loops over what it is given, at most two deep, and prints parts of that. It calls nothing that makes long texts of short
    ones, and no name that holds a sum of texts is added again, so that nothing grows with each turn.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    for own in (MERGE_SYSTEM, EMPTY_SYSTEM):  # they add two turns at most
        template = template.removeprefix(own)
    if len(template) > LONGEST_PLAIN:
        return False
    try:
        # transformers' own tag, around what is trained, changes nothing of what is written.
        known = GENERATION.sub(lambda tag: "{% endif %}" if tag[1] else "{% if true %}", template)
        tree = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(known)
    except (TemplateError, RecursionError):
        return False
    return _only_plain(tree, 0) and _nothing_grows(tree)


def _only_plain(node: nodes.Node, loops: int) -> bool:
    """Return whether a part of a template holds plain expressions alone."""
    from jinja2 import nodes

    harmless = (
        *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.Compare, nodes.Operand),
        *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Not, nodes.And, nodes.Or, nodes.CondExpr, nodes.Test, nodes.Sub),
        *(nodes.Add, nodes.Concat, nodes.Neg, nodes.Continue, nodes.Break, nodes.Keyword),
    )
    if isinstance(node, nodes.For):
        loops += 1
        plain = loops <= DEEPEST_LOOP and not node.recursive
    elif isinstance(node, nodes.Assign):
        plain = isinstance(node.target, nodes.Name) and node.target.name != "loop"
    elif isinstance(node, nodes.Filter):
        plain = node.name in PLAIN_FILTERS
    elif isinstance(node, nodes.Call):
        called = node.node
        plain = (isinstance(called, nodes.Name) and called.name == "raise_exception") or (
            isinstance(called, nodes.Getattr) and called.attr in PLAIN_METHODS
        )
    elif isinstance(node, nodes.Mod):  # of a text it is formatting, which pads to any width
        plain = (
            isinstance(node.left, nodes.Getattr) and isinstance(node.left.node, nodes.Name) and node.left.node.name == "loop"
        )
    elif isinstance(node, nodes.List | nodes.Tuple):
        plain = all(isinstance(item, nodes.Const) for item in node.items)
    else:
        plain = isinstance(node, harmless)
    return plain and all(_only_plain(child, loops) for child in node.iter_child_nodes())


def _nothing_grows(tree: nodes.Node) -> bool:
    """Return whether no name that holds a sum of texts is part of another sum that is kept."""
    from jinja2 import nodes

    kept: list[tuple[str, bool, set[str]]] = []  # name, whether a sum is kept, names that it is made of
    for node in tree.find_all((nodes.Assign, nodes.For)):
        value, target = (node.node, node.target) if isinstance(node, nodes.Assign) else (node.iter, node.target)  # type: ignore[attr-defined]
        names = {name.name for name in value.find_all(nodes.Name)} | ({value.name} if isinstance(value, nodes.Name) else set())
        sums = isinstance(value, nodes.Add | nodes.Concat) or next(value.find_all((nodes.Add, nodes.Concat)), None) is not None
        kept += [(name.name, sums, names) for name in (target, *target.find_all(nodes.Name)) if isinstance(name, nodes.Name)]
    grown: set[str] = set()
    while fresh := {name for name, sums, names in kept if (sums or names & grown) and name not in grown}:
        grown |= fresh
    return not any(sums and names & grown for _, sums, names in kept)


# Templates that are rendered in a helper


class _Helper:
    """A process that renders templates with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        asking, self._requests = os.pipe()
        self._answers, answering = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the helper runs Python alone
            self.process = os.fork()
        if not self.process:
            try:
                _serve(tokenizer, asking, answering)
            finally:
                os._exit(1)
        os.close(asking)
        os.close(answering)

    def ask(self, request: Mapping[str, object], longest: int) -> Mapping[str, Any]:
        """Return the answer to a request.

        Args:
            longest: characters that its text may have.

        Raises:
            TemplateLimitError: it takes too long or too much memory, or its text is longer.
        """
        ends = time.monotonic() + SECONDS
        answer = b""
        try:
            self._send(json.dumps({**request, "longest": longest}).encode() + b"\n", ends)
            while not answer.endswith(b"\n"):
                if not select.select([self._answers], [], [], max(0.0, ends - time.monotonic()))[0]:
                    raise TemplateLimitError(f"the chat template takes longer than {SECONDS:g} seconds for one dialogue")
                part = os.read(self._answers, 1 << 20)
                if not part:
                    raise TemplateLimitError(
                        f"the chat template needs more than {MEMORY_BYTES >> 20} MB, or {SECONDS:g} seconds"
                    )
                answer += part
        except BrokenPipeError:
            raise TemplateLimitError("the process that renders the chat template was ended") from None
        content: Mapping[str, Any] = json.loads(answer)
        return content

    def _send(self, request: bytes, ends: float) -> None:
        rest = memoryview(request)
        while rest:
            if not select.select([], [self._requests], [], max(0.0, ends - time.monotonic()))[1]:
                raise TemplateLimitError(f"the chat template takes longer than {SECONDS:g} seconds for one dialogue")
            rest = rest[os.write(self._requests, rest[: select.PIPE_BUF]) :]

    def end(self) -> None:
        """Kill the process."""
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                os.close(pipe)
        with contextlib.suppress(OSError):
            os.kill(self.process, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(self.process, 0)


class _HelperSlot:
    """The helper of one tokenizer: started when it is needed, and again after it was killed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = weakref.ref(tokenizer)
        self._helper: _Helper | None = None
        self._owner = os.getpid()
        self._tokens = ""
        self.started = 0.0

    def render(self, turns: list[dict[str, str]], template: str | None, add_generation_prompt: bool, chosen: str) -> str:
        """Return a dialogue as text; errors as for `render`."""
        from jinja2 import TemplateError

        tokenizer = self._tokenizer()
        assert tokenizer is not None  # the caller holds it
        longest = MORE + TIMES * (len(chosen) + sum(len(turn["content"]) for turn in turns))
        request = {"turns": turns, "template": template or tokenizer.chat_template, "prompt": add_generation_prompt}
        with _lock:
            tokens = repr(tokenizer.special_tokens_map)
            if self._helper is not None and (tokens != self._tokens or self._owner != os.getpid()):
                self.end()
            if self._helper is None:
                running = [slot for slot in _slots.values() if slot._helper is not None]
                running.sort(key=lambda slot: slot.started)
                for slot in running[: max(0, len(running) + 1 - MOST_HELPERS)]:
                    slot.end()
                self.started = time.monotonic()
                self._helper, self._tokens, self._owner = _Helper(tokenizer), tokens, os.getpid()
            try:
                answer = self._helper.ask(request, longest)
            except BaseException:  # also Ctrl-C: an answer that is still to come would be taken for the next one's
                self.end()
                raise
        if "error" in answer:
            raise TemplateError(answer["error"])
        if "text" not in answer:
            raise TemplateLimitError(answer["limit"])
        return str(answer["text"])

    def end(self) -> None:
        """End the helper; the next dialogue starts another. In a fork of this process it is not ours to end."""
        if self._helper is not None and self._owner == os.getpid():
            self._helper.end()
        self._helper = None


_lock = threading.Lock()  # one dialogue at a time, whichever tokenizer it is for
_slots: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, _HelperSlot] = weakref.WeakKeyDictionary()


def _helper_of(tokenizer: PreTrainedTokenizerBase) -> _HelperSlot:
    if (slot := _slots.get(tokenizer)) is None:
        slot = _slots[tokenizer] = _HelperSlot(tokenizer)
        weakref.finalize(tokenizer, slot.end)
    return slot


@atexit.register
def _end_helpers() -> None:
    for slot in list(_slots.values()):
        slot.end()


def _serve(tokenizer: PreTrainedTokenizerBase, asking: int, answering: int) -> None:
    """Answer requests until the parent's end of the pipe closes, however the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _close_others({asking, answering})
    _limit_memory()
    with os.fdopen(asking, encoding="utf-8") as requests, os.fdopen(answering, "w", encoding="utf-8") as answers:
        for line in requests:
            # Processor time too, so that a helper ends whose parent was killed in the meantime.
            spent = resource.getrusage(resource.RUSAGE_SELF)
            _, hard = resource.getrlimit(resource.RLIMIT_CPU)
            resource.setrlimit(resource.RLIMIT_CPU, (int(spent.ru_utime + spent.ru_stime + SECONDS) + 1, hard))
            answers.write(json.dumps(_answer(tokenizer, json.loads(line))) + "\n")
            answers.flush()
    os._exit(0)


def _answer(tokenizer: PreTrainedTokenizerBase, request: Mapping[str, Any]) -> Mapping[str, str]:
    try:
        text = tokenizer.apply_chat_template(
            request["turns"], chat_template=request["template"], tokenize=False, add_generation_prompt=request["prompt"]
        )
    except MemoryError:
        return {"limit": f"the chat template needs more than {MEMORY_BYTES >> 20} MB for one dialogue"}
    except Exception as error:  # whatever a template makes of its dialogue
        name = type(error).__name__
        return {"error": str(error) if name in ("TemplateError", "UndefinedError") else f"{name}: {error}"}
    if len(text) > request["longest"]:
        return {"limit": f"the chat template makes {len(text):,} characters of one dialogue"}
    return {"text": text}


def _close_others(kept: set[int]) -> None:
    """Close the parent's files: locks would stay locked, and whoever reads its output would wait for our end too."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    low = 3
    for number in sorted(kept):
        os.closerange(low, number)
        low = number + 1
    os.closerange(low, min(65_536, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))


def _limit_memory() -> None:
    with contextlib.suppress(OSError, ValueError):  # elsewhere than on Linux
        with open("/proc/self/statm", encoding="ascii") as sizes:  # noqa: PTH123 (as few imports as can be after a fork)
            used = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
