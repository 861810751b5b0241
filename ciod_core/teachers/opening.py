"""Teachers that are not ciod's weights: the kind of file decides which."""

from __future__ import annotations

from pathlib import Path

from ciod_core.errors import ConfigError
from ciod_core.teachers.onnx_teacher import open_onnx
from ciod_core.teachers.question import Opened, Question
from ciod_core.teachers.results_teacher import open_results

WEIGHTS_SUFFIX = ".safetensors"
_OPENERS = {".json": open_results, ".onnx": open_onnx}


def is_foreign(teacher: Path | str) -> bool:
    """Whether this is a file that somebody else than ciod's training wrote; what is no file is the name of a run.

    Raises:
        ConfigError: a file of a kind that nothing can be asked of.
    """
    path = Path(teacher)
    suffix = path.suffix.lower()
    if path.is_file() and suffix not in (WEIGHTS_SUFFIX, *_OPENERS):
        raise ConfigError(
            f"--teacher {path}: its kind is unknown; pass ciod's weights (.safetensors), COCO results (.json) or a "
            "model (.onnx)"
        )
    return suffix in _OPENERS


def open_foreign(path: Path, classes_file: Path | None, question: Question) -> Opened:
    """Make a teacher from elsewhere ready to answer; it is asked once about each image, as it is.

    Raises:
        ConfigError: the file is missing, or its classes are not those of the experiment.
        DataError: it is malformed.
        ExportError: a model that cannot be loaded.
    """
    if not path.is_file():
        raise ConfigError(f"--teacher {path}: no such file; pass COCO results (.json) or a model (.onnx)")
    return _OPENERS[path.suffix.lower()](path, classes_file, question)
