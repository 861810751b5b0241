"""Three datasets that each label one class of blood cells, trained on together, against all labels.

    python -m tests.benchmarks.partial_labels --shared FOLDER --out TABLES [--seeds 3] [--jobs 2]

FOLDER holds `weights/yolox_nano.pth`, from which every run starts, and the dataset `data/bccd`. Its training images are
dealt out to three datasets in turn, and each keeps the labels of one class, although its images show the others. AP is
measured on all validation images with all labels. Trains only what is missing in TABLES and ends with a table: `all
labels` is the upper bound, `background` the union of the datasets as it is, `ignore` the default
(`data.missing_labels`).
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.benchmarks.coco_plus import ciod, spread

SETTINGS = ("--image-size", "128", "--epochs", "28", "--batch-size", "8")
# Images this small and this few are best seen as they are.
PLAIN = ("--workers", "0", "--set", "data.multi_scale=false", "--set", "data.photometric=false")
ALL_LABELS = "all labels"
FORMS = {ALL_LABELS: (), "ignore": (), "background": ("--set", "data.missing_labels=background")}


def main() -> None:
    """Cut the dataset, train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with weights and data")
    parser.add_argument("--out", type=Path, required=True, help="where datasets and experiments go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    arguments = parser.parse_args()
    dataset, weights = arguments.shared / "data" / "bccd", arguments.out / "nano.safetensors"
    parts = cut(dataset, arguments.out / "data")
    if not weights.exists():
        ciod("import", str(arguments.shared / "weights" / "yolox_nano.pth"), "--out", str(weights))

    def train(run: tuple[str, int]) -> dict[str, float]:
        form, seed = run
        experiment = arguments.out / f"{form.replace(' ', '-')}-seed{seed}"
        report = experiment / "run" / "metrics.json"
        if not report.exists():
            datasets = [dataset] if form == ALL_LABELS else parts
            given = [part for dataset in datasets for part in ("--data", str(dataset))]
            start = ("--experiment", str(experiment), "--name", "run", "--overwrite", "--seed", str(seed))
            ciod(
                "train-step",
                "--method",
                "joint",
                "--init",
                str(weights),
                *start,
                *given,
                *SETTINGS,
                *PLAIN,
                *FORMS[form],
            )
        measured = json.loads(report.read_text())
        return {entry["name"]: 100 * entry["metrics"]["ap"] for entry in measured["per_class"]}

    runs = [(form, seed) for seed in range(arguments.seeds) for form in FORMS]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        found = dict(zip(runs, pool.map(train, runs), strict=True))
    names = list(found[runs[0]])
    print(f"\n| labels | AP | {' | '.join(names)} | share of {ALL_LABELS} |")
    print("|---" * (len(names) + 3) + "|")
    for form in FORMS:
        values = [found[form, seed] for seed in range(arguments.seeds)]
        bounds = [found[ALL_LABELS, seed] for seed in range(arguments.seeds)]
        shares = [100 * fmean(own.values()) / fmean(bound.values()) for own, bound in zip(values, bounds, strict=True)]
        cells = [spread([fmean(own.values()) for own in values])]
        cells += [spread([own[name] for own in values]) for name in names]
        print(f"| {form} | {' | '.join(cells)} | {spread(shares)} % |")


def cut(dataset: Path, out: Path) -> list[Path]:
    """The dataset as one of each class, in COCO's layout; training images are dealt out in turn."""
    documents = {
        split: json.loads((dataset / "annotations" / f"instances_{split}.json").read_text())
        for split in ("train", "val")
    }
    categories = documents["train"]["categories"]
    parts = []
    for place, category in enumerate(categories):
        part = out / category["name"]
        (part / "annotations").mkdir(parents=True, exist_ok=True)
        for split, document in documents.items():
            images = document["images"][place :: len(categories)] if split == "train" else document["images"]
            kept = labeled(document, images, category)
            (part / "annotations" / f"instances_{split}.json").write_text(json.dumps(kept))
            if not (part / split).exists():
                (part / split).symlink_to((dataset / split).resolve())
        parts.append(part)
    return parts


def labeled(document: dict[str, Any], images: list[dict[str, Any]], category: dict[str, Any]) -> dict[str, Any]:
    """Some images of a COCO document with the labels of one class."""
    ids = {image["id"] for image in images}
    annotations = [
        entry
        for entry in document["annotations"]
        if entry["image_id"] in ids and entry["category_id"] == category["id"]
    ]
    return {"images": images, "annotations": annotations, "categories": [category]}


if __name__ == "__main__":
    main()
