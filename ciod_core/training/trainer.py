"""The training loop of one step: batches, a student, perhaps a teacher, and a method; nothing of files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from statistics import fmean

import torch
from torch import Tensor, nn

from ciod_core.config.schema import TrainingConfig
from ciod_core.data.loading.dataset import Batch, padded_to
from ciod_core.data.loading.loader import BatchLoader
from ciod_core.errors import CiodError
from ciod_core.experiment.entries import RunEnd
from ciod_core.methods.base import Method, supervised
from ciod_core.model.base import Detector, Predictions
from ciod_core.model.checkpoint import not_finite
from ciod_core.runtime.device import autocast, memory_format, placed
from ciod_core.runtime.distributed import (
    as_if_alone,
    largest_across_processes,
    mean_across_processes,
    parallel,
    rank,
    union_across_processes,
    without_exchange,
)
from ciod_core.teachers.base import Teacher
from ciod_core.training.ema import WeightAverage
from ciod_core.training.ending import Best, evaluation_is_due, what_ends
from ciod_core.training.meter import IntervalMeter
from ciod_core.training.optimizer import build_optimizer, set_learning_rates
from ciod_core.training.progress import TrainingListener
from ciod_core.training.resume import Tensors, TrainingState, optimizer_tensors, restore_optimizer
from ciod_core.training.schedule import learning_rate
from ciod_core.training.skipped import SkippedImages

# The part of the loss scaler's state that changes while training; the rest are its settings.
SCALER_STATE = ("scale", "_growth_tracker")


class Trainer:
    """Trains a student, epoch by epoch; an interrupted run continues from its `state`.

    One of several processes has its share of every batch. All that is averaged is averaged over all of them, so every
    process makes the update that a single one would make; only batch statistics are those of a share, unless
    `training.sync_batch_norm` is on. The main process alone tells listeners and refuses numbers that are not finite.
    """

    def __init__(
        self,
        *,
        student: Detector,
        teacher: Teacher | None,
        method: Method,
        load_epoch: Callable[[int], BatchLoader],
        config: TrainingConfig,
        device: torch.device,
        listeners: Sequence[TrainingListener] = (),
        suspects: Callable[[Predictions, Tensor], Tensor] | None = None,
    ) -> None:
        """Move the student to the device; no batch is loaded yet.

        Args:
            student: is trained in place.
            teacher: on the device already; None: labels alone.
            method: how the student learns.
            load_epoch: the batches of an epoch, from 0.
            config: settings of training.
            device: where to train.
            listeners: get the events of training.
            suspects: from predictions and the (B, C) mask of classes without labels, the (B, A) mask of anchor points
                that may be unlabeled objects; None: all labels are there.
        """
        self.student = placed(student, device, channels_last=config.channels_last, compiled=config.compile)
        self.teacher = teacher
        self.method = method
        self.suspects = suspects
        self.load_epoch = load_epoch
        self.config = config
        self.device = device
        self.listeners = listeners
        self.optimizer = build_optimizer(self.student, config)
        self.average = WeightAverage(self.student, config.ema_decay) if config.ema_decay > 0 else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.iterations_per_epoch = len(load_epoch(0))
        self.epochs_done = 0
        self.seconds = 0.0
        # Who evaluates during training notes it here and adds the time to the seconds.
        self.best: Best | None = None
        self.skipped = SkippedImages()
        self._reported_skipped = 0
        self._model = parallel(self.student, sync_batch_norm=config.sync_batch_norm)

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return self.config.epochs * self.iterations_per_epoch

    @property
    def ended_by(self) -> RunEnd | None:
        """What ends training now; None: another epoch follows."""
        return what_ends(self.config, self.epochs_done, self.seconds, self.best)

    @property
    def evaluation_is_due(self) -> bool:
        """Whether to evaluate now, after an epoch."""
        return evaluation_is_due(self.config, self.epochs_done, ends=self.ended_by is not None)

    @property
    def weights(self) -> Tensors:
        """The weights to keep: the moving average, or the student's own when averaging is off."""
        return self.student.state_dict() if self.average is None else self.average.state

    def state(self) -> TrainingState:
        """Everything that changes while training."""
        scaler = {name: torch.tensor(value) for name, value in self.scaler.state_dict().items() if name in SCALER_STATE}
        parts = {
            "student": self.student.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
            "scaler": scaler,
        }
        if self.average is not None:
            parts["average"] = self.average.state
        return TrainingState(self.epochs_done, self.seconds, self.skipped.names, parts, self.best)

    def restore(self, state: TrainingState) -> None:
        """Continue from what `state` returned.

        Raises:
            KeyError, IndexError, RuntimeError, ValueError: the state is that of another detector.
        """
        parts = state.parts
        self.student.load_state_dict(parts["student"])
        if self.average is not None:
            self.average.state = {name: tensor.to(self.device) for name, tensor in parts["average"].items()}
        restore_optimizer(self.optimizer, parts.get("optimizer", {}))
        scaler = {name: tensor.item() for name, tensor in parts.get("scaler", {}).items()}
        self.scaler.load_state_dict(self.scaler.state_dict() | scaler)
        self.epochs_done = state.epochs_done
        self.seconds = state.seconds
        self.best = state.best
        self.skipped = SkippedImages(state.skipped_images)
        self._reported_skipped = len(self.skipped)

    def train_epoch(self) -> None:
        """One pass over the data.

        Raises:
            CiodError: the loss or a weight is no longer a finite number.
        """
        started = time.perf_counter()
        self._model.train()
        loader = self.load_epoch(self.epochs_done)
        meter = IntervalMeter()
        iteration = self.epochs_done * self.iterations_per_epoch
        kept_in_epoch: int | None = None
        trunk_rates: list[float] = []
        for position, batch in enumerate(meter.waiting_for(loader)):
            lr = learning_rate(iteration, self.iterations_per_epoch, self.config)
            batch = padded_to(batch, *largest_across_processes(*batch.images_B3HW.shape[2:]))
            batches_per_update = self._batches_per_update(position)
            ends_update = len(trunk_rates) + 1 == batches_per_update
            is_whole = loader.last_is_whole and position == len(loader) - 1
            with as_if_alone(is_whole), nullcontext() if ends_update else without_exchange(self._model):
                losses, kept, trunk_rate = self._learn_from(batch, share=1 / batches_per_update)
            trunk_rates.append(trunk_rate)
            if ends_update:
                self._update(lr, fmean(trunk_rates), iteration)
                trunk_rates = []
            meter.add(losses, kept, images=len(batch.images_B3HW))
            kept_in_epoch = kept if kept_in_epoch is None else kept_in_epoch + (kept or 0)
            iteration += 1
            self.skipped.add(batch.skipped)
            if self._reported_skipped == 0:
                self._report_skipped()
            if iteration % self.config.log_interval == 0 or iteration % self.iterations_per_epoch == 0:
                self._report(meter, iteration, lr)
        self.skipped.add(union_across_processes(self.skipped.names))
        self._report_skipped()
        self._check_weights(iteration)
        if kept_in_epoch is not None and not mean_across_processes(torch.tensor(float(kept_in_epoch))):
            self._warn_of_nothing_kept()
        self.epochs_done += 1
        self.seconds += time.perf_counter() - started

    def _batches_per_update(self, position: int) -> int:
        """How many batches the update takes its gradients from that the batch of this position in the epoch is part of.

        The last update of an epoch may have fewer.
        """
        first = position - position % self.config.accumulate
        return min(self.config.accumulate, self.iterations_per_epoch - first)

    def _learn_from(self, batch: Batch, share: float) -> tuple[dict[str, Tensor], int | None, float]:
        """Add this share of a batch's gradients; its losses, the number of kept boxes, and the trunk's rate."""
        layout = memory_format(self.config.channels_last)
        images = batch.images_B3HW.to(self.device, non_blocking=True).to(memory_format=layout)
        targets = batch.targets.to(self.device)
        with autocast(self.device, self.config.precision):
            # Without a teacher there is nothing to compare features with.
            features = "features" in self.method.needs and self.teacher is not None
            student: Predictions = self._model(images, features=features)
        ignored_BA = self._ignored(student, batch.missing_BC)
        if self.teacher is None:
            knowledge, trunk_rate = None, 1.0
            losses = supervised(self.student, student, targets, ignored_BA)
        else:
            knowledge = self.method.reconcile(self.teacher.answer(batch._replace(images_B3HW=images)), targets)
            trunk_rate = self.method.trunk_rate(knowledge, targets)
            losses = self.method.losses(self.student, student, targets, knowledge, ignored_BA)
        total = torch.stack(list(losses.values())).sum()
        self.scaler.scale(total * share).backward()
        detached = {name: loss.detach() for name, loss in losses.items()}
        kept = len(knowledge) if knowledge is not None and "selected" in self.method.needs else None
        return {"loss": total.detach(), **detached}, kept, trunk_rate

    def _update(self, lr: float, trunk_rate: float, iteration: int) -> None:
        """Change the weights by the gradients since the last update."""
        set_learning_rates(self.optimizer, lr, trunk_rate, self.config.backbone_rate)
        if self.config.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.student.parameters(), self.config.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.teacher is not None:
            self.method.after_update(self.student, lr)
        if self.average is not None:
            self.average.update(self.student, iteration // self.config.accumulate + 1)

    def _ignored(self, student: Predictions, missing_BC: Tensor | None) -> Tensor | None:
        """(B, A) mask of the anchor points that may be unlabeled objects; None where all labels are there."""
        if self.suspects is None or missing_BC is None:
            return None
        return self.suspects(student, missing_BC.to(self.device, non_blocking=True))

    def _report(self, meter: IntervalMeter, iteration: int, lr: float) -> None:
        record = meter.record(epoch=self.epochs_done + 1, iteration=iteration, iterations=self.iterations, lr=lr)
        if rank() == 0 and not record.losses["loss"] < float("inf"):
            raise CiodError(
                f"training: the loss is {record.losses['loss']} at iteration {iteration}; lower `training.lr` "
                "or raise `training.warmup_iterations`, and train again with `overwrite`"
            )
        for listener in self.listeners:
            listener.record(record)

    def _check_weights(self, iteration: int) -> None:
        """Refuse to go on with weights that are no numbers: losses of training do not read all of them."""
        if rank() == 0 and (broken := not_finite(self.student.state_dict()) or not_finite(self.weights)):
            raise CiodError(
                f"training: {len(broken)} tensors of the weights hold values that are no finite numbers after "
                f"iteration {iteration}, the first is {broken[0]}; lower `training.lr` or raise "
                "`training.warmup_iterations`, and train again with `overwrite`"
            )

    def _warn_of_nothing_kept(self) -> None:
        for listener in self.listeners:
            listener.warn(
                f"the teacher detects no old object in any image of epoch {self.epochs_done + 1}: nothing holds the "
                "old classes; try `method.name` frozen-branch, or `data.unlabeled` images that show them"
            )

    def _report_skipped(self) -> None:
        if len(self.skipped) > self._reported_skipped:
            for listener in self.listeners:
                listener.warn(str(self.skipped))
            self._reported_skipped = len(self.skipped)
