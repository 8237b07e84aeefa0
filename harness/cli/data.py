"""`harness data`: show examples exactly as rows train on them, token by token, without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    ConfigArgument,
    JsonOption,
    SetOption,
    StoreOption,
    find_config,
    named_origins,
    read_config,
    store_folder,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from harness.config import Comparison
    from harness.models.tokenization import ChatTemplate
    from harness.run.stages.preview import Preview, ShownExample, ShownPart, ShownRow

SPLITS = ("train", "sft", "tuning", "heldout")
SPACE, BREAK, BAR, OPEN, CLOSE, UNFINISHED = "␣", "↵", "│", "⟦", "⟧", "⋯"
_MARKS = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in (SPACE, BREAK, BAR, OPEN, CLOSE, UNFINISHED)})
_HEAD, _TAIL = 48, 16  # ids of a long sequence that are printed, from its start and its end
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
        typer.Option("--row", metavar="LABEL", help="Show only the row of this label; repeatable.", show_default=False),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of examples of each row, in the order of training.")] = 2,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(SPLITS),
            help="train: what rows train on after SFT; sft: SFT's examples; tuning, heldout: prompts for evaluation. "
            "Default: train, and sft for rows that are the starting model.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
    json_: JsonOption = False,
) -> None:
    """Show examples exactly as rows train on them: tokens, ids, which tokens the loss covers, what was dropped and why.

    Nothing is trained or sampled: responses that a run would sample are shown once the store has them.
    Exit code 2: a row trains on nothing; the error says why.
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
    raw = read_config(path, set_, None, None)
    with named_origins(path, set_, None, None):
        comparison = resolve(raw, registry, str(path))
    labels = [row.label for row in comparison.rows]
    for label in row or ():
        if label not in labels:
            raise HarnessError(f"--row {label!r}: no row of {path} has this label; {did_you_mean(label, labels)}")
    graph, kept = plan(comparison), store_folder(store)
    with tempfile.TemporaryDirectory(prefix="harness-data-") as folder:
        # Without a store yet, a temporary one holds what the preview reads.
        store_ = Store(kept if kept.exists() else Path(folder, "store"))
        context = Context(store_, registry, graph.checkpoints, lambda done, total, note: None, graph.environment)
        preview = Preview(comparison, graph, context, Path(folder))
        rows, problems = _rows(preview, comparison, row, split, n)
        if json_ and rows:
            typer.echo(json.dumps([item for shown in rows for item in _as_dicts(shown)]))
        elif rows:
            untrained = comparison.config.sft is None and not row and split in (None, "train")
            untrained_rows = [row.label for row in comparison.rows if untrained and not row.rounds]
            _print(comparison, preview, rows, untrained_rows)
    if problems:
        raise HarnessError("\n".join(problems))


def _rows(
    preview: Preview, comparison: Comparison, chosen: Sequence[str] | None, split: str | None, n: int
) -> tuple[list[ShownRow], list[str]]:
    """Return the rows asked for, and why others train on nothing. The baseline stands for all if rows share the data."""
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
        problems.append("no row trains on anything, since all are the starting model: use --split heldout to see their prompts")
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
        raise EmptyRowError(
            f"row {label!r}: it is the starting model and trains on nothing of the split train: use --split sft"
        )
    return preview.row(label, n)


def _as_dicts(row: ShownRow) -> Iterator[dict[str, object]]:
    """Yield a row's examples for scripts."""
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


def _print(comparison: Comparison, preview: Preview, rows: Sequence[ShownRow], untrained: Sequence[str]) -> None:
    """Print the data's counts, the signs between tokens, and each row's parts; rows with equal examples together.

    Args:
        untrained: rows that train on nothing and were not asked for.
    """
    from rich.console import Console
    from rich.text import Text

    from harness.board.views.text import data_lines, one_line

    console = Console(highlight=False, soft_wrap=True)
    config = comparison.config
    console.print(Text.assemble((one_line(config.name), "bold"), f" · seed {config.first_seeds[0]}"))
    for line in data_lines(preview.screening.as_json()):
        console.print(Text(one_line(line), style="dim"))
    signs = [f"{BAR} between two tokens", f"{SPACE} a space", f"{BREAK} a line break", f"{OPEN}…{CLOSE} a special token"]
    console.print(Text(" · ".join([*signs, f"{UNFINISHED} a character that continues in the next token"]), style="dim"))
    groups: dict[object, list[ShownRow]] = {}
    for row in rows:
        groups.setdefault(tuple(_content(part) for part in row.parts), []).append(row)
    for label in untrained:
        console.print(Text(f"{one_line(label)}: the starting model as it is; nothing is trained", style="dim"))
    for alike in groups.values():
        console.print()
        console.print(Text(", ".join(one_line(row.label) for row in alike), style="bold underline"))
        for parts in zip(*(row.parts for row in alike), strict=True):
            _print_part(console, alike, parts)


def _content(part: ShownPart) -> object:
    """Return what rows that are printed together have in common; objectives and their views may differ."""
    examples = [(item.id, item.prompt_ids, item.responses, tuple(item.unsampled.items())) for item in part.examples]
    return part.round, part.data, part.notes, tuple(examples)


def _print_part(console: Console, rows: Sequence[ShownRow], parts: Sequence[ShownPart]) -> None:
    """Print one part of rows that train on the same data."""
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
    """Print an example, and the further sequences that some rows' objectives score."""
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
    # Objectives may share a view, as Sr-DPO and Sr-IPO do: it is printed once with the labels of its rows.
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
    """Print a sequence: its heading, its tokens, its ids."""
    from rich.text import Text

    console.print(Text(f"    {head}", style=style))
    for line in _marked(template, ids, before, style).split("\n", allow_blank=True):
        console.print(Text("      ").append_text(line))
    shown = [str(token) for token in ids]
    if len(shown) > _HEAD + _TAIL:
        shown[_HEAD:-_TAIL] = [f"… {len(ids) - _HEAD - _TAIL:,} more (all by --json) …"]
    console.print(Text(f"      ids {' '.join(shown)}", style="dim"))


def _marked(template: ChatTemplate, ids: Sequence[int], before: Sequence[int], style: str) -> Text:
    """Return tokens as text with signs between them and invisible characters written out; each turn begins a line."""
    from rich.text import Text

    from harness.board.views.text import one_line

    special = {*template.tokenizer.all_special_ids, *template.tokenizer.added_tokens_decoder}
    text = Text()
    kinds = [token in special for token in ids]
    for place, piece in enumerate(pieces(template, ids, before)):
        after = kinds[max(0, place - 2) : place]  # whether the two preceding tokens are special
        if kinds[place]:
            if after == [False, True]:  # the preceding token ended a turn
                text.append("\n")
            text.append(f"{OPEN}{one_line(piece.translate(_MARKS))}{CLOSE}", style="bold magenta")
            continue
        if after and not after[-1] and not text.plain.endswith("\n"):
            text.append(BAR, style="dim")
        text.append(_readable(piece), style=style)
    return text


def _readable(piece: str) -> str:
    """Return a token's text with signs for outer spaces and line breaks; other invisible characters are written out."""
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
    """Return the text that each id adds to the preceding ones; empty if its character is not complete yet.

    Args:
        before: the ids that precede the sequence; a decoder may write a first token differently from a later one.
    """

    def decoded(some: Sequence[int]) -> str:
        text: str = template.tokenizer.decode(list(some), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    whole, shown = [*before, *ids], list[str]()
    # Each step decodes from the last token that completed a character, since decoders join bytes and add spaces.
    start, done = max(0, len(before) - 1), len(before)
    for end in range(len(before) + 1, len(whole) + 1):
        known, text = decoded(whole[start:done]), decoded(whole[start:end])
        if text.endswith("\ufffd") and end < len(whole):
            shown.append("")  # the character's bytes continue in the next token
            continue
        shown.append(text[len(known) :])
        start, done = done, end
    return shown
