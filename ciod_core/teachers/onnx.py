"""An ONNX model as a teacher: one that ciod exported, or one of another tool.

Legend: D detections.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from ciod_core.config.schema import ResamplerConfig
from ciod_core.data.images.decode import decode_image
from ciod_core.data.images.files import image_path
from ciod_core.errors import CiodError, DataError
from ciod_core.evaluation.detections import Detections
from ciod_core.export.description import METADATA_KEY, NmsSettings
from ciod_core.export.runtime import open_session
from ciod_core.files import sha256_of_file
from ciod_core.inference.onnx_detector import OnnxDetector
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.base import SourceFrameTeacher
from ciod_core.teachers.boxes import OldClassImages, lowest_score, one_score_each, select_boxes
from ciod_core.teachers.onnx_outputs import BoxModel
from ciod_core.teachers.teacher_classes import TeacherClasses, choose_classes, match_classes, read_teacher_classes


class OnnxTeacher(SourceFrameTeacher):
    """A model that runs on one image after the other."""

    def __init__(self, path: Path, classes_file: Path | None, old: OldClassImages) -> None:
        """Load a model and find the old classes of a step among its own.

        Raises:
            ConfigError: the classes are not named, an old one is not among them, or inputs and outputs do not fit.
            DataError: the file with the class names is malformed.
            ExportError: onnxruntime is missing or cannot load the file.
        """
        given = None if classes_file is None else read_teacher_classes(classes_file)
        lowest_score(old.resampler)  # Refuses a rule before the model is loaded.
        session = open_session(path)
        own, image_size = None, 0
        notes: tuple[str, ...] = ()
        self._detect: Callable[[Image.Image], Detections]
        if METADATA_KEY in session.get_modelmeta().custom_metadata_map:
            exported = OnnxDetector(path)
            description = exported.description
            pairs = zip(description.classes.category_ids, description.classes.names, strict=True)
            own, image_size = TeacherClasses.from_pairs(path, pairs), description.input.image_size
            notes = _notes_about_thresholds(path, description.nms, old.resampler)
            self._detect = lambda image: exported.detect([image])
        else:
            model = BoxModel(path, session)
            own = None if model.classes is None else TeacherClasses.from_pairs(path, model.classes)
            self._detect = model.detect
        self._match = match_classes(choose_classes(path, own, given), old.classes)
        identity = old.identity(sha256_of_file(path), "onnx", self._match.ids, image_size)
        super().__init__(identity, old.images, (*self._match.notes, *notes))
        self._path = path

    def knowledge_of(self, index: int) -> Knowledge:
        """The detections in one image that the resampler keeps.

        Raises:
            DataError: an image that cannot be read, or detections that make no sense.
        """
        table, image_dir = self.images
        size = int(table.widths_I[index]), int(table.heights_I[index])
        place = image_path(image_dir, str(table.file_names_I[index]), table.path)
        found = self._run(decode_image(place, size, annotations=table.path), place)
        teacher = self._match.teacher
        columns_D = teacher.columns_for(found.category_ids_D)
        if (columns_D < 0).any():
            raise DataError(
                f"{self._path}: predicts class id {found.category_ids_D[columns_D.argmin()]} on {place}, which is not "
                f"listed in {teacher.where}; add its name there"
            )
        labels_D = self._match.labels_for(columns_D)
        old_D = labels_D >= 0
        num_old = len(self.identity.classes)
        boxes = one_score_each(found.boxes_D4[old_D], labels_D[old_D], found.scores_D[old_D], num_old)
        return select_boxes(boxes, size, self.identity.resampler)

    def _run(self, image: Image.Image, place: Path) -> Detections:
        try:
            found = self._detect(image)
        except CiodError as error:
            raise DataError(f"{self._path}: on {place}: {error}") from None
        except Exception as error:  # onnxruntime raises whatever a graph provokes.
            reason = str(error).partition("\n")[0]
            raise DataError(f"{self._path}: fails on {place} ({reason}); try it in onnxruntime alone") from None
        found = found.select(found.scores_D > 0)
        if (found.scores_D > 1).any():
            raise DataError(f"{self._path}: gives a score of {found.scores_D.max():g} on {place}; export probabilities")
        return found


def _notes_about_thresholds(path: Path, nms: NmsSettings | None, resampler: ResamplerConfig) -> tuple[str, ...]:
    """A note where a model was exported with stricter thresholds than the resampler's."""
    assert nms is not None, "OnnxDetector takes no model without suppression"
    if nms.score_threshold <= lowest_score(resampler) and nms.nms_iou >= resampler.nms_iou:
        return ()
    return (
        f"{path}: was exported with score {nms.score_threshold:g} and NMS {nms.nms_iou:g}; its thresholds are stricter "
        f"than the resampler's ({lowest_score(resampler):g} and {resampler.nms_iou:g})",
    )
