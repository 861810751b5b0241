"""Whether a bank takes the teacher's place in a run, and which one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ciod_core.config.schema import Config
from ciod_core.errors import CiodError, ConfigError
from ciod_core.experiment.folder import Experiment, Teacher, run_name
from ciod_core.experiment.manifest import RunRecord
from ciod_core.files import relative_if_inside, sha256_of_file
from ciod_core.methods import build_method
from ciod_core.model.checkpoint import read_info
from ciod_core.runs.replay import TrainingData
from ciod_core.runs.spec import RunSpec
from ciod_core.teachers.bank import KNOWLEDGE_KEY, BankInfo, KnowledgeBank, read_bank_info
from ciod_core.teachers.use import BankMemory, from_bank, open_bank

AUTO = "auto"
NONE = "none"


class Chosen(NamedTuple):
    """Where a run's knowledge comes from.

    Attributes:
        config: the run's settings, as a bank changes them.
        memory: what a bank knows of the run's images; None where the teacher is asked, or where there is none.
        notes: what people should know about it, a line each.
    """

    config: Config
    memory: BankMemory | None = None
    notes: tuple[str, ...] = ()

    @property
    def bank(self) -> KnowledgeBank | None:
        """The bank that the run learns from."""
        return None if self.memory is None else self.memory.bank


def choose_knowledge(
    experiment: Experiment,
    spec: RunSpec,
    config: Config,
    data: TrainingData,
    *,
    asked: Path | str | None = None,
    begun: RunRecord | None = None,
) -> Chosen:
    """Decide whom a run learns from: a bank or its teacher.

    Args:
        experiment: where the run belongs.
        spec: the run.
        config: its settings.
        data: what it trains on.
        asked: a bank; `auto` for the step's own where that says what the teacher would; `none` for the teacher; None
            for the teacher too, except that a resumed run goes on with what it began with.
        begun: the run to resume.

    Raises:
        ConfigError: the bank asked for does not serve this run, or is not what it began with.
        CheckpointError: the bank is missing, damaged or changed.
        DataError: an image that cannot be read.
    """
    if begun is not None:
        path = _begun_with(experiment, begun, asked)
    elif asked == AUTO:
        return _picked_up(experiment, spec, config, data)
    else:
        path = None if asked is None or asked == NONE else Path(asked)
    if path is None:
        return Chosen(config)
    bank = open_bank(path, from_bank(config), spec.teacher)
    return _learning_from(experiment, bank, config, data)


def _learning_from(experiment: Experiment, bank: KnowledgeBank, config: Config, data: TrainingData) -> Chosen:
    note = f"learns from {relative_if_inside(bank.path, experiment.folder)} instead of asking the teacher"
    if build_method(config).recall is None:
        note += "; distiller.background is zero"
    return Chosen(from_bank(config), BankMemory.of(bank, data.table, data.images), (note,))


def _begun_with(experiment: Experiment, begun: RunRecord, asked: Path | str | None) -> Path | None:
    """The bank of a run that goes on; None for the teacher."""
    before, named = begun.inputs.get(KNOWLEDGE_KEY), asked not in (None, AUTO, NONE)
    if before is None:
        if named:
            raise ConfigError(f"--resume: run '{begun.name}' began with a live teacher; leave --knowledge out")
        return None
    if asked == NONE:
        raise ConfigError(f"--resume: run '{begun.name}' began with the bank {before.path}; leave --knowledge out")
    if asked is None or not named:
        remedy = "restore it, pass --knowledge where it lies now, or start the run again with --overwrite"
        return experiment.verified(before, f"run '{begun.name}' began with it", remedy)
    read_bank_info(Path(asked))
    check_same_bank(begun, Path(asked))
    return Path(asked)


def check_same_bank(begun: RunRecord, path: Path) -> None:
    """Refuse to go on with another bank than a run began with.

    Raises:
        ConfigError: naming that one.
    """
    before = begun.inputs.get(KNOWLEDGE_KEY)
    if before is None or sha256_of_file(path) != before.sha256:
        named = before.path if before else "none"
        raise ConfigError(f"--resume: run '{begun.name}' began with the bank {named}; pass it as it was")


def _picked_up(experiment: Experiment, spec: RunSpec, config: Config, data: TrainingData) -> Chosen:
    """The step's own bank where it says what the teacher would; else the teacher, with a word about a near miss."""
    path = experiment.knowledge_path(run_name(spec.step))
    if spec.teacher is None or config.replay.on or not path.is_file() or build_method(from_bank(config)).recall is None:
        return Chosen(config)
    try:
        bank = KnowledgeBank(path)
        if bank.info.teacher_sha256 != spec.teacher.sha256:
            return Chosen(config)
        reason = _why_not(bank, config, spec.teacher)
        if reason is None:
            return _learning_from(experiment, bank, config, data)
    except CiodError as error:
        # Nobody asked for this bank; the teacher can do without it.
        reason = str(error)
    return Chosen(config, notes=(f"not used: {reason}",))


def _why_not(bank: KnowledgeBank, config: Config, teacher: Teacher) -> str | None:
    """Why the answers of a bank are others than the teacher's would be; None where they are not."""
    recall = build_method(from_bank(config)).recall
    assert recall is not None
    live = BankInfo(
        teacher_sha256=teacher.sha256,
        classes=read_info(teacher.path).classes.names,
        image_size=config.data.image_size,
        resampler=recall.resampler,
    )
    difference = live.difference(bank.info)
    if difference is not None:
        return f"{bank.path}: its {difference}"
    if build_method(config).recall is None:
        return (
            f"{bank.path}: it lacks what distiller.background=teacher asks the teacher for; "
            "pass it as --knowledge to learn from it with distiller.background=zero"
        )
    return None
