"""Train every method through the command line on a tiny dataset, and record what came out bit by bit.

A refactor proves itself by unchanged results: `python -m tests.identity.recording FILE` writes the record that
`test_identity.py` compares with. Record before the first change, on purpose only. With `--add` the records of machines
that compute other bits stay, which only the same code may do.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from torch import nn

from tests.cli.conftest import CommandResult

CLASSES = ("disk", "bar", "frame", "cross", "wedge", "dot")
COLORS = ((220, 60, 50), (60, 200, 80), (70, 90, 230), (230, 200, 40), (200, 60, 210), (60, 210, 220))
SIDE = 64
COMMON = ("--device", "cpu", "--workers", "0")
TINY = (*COMMON, "--batch-size", "4", "--seed", "3")
# The teacher of a tiny run has low scores; with low thresholds some of its boxes are selected all the same.
LOW_THRESHOLDS = tuple(
    part
    for setting in ("centre_score=0.02", "min_score=0.001", "fixed_score=0.002")
    for part in ("--set", f"resampler.{setting}")
)
PUBLISHED = (
    "resampler.nms_iou=0.95", "resampler.ground_truth_iou=1", "distiller.weighting=paper", "distiller.target=hybrid",
    "method.objectness=hard", "distiller.background=teacher", "method.batch_norm=update",
    "method.trunk_balance=0",
)  # fmt: skip
METHODS = ("crs-ckd", "erd", "sid", "rilod", "lwf", "frozen-branch", "pseudo-label", "finetune")


def write_dataset(folder: Path, name: str, num_images: int, classes: tuple[str, ...], seed: int) -> Path:
    """A COCO file `folder/name.json` with colored rectangles of these classes, and its images in `folder/name/`."""
    generator = np.random.default_rng(seed)
    (folder / name).mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, num_images + 1):
        picture = Image.fromarray(generator.integers(90, 150, (SIDE, SIDE, 3), dtype=np.uint8))
        for _ in range(int(generator.integers(1, 4))):
            label = int(generator.integers(len(classes)))
            width, height = (int(side) for side in generator.integers(12, 30, 2))
            x, y = int(generator.integers(0, SIDE - width)), int(generator.integers(0, SIDE - height))
            ImageDraw.Draw(picture).rectangle(
                (x, y, x + width - 1, y + height - 1), COLORS[CLASSES.index(classes[label])]
            )
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "iscrowd": 0,
                "bbox": [x, y, width, height], "area": width * height,
            })  # fmt: skip
        file_name = f"{name}-{number:02}.png"
        picture.save(folder / name / file_name)
        images.append({"id": number, "file_name": file_name, "width": SIDE, "height": SIDE})
    categories = [{"id": number, "name": label} for number, label in enumerate(classes, start=1)]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def fingerprint() -> str:
    """A hash of a small training in plain torch: machines that agree on it are held to bit-identical results."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.SiLU(), nn.Conv2d(16, 8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    for _ in range(3):
        loss = model(torch.rand(4, 3, 32, 32)).sigmoid().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return hash_of(model.state_dict())


def hash_of(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, whatever the file around them says."""
    digest = hashlib.sha256()
    # Banks called it so when the hashes were recorded.
    recorded_names = {"objectness_K": "obj_logits_K"}
    for name, tensor in sorted((recorded_names.get(name, name), tensor) for name, tensor in tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict


def ciod(*arguments: object) -> dict[str, Any]:
    """Run a command with `--json` in this process; its document."""
    outcome = CommandResult((*(str(argument) for argument in arguments), "--json"))
    assert outcome.code == 0, f"{arguments}: {outcome.err}"
    document: dict[str, Any] = json.loads(outcome.out)
    return document


def record(folder: Path) -> dict[str, Any]:
    """Train everything in `folder`; hashes and metrics by name."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return dict(_results(folder))
    finally:
        torch.set_num_threads(threads)


def _results(folder: Path) -> Iterator[tuple[str, Any]]:
    train = write_dataset(folder, "train", 16, CLASSES[:5], seed=1)
    val = write_dataset(folder, "val", 8, CLASSES[:5], seed=2)
    experiment = folder / "experiment"
    ciod("split", train, "--images", folder / "train", "--val", val, "--val-images", folder / "val",
         "--plan", "3+2", "--out", experiment)  # fmt: skip

    def run(*arguments: object, command: tuple[object, ...] = ("train-step",), epochs: int = 2) -> dict[str, Any]:
        # Every run has its own settings: none is that of a teacher's run.
        own = ("--epochs", epochs, "--lr", 0.001)
        result = ciod(*command, "--experiment", experiment, *TINY, *own, *arguments)
        return _of_run(Path(result["experiment"]), result["name"])

    fresh = ("--model", "yolox-micro", "--backbone-weights", "none", "--image-size", SIDE,
             "--set", "training.warmup_iterations=5")  # fmt: skip
    as_recorded = ("--method", "crs-ckd", "--set", "branch.depth=head", "--set", "evaluation.yield_iou=1")
    teacher = ("--teacher", experiment / "step1.safetensors", *as_recorded, *LOW_THRESHOLDS,
               "--set", "training.warmup_iterations=2")  # fmt: skip
    yield "step1", run(*fresh, "--lr", 0.003, epochs=40)
    for method in METHODS:
        name = "step2" if method == "crs-ckd" else f"step2-{method}"
        yield method, run(*teacher, "--method", method, "--name", name, "--knowledge", "none")
    published = [part for setting in PUBLISHED for part in ("--set", setting)]
    yield "published", run(*teacher, *published, "--name", "published")
    for rule in ("fixed", "class-stat", "global-stat"):
        yield rule, run(*teacher, "--set", f"resampler.rule={rule}", "--name", rule, epochs=1)
    balanced = ("--set", "distiller.weighting=balanced", "--set", "distiller.target=margin-weighted")
    yield "balanced", run(*teacher, *balanced, "--set", "training.optimizer=sgd", "--name", "balanced", epochs=1)
    yield "replay", run(*teacher, "--replay", 4, "--name", "replay")
    yield "joint", run(*fresh, "--method", "joint")
    mixing = ("--set", "data.mosaic=0.5", "--set", "data.mixup=0.5", "--set", "data.flip=0.5")
    yield "mixing", run(*fresh, *mixing, "--method", "joint", "--name", "mixing")
    yield "resnet18", run(*fresh, "--model", "resnet18", "--method", "joint", "--name", "resnet18", epochs=1)

    bank = ciod("distill", "--experiment", experiment, "--teacher", "step1", *COMMON, *LOW_THRESHOLDS)["bank"]
    yield "bank", hash_of(tensors_of(Path(bank)))
    yield "banked", run(*teacher, "--knowledge", bank, "--name", "banked")
    looks = ("--flip", "--scales", "1.5", "--out", folder / "looks.safetensors")
    bank = ciod("distill", "--experiment", experiment, "--teacher", "step1", *COMMON, *LOW_THRESHOLDS, *looks)["bank"]
    yield "bank of several looks", hash_of(tensors_of(Path(bank)))
    yield "into", run("--teacher", "step1", *LOW_THRESHOLDS, "--name", "small",
                      command=("distill-into", "yolox-nano"))  # fmt: skip
    results = ("--teacher", _foreign_results(experiment, folder / "results.json"), "--step", 2)
    bank = ciod("distill", "--experiment", experiment, *results, *COMMON, "--out", folder / "foreign.safetensors")[
        "bank"
    ]
    yield "bank of results", hash_of(tensors_of(Path(bank)))
    yield "foreign", run(*teacher[:2], "--knowledge", bank, "--name", "foreign", epochs=1)

    more = write_dataset(folder, "more", 8, CLASSES[5:], seed=3)
    added = (
        "--data",
        more,
        "--images",
        folder / "more",
        "--teacher",
        experiment / "step2.safetensors",
        "--method",
        "crs-ckd",
        *LOW_THRESHOLDS,
    )
    yield "added step", run(*added)
    yield "alone", run("--data", more, "--images", folder / "more", "--experiment", folder / "alone", *fresh)
    weights = experiment / "step2.safetensors"
    # Recorded one image at a time; convolutions of more images round differently.
    document = ciod("predict", weights, folder / "val", "--score", 0.05, "--device", "cpu", "--batch-size", 1)
    yield "predict", [_found(image) for image in document["images"]]


def _found(image: dict[str, Any]) -> list[Any]:
    """Class, score and box of every detection."""
    return [[entry["class"], entry["score"], entry["box_xyxy"]] for entry in image["detections"]]


def _of_run(experiment: Path, name: str) -> dict[str, Any]:
    with (experiment / name / "metrics.csv").open() as file:
        header, first, *_ = (line.split(",") for line in file.read().splitlines())
    metrics = experiment / name / "metrics.json"
    groups = json.loads(metrics.read_text())["groups"] if metrics.exists() else {}
    return {
        "weights": hash_of(tensors_of(experiment / f"{name}.safetensors")),
        "first losses": {key: float(value) for key, value in zip(header[7:], first[7:], strict=True)},
        "AP": {group: content["metrics"]["ap"] for group, content in groups.items()},
    }


def _foreign_results(experiment: Path, path: Path) -> Path:
    """What another detector might have found on the images of step 2: a box of some old class on each."""
    step = json.loads((experiment / "splits" / "step2.train.json").read_text())
    results = [
        {
            "image_id": image["id"],
            "category_id": 1 + place % 3,
            "bbox": [8 + place, 10, 20, 18],
            "score": 0.4 + place / 50,
        }
        for place, image in enumerate(step["images"])
    ]
    names = [{"id": number, "name": name} for number, name in enumerate(CLASSES[:5], start=1)]
    path.write_text(json.dumps({"annotations": results, "categories": names}))
    return path


if __name__ == "__main__":
    path, adds = Path(sys.argv[1]), "--add" in sys.argv[2:]
    records = json.loads(path.read_text()) if adds else {}
    with tempfile.TemporaryDirectory() as temporary:
        records[fingerprint()] = record(Path(temporary))
    path.write_text(json.dumps(records, indent=1) + "\n")
