"""A teacher in an ONNX file: one that ciod exported, or any whose outputs are boxes, labels and scores.

Legend: D detections, C old classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ciod_core.config.schema import ResamplerConfig
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.images.decode import decode_image
from ciod_core.data.images.files import image_path
from ciod_core.errors import CiodError, DataError
from ciod_core.evaluation.detections import Detections
from ciod_core.export.box_model import BoxModel
from ciod_core.export.description import METADATA_KEY, NmsSettings
from ciod_core.export.runtime import OnnxDetector, open_session
from ciod_core.model.knowledge import ImageKnowledge
from ciod_core.teachers.bank import BankInfo
from ciod_core.teachers.question import Opened, Question
from ciod_core.teachers.results_file import the_classes
from ciod_core.teachers.scored import lowest_score, one_score_answers, selected
from ciod_core.teachers.teacher_classes import Matching, TeacherClasses, match_classes, read_teacher_classes

Detect = Callable[[Image.Image], Detections]


@dataclass(frozen=True)
class OnnxTeacher:
    """A model that is run on one image after the other.

    Attributes:
        path: its file, for messages.
        detect: runs it.
        matching: what its class ids mean.
        info: what is kept of its answers.
        images_root: the folder that file names are relative to.
        on_images: told the number of images that are done.
    """

    path: Path
    detect: Detect
    matching: Matching
    info: BankInfo
    images_root: Path
    on_images: Callable[[int], None] | None = None

    def ask(self, table: AnnotationTable) -> list[ImageKnowledge]:
        """What is kept of the model's answers for every image of a table.

        Raises:
            DataError: an image that cannot be read, or an answer that makes no sense.
        """
        kept = []
        columns = zip(table.file_names_I.tolist(), table.widths_I.tolist(), table.heights_I.tolist(), strict=True)
        for name, width, height in columns:
            place = image_path(self.images_root, name, table.path)
            found = self._found(decode_image(place, (width, height), annotations=table.path), place)
            columns_D = self.matching.teacher.columns_of(found.category_ids_D)
            if (columns_D < 0).any():
                raise DataError(
                    f"{self.path}: calls an object in {place} class {found.category_ids_D[columns_D.argmin()]}, which "
                    f"is not in {self.matching.teacher.where}; add its name there"
                )
            labels_D = self.matching.labels_of(columns_D)
            old_D = labels_D >= 0
            answers = one_score_answers(
                found.boxes_D4[old_D], labels_D[old_D], found.scores_D[old_D], len(self.info.classes)
            )
            kept.append(selected(answers, (width, height), self.info.resampler))
            if self.on_images is not None:
                self.on_images(1)
        return kept

    def _found(self, image: Image.Image, place: Path) -> Detections:
        try:
            found = self.detect(image)
        except CiodError as error:
            raise DataError(f"{self.path}: on {place}: {error}") from None
        except Exception as error:  # onnxruntime lets out whatever a graph provokes.
            reason = str(error).partition("\n")[0]
            raise DataError(f"{self.path}: fails on {place} ({reason}); try it in onnxruntime alone") from None
        found = found.select(found.scores_D > 0)
        if (found.scores_D > 1).any():
            raise DataError(f"{self.path}: gives a score of {found.scores_D.max():g} on {place}; export probabilities")
        return found


def open_onnx(path: Path, classes_file: Path | None, question: Question) -> Opened:
    """Load a model, and find the old classes of a step among its own.

    Raises:
        ConfigError: the classes are not named, an old one is not among them, or inputs and outputs are others.
        DataError: the file with the class names is malformed.
        ExportError: onnxruntime is missing or cannot load the file.
    """
    given = None if classes_file is None else read_teacher_classes(classes_file)
    lowest_score(question.resampler)  # A rule that is refused is refused before a model is loaded.
    session = open_session(path)
    if METADATA_KEY in session.get_modelmeta().custom_metadata_map:
        exported = OnnxDetector(path)
        classes, image_size = exported.description.classes, exported.description.input.image_size
        own = TeacherClasses.of(path, zip(classes.category_ids, classes.names, strict=True))
        notes = _stricter(path, exported.description.nms, question.resampler)
        detect: Detect = partial(_detect_one, exported)
    else:
        own, image_size, notes, detect = None, 0, (), BoxModel(path, session).detect
    matching = match_classes(the_classes(path, own, given), question.old)
    info = question.described("onnx", path, matching, image_size)
    teacher = OnnxTeacher(path, detect, matching, info, question.images_root, question.on_images)
    return Opened(teacher, (*matching.notes, *notes))


def _detect_one(exported: OnnxDetector, image: Image.Image) -> Detections:
    return exported.detect([image])


def _stricter(path: Path, nms: NmsSettings | None, resampler: ResamplerConfig) -> tuple[str, ...]:
    """Says where a model was exported with less than the resampler would keep."""
    assert nms is not None, "OnnxDetector takes no model without suppression"
    if nms.score_threshold <= lowest_score(resampler) and nms.nms_iou >= resampler.nms_iou:
        return ()
    return (
        f"{path}: was exported with score {nms.score_threshold:g} and NMS {nms.nms_iou:g}, so that it gives less than "
        f"the resampler would keep ({lowest_score(resampler):g} and {resampler.nms_iou:g})",
    )
