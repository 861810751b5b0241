"""Published weights as a checkpoint of ciod, which can teach, be evaluated and be exported like trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ciod_core.classes import ClassTable, class_table, first_repeated, look_alikes
from ciod_core.data.formats.coco_classes import COCO_CLASSES
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.files import sha256_of_file
from ciod_core.model.checkpoint import CheckpointInfo, Source, has_description, save_detector
from ciod_core.model.foreign import read_onnx_convolutions, read_tensors
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.model.yolox.detector import YoloxDetector
from ciod_core.model.yolox.published import PublishedDetector, from_convolutions, from_tensors
from ciod_core.teachers.teacher_classes import read_teacher_classes
from ciod_core.temporaries import remove_dead

# Files of Megvii's releases are named so.
_RELEASED = ("yolox_nano", "yolox_tiny", "yolox_s", "yolox_m", "yolox_l", "yolox_x")
_RELEASE_LICENSE = "Apache-2.0"
_OTHER_TEACHERS = (
    "to let it teach, write its predictions as COCO results, or export it to ONNX with boxes, labels and scores, and "
    "run 'ciod distill'"
)


class Imported(NamedTuple):
    """An imported detector.

    Attributes:
        path: its checkpoint.
        info: the checkpoint's description.
        notes: what was assumed about it, a line each.
    """

    path: Path
    info: CheckpointInfo
    notes: tuple[str, ...]


def import_weights(
    weights: Path,
    out: Path | None = None,
    *,
    classes: Path | None = None,
    legacy: bool | None = None,
    image_size: int | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> Imported:
    """Write published YOLOX weights as a checkpoint.

    Args:
        weights: a .pth or .safetensors file with the names of Megvii's code, or an ONNX export of it.
        out: the checkpoint; None: beside the weights, with the suffix .safetensors.
        classes: a COCO file or a text file with the class names; None: COCO's 80 classes.
        legacy: the weights expect RGB normalized with ImageNet's statistics (True) or BGR in 0..255 (False); None: read
            off the weights.
        image_size: longer side of the images, pixels; None: 416 for nano and tiny, 640 for larger ones.
        license: of the weights, for the record; None: that of the release where the file has the name of one.
        overwrite: replace an existing checkpoint.

    Raises:
        ConfigError: another number of classes, an image size that does not fit, or a checkpoint that exists.
        CheckpointError: weights that are unreadable or of another detector.
        DataError: a file with class names that cannot be used.
    """
    if not weights.is_file():
        state = "is a folder" if weights.is_dir() else "does not exist"
        raise CheckpointError(f"{weights} {state}; pass YOLOX weights: .pth, .safetensors or .onnx")
    target = out or weights.with_suffix(".safetensors")
    if target.exists() and (not overwrite or target.resolve() == weights.resolve()):
        raise ConfigError(f"`out` {target}: the file exists; pass another name, or `overwrite`")
    if image_size is not None and image_size % YoloxDetector.size_multiple:
        raise ConfigError(f"`image_size` {image_size}: must be a multiple of {YoloxDetector.size_multiple}")
    found = _recognize(weights, legacy)
    table, assumed_classes = _class_table(weights, found.num_classes, classes)
    if license is None and weights.stem in _RELEASED and assumed_classes:
        license = _RELEASE_LICENSE
    info = CheckpointInfo(
        model=found.model,
        classes=table,
        preprocessing=Preprocessing(image_size=image_size or found.image_size),
        run="".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in target.stem),
        step=1,
        method="imported",
        parent_sha256=None,
        source=Source(file=weights.name, sha256=sha256_of_file(weights), license=license),
    )
    remove_dead(target.parent)
    save_detector(target, found.state, info)
    notes = (*_notes(found, weights, assumed_classes, license), *look_alikes(table.names))
    return Imported(target, info, notes)


def _recognize(weights: Path, legacy: bool | None) -> PublishedDetector:
    if weights.suffix == ".onnx":
        found = from_convolutions(read_onnx_convolutions(weights), legacy)
    else:
        if has_description(weights):
            raise ConfigError(f"{weights}: is a checkpoint of ciod already; pass it as `teacher`")
        try:
            tensors = read_tensors(weights)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {_OTHER_TEACHERS}") from None
        found = from_tensors(tensors, legacy)
    if found is None:
        raise CheckpointError(
            f"{weights}: is none of the published YOLOX sizes (nano, tiny, s, m, l, x); {_OTHER_TEACHERS}"
        )
    broken = [name for name, tensor in found.state.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"{weights}: {broken[0]} holds numbers that are not finite; the training had diverged")
    return found


def _class_table(weights: Path, num_classes: int, classes: Path | None) -> tuple[ClassTable, bool]:
    """The classes, and whether they were assumed to be COCO's."""
    if classes is None:
        if num_classes != len(COCO_CLASSES):
            raise ConfigError(
                f"{weights}: detects {num_classes} classes, not COCO's {len(COCO_CLASSES)}; pass `classes`, a file "
                "with their names in order"
            )
        return class_table([COCO_CLASSES]), True
    named = read_teacher_classes(classes)
    if len(named.names) != num_classes:
        raise ConfigError(
            f"`classes` {classes}: names {len(named.names)} classes, {weights} detects {num_classes}; name all of "
            "them, in the order of training"
        )
    repeated = first_repeated(named.names)
    if repeated is not None:
        raise ConfigError(f"`classes` {classes}: '{repeated}' is listed twice; give every class a name of its own")
    return class_table([list(zip(named.names, named.ids, strict=True))]), False


def _notes(found: PublishedDetector, weights: Path, assumed_classes: bool, license: str | None) -> list[str]:
    pixels = "RGB normalized with ImageNet's statistics" if found.legacy else "BGR in 0..255"
    notes = []
    if not found.recognized_pixels:
        notes.append(
            f"assumed that {weights.name} expects {pixels}, as its graph does not tell; otherwise pass `legacy`"
        )
        notes.append("batch statistics are folded into the graph and lost; import the .pth file where there is one")
    if assumed_classes:
        notes.append("80 classes: named as COCO's; otherwise pass `classes`")
    if license is None:
        notes.append("license: unknown; record it with `license`")
    return notes
