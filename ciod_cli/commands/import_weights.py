"""`ciod import`: published weights as a checkpoint."""

from __future__ import annotations

from pathlib import Path

from ciod_cli import console
from ciod_cli.options import JSON, OVERWRITE, argument, option


def import_weights(
    weights: Path = argument("WEIGHTS", "YOLOX weights: .pth, .safetensors or .onnx."),
    out: Path | None = option(
        "--out", "Checkpoint to write. Default: beside WEIGHTS, with suffix .safetensors.", metavar="FILE"
    ),
    classes: Path | None = option(
        "--classes", "Class names: a COCO file, or a line each. Default: COCO's 80.", metavar="FILE"
    ),
    legacy: bool | None = option(
        "--legacy/--no-legacy",
        "Input is RGB normalized as for ImageNet, or BGR in 0..255. Default: recognized from the weights.",
        show_default=False,
    ),
    image_size: int | None = option(
        "--image-size", "Longer side in pixels. Default: 416 for nano and tiny, else 640.", min=32
    ),
    license_name: str | None = option("--license", "License of the weights, for the record.", metavar="NAME"),
    overwrite: bool = OVERWRITE,
    json: bool = JSON,
) -> None:
    """Import published YOLOX weights: a detector to start from, or to teach."""
    from ciod_core.files import sha256_of_file
    from ciod_core.teachers.import_weights import import_weights as write

    imported = write(
        weights,
        out,
        classes=classes,
        legacy=legacy,
        image_size=image_size,
        license=license_name,
        overwrite=overwrite,
    )
    info = imported.info
    if json:
        checkpoint = {"file": str(imported.path), "sha256": sha256_of_file(imported.path)}
        console.show_json({**checkpoint, **info.model_dump(mode="json")})
        return
    for note in imported.notes:
        console.note(note)
    console.note(f"Imported {info.model.name} with {len(info.classes)} classes, {info.preprocessing.image_size} pixels")
    console.show(str(imported.path))
