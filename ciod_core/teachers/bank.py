"""A knowledge bank: one safetensors file with a teacher's selected boxes, keyed by the content of each image.

A bank describes itself, so that training can tell whether it fits. It is read through a memory map.

Legend: I images, K boxes of all images or of one, C old classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save

from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.images.files import image_path
from ciod_core.data.images.hashes import ImageHashes
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.migrations import BANK_VERSION, upgrade_bank
from ciod_core.model.knowledge import Knowledge
from ciod_core.records import open_tensors, read_description, write_described
from ciod_core.teachers.base import SourceFrameTeacher, TeacherIdentity

METADATA_KEY = "ciod-knowledge"
HASH_BYTES = 32
# Logits of a detector lie within ±30; half precision keeps three digits of them, which is finer than any two teachers.
LOGIT_TYPE = np.float16
# So many images are hashed before training at most; of more, each is hashed when it is first trained on.
HASHED_AHEAD = 1000

_AGAIN = "make it again with `overwrite`"
_TENSOR_TYPES: Mapping[str, type[np.generic]] = {
    "boxes_K4": np.float32,
    "labels_K": np.int32,
    "scores_K": np.float32,
    "class_logits_KC": LOGIT_TYPE,
}


class KnowledgeBank:
    """A bank on disk."""

    def __init__(self, path: Path) -> None:
        """Read description and index; the boxes stay on disk.

        Raises:
            CheckpointError: the file is missing, damaged or no bank.
        """
        self.path = path
        description = _read_description(path, verify=True)
        self.identity = description.identity()
        self._responses = description.responses
        responses = description.responses.values()
        self._file: Any = open_tensors(path)
        try:
            hashes_I32 = self._file.get_tensor("hashes_I32")
            self._offsets = self._file.get_tensor("offsets")
            shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in (*_TENSOR_TYPES, *responses)}
        except (SafetensorError, TypeError) as error:
            raise CheckpointError(f"{path}: its index is missing ({error}); {_AGAIN}") from None
        if not _fit_together(hashes_I32, self._offsets, shapes, len(self.identity.classes)):
            raise CheckpointError(f"{path}: its tensors do not fit together; {_AGAIN}")
        self._hashes_I = hashes_I32.view(f"V{HASH_BYTES}").reshape(-1)

    def __reduce__(self) -> tuple[type[KnowledgeBank], tuple[Path]]:
        """Other processes read the file again."""
        return KnowledgeBank, (self.path,)

    def __len__(self) -> int:
        return len(self._hashes_I)

    def __contains__(self, sha256: str) -> bool:
        return self._position(sha256) is not None

    def get(self, sha256: str) -> Knowledge | None:
        """Knowledge for an image, boxes in pixels of the source image; None for an unknown image.

        Args:
            sha256: hash of the image file, in hexadecimal digits.
        """
        position = self._position(sha256)
        return None if position is None else self._rows(position)

    def items(self) -> Iterator[tuple[str, Knowledge]]:
        """Hash and knowledge of every image, by ascending hash."""
        for position, entry in enumerate(self._hashes_I):
            yield bytes(entry).hex(), self._rows(position)

    def _position(self, sha256: str) -> int | None:
        wanted = np.frombuffer(bytes.fromhex(sha256), dtype=f"V{HASH_BYTES}")
        # Void entries do not sort; as bytes they compare like their digits.
        position = int(np.searchsorted(self._hashes_I.view("S32"), wanted.view("S32"))[0])
        return position if position < len(self) and self._hashes_I[position] == wanted[0] else None

    def _rows(self, position: int) -> Knowledge:
        first, last = self._offsets[position : position + 2].tolist()
        if first == last:
            return Knowledge.empty(len(self.identity.classes), list(self._responses))

        def tensor(name: str) -> torch.Tensor:
            rows = self._file.get_slice(name)[first:last]
            wide = {np.dtype(np.int32): np.int64, np.dtype(LOGIT_TYPE): np.float32}.get(rows.dtype, rows.dtype)
            return torch.from_numpy(rows.astype(wide))

        labels_K, num_classes = tensor("labels_K"), len(self.identity.classes)
        if ((labels_K < 0) | (labels_K >= num_classes)).any():
            raise CheckpointError(f"{self.path}: holds labels that are none of its {num_classes} classes; {_AGAIN}")
        return Knowledge(
            boxes_K4=tensor("boxes_K4"),
            labels_K=labels_K,
            scores_K=tensor("scores_K"),
            class_logits_KC=tensor("class_logits_KC"),
            responses={response: tensor(name) for response, name in self._responses.items()},
            image_K=torch.zeros(last - first, dtype=torch.int64),
            anchor_K=torch.full((last - first,), -1),
        )


def _fit_together(
    hashes_I32: np.ndarray, offsets: np.ndarray, shapes: Mapping[str, tuple[int, ...]], num_classes: int
) -> bool:
    """True where the tensors of a bank are as `write_bank` makes them, as far as can be told without the boxes."""
    if hashes_I32.dtype != np.uint8 or hashes_I32.shape[1:] != (HASH_BYTES,):
        return False
    if offsets.dtype != np.int64 or offsets.shape != (len(hashes_I32) + 1,):
        return False
    rows = int(offsets[-1])
    widths = {"boxes_K4": (4,), "class_logits_KC": (num_classes,)}
    columns = all(shape == (rows, *widths.get(name, ())) for name, shape in shapes.items())
    return columns and offsets[0] == 0 and bool((np.diff(offsets) >= 0).all())


class BankTeacher(SourceFrameTeacher):
    """A teacher whose knowledge comes from a bank."""

    def __init__(self, bank: KnowledgeBank, images: LocatedTable, hashes: ImageHashes) -> None:
        super().__init__(bank.identity, images)
        self.bank = bank
        self._hashes = hashes

    def knowledge_of(self, index: int) -> Knowledge:
        """Knowledge for the image with this index.

        Raises:
            ConfigError: the bank does not know the image.
            DataError: the image cannot be read.
        """
        path = self._path(str(self.images.table.file_names_I[index]))
        known = self.bank.get(self._hashes.get(path))
        if known is None:
            raise ConfigError(f"{self.bank.path}: {path} is not in it; run 'ciod distill' again")
        return known

    def require_images(self) -> None:
        """Refuse a bank that lacks images, as far as their hashes are cached or few have to be read.

        Raises:
            ConfigError: the bank does not know all images.
            DataError: an image that cannot be read.
        """
        table, image_dir = self.images
        cached = [self._hashes.cached(self._path(name)) for name in table.file_names_I.tolist()]
        if cached.count(None) <= HASHED_AHEAD:
            cached = list(self._hashes.for_table(table, image_dir))
        missing = sum(sha256 is not None and sha256 not in self.bank for sha256 in cached)
        if missing:
            raise ConfigError(
                f"{self.bank.path}: {missing} of {len(cached)} images are not in it; run 'ciod distill' again"
            )

    def _path(self, name: str) -> Path:
        table, image_dir = self.images
        return image_path(image_dir, name, table.path)


def read_identity(path: Path) -> TeacherIdentity:
    """The identity of the teacher of a bank; raises as `KnowledgeBank`."""
    return _read_description(path).identity()


class _Description(TeacherIdentity):
    """The metadata of a bank: the teacher, and the tensor of each response."""

    format_version: int = BANK_VERSION
    responses: dict[str, str]

    def identity(self) -> TeacherIdentity:
        return TeacherIdentity(**{name: getattr(self, name) for name in TeacherIdentity.model_fields})


def _read_description(path: Path, *, verify: bool = False) -> _Description:
    remedy = "pass a bank that 'ciod distill' wrote, or make it again"
    return read_description(
        path, METADATA_KEY, _Description, upgrade_bank, kind="knowledge bank", remedy=remedy, verify=verify
    )


def write_bank(path: Path, identity: TeacherIdentity, known: Mapping[str, Knowledge]) -> None:
    """Write a bank, all of it or nothing.

    Args:
        path: the file.
        identity: the teacher.
        known: by the SHA-256 of the image, in hexadecimal digits.
    """
    hashes = sorted(known)
    parts = [known[sha256] for sha256 in hashes]
    names = list(parts[0].responses) if parts else []
    responses = {name: f"{name}_K" for name in names}
    empty = Knowledge.empty(len(identity.classes), names)
    tensors: dict[str, np.ndarray] = {
        "hashes_I32": np.frombuffer(b"".join(map(bytes.fromhex, hashes)), dtype=np.uint8).reshape(-1, HASH_BYTES),
        "offsets": np.cumsum([0, *map(len, parts)], dtype=np.int64),
    }
    for name, kind in _TENSOR_TYPES.items():
        tensors[name] = np.concatenate([getattr(part, name).numpy() for part in (empty, *parts)]).astype(kind)
    for response, name in responses.items():
        rows = [part.responses[response].numpy() for part in (empty, *parts)]
        tensors[name] = np.concatenate(rows).astype(LOGIT_TYPE)
    description = _Description(responses=responses, **dict(identity))
    write_described(path, save, tensors, METADATA_KEY, description.model_dump(mode="json"))
