"""The weights of a run: evaluated while it trains, the best of them kept, and those of its result written.

A state says which weights were the best; they are written after it. If the process ends in between, they are those of
the state, so that a resumed run can write them.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from ciod_core.data.images.files import image_path
from ciod_core.errors import CheckpointError
from ciod_core.evaluation.evaluate import evaluate_weights, ground_truth_of
from ciod_core.evaluation.report import EvaluationReport
from ciod_core.experiment.entries import FileRecord
from ciod_core.experiment.folder import WEIGHTS_KEY, Experiment
from ciod_core.files import atomic_write_bytes, sha256_of_file
from ciod_core.inference.torch_detector import TorchDetector
from ciod_core.model.checkpoint import CheckpointInfo, read_info, save_detector
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.runs.record import method_name
from ciod_core.runs.spec import RunSpec
from ciod_core.training.ending import Best
from ciod_core.training.progress import EpochEvaluation
from ciod_core.training.trainer import Trainer

# Keys of outputs in a run's record, and names of files in its folder: those of its weights that are not handed on.
LAST_KEY = "last"
BEST_KEY = "best"


class RunWeights:
    """Weights of a run, as files and as reports."""

    def __init__(self, experiment: Experiment, spec: RunSpec, trainer: Trainer) -> None:
        """Nothing is written yet."""
        self._experiment = experiment
        self._spec = spec
        self._trainer = trainer
        self._out = experiment.weights_path(spec.name)
        folder = experiment.run_folder(spec.name)
        self._last, self._best = (folder / f"{key}.safetensors" for key in (LAST_KEY, BEST_KEY))
        self._report: EvaluationReport | None = None

    def remove(self) -> None:
        """Remove what an earlier run of this name left in the folder."""
        self._last.unlink(missing_ok=True)
        self._best.unlink(missing_ok=True)

    def measure(self) -> None:
        """Evaluate the weights as they are now; the trainer notes the best and the time."""
        trainer, started = self._trainer, time.perf_counter()
        self._save(self._last)
        self._report = report = self._evaluate(self._last)
        ap, best = report.overall.ap, trainer.best
        better = ap is not None and (best is None or ap > best.ap)
        if ap is not None and better:
            trainer.best = Best(epoch=trainer.epochs_done, ap=ap, weights_sha256=sha256_of_file(self._last))
        trainer.seconds += time.perf_counter() - started
        groups = {name: report.groups[name].metrics.ap for name in ("old", "new") if name in report.groups}
        evaluation = EpochEvaluation(
            epoch=trainer.epochs_done,
            iteration=trainer.epochs_done * trainer.iterations_per_epoch,
            ap=ap,
            old=groups.get("old"),
            new=groups.get("new"),
            best=better,
        )
        for listener in trainer.listeners:
            listener.measured(evaluation)
        self._show(self._last)

    @property
    def are_best(self) -> bool:
        """Whether the trainer's weights, as they are now, were measured and are the best."""
        return self._trainer.best is not None and self._trainer.best.epoch == self._trainer.epochs_done

    def keep_best(self) -> None:
        """Write the trainer's weights as the best where they are, once its state is saved."""
        if self.are_best:
            self._save(self._best)

    def forget_lost_best(self) -> None:
        """Let evaluations look for the best weights anew if later ones, of a lost state, have taken their place."""
        if not self._best_is_intact():
            self._trainer.best = None

    def check_best(self) -> None:
        """Make sure that the best weights, if they are to be handed on, are those that the trainer noted.

        Raises:
            CheckpointError: the file is missing or was changed.
        """
        if self._hands_on_best and not self._best_is_intact():
            raise CheckpointError(
                f"{self._best}: the best weights are missing or were changed; restore them, or start the run again "
                "with `overwrite`"
            )

    def hand_on(self) -> dict[str, FileRecord]:
        """Write the weights of the result, and return the run's outputs.

        Raises:
            CheckpointError: the best weights are missing or were changed.
        """
        files = {WEIGHTS_KEY: self._out}
        if self._hands_on_best:
            self.check_best()
            self._save(self._last)
            atomic_write_bytes(self._out, self._best.read_bytes())
            files[LAST_KEY] = self._last
        else:
            self._save(self._out)
            if self._best_is_intact():
                files[BEST_KEY] = self._best
        return {key: FileRecord.of(path, self._experiment.folder) for key, path in files.items()}

    def report(self) -> EvaluationReport:
        """The evaluation of the result, which may have been made during training."""
        if self._report is None or self._report.weights_sha256 != sha256_of_file(self._out):
            for listener in self._trainer.listeners:
                listener.evaluating(self._spec.name)
            self._report = self._evaluate(self._out)
            self._show(self._out)
        for listener in self._trainer.listeners:
            listener.evaluated(self._spec.name, self._report)
        return self._report

    def remove_copies(self, outputs: dict[str, FileRecord]) -> None:
        """Remove from the run's folder the weights that are handed on, once the record says so."""
        for key, path in ((LAST_KEY, self._last), (BEST_KEY, self._best)):
            if key not in outputs:
                path.unlink(missing_ok=True)

    @property
    def _hands_on_best(self) -> bool:
        return self._trainer.best is not None and self._spec.config.training.keep == "best"

    def _best_is_intact(self) -> bool:
        best = self._trainer.best
        return best is not None and self._best.is_file() and sha256_of_file(self._best) == best.weights_sha256

    def _save(self, path: Path) -> None:
        spec, student = self._spec, self._trainer.student
        info = CheckpointInfo(
            model=spec.config.model,
            classes=spec.classes,
            head_classes=student.head_classes,
            branch_depths=student.branch_depths,
            preprocessing=Preprocessing(**spec.config.data.sizes),
            run=spec.name,
            step=spec.step,
            method=method_name(spec),
            parent_sha256=spec.teacher.sha256 if spec.teacher else None,
            source=read_info(spec.teacher.path).source if spec.teacher else None,
        )
        save_detector(path, self._trainer.weights, info)

    def _show(self, path: Path) -> None:
        """Tell the listeners what weights detect in some validation images, if that is asked for."""
        trainer, spec = self._trainer, self._spec
        if not spec.config.training.log_images:
            return
        table, folder, _ = ground_truth_of(self._experiment, self._experiment.read(), spec.step, spec.classes)
        count = min(spec.config.training.log_images, table.num_images)
        names = table.file_names_I[np.linspace(0, table.num_images - 1, count).astype(int)].tolist()
        found = TorchDetector(path, trainer.device).predict([image_path(folder, name, table.path) for name in names])
        pictures = {name: predictions.draw() for name, predictions in zip(names, found, strict=True)}
        for listener in trainer.listeners:
            listener.pictures(trainer.epochs_done * trainer.iterations_per_epoch, pictures)

    def _evaluate(self, path: Path) -> EvaluationReport:
        config = self._spec.config
        return evaluate_weights(
            self._experiment, path, config.evaluation, device=self._trainer.device, workers=config.data.workers
        )
