"""The bank: one safetensors file with the kept answers of a teacher, keyed by what is in an image and not by its name.

A bank describes itself, so that training can tell whether it is the right one. It is read through a memory map: however
large it is, a loading worker holds only what it looks at.

Legend: I images, K answers of all images or of one, C old classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ciod_core.config.schema import ResamplerConfig
from ciod_core.errors import CheckpointError
from ciod_core.files import atomic_write_bytes
from ciod_core.migrations import BANK_VERSION, upgrade_bank
from ciod_core.model.knowledge import ImageKnowledge, no_answers
from ciod_core.records import Record, read_description

# What a run's record calls the bank it learned from.
KNOWLEDGE_KEY = "knowledge"
METADATA_KEY = "ciod-knowledge"
HASH_BYTES = 32
# Logits of a detector lie within ±30; half precision keeps three digits of them, which is finer than any two teachers.
LOGIT_TYPE = np.float16


TeacherKind = Literal["ciod", "results", "onnx"]


class BankInfo(Record):
    """What the knowledge came from: two banks with equal descriptions hold equal answers for equal images.

    Attributes:
        teacher_sha256: hash of the file that answered.
        classes: the classes that may be named, by label.
        image_size: longer side in pixels at which the teacher saw the images; 0 where it decides that itself.
        flip: whether its answers were averaged with those for the mirrored image.
        scales: further sizes that were averaged, as multiples of `image_size`.
        resampler: the selection; its `ground_truth_iou` is no part of it, because labels are known when training.
        teacher: what answered: ciod's weights, the results file of another detector, or an ONNX model.
        teacher_ids: of a teacher from elsewhere, its id of every class, by label.
    """

    format_version: int = BANK_VERSION
    teacher_sha256: str
    classes: tuple[str, ...]
    image_size: int
    flip: bool = False
    scales: tuple[float, ...] = ()
    resampler: ResamplerConfig
    teacher: TeacherKind = "ciod"
    teacher_ids: tuple[int, ...] = ()

    @property
    def foreign(self) -> bool:
        """Whether somebody else than a detector of ciod answered, from which no student can start."""
        return self.teacher != "ciod"

    def difference(self, other: BankInfo) -> str | None:
        """The first thing in which another description differs, in words; None where it does not."""
        mine, theirs = _flat(self), _flat(other)
        return next(
            (f"{name} is {theirs[name]}, not {mine[name]}" for name in mine if mine[name] != theirs[name]), None
        )


_TYPES: Mapping[str, type[np.generic]] = {
    "boxes_K4": np.float32,
    "labels_K": np.int32,
    "class_logits_KC": LOGIT_TYPE,
    "obj_logits_K": LOGIT_TYPE,
    "scores_K": np.float32,
}


class KnowledgeBank:
    """A bank on disk, opened when it is first asked in each process."""

    def __init__(self, path: Path) -> None:
        """Read description and index; the answers stay on disk.

        Raises:
            CheckpointError: the file is missing, damaged or no bank.
        """
        self.path = path
        self.info = read_bank_info(path)
        with safe_open(path, framework="numpy") as file:
            try:
                self._hashes_I = file.get_tensor("hashes_I32").view(f"V{HASH_BYTES}").reshape(-1)
                self._offsets = file.get_tensor("offsets")
            except SafetensorError as error:
                raise CheckpointError(
                    f"{path}: its index is missing ({error}); run 'ciod distill --overwrite'"
                ) from None
        self._file: Any = None

    def __len__(self) -> int:
        return len(self._hashes_I)

    def __getstate__(self) -> dict[str, Any]:
        # A memory map belongs to its process; a loading worker opens its own.
        return vars(self) | {"_file": None}

    @property
    def num_answers(self) -> int:
        """Answers of all images."""
        return int(self._offsets[-1])

    @property
    def hashes(self) -> list[str]:
        """The images it knows, as SHA-256 in hexadecimal digits, ascending."""
        return [bytes(entry).hex() for entry in self._hashes_I]

    def of_image(self, sha256: str) -> ImageKnowledge | None:
        """What the teacher said about an image; None where it was never asked."""
        wanted = np.frombuffer(bytes.fromhex(sha256), dtype=f"V{HASH_BYTES}")
        # Void entries do not sort; as bytes they compare like their digits.
        position = int(np.searchsorted(self._hashes_I.view("S32"), wanted.view("S32"))[0])
        if position == len(self) or self._hashes_I[position] != wanted[0]:
            return None
        return self._rows(int(self._offsets[position]), int(self._offsets[position + 1]))

    def _rows(self, first: int, last: int) -> ImageKnowledge:
        if first == last:
            return no_answers(len(self.info.classes))
        if self._file is None:
            self._file = safe_open(self.path, framework="numpy")
        rows = {name: self._file.get_slice(name)[first:last] for name in _TYPES}
        return ImageKnowledge(
            boxes_K4=rows["boxes_K4"],
            labels_K=rows["labels_K"].astype(np.int64),
            class_logits_KC=rows["class_logits_KC"].astype(np.float32),
            obj_logits_K=rows["obj_logits_K"].astype(np.float32),
            scores_K=rows["scores_K"],
        )

    def all_answers(self) -> Iterable[tuple[str, ImageKnowledge]]:
        """Every image with its answers."""
        for position, sha256 in enumerate(self.hashes):
            yield sha256, self._rows(int(self._offsets[position]), int(self._offsets[position + 1]))


def read_bank_info(path: Path) -> BankInfo:
    """The description of a bank.

    Raises:
        CheckpointError: the file is missing, damaged or no bank.
    """
    remedy = "pass a bank that 'ciod distill' wrote, or make it again"
    return read_description(path, METADATA_KEY, BankInfo, upgrade_bank, kind="knowledge bank", remedy=remedy)


def write_bank(path: Path, info: BankInfo, answers: Mapping[str, ImageKnowledge]) -> None:
    """Write a bank, all of it or nothing.

    Args:
        path: the file.
        info: what the answers came from.
        answers: by the SHA-256 of the image, in hexadecimal digits.
    """
    ordered = [answers[sha256] for sha256 in sorted(answers)]
    hashes = b"".join(bytes.fromhex(sha256) for sha256 in sorted(answers))
    tensors: dict[str, np.ndarray] = {
        "hashes_I32": np.frombuffer(hashes, dtype=np.uint8).reshape(-1, HASH_BYTES),
        "offsets": np.cumsum([0, *map(len, ordered)], dtype=np.int64),
    }
    empty = no_answers(len(info.classes))
    for name, kind in _TYPES.items():
        tensors[name] = np.concatenate([getattr(entry, name) for entry in (empty, *ordered)]).astype(kind)
    metadata = {METADATA_KEY: json.dumps(info.model_dump(mode="json"))}
    atomic_write_bytes(path, save(tensors, metadata=metadata))


def _flat(info: BankInfo) -> dict[str, Any]:
    fields = info.model_dump(mode="json")
    selection = fields.pop("resampler")
    selection.pop("ground_truth_iou")
    return fields | {f"resampler.{name}": value for name, value in selection.items()}
