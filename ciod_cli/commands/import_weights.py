"""`ciod import`: published weights as a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciod_cli import console
from ciod_cli.options import JsonOption, OverwriteOption


def import_weights(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="YOLOX weights: .pth, .safetensors or .onnx.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Default: beside WEIGHTS, with suffix .safetensors.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option("--classes", metavar="FILE", help="Class names: a COCO file, or a line each. Default: COCO's 80."),
    ] = None,
    legacy: Annotated[
        bool | None,
        typer.Option(
            "--legacy/--no-legacy",
            help="Input: RGB normalized as for ImageNet, or BGR in 0..255. Default: recognized from the weights.",
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", min=32, help="Longer side in pixels. Default: 416 for nano and tiny, else 640."),
    ] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", metavar="NAME", help="License of the weights, for the record.")
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
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
