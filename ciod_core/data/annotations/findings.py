"""What is wrong with a dataset, or worth knowing. Strict reading stops at the first error, a health check lists all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from ciod_core.errors import DataError


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"  # a split or a training refuses it
    WARNING = "warning"  # it works, but may spoil the result
    NOTE = "note"  # worth knowing


@dataclass(frozen=True)
class Finding:
    """One kind of fault and how often it occurs.

    Attributes:
        severity: how much it matters.
        code: short name that scripts can rely on, such as `box-outside-image`.
        message: where the first case is, what is wrong with it and what to do, in one line.
        count: how many entries have this fault.
    """

    severity: Severity
    code: str
    message: str
    count: int = 1


class Findings:
    """Findings by code, in the order they were met: the first case in words, the others counted."""

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        self._by_code = {finding.code: finding for finding in findings}

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._by_code.values())

    def add(self, code: str, message: str, count: int = 1, severity: Severity = Severity.ERROR) -> None:
        """Count a fault; the message is kept when it is the first of its code."""
        known = self._by_code.get(code) or Finding(severity, code, message, count=0)
        self._by_code[code] = replace(known, count=known.count + count)


def raise_first_error(findings: Iterable[Finding]) -> None:
    """Stop at the first finding that is an error.

    Raises:
        DataError: with that finding's message and how many other entries share the fault.
    """
    for finding in findings:
        if finding.severity is Severity.ERROR:
            others = "" if finding.count == 1 else f" ({finding.count} entries have this fault)"
            raise DataError(f"{finding.message}{others}")
