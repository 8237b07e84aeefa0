"""Ctrl-C and SIGTERM, at any moment of the command line: one line, the shell's exit code (130, 143), no traceback.

A first signal leaves by `SystemExit`, so that workers are stopped and a run notes how it ended. That exception is raised
wherever Python happens to be, also where a library swallows it or makes another of it. So the signal is remembered
(`ended_by`), and whoever catches the end of a run or of the command asks for it. A second signal waits for nothing: it ends
the process there and then. Files are replaced whole, so what was being written is whole or absent; the next run sweeps the
rest.

This module is imported before everything else, so it imports next to nothing itself.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

TYPE_CHECKING = False  # as type checkers know it: `typing` itself takes a while to import
if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = "finished stages are kept, and the same command continues from them"

_first: int | None = None
_keeps_exit_code = False
_last_acts: list[Callable[[], None]] = []


def ended_by() -> int | None:
    """Return the signal that this process was asked to end by; None while there was none."""
    return _first


def forget() -> None:
    """Forget the signal, as a test or a program does that outlives what was ended."""
    global _first
    _first = None
    sys.unraisablehook = sys.__unraisablehook__


class before_the_end:  # noqa: N801 (a context manager, without importing contextlib)
    """Call a function before the process is ended at once within the block; it should be quick."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def __enter__(self) -> None:
        _last_acts.append(self.act)

    def __exit__(self, *reason: object) -> None:
        _last_acts.remove(self.act)


def end_at_once(number: int, frame: object) -> None:
    """Handle a signal where nothing has to be cleaned up, or where cleaning up takes too long."""
    # An exception could be swallowed by whoever is being imported, and Python could be too far gone to raise one.
    if _first is None:
        _write(f"{ending(number)}\n")
    for act in _last_acts:
        try:  # noqa: SIM105 (contextlib takes a while to import)
            act()
        except BaseException:  # nothing may keep the process
            pass
    os._exit(128 + (_first or number))


def leave(number: int, frame: object) -> None:
    """Exit on a signal with the shell's code for it."""
    _leave(number, ending(number))


def leave_run(number: int, frame: object) -> None:
    """Exit from a run on a signal. The exit stops the workers."""
    _leave(number, f"{ending(number)}; {KEPT}")


def _leave(number: int, line: str) -> None:
    global _first
    if _first is not None:
        end_at_once(number, None)
    _first = number
    sys.unraisablehook = _dropped
    say(line)
    sys.exit(128 + number)


def _dropped(dropped: object) -> None:
    """End at once where the exception was raised in a finalizer or a callback of C code, which drop it; print nothing."""
    if getattr(dropped, "exc_type", None) is SystemExit:
        end_at_once(_first or signal.SIGTERM, None)


def ending(number: int) -> str:
    """Return the word for what a signal did, as in a run's status."""
    return "interrupted" if number == signal.SIGINT else "terminated"


def say(line: str) -> None:
    """Print a line to standard error, if it can be written."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except RuntimeError:  # the handler came in the middle of another write
        _write(f"{line}\n")
    except (OSError, ValueError, AttributeError):  # the stream is closed
        pass


def _write(text: str) -> None:
    try:  # noqa: SIM105 (contextlib takes a while to import)
        os.write(2, text.encode())
    except OSError:
        pass


def runs_as_command(arguments: list[str], original: list[str]) -> bool:
    """Return whether this process is the command `harness` or `python -m harness`, and not a program that imports us.

    Args:
        arguments: `sys.argv`; while Python imports the package of `-m`, its first item is `-m`.
        original: `sys.orig_argv`.
    """
    script = arguments[0] if arguments else ""
    if script == "-m":
        return "harness" in original
    # A script of the same name elsewhere keeps its own Ctrl-C: only the one in this environment is ours.
    return os.path.realpath(script) == os.path.realpath(os.path.join(sys.prefix, "bin", "harness"))  # noqa: PTH118 (quick)


def end_on_interrupt() -> None:
    """End at once on Ctrl-C and SIGTERM, from here until other handlers are set."""
    # Only in place of Python's own handlers: a parent may have asked that Ctrl-C is ignored, as `nohup` and shells do.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end_at_once)
    keep_exit_code()


def keep_exit_code() -> None:
    """Let no signal change the exit code once all that runs at exit has run; call it early, since that runs in reverse."""
    global _keeps_exit_code
    if not _keeps_exit_code:
        _keeps_exit_code = True
        atexit.register(_ignore_signals)


def _ignore_signals() -> None:
    # Python gives signals their default back while it takes itself apart, and the process would die of them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
