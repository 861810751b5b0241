"""Run a detector of torchvision over a step's images and write COCO results for `ciod distill --teacher`.

    python examples/torchvision_teacher.py splits/step2.train.json IMAGES --out results.json
    ciod distill --teacher results.json
    ciod train-step --teacher step1.safetensors --knowledge step2.knowledge.safetensors

Weights are torchvision's own for the model, or a file: `--weights FILE --classes FILE`, with the names of the model's
classes by number, including the background.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec
import torch
from torchvision.models import get_model, get_model_weights
from torchvision.transforms.functional import pil_to_tensor

from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.images.decode import decode_image
from ciod_core.data.images.files import image_path
from ciod_core.files import atomic_write_bytes
from ciod_core.teachers.teacher_classes import read_teacher_classes


def load(model: str, weights: Path | None, classes: Path | None) -> tuple[torch.nn.Module, dict[int, str]]:
    """The detector and the names of its classes by number."""
    if weights is None or classes is None:
        offered = get_model_weights(model).DEFAULT
        return get_model(model, weights=offered).eval(), dict(enumerate(offered.meta["categories"]))
    known = read_teacher_classes(classes)
    detector = get_model(model, weights=None, weights_backbone=None, num_classes=max(known.ids) + 1)
    detector.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return detector.eval(), dict(zip(known.ids, known.names, strict=True))


@torch.inference_mode()
def detect(detector: torch.nn.Module, table: AnnotationTable, images: Path, lowest: float) -> list[dict[str, Any]]:
    """COCO results with at least this score, boxes in pixels of the images."""
    results = []
    columns = (table.image_ids_I, table.file_names_I, table.widths_I, table.heights_I)
    for image_id, name, width, height in zip(*(column.tolist() for column in columns), strict=True):
        image = decode_image(image_path(images, name), (width, height))
        found = detector([pil_to_tensor(image) / 255])[0]
        for box, label, score in zip(*(found[key].tolist() for key in ("boxes", "labels", "scores")), strict=True):
            if score >= lowest:
                bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                results.append({"image_id": image_id, "category_id": label, "bbox": bbox, "score": score})
    return results


def main() -> None:
    """Write the results together with the class names, so that `ciod distill` needs no other file."""
    parser = argparse.ArgumentParser(description="Run a torchvision detector over the images of a COCO file.")
    parser.add_argument("coco", type=Path, help="the step's file, such as splits/step2.train.json")
    parser.add_argument("images", type=Path, help="the folder that its file names are relative to")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="fasterrcnn_mobilenet_v3_large_fpn")
    parser.add_argument("--weights", type=Path, help="a state_dict; default: torchvision's own")
    parser.add_argument("--classes", type=Path, help="with --weights: names, as for ciod distill --teacher-classes")
    parser.add_argument("--score", type=float, default=0.05, help="lowest score that is written")
    arguments = parser.parse_args()

    detector, names = load(arguments.model, arguments.weights, arguments.classes)
    results = {
        "annotations": detect(detector, read_coco(arguments.coco), arguments.images, arguments.score),
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }
    atomic_write_bytes(arguments.out, msgspec.json.encode(results))
    print(f"{len(results['annotations'])} results in {arguments.out}")


if __name__ == "__main__":
    main()
