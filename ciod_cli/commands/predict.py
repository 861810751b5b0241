"""`ciod predict`: detect objects in image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ciod_cli import console
from ciod_cli.completion import run_names
from ciod_cli.launch import number_of_processes
from ciod_cli.options import EXPERIMENT, JSON, argument, locate_weights, option
from ciod_cli.predictions import FORMATS, CocoPrinter, FolderPrinter, JsonPrinter, Printer, TablePrinter
from ciod_cli.settings import setting
from ciod_core.errors import ConfigError, DataError, did_you_mean, listed

if TYPE_CHECKING:
    from ciod_core.inference.detector import LoadedDetector
    from ciod_core.inference.files import ImageFile
    from ciod_core.inference.predictions import ImagePredictions
    from ciod_core.inference.torch_detector import TorchDetector


def predict(
    weights: str = argument(
        "WEIGHTS", "Weights file, exported ONNX model, or a run of the experiment.", autocompletion=run_names
    ),
    images: list[str] = argument("IMAGES", "Image files, folders of them, or quoted patterns such as 'photos/*.jpg'."),
    out: Path | None = option("--out", "Folder for the images with their boxes drawn, as JPEG.", metavar="FOLDER"),
    crops: Path | None = option(
        "--crops", "Folder for the objects cut out, a folder for each class.", metavar="FOLDER"
    ),
    format_name: str | None = option(
        "--format",
        "What is printed; yolo writes label files to 'labels' in the folder of --out. Default: table.",
        metavar="|".join(FORMATS),
        autocompletion=lambda: list(FORMATS),
    ),
    score: float = option("--score", "Lowest score to report.", 0.3, min=0.0, max=1.0),
    classes: str | None = option(
        "--classes", "Report these classes alone: names with commas between.", metavar="NAMES"
    ),
    recursive: bool = option("--recursive", "Take the images of subfolders, too.", False),
    batch_size: int = option("--batch-size", "Images per forward pass.", 8, min=1),
    experiment: Path | None = EXPERIMENT,
    device: str | None = setting("training.device"),
    json: bool = JSON,
) -> None:
    """Detect objects in images; print them, and with --out draw them."""
    from ciod_cli.progress import progress_counter
    from ciod_core.inference.files import OutputFolder, find_images
    from ciod_core.inference.load import load

    chosen = _format(format_name, json, out)
    files = find_images(images, recursive=recursive)
    drawn = OutputFolder(out, files) if out else None
    cut = OutputFolder(crops, files, "crops") if crops else None
    is_onnx = weights.lower().endswith(".onnx")
    if is_onnx and number_of_processes() > 1:
        raise ConfigError("`devices`: an ONNX model runs in one process; leave it out, or pass the weights")
    path = Path(weights) if is_onnx else locate_weights(weights, experiment)[1].path
    detector = load(path, device or "auto")
    names = [name.strip() for name in classes.split(",")] if classes is not None else None
    detector.check_settings(score=score, classes=names)
    printer = _printer(chosen, path, score, out)
    if drawn and chosen == "yolo":
        drawn.write_class_names(detector.classes)
    unreadable = []
    in_the_way = printer.live and console.stdout().is_terminal
    progress = progress_counter(f"Running on {len(files)} image{'s'[: len(files) != 1]}", "images", total=len(files))
    with nullcontext(lambda _: None) if in_the_way else progress as on_image:
        printer.begin()
        for file, found in _predict(detector, files, score=score, classes=names, batch_size=batch_size):
            if isinstance(found, DataError):
                console.warn(str(found))
                unreadable.append(str(file.path))
            else:
                if drawn:
                    drawn.write_picture(file, found)
                if drawn and chosen == "yolo":
                    drawn.write_yolo(file, found)
                if cut:
                    cut.write_crops(file, found)
                printer.add(file, found)
            on_image(1)
    printer.end()
    if unreadable:
        raise DataError(f"{len(unreadable)} of {len(files)} images cannot be read: {listed(unreadable)}")


def _predict(
    detector: LoadedDetector, files: Sequence[ImageFile], **settings: Any
) -> Iterator[tuple[ImageFile, ImagePredictions | DataError]]:
    """In this process, or in all; see `predict_files`."""
    if number_of_processes() == 1:
        from ciod_core.inference.files import predict_files

        return predict_files(detector, files, **settings)
    from ciod_core.inference.together import predict_files_together

    return predict_files_together(cast("TorchDetector", detector), files, **settings)


def _format(name: str | None, json: bool, out: Path | None) -> str:
    """What to print, checked against the other options."""
    if name is not None and name not in FORMATS:
        raise ConfigError(f"`format`: unknown format '{name}'; {did_you_mean(name, FORMATS)}")
    if json and name not in (None, "json"):
        raise ConfigError(f"`format` {name} and `json` exclude each other; pass one of them")
    if name == "yolo" and out is None:
        raise ConfigError("`format` yolo writes a label file for each image; pass `out`, the folder for them")
    return "json" if json else name or "table"


def _printer(name: str, weights: Path, score: float, out: Path | None) -> Printer:
    if name == "json":
        return JsonPrinter(weights)
    if name == "coco":
        return CocoPrinter()
    return FolderPrinter(out) if name == "yolo" and out else TablePrinter(score)
