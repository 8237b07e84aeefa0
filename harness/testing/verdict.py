"""The findings of conformance checks, for people and for scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal

from harness.errors import HarnessError
from harness.extras import MissingExtraError, missing_extra
from harness.sandbox.scripted import Fault as Fault

Status = Literal["passed", "failed", "advice", "not run"]

_MARKS: dict[Status, str] = {"passed": "ok  ", "failed": "FIX ", "advice": "note", "not run": "skip"}


class Advice(Fault):
    """Something that is allowed and worth a second look."""


class Unchecked(Fault):
    """A check that could not run here."""


@dataclass(frozen=True)
class Finding:
    """One check's outcome.

    Attributes:
        said: the fault; empty if the check passed.
        fix: what to change.
    """

    check: str
    status: Status
    said: str = ""
    fix: str = ""


@dataclass(frozen=True)
class CheckVerdict:
    """The findings of all checks of one component."""

    kind: str
    name: str
    distribution: str
    module: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing must be fixed; advice and checks that could not run do not count."""
        return not self.failed

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.status == "failed")

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        result = "conforms" if self.ok else f"does not conform ({len(self.failed)} to mend)"
        head = f"{self.kind} {self.name!r} of {self.distribution} ({self.module}) {result}"
        alike = groupby(self.findings, key=lambda finding: (finding.status, finding.said, finding.fix))
        return "\n".join([head, *(line for _, findings in alike for line in _lines(list(findings)))])


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """One entry for each finding; those that could not run for one reason share it."""
    first = findings[0]
    if first.status == "not run" and len(findings) > 1:
        findings = [Finding(", ".join(finding.check for finding in findings) + ":", first.status, first.said, first.fix)]
    for finding in findings:
        yield f"  {_MARKS[finding.status]} {f'{finding.check} ':<14}{finding.said}".rstrip()
        if finding.fix:
            yield f"       {'':<14}→ {finding.fix}"


def run(check: str, function: Callable[..., None], *arguments: Any) -> Finding:
    """Run one check and return its finding.

    A `HarnessError` means that the component asks for what this check cannot give (a file, a server): it was not run. Any
    other exception is the component's own.
    """
    try:
        function(*arguments)
    except Advice as advice:
        return Finding(check, "advice", advice.said, advice.fix)
    except Unchecked as unchecked:
        return Finding(check, "not run", unchecked.said, unchecked.fix)
    except Fault as fault:
        return Finding(check, "failed", fault.said, fault.fix)
    except MissingExtraError:  # nothing of the kind can be checked here
        raise
    except HarnessError as error:
        return Finding(check, "not run", str(error), "give the fields that it needs, or check it where they can be used")
    except NotImplementedError as error:
        method = _innermost(error)
        return Finding(check, "failed", f"it has no {method}()", f"define {method}() on the class, or mend its name")
    except Exception as error:  # foreign code: whatever it raises is a finding about it
        if (missing := missing_extra(error)) is not None:  # but a package that this install lacks
            raise missing from error
        said = f"it raised {type(error).__name__}: {' '.join(str(error).split())}"
        return Finding(check, "failed", said, _where(error, (*getattr(function, "args", ()), *arguments, None)[0]))
    return Finding(check, "passed")


def _innermost(error: BaseException) -> str:
    """Return the name of the function that raised."""
    trace, name = error.__traceback__, ""
    while trace is not None:
        name, trace = trace.tb_frame.f_code.co_name, trace.tb_next
    return name


def _where(error: BaseException, component: Any) -> str:
    """Return the innermost line of the component's own package in a traceback, or else its class."""
    cls = component if isinstance(component, type) else type(component)
    package, trace = cls.__module__.partition(".")[0], error.__traceback__
    place = f"mend the class {cls.__name__} of {cls.__module__}: what it takes and returns is in harness.api.interfaces"
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == package:
            place = f"mend {trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place
