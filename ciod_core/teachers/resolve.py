"""The teacher of a training run: a knowledge bank that was passed or found, or the network that the student continues.

Here alone is checked that a teacher provides what a method needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from ciod_core.config.schema import Config, ResamplerConfig
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.errors import CiodError, ConfigError
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import Experiment, run_name
from ciod_core.experiment.folder import Teacher as Weights
from ciod_core.files import relative_if_inside, sha256_of_file
from ciod_core.methods.base import Method
from ciod_core.methods.registry import build_method, method_class, with_own_settings
from ciod_core.model.base import Detector
from ciod_core.model.checkpoint import read_info
from ciod_core.teachers.bank import BankTeacher, KnowledgeBank, read_identity
from ciod_core.teachers.base import Teacher, TeacherIdentity
from ciod_core.teachers.network import NetworkTeacher

# The key of the bank among the inputs in a run's record.
KNOWLEDGE_KEY = "knowledge"
AUTO = "auto"
NONE = "none"


class RunTeacher(NamedTuple):
    """Where a run's knowledge comes from.

    Attributes:
        config: the run's settings, as a bank changes them.
        identity: of the live teacher; None for a run without one.
        bank: the bank; None where the network itself teaches, or there is no teacher.
        notes: what users should know about it, a line each.
    """

    config: Config
    identity: TeacherIdentity | None
    bank: BankTeacher | None = None
    notes: tuple[str, ...] = ()

    def open(
        self, detector: Detector | None, method: Method, images: LocatedTable, device: torch.device
    ) -> Teacher | None:
        """The teacher; None where the method needs none.

        Args:
            detector: the network of the teacher's weights, which is changed; None without a teacher.
            method: the run's method.
            images: the images to train on.
            device: the device to train on.
        """
        if self.bank is not None:
            return self.bank
        if detector is None or self.identity is None or not _can_learn_from(method, NetworkTeacher.provides):
            return None
        return NetworkTeacher.beside_student(
            detector, method, self.identity, images, device=device, training=self.config.training
        )


def resolve_teacher(
    experiment: Experiment,
    config: Config,
    images: LocatedTable,
    *,
    step: int,
    weights: Weights | None,
    knowledge: Path | str | None = None,
    begun: RunRecord | None = None,
) -> RunTeacher:
    """Decide what a run learns from: a bank or the network of its teacher.

    Args:
        experiment: where the run belongs.
        config: the run's settings.
        images: the images to train on.
        step: the step of the run.
        weights: the teacher's verified weights; None for a run without a teacher.
        knowledge: a bank; `auto` for the step's own where it is equal to the live teacher; `none` or None for the
            live teacher, except that with None a resumed run continues with its bank.
        begun: the record of a run to resume.

    Raises:
        ConfigError: the bank does not fit this run, or is not the one that it began with.
        CheckpointError: the bank is missing, damaged or changed.
        DataError: an image that cannot be read.
    """
    live = None if weights is None else _live_identity(weights, config)
    if begun is not None:
        path = _bank_of(experiment, begun, knowledge)
    elif knowledge == AUTO:
        return _step_bank(experiment, config, images, step, live)
    else:
        path = Path(str(knowledge)) if names_bank(knowledge) else None
    if path is None:
        return RunTeacher(config, live)
    return _from_bank(experiment, config, images, _matching_bank(path, config, weights), live)


def names_bank(knowledge: Path | str | None) -> bool:
    """Whether `knowledge` is a bank that was passed, rather than a way to find one or to do without."""
    return knowledge not in (None, AUTO, NONE)


def bank_config(config: Config) -> Config:
    """The settings of a run that learns from a bank alone.

    Raises:
        ConfigError: its method needs a live teacher or none.
    """
    if _bank_method(config) is None:
        raise ConfigError(f"`method.name`: '{config.method.name}' cannot learn from a bank; leave it out")
    return _without_dense(config)


def require_same_bank(begun: RunRecord, path: Path) -> None:
    """Refuse to resume a run with another bank than it began with.

    Raises:
        ConfigError: naming that bank.
    """
    before = begun.inputs.get(KNOWLEDGE_KEY)
    if before is None or sha256_of_file(path) != before.sha256:
        named = before.path if before else "none"
        raise ConfigError(f"`resume`: run '{begun.name}' began with the bank {named}; pass it as it was")


def _can_learn_from(method: Method, provides: frozenset[str]) -> bool:
    return bool(method.needs) and method.needs <= provides


def _without_dense(config: Config) -> Config:
    """The settings without what dense predictions alone can give."""
    return with_own_settings(config, method_class(config.method.name).without_dense)


def _bank_method(config: Config) -> Method | None:
    """The configured method as it learns from a bank; None where it cannot."""
    method = build_method(_without_dense(config))
    return method if _can_learn_from(method, BankTeacher.provides) else None


def _bank_selection(config: Config) -> ResamplerConfig:
    """What has to have selected the boxes of a bank for the configured method."""
    method = _bank_method(config)
    return (method.selection if method else None) or config.resampler


def _own_settings(method: Method, sign: str) -> str:
    """The settings with which a method needs no dense predictions, in words."""
    return ", ".join(f"{method.section}.{name}{sign}{value}" for name, value in method.without_dense.items())


def _live_identity(weights: Weights, config: Config) -> TeacherIdentity:
    return TeacherIdentity(
        teacher_sha256=weights.sha256,
        classes=read_info(weights.path).classes.names,
        **config.data.sizes,
        resampler=_bank_selection(config),
    )


def _from_bank(
    experiment: Experiment, config: Config, images: LocatedTable, bank: KnowledgeBank, live: TeacherIdentity | None
) -> RunTeacher:
    teacher = BankTeacher(bank, images, experiment.image_hashes())
    teacher.require_images()
    note = f"learns from {relative_if_inside(bank.path, experiment.folder)} instead of the live teacher"
    method = build_method(config)
    if not _can_learn_from(method, BankTeacher.provides):
        note += f"; {_own_settings(method, ' is ')}"
    return RunTeacher(_without_dense(config), live, teacher, (note,))


def _matching_bank(path: Path, config: Config, weights: Weights | None) -> KnowledgeBank:
    """A bank that was passed: it may be averaged over views or of another detector, if classes and selection fit."""
    if weights is None:
        raise ConfigError("`knowledge`: requires `teacher`; leave it out")
    if config.replay.on:
        raise ConfigError("`knowledge`: a bank holds the images of the step, not replayed ones; leave one of both out")
    if _bank_method(config) is None:
        raise ConfigError(
            f"`knowledge`: method '{config.method.name}' needs the live teacher or none: banks store selected "
            "predictions only; leave it out"
        )
    bank, info = KnowledgeBank(path), read_info(weights.path)
    expected: dict[str, Any] = {"classes": info.classes.names, "resampler": _bank_selection(config)}
    if not bank.identity.foreign:
        expected |= {"teacher_sha256": weights.sha256, **info.preprocessing.sizes}
    difference = bank.identity.model_copy(update=expected).difference(bank.identity)
    if difference is not None:
        raise ConfigError(f"`knowledge` {path}: its {difference}; run 'ciod distill' with these settings")
    return bank


def _bank_of(experiment: Experiment, begun: RunRecord, knowledge: Path | str | None) -> Path | None:
    """The bank of a run that is resumed; None for the live teacher."""
    before, named = begun.inputs.get(KNOWLEDGE_KEY), names_bank(knowledge)
    if before is None:
        if named:
            raise ConfigError(f"`resume`: run '{begun.name}' began with a live teacher; leave `knowledge` out")
        return None
    if knowledge == NONE:
        raise ConfigError(f"`resume`: run '{begun.name}' began with the bank {before.path}; leave `knowledge` out")
    if not named:
        remedy = "restore it, pass `knowledge` with its new path, or start the run again with `overwrite`"
        return experiment.verified(before, f"run '{begun.name}' began with it", remedy)
    path = Path(str(knowledge))
    read_identity(path)
    require_same_bank(begun, path)
    return path


def _step_bank(
    experiment: Experiment, config: Config, images: LocatedTable, step: int, live: TeacherIdentity | None
) -> RunTeacher:
    """The step's own bank where it equals the live teacher; else the live teacher, with a note about a near miss."""
    path = experiment.knowledge_path(run_name(step))
    if live is None or config.replay.on or not path.is_file() or _bank_method(config) is None:
        return RunTeacher(config, live)
    try:
        bank = KnowledgeBank(path)
        if bank.identity.teacher_sha256 != live.teacher_sha256:
            return RunTeacher(config, live)
        difference = live.difference(bank.identity)
        if difference is not None:
            reason = f"{path}: its {difference}"
        elif not _can_learn_from(method := build_method(config), BankTeacher.provides):
            reason = (
                f"{path}: it lacks the dense predictions that these settings need; "
                f"pass it as `knowledge` to learn from it with {_own_settings(method, '=')}"
            )
        else:
            return _from_bank(experiment, config, images, bank, live)
    except CiodError as error:
        # The bank was found, not passed; the live teacher can do without it.
        reason = str(error)
    return RunTeacher(config, live, notes=(f"not used: {reason}",))
