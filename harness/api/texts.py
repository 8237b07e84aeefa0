"""Text of other people: read from files with one clear error, and folded to tell whether two prompts say the same.

Files are UTF-8, with or without a byte order mark, plain or gzipped. Everything else is refused with file, line and fix.
"""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from harness.api.walk import walk
from harness.errors import DataError

LONGEST_LINE = 32_000_000  # bytes, unpacked; a gzipped line without an end must not fill the memory
LARGEST_ARRAY = 500_000_000  # bytes, unpacked, of a JSON array, which is read as a whole
LARGEST_TEXT = 500_000_000  # the same for any other file that is read as a whole
BYTE_ORDER_MARK = "\ufeff"
_GZIP = b"\x1f\x8b"
# UTF-32 first: its little-endian mark begins with UTF-16's.
_ENCODINGS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_LINE_NAMED = re.compile(r"(:|, line )\d+$")
_SPACE = re.compile(r"\s*")
HALF_SURROGATE = re.compile(r"[\ud800-\udfff]")
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


# Reading


def read_text(path: Path) -> str:
    """Return a whole file's text, without a byte order mark.

    Raises:
        DataError: it cannot be read, is too large, or is not UTF-8; names file, line and fix.
    """
    content = _content(path, LARGEST_TEXT)
    if len(content) > LARGEST_TEXT:
        raise DataError(f"{path} holds more than {LARGEST_TEXT:,} bytes: is it the right file?")
    return decode(content, str(path))


def decode(content: bytes, where: str) -> str:
    """Return bytes as text, without a byte order mark.

    Args:
        where: the file, or a line of it as `FILE:3` or `FILE, line 3`.

    Raises:
        DataError: they are not UTF-8; names the place, the line and the fix.
    """
    named = _LINE_NAMED.search(where)
    if encoding := _other_encoding(content):
        raise DataError(f"{where if named else f'{where}, line 1'}: {_should_be_utf8(encoding)}")
    try:
        return content.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where if named else f'{where}, line {line}'}: {_not_utf8(error)}") from error


def parse_json(content: str | bytes, where: str, what: str = "JSON", parse_int: Callable[[str], Any] | None = None) -> Any:
    """Return the value of one JSON text, whose strings are whole.

    Args:
        where: the file, or a line of it as `FILE:3` or `FILE, line 3`.
        what: what it should be, for the error.

    Raises:
        DataError: it is not UTF-8 or not JSON, or a string holds half a surrogate pair; names the place.
    """
    text = decode(content, where) if isinstance(content, bytes) else content.removeprefix(BYTE_ORDER_MARK)
    try:
        value = json.loads(text, parse_int=parse_int)
        check_whole(value, text)
    except (ValueError, RecursionError) as error:
        problem = "is not JSON" if what == "JSON" else f"cannot be read as {what}"
        raise DataError(f"{where} {problem} ({error})") from error
    return value


def read_json_rows(path: Path) -> Iterator[tuple[str, int, Any]]:
    """Yield the rows of a file of JSON lines, or of one JSON array: (place, number from 1, value or the ValueError).

    The place is `FILE, line N`. Of lines the number is the line's, of an array's elements their position. Blank lines are
    skipped.

    Raises:
        DataError: the file as a whole cannot be read: it is missing or damaged, in another encoding, or without line ends.
    """
    array = _content(path, 4096).removeprefix(BYTE_ORDER_MARK.encode()).lstrip().startswith(b"[")
    for line, number, value in _array_rows(path) if array else _line_rows(path):
        yield f"{path}, line {line}", number, value


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not blank, with their numbers.

    Compression shows in the first bytes, not in the name.

    Raises:
        DataError: the file cannot be read, is UTF-16 or UTF-32, or has a line that is too long; names file and line.
    """
    number = 0
    try:
        with _opened(path) as stream:
            for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), 1):
                if number == 1 and (encoding := _other_encoding(line)):
                    raise DataError(f"{path}, line 1: {_should_be_utf8(encoding)}")
                if len(line) > LONGEST_LINE:
                    raise DataError(f"{path}, line {number}: it is longer than {LONGEST_LINE:,} bytes: is it one row per line?")
                line = line.removeprefix(BYTE_ORDER_MARK.encode())  # in the middle too, where files were joined
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}, after line {number}: cannot be read ({error}); is the download complete?") from error


def check_whole(value: Any, text: str | None = None) -> None:
    """Raise ValueError where a string of a JSON value, keys included, holds half a surrogate pair; names its place.

    Args:
        text: the JSON, if at hand: without an escaped or a bare half nothing is searched.
    """
    if text is not None and not _HALF_ESCAPED.search(text) and not HALF_SURROGATE.search(text):
        return
    for node in walk(value):
        if isinstance(node.value, str) and (half := HALF_SURROGATE.search(node.value)):
            place = node.field.encode("ascii", "backslashreplace").decode()
            raise ValueError(
                f"{f'`{place}`' if place else 'it'} holds half a surrogate pair ({half[0]!a}), which is no text: remove it, "
                "or write both halves"
            )


def _opened(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where they are gzipped."""
    with path.open("rb") as stream:
        compressed = stream.read(2) == _GZIP
    return gzip.open(path) if compressed else path.open("rb")  # type: ignore[return-value]


def _content(path: Path, most: int) -> bytes:
    """At most so many bytes of the file, and one more where there are more."""
    try:
        with _opened(path) as stream:
            return stream.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): is the path right, and is the download complete?") from error


def _line_rows(path: Path) -> Iterator[tuple[int, int, Any]]:
    for number, line in read_lines(path):
        value: Any
        try:
            text = line.decode()
            value = json.loads(text)
            check_whole(value, text)
        except UnicodeDecodeError as error:
            value = ValueError(_not_utf8(error))
        except (ValueError, RecursionError) as error:
            value = ValueError(_not_json(error))
        yield number, number, value


def _array_rows(path: Path) -> Iterator[tuple[int, int, Any]]:
    """The elements of an array with the lines they begin at. One that cannot be read ends it: the next has no beginning."""
    content = _content(path, LARGEST_ARRAY)
    if len(content) > LARGEST_ARRAY:
        fix = "write it as JSON lines, e.g. with `jq -c '.[]' FILE`"
        raise DataError(f"{path}: a JSON array of more than {LARGEST_ARRAY:,} bytes: {fix}")
    text = decode(content, str(path))
    decoder = json.JSONDecoder()
    place, line, counted = _after_space(text, _after_space(text, 0) + 1), 1, 0
    number = 0
    value: Any
    while not (number == 0 and text[place : place + 1] == "]"):
        number += 1
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            problem = ValueError(f"not JSON ({error.msg}), in element {number} of the array")
            yield line + text.count("\n", place, error.pos), number, problem
            return
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, or no end of brackets
            yield line, number, ValueError(_not_json(error))
            return
        try:
            check_whole(value, text[place:end])
        except ValueError as error:
            value = error
        yield line, number, value
        place = _after_space(text, end)
        following = text[place : place + 1]
        if following == "]":
            break
        if following != ",":
            line += text.count("\n", counted, place)
            yield line, number + 1, ValueError("not JSON (`,` or `]` should follow an array's element)")
            return
        place = _after_space(text, place + 1)
    rest = _after_space(text, place + 1)
    if rest < len(text):
        line = 1 + text.count("\n", 0, rest)
        yield line, number + 1, ValueError("there is more after the array's end: give one array, or one object per line")


def _after_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _other_encoding(content: bytes) -> str | None:
    """UTF-16 or UTF-32 by the mark or by the zeros of the first characters."""
    for mark, name in _ENCODINGS:
        if content.startswith(mark):
            return name
    head = content[:4]
    return "UTF-32" if head.count(0) == 3 else "UTF-16" if len(head) > 1 and head.count(0) in (1, 2) else None


def _should_be_utf8(encoding: str) -> str:
    return f"it is {encoding}, and should be UTF-8: convert it with `iconv -f {encoding} -t UTF-8 FILE > NEW`"


def _not_utf8(error: UnicodeDecodeError) -> str:
    byte = f"byte 0x{error.object[error.start]:02x}: {error.reason}"
    return f"it is not UTF-8 ({byte}): convert it from its encoding, e.g. `iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW`"


def _not_json(error: Exception) -> str:
    text = str(error)
    return text if "surrogate pair" in text else f"not JSON ({text})"


# Folding

_OPENING_QUOTES, _CLOSING_QUOTES = "\"'“„‟‘‚‛«‹「『", "\"'”“‟’‘»›«‹」』"
_OPENING = frozenset(f"{_OPENING_QUOTES}¿¡")
_CLOSING = frozenset(_CLOSING_QUOTES)
_ENDING = frozenset(".?,;:…。、؟،؛।")  # what ends a sentence or a part of one; `!` may be a factorial
_SAME_LETTERS = frozenset({"<wide>", "<narrow>", "<noBreak>", "<initial>", "<medial>", "<final>", "<isolated>"})
# Zero-width spaces, soft hyphens, directions and emoji presentation: nobody sees them. Joiners stay: they make other emoji.
_UNSEEN: dict[int, str | None] = dict.fromkeys(
    [0x00AD, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, 0xFE0E, 0xFE0F, 0xFEFF]
)
_ALIKE: dict[int, str | None] = {
    ord(other): usual for usual, others in {"'": "’‘", '"': "“”", "-": "−‐\u2011"}.items() for other in others
}


def fold(text: str) -> str:
    """Return text so that equal results differ in case, spacing and sentence punctuation alone.

    Sentence punctuation is `. , ; : ? ! …` at a word's end and quotes around words. Everything else keeps its meaning: signs
    and operators (`12 - 3`, `C++`, `a < b`), emoji, points inside numbers (`3.14`), a factorial (`5!`), quotes around what is
    no word, powers (`x²`). Of Unicode's forms those are folded that are the same letters in another shape: wide, narrow,
    ligatures. Text without a word is returned as it is, apart from spacing.
    """
    return _folded(text)


@lru_cache(maxsize=65_536)
def _folded(text: str) -> str:
    words = _plain(text).split()
    folded = [word if word.isalnum() else _word(word) for word in words]
    # Marks that stand alone end a sentence at the end of the text (`Tea ?`), and are talked about inside it (`does ? match`).
    while folded and not folded[-1] and not (len(words) > 1 and _talked_about(words[-2], words[-1])):
        folded.pop()
        words.pop()
    while folded and not folded[0] and set(words[0]) <= _OPENING:
        del folded[0], words[0]
    return " ".join(fold or word for fold, word in zip(folded, words, strict=True)) or " ".join(text.split())


def fold_spacing(text: str) -> str:
    """Return text so that equal results differ in case and in spacing within lines; the indentation of lines counts."""
    lines = [line for line in _plain(text).splitlines() if line.strip()]
    return "\n".join(line[: len(line) - len(line.lstrip())] + " ".join(line.split()) for line in lines)


def _plain(text: str) -> str:
    """Lower case, composed, in the usual shapes of letters, quotes and minus signs, without what nobody sees."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).translate(_SHAPES)).lower()


class _Shapes(dict[int, str | None]):
    """A table for `str.translate`, filled as characters are met."""

    def __missing__(self, code: int) -> str | None:
        self[code] = shape = _shape(chr(code))
        return shape


def _shape(character: str) -> str:
    """A character as the usual letters, if it is those in another shape; `²`, `½`, `①` and `ℝ` mean something else."""
    tag, *codes = unicodedata.decomposition(character).split() or [""]
    usual = "".join(chr(int(code, 16)) for code in codes) if tag.startswith("<") else ""
    ligature = tag == "<compat>" and character.isalpha() and usual.isalpha()
    return usual if tag in _SAME_LETTERS or ligature else character


def _word(word: str) -> str:
    """A word without the quotes and sentence punctuation around it; empty where it is nothing else."""
    while len(word) > 1 and word[0] in _OPENING and not word[1].isnumeric():
        word = word[1:]
    while word and (word[-1] in _ENDING or _ends(word)):
        word = word[:-1]
    return "" if set(word) <= _OPENING | _CLOSING else word


def _ends(word: str) -> bool:
    """Whether `!` or a quote at a word's end is punctuation: not in `5!`, `n!`, `f(x)!`, `f'`, `"5"` and `6'`."""
    last, before = word[-1], word[:-1]
    if last not in _CLOSING and last != "!":
        return False
    if not before:
        return True
    letter = len(before) == 1 and before.isalpha() and last in "!'"
    return not letter and not before[-1].isnumeric() and not (last == "!" and before[-1] in ")]}")


def _talked_about(before: str, mark: str) -> bool:
    """Whether a mark at the end is what the text is about: after a colon (`this sign: !`), or a factorial (`5 !`)."""
    return before.endswith(":") or (mark[0] == "!" and not _ends(before + "!"))


_SHAPES = _Shapes({**_UNSEEN, **_ALIKE})
