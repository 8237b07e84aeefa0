"""What a conformance check found, for people and for scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.errors import HarnessError

Status = Literal["passed", "failed", "advice", "not run"]

_MARKS: dict[Status, str] = {"passed": "ok  ", "failed": "FIX ", "advice": "note", "not run": "skip"}


class Fault(Exception):  # noqa: N818  a verdict on a component, not an error of the run
    """What a component does wrong, and how to mend it; each a sentence without a full stop."""

    def __init__(self, said: str, fix: str) -> None:
        super().__init__(said)
        self.said, self.fix = said, fix


class Advice(Fault):
    """Something that is allowed and worth a second look."""


@dataclass(frozen=True)
class Finding:
    """One check's outcome.

    Attributes:
        said: what was found; empty where the check passed.
        fix: what to change.
    """

    check: str
    status: Status
    said: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Verdict:
    """Everything that was checked of one component."""

    kind: str
    name: str
    distribution: str
    module: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing must be mended; checks that could not run here and advice do not count."""
        return not self.failed

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.status == "failed")

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        counts = {status: sum(finding.status == status for finding in self.findings) for status in _MARKS}
        result = "conforms" if self.ok else f"does not conform ({counts['failed']} to mend)"
        head = f"{self.kind} {self.name!r} of {self.distribution} ({self.module}) {result}"
        return "\n".join([head, *(line for finding in self.findings for line in _lines(finding))])


def _lines(finding: Finding) -> Iterator[str]:
    yield f"  {_MARKS[finding.status]} {finding.check:<14}{finding.said}".rstrip()
    if finding.fix:
        yield f"       {'':<14}→ {finding.fix}"


def run(check: str, function: Callable[..., None], *arguments: Any) -> Finding:
    """One check as a finding.

    A `HarnessError` means that the component asks for what this check cannot give (a file, a server): it was not run. Any
    other exception is the component's own.
    """
    try:
        function(*arguments)
    except Advice as advice:
        return Finding(check, "advice", advice.said, advice.fix)
    except Fault as fault:
        return Finding(check, "failed", fault.said, fault.fix)
    except HarnessError as error:
        return Finding(check, "not run", str(error), "give the fields that it needs, or check it where they can be used")
    except Exception as error:  # foreign code: whatever it raises is a finding about it
        said = f"it raised {type(error).__name__}: {error}"
        return Finding(check, "failed", said, _where(error))
    return Finding(check, "passed")


def _where(error: BaseException) -> str:
    """The innermost line of the component's own code that an exception came through."""
    trace, found = error.__traceback__, "mend it"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/harness/testing/" not in file and "/site-packages/" not in file:
            found = f"mend {file}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found
