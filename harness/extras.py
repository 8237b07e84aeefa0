"""Packages that a light install does not have, each with the extra that brings it, and one error for a missing one.

`pip install alignment-harness` brings what boards and plans need. `import harness`, the command line, and the packages `api`,
`board` and `config` import without these; whatever trains or asks a model imports them inside a function.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec

from harness.errors import HarnessError

# Import name -> the extra of `alignment-harness` that brings it.
EXTRA_OF: Mapping[str, str] = {
    **dict.fromkeys(("accelerate", "aiohttp", "datasets", "openai", "pandas", "peft", "safetensors", "sklearn"), "train"),
    **dict.fromkeys(("tokenizers", "torch", "transformers", "trl"), "train"),
    "lm_eval": "lm-eval",
    **dict.fromkeys(("alpaca_eval", "anthropic", "fastchat"), "judge"),
    "hypothesis": "testing",
    "liger_kernel": "liger",
    "math_verify": "verify",
    "optuna": "tuning",
    "sentence_transformers": "embed",
}
_DISTRIBUTIONS = {"lm_eval": "lm-eval", "sklearn": "scikit-learn", "fastchat": "fschat"}
# Without these no model is loaded.
MODELS = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "peft", "datasets", "trl", "openai", "sklearn")


class MissingExtraError(HarnessError, ImportError):
    """Packages of an extra that are not installed: one line with the command that installs it."""

    def __init__(self, *packages: str) -> None:
        self.packages = packages
        super().__init__(f"{_listed(packages)} not installed: {install(packages[0])}")


def install(package: str) -> str:
    """Return the command that installs a package of `EXTRA_OF`."""
    return f"pip install 'alignment-harness[{EXTRA_OF[package]}]'"


def require(*packages: str) -> None:
    """Raise unless these packages of one extra are installed; nothing is imported.

    Raises:
        MissingExtraError: names those that are not.
    """
    if missing := [package for package in packages if not is_installed(package)]:
        raise MissingExtraError(*missing)


def is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # an import hook that blocks it
        return False


def missing_extra(error: BaseException) -> MissingExtraError | None:
    """Return an import's failure as a missing extra; None if it is another failure.

    Args:
        error: a `ModuleNotFoundError`, or importlib.metadata's `PackageNotFoundError`, which is one.
    """
    if isinstance(error, MissingExtraError):
        return error
    if not isinstance(error, ModuleNotFoundError):
        return None
    package = (error.name or "").partition(".")[0].replace("-", "_")
    return MissingExtraError(package) if package in EXTRA_OF and not is_installed(package) else None


def _listed(packages: tuple[str, ...]) -> str:
    first, *others = [_DISTRIBUTIONS.get(package, package) for package in packages]
    if not others:
        return f"{first} is"
    return f"{first} and {others[0] if len(others) == 1 else f'{len(others)} more packages'} are"
