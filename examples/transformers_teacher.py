"""Run RT-DETR, D-FINE or DETR of transformers over a step's images and write COCO results for `ciod distill --teacher`.

    python examples/transformers_teacher.py ustc-community/dfine-small-coco splits/step2.train.json IMAGES results.json

It needs transformers and torch alone, and may run in an environment of its own.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection

model, coco, images, out = sys.argv[1:]
processor = AutoImageProcessor.from_pretrained(model)
detector = AutoModelForObjectDetection.from_pretrained(model).eval()
results = []
for image in json.loads(Path(coco).read_text())["images"]:
    picture = Image.open(Path(images, image["file_name"])).convert("RGB")
    with torch.inference_mode():
        outputs = detector(**processor(images=picture, return_tensors="pt"))
    size = [(picture.height, picture.width)]
    (found,) = processor.post_process_object_detection(outputs, threshold=0.05, target_sizes=size)
    for (x1, y1, x2, y2), score, number in zip(
        *(found[key].tolist() for key in ("boxes", "scores", "labels")), strict=True
    ):
        bbox = [x1, y1, x2 - x1, y2 - y1]
        results.append({"image_id": image["id"], "category_id": number, "bbox": bbox, "score": score})
categories = [{"id": number, "name": name} for number, name in detector.config.id2label.items()]
Path(out).write_text(json.dumps({"annotations": results, "categories": categories}))
print(f"{len(results)} results in {out}")
