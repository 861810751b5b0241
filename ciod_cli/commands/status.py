"""`ciod status`: the steps and runs of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciod_cli import console
from ciod_cli.options import EXPERIMENT, JSON, argument, option
from ciod_core.errors import CheckpointError, ConfigError, listed

if TYPE_CHECKING:
    from rich.tree import Tree

    from ciod_core.experiment.entries import RunRecord, StepRecord
    from ciod_core.experiment.folder import Experiment
    from ciod_core.experiment.manifest import ExperimentManifest

_CLASSES_IN_TREE = 5


def status(
    folder: Path | None = argument("EXPERIMENT", "Experiment folder, as --experiment.", None),
    experiment: Path | None = EXPERIMENT,
    verify: bool = option("--verify", "Read every file and compare it with what was recorded.", False),
    accept_changed: bool = option(
        "--accept-changed", "With --verify: record changed inputs and an edited experiment.json as they are now.", False
    ),
    json: bool = JSON,
) -> None:
    """Show the steps of an experiment and the tree of its runs with their results."""
    from ciod_core.evaluation.bounds import doubtful_bounds
    from ciod_core.experiment.folder import Experiment

    if folder is not None and experiment is not None:
        raise ConfigError("`experiment`: the experiment is given twice; pass it once")
    if accept_changed and not verify:
        raise ConfigError("`accept_changed`: requires `verify`; pass both")
    found = Experiment.find(folder or experiment, edited=accept_changed)
    if verify:
        _verify(found, accept_changed=accept_changed, json=json)
        return
    manifest = found.read()
    if json:
        console.show_json({"experiment": str(found.folder), **manifest.model_dump(mode="json")})
        return
    rows = [
        (str(step.step), _classes_of(step), _runs_of(manifest, step.step), _images_of(step)) for step in manifest.steps
    ]
    title = f"{found.folder}: {_origin(manifest)}"
    console.show(console.table(title, ("step", "classes", "runs", "images"), rows, text_columns=3))
    console.show(_tree(found, manifest))
    for doubt in doubtful_bounds(manifest):
        console.warn(doubt)


def _verify(experiment: Experiment, *, accept_changed: bool, json: bool) -> None:
    """Read every file; print what is broken, and fail if anything is."""
    from ciod_cli.progress import progress_counter
    from ciod_core.runs import verify

    with progress_counter("Reading images", "images", at_once=False) as on_image:
        check = verify.accept_changes if accept_changed else verify.verify
        found = check(experiment, on_image)
    if json:
        console.show_json({"experiment": str(experiment.folder), **found.to_dict()})
    else:
        for change in found.accepted:
            console.note(f"{change.path}: accepted as it is now")
        for link in found.broken:
            affects = f"; affects {listed(link.affects)}" if link.affects else ""
            console.show(f"{link.path}: {link.problem}{affects}")
    if found.broken:
        remedy = "" if all(link.change is None for link in found.broken) else ", or accept inputs with `accept_changed`"
        raise CheckpointError(
            f"{experiment.folder}: {len(found.broken)} of {found.files + found.images:,} files are broken; restore "
            f"them{remedy}"
        )
    if not json:
        console.show(f"{found.files:,} files and {found.images:,} images are as they were recorded")


def _origin(manifest: ExperimentManifest) -> str:
    if manifest.dataset is None or manifest.plan is None:
        return "steps added one by one, without a plan"
    added = sum(step.data is not None for step in manifest.steps)
    later = f", and {added} step{'s'[: added != 1]} added" if added else ""
    return f"{manifest.dataset.name}, {manifest.plan.summary}{later}"


def _classes_of(step: StepRecord) -> str:
    more = ", ".join(step.extended_classes)
    parts = [", ".join(step.classes) or "no new class", *([f"more of {more}"] if more else [])]
    if step.train is None:
        parts.append("learned before")
    return "; ".join(parts)


def _images_of(step: StepRecord) -> str:
    return "–" if step.train is None else f"{step.statistics.images:,}"


def _runs_of(manifest: ExperimentManifest, step: int) -> str:
    return ", ".join(run.name for run in manifest.runs if run.step == step) or "–"


def _tree(experiment: Experiment, manifest: ExperimentManifest) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text("runs" if manifest.runs else "no runs yet; start with 'ciod train-step'"))
    branches: dict[str, Tree] = {}
    # Parents are recorded before their children, so every branch exists when it is needed.
    for run in manifest.runs:
        branches[run.name] = branches.get(run.parent or "", tree).add(
            Text(console.printable(_describe(run, manifest, _state(experiment, run))))
        )
    return tree


def _state(experiment: Experiment, run: RunRecord) -> str:
    return "killed; --resume continues it" if experiment.was_killed(run) else run.status


def _describe(run: RunRecord, manifest: ExperimentManifest, state: str) -> str:
    parts = [run.name, run.method, state]
    if run.ended_by not in (None, "epochs"):
        parts.append(f"ended after {run.epochs} epoch{'s'[: run.epochs != 1]} ({run.ended_by})")
    if run.seconds is not None:
        parts.append(console.duration(run.seconds))
    parts.extend(f"{label} {console.percent(value)}" for label, value in _headline(run.metrics))
    parts.append(_learned(run, manifest))
    return "  ".join(parts)


def _learned(run: RunRecord, manifest: ExperimentManifest) -> str:
    """The classes that a run has learned: those of its step, or of all steps so far."""
    if run.kind == "distilled":
        return "the same classes, without labels"
    learned = manifest.classes.of_step if run.kind == "step" else manifest.classes.up_to
    names = learned(run.step).names
    shown = ", ".join(names[:_CLASSES_IN_TREE])
    rest = len(names) - _CLASSES_IN_TREE
    return f"+ {shown}{f' and {rest} more' if rest > 0 else ''}" if names else "no new class"


def _headline(metrics: dict[str, Any]) -> list[tuple[str, float]]:
    # Without old classes the new ones are all there are.
    wanted = {"AP": "all", "old": "old", "new": "new"} if "old" in metrics else {"AP": "all"}
    return [(label, metrics[key]) for label, key in wanted.items() if isinstance(metrics.get(key), float)]
