"""The results of a driver's checks."""

from __future__ import annotations

import enum

import attrs


class Verdict(enum.Enum):
    """The result of one check."""

    PASSED = "passed"
    LACKING = "lacking"
    """It does not hold, as was declared."""
    FAILED = "FAILED"


@attrs.frozen(kw_only=True)
class Finding:
    """One check, and what came of it."""

    name: str
    rule: str
    verdict: Verdict
    detail: str = ""
    """The driver's behaviour that breaks the rule."""
    hung: bool = False
    """It never returned: a thread of it may be left."""

    def line(self, width: int) -> str:
        """The check as it stands in the table, its name so wide."""
        text = f"{self.rule}\n{'':{width + 11}}{self.detail}" if self.detail else self.rule
        return f"{self.name:{width}}  {self.verdict.value:7}  {text}"


@attrs.frozen(kw_only=True)
class DriverReport:
    """The results of all checks; printed, they are a table."""

    driver: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True if nothing failed but what the transport was declared to lack."""
        return all(finding.verdict is not Verdict.FAILED for finding in self.findings)

    @property
    def hung(self) -> bool:
        """True if the driver never returned from some check."""
        return any(finding.hung for finding in self.findings)

    def __str__(self) -> str:
        width = max((len(finding.name) for finding in self.findings), default=0)
        return "\n".join([*(finding.line(width) for finding in self.findings), self.summary])

    @property
    def summary(self) -> str:
        """How many of each."""
        counts = (f"{sum(f.verdict is v for f in self.findings)} {v.value.lower()}" for v in Verdict)
        return f"{self.driver}: {', '.join(counts)}"


class DriverFaulty(AssertionError):
    """A driver does not hold to what every driver must. `report` has it in full."""

    def __init__(self, report: DriverReport) -> None:
        super().__init__(f"\n{report}")
        self.report = report
