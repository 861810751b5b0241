"""What is wrong with a dataset, or worth knowing. Strict reading stops at the first error, a health check lists all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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


def raise_first_error(findings: Iterable[Finding]) -> None:
    """Stop at the first finding that is an error.

    Raises:
        DataError: with that finding's message and how many other entries share the fault.
    """
    for finding in findings:
        if finding.severity is Severity.ERROR:
            raise DataError(f"{finding.message}{_others(finding.count)}")


def _others(count: int) -> str:
    return "" if count == 1 else f" ({count} entries have this fault)"
