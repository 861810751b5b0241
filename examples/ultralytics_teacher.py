"""Run a detector of ultralytics over a step's images and write COCO results for `ciod distill --teacher`.

    python examples/ultralytics_teacher.py yolo11n.pt splits/step2.train.json IMAGES results.json

It needs ultralytics alone, and may run in an environment of its own: ciod never imports it.
"""

import json
import sys
from pathlib import Path

from ultralytics import YOLO

weights, coco, images, out = sys.argv[1:]
detector = YOLO(weights)
results = []
for image in json.loads(Path(coco).read_text())["images"]:
    (found,) = detector.predict(Path(images, image["file_name"]), conf=0.05, verbose=False)
    for x1, y1, x2, y2, score, number in found.boxes.data.tolist():
        bbox = [x1, y1, x2 - x1, y2 - y1]
        results.append({"image_id": image["id"], "category_id": int(number), "bbox": bbox, "score": score})
categories = [{"id": number, "name": name} for number, name in detector.names.items()]
Path(out).write_text(json.dumps({"annotations": results, "categories": categories}))
print(f"{len(results)} results in {out}")
