"""Training from a bank: which settings that takes, whether a bank is the right one, and what it knows of each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ciod_core.config.schema import Config
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.errors import ConfigError
from ciod_core.experiment.folder import Teacher
from ciod_core.methods.registry import build_method
from ciod_core.model.checkpoint import read_info
from ciod_core.model.knowledge import ImageKnowledge
from ciod_core.teachers.bank import KnowledgeBank
from ciod_core.teachers.build import image_hashes


def from_bank(config: Config) -> Config:
    """The settings with what only a live teacher can give left out: its objectness where it kept no answer."""
    distiller = config.distiller.model_copy(update={"background": "zero"})
    return config.model_copy(update={"distiller": distiller})


def open_bank(path: Path, config: Config, teacher: Teacher | None) -> KnowledgeBank:
    """Open a bank, and make sure that it holds what a live teacher would have been asked.

    Args:
        path: the bank.
        config: settings from `from_bank`.
        teacher: of the run; where somebody else answered, it has to know the same classes.

    Raises:
        ConfigError: the run has no teacher, its method learns more than a bank keeps, or the bank is another one's.
        CheckpointError: the file is no bank.
    """
    if teacher is None:
        raise ConfigError("--knowledge: a run without a teacher has no use for it; leave it out")
    if config.replay.on:
        raise ConfigError("--knowledge: it knows the images of the step, not those that are replayed; leave one out")
    recall = build_method(config).recall
    if recall is None:
        raise ConfigError(
            f"--knowledge: '{config.method.name}' asks a teacher for more than a bank keeps, or for nothing; "
            "leave the option out"
        )
    bank, info = KnowledgeBank(path), read_info(teacher.path)
    fitting: dict[str, Any] = {"classes": info.classes.names, "resampler": recall.resampler}
    if not bank.info.foreign:
        fitting |= {"teacher_sha256": teacher.sha256, "image_size": info.preprocessing.image_size}
    difference = bank.info.model_copy(update=fitting).difference(bank.info)
    if difference is not None:
        raise ConfigError(f"--knowledge {path}: its {difference}; run 'ciod distill' with these settings")
    return bank


class BankMemory:
    """What a bank knows of the images of a dataset, by their index."""

    def __init__(self, bank: KnowledgeBank, hashes_I: Sequence[str]) -> None:
        self.bank = bank
        # One string of bytes: a list of as many objects would be copied into every loading worker.
        self._hashes = b"".join(bytes.fromhex(sha256) for sha256 in hashes_I)

    @classmethod
    def of(cls, bank: KnowledgeBank, table: AnnotationTable, images_root: Path) -> BankMemory:
        """Hash the images of a table and find them in the bank.

        Raises:
            ConfigError: the bank does not know all of them.
            DataError: an image that cannot be read.
        """
        hashes_I = image_hashes(table, images_root)
        unknown = len(set(hashes_I) - set(bank.hashes))
        if unknown:
            raise ConfigError(
                f"{bank.path}: {unknown} of {len(hashes_I)} images are not in it; run 'ciod distill' again"
            )
        return cls(bank, hashes_I)

    def __call__(self, index: int) -> ImageKnowledge:
        """What is known of the image with this index."""
        kept = self.bank.of_image(self._hashes[32 * index : 32 * (index + 1)].hex())
        assert kept is not None
        return kept
