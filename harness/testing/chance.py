"""Checks that a component's results do not depend on global random generators or on the order of sets."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel

from harness.testing.verdict import Fault, Unchecked


@contextmanager
def generators_left_alone(fix: str) -> Iterator[None]:
    """Raise `Fault` if the block drew from, or seeded, a generator that everything in the process shares."""
    _draw()  # else a block that sets the seed that is set already would change nothing, and pass
    before = _states()
    yield
    after = _states()
    touched = [name for name in before if before[name] != after.get(name)]
    if touched:
        raise Fault(f"it draws from or seeds the global generator of {' and '.join(touched)}", fix)


def _draw() -> None:
    random.random()
    if numpy := sys.modules.get("numpy"):
        numpy.random.random()
    if torch := sys.modules.get("torch"):
        torch.rand(())


def _states() -> dict[str, object]:
    """Return the states of the generators of imported libraries; nobody draws from a library that is not imported."""
    states: dict[str, object] = {"random": random.getstate()}
    if numpy := sys.modules.get("numpy"):
        kind, keys, *rest = numpy.random.get_state()
        states["numpy"] = (kind, keys.tobytes(), *rest)
    if torch := sys.modules.get("torch"):
        states["torch"] = bytes(torch.get_rng_state().numpy())
    return states


def elsewhere(component: BaseModel, function: str) -> str:
    """Return what `function` (`module:name`, component -> text) returns in a new process, where sets have another order.

    Raises:
        Unchecked: the component's class cannot be imported there.
    """
    cls = type(component)
    module, _, name = function.partition(":")
    code = (
        "import importlib, sys\n"
        "component, function = (getattr(importlib.import_module(m), n) for m, n in (sys.argv[1:3], sys.argv[3:5]))\n"
        "print(function(component.model_validate_json(sys.argv[5])))\n"
    )
    fields = json.dumps(component.model_dump(mode="json"))
    command = [sys.executable, "-c", code, cls.__module__, cls.__qualname__, module, name, fields]
    # Text is hashed with a new key in every process, unless PYTHONHASHSEED fixes it; 0 turns that off.
    environment = {"PYTHONHASHSEED": "0" if sys.flags.hash_randomization else "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        said = f"{cls.__module__}.{cls.__qualname__} cannot be imported by another process"
        raise Unchecked(said, "install its package, and check it by its name")
    return done.stdout.rstrip("\n")
