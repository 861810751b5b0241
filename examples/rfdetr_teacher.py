"""Run rf-detr over a step's images and write COCO results for `ciod distill --teacher`.

    python examples/rfdetr_teacher.py splits/step2.train.json IMAGES results.json [WEIGHTS]

It needs rfdetr alone, and may run in an environment of its own. Without WEIGHTS the detector is the published one.
"""

import json
import sys
from pathlib import Path

from PIL import Image
from rfdetr import RFDETRBase

coco, images, out, *weights = sys.argv[1:]
detector = RFDETRBase(pretrain_weights=weights[0]) if weights else RFDETRBase()
names = detector.class_names
results = []
for image in json.loads(Path(coco).read_text())["images"]:
    found = detector.predict(Image.open(Path(images, image["file_name"])).convert("RGB"), threshold=0.05)
    for (x1, y1, x2, y2), score, number in zip(
        found.xyxy.tolist(), found.confidence.tolist(), found.class_id.tolist(), strict=True
    ):
        bbox = [x1, y1, x2 - x1, y2 - y1]
        results.append({"image_id": image["id"], "category_id": number, "bbox": bbox, "score": score})
listed = names.items() if isinstance(names, dict) else enumerate(names)
categories = [{"id": number, "name": name} for number, name in listed]
Path(out).write_text(json.dumps({"annotations": results, "categories": categories}))
print(f"{len(results)} results in {out}")
