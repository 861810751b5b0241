"""What it costs that nothing is lost and no file is taken for another: weights, states, and the images of COCO's size.

    python -m tests.benchmarks.safety_cost FOLDER

FOLDER gets a generated dataset of COCO's size (`tests.benchmarks.coco_size`) and the weights of an untrained yolox-s.
Writing and loading are compared with what safetensors and torch alone do: no checksum, no wait for the disk, no look
for NaN. A state is compared with the time between two states: training takes fifty times as long as writing them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file, save_file

from ciod_core.classes import class_table
from ciod_core.config.schema import ModelConfig
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.experiment.images import changed_images, check_images, hash_files, recorded_images
from ciod_core.model.checkpoint import CheckpointInfo, load_detector, save_detector
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.model.registry import build_detector
from ciod_core.training.resume import TrainingState, load_state, save_state
from tests.benchmarks.coco_size import generate
from tests.helpers.experiments import make_experiment

MODEL = ModelConfig(name="yolox-s")
IMAGE_SIZE = 416
CLASSES = class_table([[(f"class {number}", number) for number in range(1, 81)]])
ROUNDS = 5


def main() -> None:
    """Measure and print one row per check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        measure_weights(Path(name))
    generate(folder)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        measure_images(folder, Path(name))


def measure_weights(folder: Path) -> None:
    """Weights and states of yolox-s."""
    detector = build_detector(MODEL, len(CLASSES))
    weights = detector.state_dict()
    info = CheckpointInfo(
        model=MODEL,
        classes=CLASSES,
        preprocessing=Preprocessing(image_size=IMAGE_SIZE),
        run="step1",
        step=1,
        method="base",
        parent_sha256=None,
    )
    ours, plain = folder / "ours.safetensors", folder / "plain.safetensors"
    row("write weights", lambda: save_detector(ours, weights, info), lambda: save_file(weights, plain))
    row(
        "load weights", lambda: load_detector(ours), lambda: build_detector(MODEL, 80).load_state_dict(load_file(plain))
    )
    # Student, moving average, and the momentum of the optimizer.
    parts = {name: {key: tensor.clone() for key, tensor in weights.items()} for name in ("student", "ema", "momentum")}
    flat = {f"{part}/{key}": tensor for part, group in parts.items() for key, tensor in group.items()}
    state = TrainingState(1, 0.0, (), parts)
    row("write a state", lambda: save_state(folder, state), lambda: save_file(flat, plain))
    row("load a state", lambda: load_state(folder), lambda: load_file(plain))
    print(f"{'a state':34s} {(folder / 'state/last.safetensors').stat().st_size / 1e6:9.1f} MB")


def measure_images(dataset: Path, folder: Path) -> None:
    """The images of a dataset of COCO's size: recorded once, looked at by every start, read by `verify`."""
    table = read_coco(dataset / "annotations" / "instances_train2017.json")
    images = [LocatedTable(table, dataset / "train2017")]
    experiment = make_experiment(folder / "experiment")
    paths = [str((dataset / "train2017" / name).resolve()) for name in table.file_names_I.tolist()]
    size = sum(Path(path).stat().st_size for path in paths[:1000]) / 1000
    print(f"{len(paths):,} images of {size / 1e3:.1f} KB each, in the cache of the system")
    reading = seconds(lambda: all(found for _, found in hash_files(experiment, paths)))
    print(f"{'read and hash all':34s} {reading:9.2f} s  {len(paths) / reading:,.0f} images/s")
    print(f"{'first use: and record them':34s} {seconds(lambda: check_images(experiment, images)):9.2f} s")
    print(f"{'every other use':34s} {seconds(lambda: check_images(experiment, images)):9.2f} s")
    assert len(recorded_images(experiment)) == len(paths)
    print(f"{'verify':34s} {seconds(lambda: changed_images(experiment, lambda count: None)):9.2f} s")


def row(name: str, ours: Callable[[], object], plain: Callable[[], object]) -> None:
    """Print the medians of both, measured in turn."""
    pairs = [(seconds(ours), seconds(plain)) for _ in range(ROUNDS)]
    mine, other = (median(times) for times in zip(*pairs, strict=True))
    print(f"{name:34s} {1e3 * mine:9.1f} ms  without: {1e3 * other:.1f} ms, x{mine / other:.2f}")


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
