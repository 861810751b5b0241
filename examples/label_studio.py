"""Write what a detector finds as tasks for Label Studio, where people correct it and draw what is new.

    python examples/label_studio.py step2.safetensors photos --out tasks

Writes `tasks/tasks.json`, to import, and `tasks/labels.xml`, the labeling interface with the detector's classes. Images
are named as Label Studio's local storage does (`/data/local-files/?d=photos/1.jpg`); `--prefix` is for other storages.
What people have corrected, exported as COCO or YOLO, is data for `ciod train-step --data`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import ciod
from ciod_core.inference.files import find_images
from ciod_core.inference.predictions import ImagePredictions


def main() -> None:
    """Write tasks and labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights, or an exported ONNX model")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--score", type=float, default=0.3, help="lowest score that is written")
    parser.add_argument("--prefix", default="/data/local-files/?d=", help="what goes before the path of an image")
    arguments = parser.parse_args()
    detector = ciod.load(arguments.weights)
    files = find_images([arguments.images], recursive=True)
    found = detector.predict([file.path for file in files], score=arguments.score)
    tasks = [
        {
            "data": {"image": f"{arguments.prefix}{(arguments.images.name / file.name).as_posix()}"},
            "predictions": [{"model_version": Path(arguments.weights).stem, "result": results(predictions)}],
        }
        for file, predictions in zip(files, found, strict=True)
    ]
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in detector.classes)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "tasks.json").write_text(json.dumps(tasks, indent=1, ensure_ascii=False), encoding="utf-8")
    (arguments.out / "labels.xml").write_text(
        '<View>\n  <Image name="image" value="$image"/>\n  <RectangleLabels name="label" toName="image">\n'
        f"{labels}  </RectangleLabels>\n</View>\n",
        encoding="utf-8",
    )
    print(f"{len(tasks)} tasks in {arguments.out / 'tasks.json'}")


def results(found: ImagePredictions) -> list[dict[str, Any]]:
    """The rectangles of one image, in percent of its sides."""
    width, height = found.image.size
    return [
        {
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": score,
            "value": {
                "x": 100 * left / width,
                "y": 100 * top / height,
                "width": 100 * (right - left) / width,
                "height": 100 * (bottom - top) / height,
                "rotation": 0,
                "rectanglelabels": [name],
            },
        }
        for name, score, (left, top, right, bottom) in zip(
            found.names, found.scores.tolist(), found.boxes.tolist(), strict=True
        )
    ]


if __name__ == "__main__":
    main()
