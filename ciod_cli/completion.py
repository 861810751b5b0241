"""What the shell completes beside commands and flags: names of runs. Nothing here may print or fail."""

from __future__ import annotations

from pathlib import Path

import typer

from ciod_core.errors import CiodError


def run_names(ctx: typer.Context) -> list[str]:
    """The runs of the experiment that the command would find; without any, the shell completes file names."""
    # Imported here: the manifest's schema takes longer than the rest of the command line.
    from ciod_core.experiment.folder import Experiment

    given = next((ctx.params[name] for name in ("experiment", "folder") if ctx.params.get(name)), None)
    try:
        return [run.name for run in Experiment.find(Path(given) if given else None).read().runs]
    except (CiodError, OSError):
        return []
