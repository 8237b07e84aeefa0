"""`harness data`: examples exactly as rows train on them, token by token, without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import ConfigArgument, JsonOption, SetOption, StoreOption, find_config, read_config, store_folder

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from harness.config import Comparison
    from harness.models.prompts import ChatTemplate
    from harness.run.stages.preview import Preview, ShownExample, ShownPart, ShownRow

SPLITS = ("train", "sft", "tuning", "heldout")
SPACE, BREAK, BAR, OPEN, CLOSE, UNFINISHED = "␣", "↵", "│", "⟦", "⟧", "⋯"
_MARKS = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in (SPACE, BREAK, BAR, OPEN, CLOSE, UNFINISHED)})
_HEAD, _TAIL = 48, 16  # ids that are printed of a long sequence
_STYLES = {"chosen": "green", "rejected": "red"}


def register(app: typer.Typer) -> None:
    app.command(
        name="data",
        epilog="Examples: harness data --row dpo --n 1  ·  harness data my.yaml --split sft  ·  "
        "harness data my.yaml --row spin --n 20 --json",
    )(data)


def data(
    config: ConfigArgument = None,
    set_: SetOption = None,
    row: Annotated[
        list[str] | None,
        typer.Option("--row", metavar="LABEL", help="Only this row, by its label; repeatable.", show_default=False),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Examples of each row, in the order of the budget.")] = 2,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(SPLITS),
            help="What rows train on after SFT (train), SFT's examples (sft), or prompts that rows are evaluated on; "
            "if absent, train, and sft for rows that are the starting model.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
    json_: JsonOption = False,
) -> None:
    """Show examples exactly as rows train on them: tokens, ids, where the loss falls, what was dropped and why.

    Nothing is trained or sampled: of rows that train on own samples, what needs none is shown until the store holds them.
    Exit code 2: a row trains on nothing, and why.
    """
    import tempfile

    from harness.api.registry import Registry
    from harness.config import resolve
    from harness.errors import HarnessError, did_you_mean
    from harness.run.plan import plan
    from harness.run.stages.context import Context
    from harness.run.stages.preview import Preview
    from harness.store import Store

    if split is not None and split not in SPLITS:
        raise HarnessError(f"--split {split!r}: {did_you_mean(split, SPLITS)}")
    path, registry = find_config(config), Registry.load()
    comparison = resolve(read_config(path, set_, None, None), registry, str(path))
    labels = [row.label for row in comparison.rows]
    for label in row or ():
        if label not in labels:
            raise HarnessError(f"--row {label!r}: no row of {path} is called so; {did_you_mean(label, labels)}")
    graph, kept = plan(comparison), store_folder(store)
    with tempfile.TemporaryDirectory(prefix="harness-data-") as folder:
        own = Store(kept if kept.exists() else Path(folder, "store"))
        context = Context(own, registry, graph.checkpoints, lambda done, total, note: None, graph.environment)
        preview = Preview(comparison, graph, context, Path(folder))
        rows, problems = _rows(preview, comparison, row, split, n)
        if json_ and rows:
            typer.echo(json.dumps([item for shown in rows for item in _as_dicts(shown)]))
        elif rows:
            untrained = comparison.config.sft is None and not row and split in (None, "train")
            left_out = [row.label for row in comparison.rows if untrained and not row.rounds]
            _print(comparison, preview, rows, left_out)
    if problems:
        raise HarnessError("\n".join(problems))


def _rows(
    preview: Preview, comparison: Comparison, chosen: Sequence[str] | None, split: str | None, n: int
) -> tuple[list[ShownRow], list[str]]:
    """The rows that are asked for, and why others train on nothing. Of what all rows share, one row stands for all."""
    from harness.run.stages.preview import EmptyRowError, ShownRow

    configs = [row for row in comparison.rows if not chosen or row.label in chosen]
    if split is None and not chosen and comparison.config.sft is None:
        configs = [row for row in configs if row.rounds]
    if split == "train" and not chosen:
        configs = [row for row in configs if row.rounds]
    labels = [row.label for row in configs]
    if split in ("sft", "tuning", "heldout") and not chosen:
        labels = [comparison.config.baseline]
    rows, problems = list[ShownRow](), list[str]()
    if not labels:
        problems.append(
            "no row trains on anything: all are the starting model; see what they are evaluated on by --split heldout"
        )
    for label in labels:
        try:
            rows.append(_row(preview, comparison, label, split, n))
        except EmptyRowError as error:
            problems.append(str(error))
    return rows, problems


def _row(preview: Preview, comparison: Comparison, label: str, split: str | None, n: int) -> ShownRow:
    from harness.run.stages.preview import EmptyRowError

    if split == "sft":
        return preview.fine_tuning(label, n)
    if split is not None and split != "train":
        return preview.split(label, "tuning" if split == "tuning" else "heldout", n)
    row = next(row for row in comparison.rows if row.label == label)
    if split == "train" and not row.rounds:
        raise EmptyRowError(f"row {label!r}: it is the starting model, and trains on nothing of the split train: --split sft")
    return preview.row(label, n)


def _as_dicts(row: ShownRow) -> Iterator[dict[str, Any]]:
    """A row's examples for scripts."""
    pieces: Callable[[list[int]], list[str]] = row.template.tokenizer.convert_ids_to_tokens
    for example in (example for part in row.parts for example in part.examples):
        responses = [
            {"role": item.role, "text": item.text, "ids": list(item.ids), "tokens": pieces(list(item.ids))}
            for item in example.responses
        ]
        yield {
            "id": example.id,
            "row": row.label,
            "prompt_text": example.prompt_text,
            "prompt_ids": list(example.prompt_ids),
            "responses": responses,
        }


# On a terminal


def _print(comparison: Comparison, preview: Preview, rows: Sequence[ShownRow], left_out: Sequence[str]) -> None:
    """The data, how to read tokens, and every part of every row; rows with equal examples together.

    Args:
        left_out: rows that train on nothing and were not asked for.
    """
    from rich.console import Console
    from rich.text import Text

    from harness.board.views.text import data_lines, one_line

    console = Console(highlight=False, soft_wrap=True)
    config = comparison.config
    console.print(Text.assemble((one_line(config.name), "bold"), f" · seed {config.seeds[0]}"))
    for line in data_lines(preview.screening.as_json()):
        console.print(Text(one_line(line), style="dim"))
    signs = [f"{BAR} between two tokens", f"{SPACE} a space", f"{BREAK} a line break", f"{OPEN}…{CLOSE} a special token"]
    console.print(Text(" · ".join([*signs, f"{UNFINISHED} a character that goes on in the next token"]), style="dim"))
    together: dict[Any, list[ShownRow]] = {}
    for row in rows:
        together.setdefault(tuple(_content(part) for part in row.parts), []).append(row)
    for label in left_out:
        console.print(Text(f"{one_line(label)}: the starting model as it is; nothing is trained", style="dim"))
    for alike in together.values():
        console.print()
        console.print(Text(", ".join(one_line(row.label) for row in alike), style="bold underline"))
        for parts in zip(*(row.parts for row in alike), strict=True):
            _print_part(console, alike, parts)


def _content(part: ShownPart) -> Any:
    """The properties that rows printed together share; an objective's views are its own."""
    examples = [(item.id, item.prompt_ids, item.responses, tuple(item.unsampled.items())) for item in part.examples]
    return part.round, part.data, part.notes, tuple(examples)


def _print_part(console: Console, rows: Sequence[ShownRow], parts: Sequence[ShownPart]) -> None:
    """One part of rows that train on the same."""
    from rich.text import Text

    from harness.board.views.text import one_line

    objectives = list(dict.fromkeys(part.objective for part in parts if part.objective))
    noun = "objective" if len(objectives) == 1 else "objectives"
    trained = f" → {noun} {_names(objectives)}" if objectives else ""
    console.print(Text(f"{parts[0].round}{one_line(parts[0].data)}{trained}"))
    for note in parts[0].notes:
        console.print(Text(f"  {one_line(note)}", style="dim"))
    for examples in zip(*(part.examples for part in parts), strict=True):
        _print_example(console, rows, examples, ", all in the loss" if parts[0].trained else "")


def _print_example(console: Console, rows: Sequence[ShownRow], examples: Sequence[ShownExample], loss: str) -> None:
    """An example, and what the objectives of some of the rows score beside it."""
    from rich.text import Text

    from harness.board.views.text import one_line

    first, template = examples[0], rows[0].template
    longest = max((len(item.ids) for item in first.responses), default=0)
    size = f" · {len(first.prompt_ids) + longest:,} tokens with the longest response" if longest else ""
    console.print()
    console.print(Text(f"  example {one_line(first.id)}{size}", style="bold"))
    _print_tokens(
        console, template, f"prompt · {_tokens(first.prompt_ids)}{', none in the loss' if loss else ''}", first.prompt_ids
    )
    for item in first.responses:
        cut = "" if item.finished else "; cut off at the length limit, so that no token ends the turn"
        head = f"{item.role} · {_tokens(item.ids)}{loss}{cut}"
        _print_tokens(console, template, head, item.ids, _STYLES[item.role], first.prompt_ids)
    for role, number in first.unsampled.items():
        console.print(Text.assemble("    ", (f"{role} · {number} to be sampled by a run", _STYLES[role])))
    # Of views of the same name and prompt, as of Sr-DPO and Sr-IPO, one stands for all.
    views: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    partners: list[str] = []
    for row, example in zip(rows, examples, strict=True):
        for name, ids in example.views.items():
            views.setdefault((name, ids), []).append(row.label)
        partners += [row.label] if example.partner else []
    for (name, ids), labels in views.items():
        head = f"view {one_line(name)} of {_names(labels)} · {_tokens(ids)}: the same responses are scored after this as well"
        _print_tokens(console, template, head, ids)
    if partners:
        partner = next(example.partner for example in examples if example.partner)
        text = (
            f"mismatched, of {_names(partners)}: responses of example {one_line(partner)} are scored after this prompt as well"
        )
        console.print(Text(f"    {text}", style="dim"))


def _names(labels: Sequence[str]) -> str:
    from harness.board.views.text import one_line

    return ", ".join(map(one_line, labels))


def _tokens(ids: Sequence[int]) -> str:
    return f"{len(ids):,} token{'' if len(ids) == 1 else 's'}"


def _print_tokens(
    console: Console,
    template: ChatTemplate,
    head: str,
    ids: Sequence[int],
    style: str = "",
    before: Sequence[int] = (),
) -> None:
    """A sequence: its name, its tokens, its ids."""
    from rich.text import Text

    console.print(Text(f"    {head}", style=style))
    for line in _marked(template, ids, before, style).split("\n", allow_blank=True):
        console.print(Text("      ").append_text(line))
    shown = [str(token) for token in ids]
    if len(shown) > _HEAD + _TAIL:
        shown[_HEAD:-_TAIL] = [f"… {len(ids) - _HEAD - _TAIL:,} more (all by --json) …"]
    console.print(Text(f"      ids {' '.join(shown)}", style="dim"))


def _marked(template: ChatTemplate, ids: Sequence[int], before: Sequence[int], style: str) -> Text:
    """Tokens as text with their boundaries; what has no shape of its own is written out. Each turn begins a line."""
    from rich.text import Text

    from harness.board.views.text import one_line

    special = {*template.tokenizer.all_special_ids, *template.tokenizer.added_tokens_decoder}
    text = Text()
    kinds = [token in special for token in ids]
    for place, piece in enumerate(pieces(template, ids, before)):
        after = kinds[max(0, place - 2) : place]  # whether the two tokens before it are special
        if kinds[place]:
            if after == [False, True]:  # what ended a turn stands before it
                text.append("\n")
            text.append(f"{OPEN}{one_line(piece.translate(_MARKS))}{CLOSE}", style="bold magenta")
            continue
        if after and not after[-1] and not text.plain.endswith("\n"):
            text.append(BAR, style="dim")
        text.append(_readable(piece), style=style)
    return text


def _readable(piece: str) -> str:
    """A token's text: spaces at its ends and line breaks get a sign, other hidden characters their number."""
    from harness.board.views.text import one_line

    if not piece:
        return UNFINISHED
    lines = [one_line(line) for line in piece.translate(_MARKS).split("\n")]
    for place, line in enumerate(lines):
        words = line.strip(" ")
        start = len(line) - len(line.lstrip(" "))
        lines[place] = SPACE * start + words + SPACE * (len(line) - start - len(words))
    return f"{BREAK}\n".join(lines)


def pieces(template: ChatTemplate, ids: Sequence[int], before: Sequence[int] = ()) -> list[str]:
    """Return the text that each id adds to those before it; empty where its character is not complete yet.

    Args:
        before: the ids that the sequence follows: a decoder may write a first token otherwise than a later one.
    """

    def decoded(some: Sequence[int]) -> str:
        text: str = template.tokenizer.decode(list(some), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    whole, shown = [*before, *ids], list[str]()
    start, done = max(0, len(before) - 1), len(before)  # decoded again with each token, and what of it is shown already
    for end in range(len(before) + 1, len(whole) + 1):
        known, text = decoded(whole[start:done]), decoded(whole[start:end])
        if text.endswith("\ufffd") and end < len(whole):
            shown.append("")  # bytes of a character that the next token goes on with
            continue
        shown.append(text[len(known) :])
        start, done = done, end
    return shown
