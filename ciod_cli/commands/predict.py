"""`ciod predict`: detect objects in image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciod_cli import console
from ciod_cli.options import EXPERIMENT, JSON, WEIGHTS, argument, locate_weights, option
from ciod_cli.settings import setting
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from ciod_core.evaluation.predict import ImagePredictions


def predict(
    weights: str = WEIGHTS,
    images: list[Path] = argument("IMAGES", "Image files or folders of them."),
    out: Path | None = option("--out", "Folder for the images with their boxes drawn, as PNG.", metavar="FOLDER"),
    score: float = option("--score", "Lowest score to report.", 0.3, min=0.0, max=1.0),
    experiment: Path | None = EXPERIMENT,
    device: str | None = setting("training.device"),
    json: bool = JSON,
) -> None:
    """Detect objects in images; print the detections and, with --out, draw them."""
    from ciod_cli.progress import progress_counter
    from ciod_core.config.schema import EvaluationConfig
    from ciod_core.evaluation.predict import detect_in_images, draw, find_images

    path = locate_weights(weights, experiment)[1].path
    files = find_images(images)
    targets = _targets(files, out) if out else None
    results = []
    with progress_counter(f"Running on {len(files)} images", "images") as on_image:
        config = EvaluationConfig(score_threshold=score)
        for index, found in enumerate(
            detect_in_images(path, files, config, device=device or "auto", on_image=on_image)
        ):
            if targets:
                draw(found, targets[index])
            results.append(found)
    if json:
        console.show_json({"weights": str(path), "images": [_entry(found) for found in results]})
        return
    rows = [
        (str(found.image), name, f"{confidence:.2f}", *(f"{side:.0f}" for side in box))
        for found in results
        for name, confidence, box in zip(found.names, found.scores, found.boxes_D4.tolist(), strict=True)
    ]
    title = f"{len(rows)} objects in {len(files)} images (score at least {score:g}; box in pixels)"
    console.show(console.table(title, ("image", "class", "score", "x1", "y1", "x2", "y2"), rows, text_columns=2))


def _targets(files: Sequence[Path], out: Path) -> list[Path]:
    """Where each picture goes; refused when two share a name or one would replace an input."""
    targets = [out / f"{path.stem}.png" for path in files]
    inputs = {path.resolve() for path in files}
    for position, target in enumerate(targets):
        if target.resolve() in inputs:
            raise ConfigError(f"`out` {out}: {target} would replace an input image; pass another folder")
        if target in targets[:position]:
            raise ConfigError(f"`out` {out}: two input images are called {target.stem}; pass them one at a time")
    return targets


def _entry(found: ImagePredictions) -> dict[str, Any]:
    return {
        "image": str(found.image),
        "detections": [
            {"class": name, "category_id": category_id, "score": confidence, "box_xyxy": box}
            for name, category_id, confidence, box in zip(
                found.names, found.category_ids, found.scores, found.boxes_D4.tolist(), strict=True
            )
        ],
    }
