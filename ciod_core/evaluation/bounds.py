"""Whether a joint run is the upper bound that it is taken for, read off the manifest alone."""

from __future__ import annotations

from collections.abc import Collection

from ciod_core.errors import listed
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.manifest import ExperimentManifest

# In the order in which a message names them.
GROUPS = {"all": "all classes", "old": "the old classes", "new": "the new classes"}


def doubtful_bounds(manifest: ExperimentManifest, runs: Collection[str] | None = None) -> list[str]:
    """What speaks against joint runs as upper bounds of the runs of the same step and seed, a line per joint run.

    A bound that was trained for less than the runs it bounds may be too low; one with a lower AP is.

    Args:
        manifest: with the recorded metrics.
        runs: names of the runs to compare; None: all.
    """
    finished = [run for run in manifest.runs if run.status == "finished" and (runs is None or run.name in runs)]
    lines = []
    for joint in (run for run in finished if run.kind == "joint"):
        bounded = [run for run in finished if run.kind != "joint" and (run.step, run.seed) == (joint.step, joint.seed)]
        lower = [text for run in bounded if (text := _lower_groups(joint, run))]
        shorter = [text for run in bounded if (text := _shorter_training(manifest, joint, run))]
        if lower:
            shown = f"{joint.name} is no upper bound: its AP is lower than that of {listed(lower)}; ratios are left out"
            lines.append(f"{shown}; {shorter[0]}" if shorter else shown)
        elif shorter:
            lines.append(f"{joint.name} may be no upper bound: {shorter[0]}")
    return lines


def _lower_groups(joint: RunRecord, run: RunRecord) -> str | None:
    """The groups of classes of which the joint run has the lower AP, in words."""
    groups = []
    for key, name in GROUPS.items():
        bound, ap = joint.metrics.get(key), run.metrics.get(key)
        # Without old classes the new ones are all there are.
        if bound is not None and ap is not None and bound < ap and (key == "all" or "old" in run.metrics):
            groups.append(f"{name} {100 * bound:.1f} to {100 * ap:.1f}")
    return f"{run.name} ({', '.join(groups)})" if groups else None


def _shorter_training(manifest: ExperimentManifest, joint: RunRecord, run: RunRecord) -> str | None:
    path = manifest.path_to(run.name)
    own, needed = _epochs(joint), sum(_epochs(part) or 0 for part in path)
    if own is None or own >= needed:
        return None
    return f"it was trained for {own} epoch{'s'[: own != 1]}, {' → '.join(part.name for part in path)} for {needed}"


def _epochs(run: RunRecord) -> int | None:
    planned: int | None = run.config.get("training", {}).get("epochs")
    return planned if run.epochs is None else run.epochs
