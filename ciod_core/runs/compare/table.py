"""The measures of a comparison as the cells of a table."""

from __future__ import annotations

from collections.abc import Sequence

from ciod_core.runs.compare.plan import BASE, JOINT
from ciod_core.runs.compare.results import Spread, SuiteRow
from ciod_core.units import duration

# Titles by measure, in the order of the columns.
TITLES = {
    "ap_old": "AP old",
    "ap_new": "AP new",
    "ap_all": "AP all",
    "ceiling_share": "of ceiling %",
    "relative_gap": "RelGap %",
    "omega": "Ω",
    "forgetting": "forgetting",
    "rsd": "RSD %",
    "rpd": "RPD %",
    "false_alarms": "false alarms",
    "new_with_negatives": "AP new with negatives",
    "seconds": "time",
}
_NAMES = {BASE: "step 1", JOINT: "joint, the upper bound"}


def measured_columns(rows: Sequence[SuiteRow]) -> list[str]:
    """The measures that some row has a value for."""
    return [name for name in TITLES if any(row.measures[name].mean is not None for row in rows)]


def cells_of(row: SuiteRow, measures: Sequence[str]) -> tuple[str, ...]:
    """The name of a row, then its measures with their spread over the seeds."""
    return (_NAMES.get(row.method, row.method), *(_cell(measure, row.measures[measure]) for measure in measures))


def _cell(measure: str, spread: Spread) -> str:
    if spread.mean is None:
        return "–"
    if measure == "seconds":
        return duration(spread.mean)
    factor, digits = {"omega": (1.0, 3), "false_alarms": (1.0, 2)}.get(measure, (100.0, 1))
    deviation = "" if spread.sd is None else f" ±{factor * spread.sd:.{digits}f}"
    return f"{factor * spread.mean:z.{digits}f}{deviation}"
