"""What runs would take, as rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ciod_cli import console

if TYPE_CHECKING:
    from ciod_core.runs.estimate import Estimate

ESTIMATE_COLUMNS = (
    "run",
    "parameters",
    "images",
    "epochs",
    "iterations",
    "images/s",
    "loading",
    "memory",
    "training time",
    "on",
)


def estimate_cells(found: Estimate) -> tuple[str, ...]:
    """The cells of a run, by `ESTIMATE_COLUMNS`."""
    return (
        found.run,
        f"{found.parameters / 1e6:.1f} M",
        f"{found.images:,}",
        str(found.epochs),
        f"{found.iterations:,}",
        f"{found.images_per_second:.3g}",
        f"{found.loading_share:.0%}",
        "–" if found.memory_bytes is None else f"{found.memory_bytes / 2**30:.1f} GiB",
        console.duration(found.seconds),
        found.device,
    )
