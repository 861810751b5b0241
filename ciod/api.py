"""The operations behind `import ciod`: from a dataset to steps, trained weights, numbers and exported files."""

from __future__ import annotations

from pathlib import Path

from ciod_core.config.schema import Config
from ciod_core.data.formats.source import resolve_dataset
from ciod_core.data.hold_out import HoldOut
from ciod_core.evaluation import evaluate_run
from ciod_core.evaluation.evaluate_run import RunEvaluation
from ciod_core.experiment import add_step as steps
from ciod_core.experiment import create
from ciod_core.experiment.folder import Experiment
from ciod_core.export.description import DEFAULT_NMS, ExportDescription
from ciod_core.export.export import ExportFormat
from ciod_core.export.export import export as export_weights


def create_experiment(
    dataset: str | Path,
    plan: str,
    out: str | Path,
    *,
    order: str | None = None,
    leave_out: str | None = None,
    protocol: str = "overlap",
    seed: int = 0,
    hold_out: float | None = None,
    hold_out_seed: int = 0,
    data_root: Path | None = None,
    overwrite: bool = False,
) -> Experiment:
    """Cut a dataset into the steps of a plan and write the experiment's folder.

    Args:
        dataset: a folder (COCO, Roboflow, YOLO or Pascal VOC), a COCO .json, a YOLO .yaml, `coco` or `voc`.
        plan: classes per step, such as `70+10`, or a plan.yaml.
        out: the experiment's folder.
        order, leave_out, protocol, seed, overwrite: see `ciod_core.experiment.create.create_experiment`.
        hold_out: makes the validation half of a dataset that has none: a share of the training images (0.2), or their
            number.
        hold_out_seed: of that choice.
        data_root: root folder of the datasets `coco` and `voc`.

    Raises:
        ConfigError: a plan or `hold_out` that does not fit, or an experiment that may not be replaced.
        DataError: annotations that cannot be used.
    """
    return create.create_experiment(
        resolve_dataset(str(dataset), data_root=data_root),
        plan,
        order,
        Path(out),
        overwrite,
        leave_out=leave_out,
        protocol=protocol,
        seed=seed,
        hold_out=None if hold_out is None else HoldOut(hold_out, hold_out_seed),
    )


def add_step(
    dataset: str | Path,
    *,
    experiment: str | Path | None = None,
    teacher: str | Path | None = None,
    finished: int = 0,
    val: Path | None = None,
    hold_out: float | None = None,
    hold_out_seed: int = 0,
) -> Experiment:
    """Add a step with the classes of a dataset after those that the teacher has learned.

    Args:
        dataset: as for `create_experiment`.
        experiment: folder of the chain; it may be new. None: the folder of the teacher.
        teacher: run or weights to continue; None for step 1 and joint training.
        finished: without a teacher: the number of steps that come before.
        val: COCO file of the validation split, where it is not beside the dataset.
        hold_out, hold_out_seed: as for `create_experiment`.

    Raises:
        ConfigError: a teacher or `hold_out` that does not fit, or a step that is there already from other data.
        DataError: data that cannot be used.
    """
    added = steps.add_step(
        resolve_dataset(str(dataset), val=val),
        experiment=Path(experiment) if experiment else None,
        teacher=teacher,
        finished=finished,
        hold_out=None if hold_out is None else HoldOut(hold_out, hold_out_seed),
    )
    return added.experiment


def evaluate(
    experiment: Experiment, run: str | None = None, *, config: Config | None = None, upper_bound: str | None = None
) -> RunEvaluation:
    """Evaluate a run (or a weights file; None: the only leaf run) and record its report.

    Raises:
        ConfigError: no such run, or no validation images.
        CheckpointError: weights that cannot be read.
    """
    target = evaluate_run.evaluation_target(experiment, run)
    return evaluate_run.evaluate_run(experiment, target, config or Config(), upper_bound=upper_bound)


def export(
    weights: str | Path, out: str | Path, format: ExportFormat = "onnx", *, nms: bool = True, fixed: bool = False
) -> ExportDescription:
    """Write weights as an ONNX model (`onnx`) or a torch.export archive (`pt2`) and check the written file.

    Args:
        weights: of a run.
        out: the file to write.
        format: of the file.
        nms: whether the file suppresses, and gives detections instead of predictions.
        fixed: whether it takes one square image of the size that the weights were trained with, for runtimes that want
            fixed shapes.

    Raises:
        CheckpointError: weights that cannot be read.
        ConfigError: an unknown format.
        ExportError: a file that cannot be written or gives other outputs than the detector.
    """
    return export_weights(Path(weights), Path(out), format, nms=DEFAULT_NMS if nms else None, fixed=fixed)
