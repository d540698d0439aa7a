"""What a check is, what it finds, and what all of them found: as data, and as JUnit's XML."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as Xml

if TYPE_CHECKING:
    from .session import Session


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not_checked"
    """It needs something that this run does not have; says nothing about the extension."""


class FailedError(Exception):
    """The extension breaks the rule; the text says what was seen."""


class NotCheckedError(Exception):
    """The rule could not be checked in this run; the text says why."""


@dataclass(frozen=True)
class Check:
    """One rule. ``run`` returns what was seen, in a few words, or raises one of the two above."""

    id: str
    title: str
    advice: str
    """What an author does about a failure."""
    run: Callable[[Session], Awaitable[str]]


@dataclass(frozen=True)
class CheckResult:
    """The end of one check. ``detail`` is what was seen, or why it was not checked."""

    check: Check
    outcome: Outcome
    detail: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The result as ``--json`` prints it."""
        found: dict[str, Any] = {
            "check": self.check.id,
            "title": self.check.title,
            "outcome": self.outcome.value,
            "detail": self.detail,
            "seconds": round(self.seconds, 3),
        }
        if self.outcome is Outcome.FAILED:
            found["advice"] = self.check.advice
        return found


@dataclass(frozen=True)
class Report:
    """All results of one run, in the order of the checks."""

    subject: str
    extension_id: str
    kind: str
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.of(Outcome.FAILED)

    def of(self, outcome: Outcome) -> tuple[str, ...]:
        """Ids of the checks that ended so."""
        return tuple(result.check.id for result in self.results if result.outcome is outcome)

    def to_json(self) -> dict[str, Any]:
        """The report as ``--json`` prints it."""
        return {
            "subject": self.subject,
            "extension_id": self.extension_id,
            "type": self.kind,
            "passed": self.passed,
            "checks": [result.to_json() for result in self.results],
        }

    def to_junit(self) -> bytes:
        """The report as a JUnit file: one test case per check."""
        suite = Xml.Element(
            "testsuite",
            name=f"beamline conformance {self.subject}",
            tests=str(len(self.results)),
            failures=str(len(self.of(Outcome.FAILED))),
            errors="0",
            skipped=str(len(self.of(Outcome.NOT_CHECKED))),
            time=f"{sum(result.seconds for result in self.results):.3f}",
        )
        for result in self.results:
            case = Xml.SubElement(
                suite,
                "testcase",
                classname=f"beamline.conformance.{self.extension_id}",
                name=result.check.id,
                time=f"{result.seconds:.3f}",
            )
            if result.outcome is Outcome.FAILED:
                failure = Xml.SubElement(case, "failure", message=printable(result.detail))
                failure.text = printable(f"{result.detail}\n{result.check.advice}")
            elif result.outcome is Outcome.NOT_CHECKED:
                Xml.SubElement(case, "skipped", message=printable(result.detail))
        suites = Xml.Element("testsuites")
        suites.append(suite)
        written: bytes = Xml.tostring(suites, encoding="utf-8", xml_declaration=True)
        return written


def printable(text: str) -> str:
    """``text`` without what XML and a terminal can't show: an extension may answer anything."""
    return "".join(one if one.isprintable() or one == "\n" else "?" for one in text)
