"""Images per second of training: plain, with a live teacher, with a bank; beside the network alone, and others' code.

    python -m tests.benchmarks.training_speed [--model resnet50] [--image-size 640] [--batch-size 16 64]
                                              [--precision bf16] [--device cuda] [--workers 8] [--compile]

Generated images of the size that is trained at, loaded and augmented as in any training. `network` is the forward and
backward pass of backbone, neck and head on random numbers, with neither loading nor assignment nor optimizer; it and
`plain` take batch statistics, what learns from a teacher keeps its statistics and has less to do. pixeltable-yolox
trains the YOLOX of the same size (`--model yolox-s`, others are left out) on random numbers with random boxes: its
losses and backward pass, no loading and no optimizer either. Memory is what torch holds at most while it trains.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import ModelConfig
from ciod_core.demo.shapes import generate_shapes
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import Experiment
from ciod_core.model.registry import build_detector
from ciod_core.runs.estimate import MOST_ITERATIONS, Estimate, estimate_run
from ciod_core.runs.train import train_step
from ciod_core.runtime.device import pick_device, placed
from ciod_core.teachers.distill import distill
from ciod_core.teachers.report import summarize
from ciod_core.teachers.resolve import bank_config
from ciod_core.teachers.sources import TeacherOptions

CLASSES = 8
# Of step 1, so that the teacher has something to teach.
ITERATIONS_OF_TEACHER, BATCH_OF_TEACHER = 192, 16
WARMUP, ITERATIONS = 3, 10
OBJECTS = 8
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> None:
    """Measure and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--precision", choices=list(PRECISIONS), default="bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--images", type=int, help="by default as many as no loader has to start over for")
    parser.add_argument("--compile", action="store_true", help="measure all once more with compiled networks")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{arguments.model}, {arguments.image_size} pixels, {arguments.precision}, {name}")
    with tempfile.TemporaryDirectory() as folder:
        experiment, bank, flags = prepare(arguments, Path(folder))
        for compiled, batch_size in product((False, True)[: 1 + arguments.compile], arguments.batch_size):
            print(f"batches of {batch_size}{', compiled' if compiled else ''}")
            images = random_images(arguments, batch_size, device)
            alone = measure_network(arguments, images, compiled=compiled)
            row("network", alone, alone)
            if arguments.model.startswith("yolox-") and not compiled:
                row("pixeltable-yolox", measure_pixeltable(arguments, images), alone)
            flags |= {"training.batch_size": batch_size, "training.compile": compiled}
            plain = estimate_run(experiment, resolve_config(flags=flags))
            row("plain", plain.images_per_second, alone, plain)
            config = resolve_config(flags=flags | {"method.name": "crs-ckd"})
            live = estimate_run(experiment, config, teacher="step1", knowledge="none")
            row("live teacher", live.images_per_second, alone, live)
            banked = estimate_run(experiment, config, teacher="step1", knowledge=bank)
            row("bank", banked.images_per_second, alone, banked)


def prepare(arguments: argparse.Namespace, folder: Path) -> tuple[Experiment, Path, dict[str, Any]]:
    """An experiment whose step 1 is trained, the bank of its teacher, and the settings of all trainings."""
    side = arguments.image_size
    # Four of five images show a new class.
    images = arguments.images or math.ceil(1.25 * (1 + MOST_ITERATIONS) * max(arguments.batch_size))
    source = generate_shapes(folder / "shapes", train_images=images, val_images=8, image_size=side, seed=0)
    flags = {
        "model.name": arguments.model,
        "model.backbone_weights": "none",
        "data.image_size": side,
        "data.multi_scale": False,
        "data.workers": arguments.workers,
        "training.batch_size": BATCH_OF_TEACHER,
        "training.device": arguments.device,
        "training.precision": arguments.precision,
        "training.warmup_iterations": ITERATIONS_OF_TEACHER // 10,
    }
    experiment = create_experiment(source, "4+4", "name", folder / "experiment")
    epochs = math.ceil(ITERATIONS_OF_TEACHER * BATCH_OF_TEACHER / experiment.read().step(1).statistics.images)
    train_step(experiment, resolve_config(flags=flags | {"training.epochs": epochs}))
    config = resolve_config(flags=flags | {"method.name": "crs-ckd"})
    bank = distill(experiment, bank_config(config), TeacherOptions("step1"))
    known = summarize(bank)
    print(f"the teacher knows {known.total.answers / known.images:.1f} boxes per image")
    return experiment, bank.path, flags


def measure_network(arguments: argparse.Namespace, images: Tensor, *, compiled: bool) -> float:
    """Images per second of the network's two passes."""
    device = images.device
    detector = build_detector(ModelConfig(name=arguments.model, backbone_weights="none"), CLASSES).train()
    detector = placed(detector, device, channels_last=True, compiled=compiled)
    images = images.to(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast(device.type, PRECISIONS[arguments.precision], enabled=arguments.precision != "fp32"):
            output = detector(images)
        (output.boxes_BA4.float().mean() + output.class_logits_BAC.float().mean()).backward()

    return images_per_second(step, images)


def measure_pixeltable(arguments: argparse.Namespace, images: Tensor) -> float:
    """Images per second of pixeltable-yolox's losses and their gradients."""
    from yolox.models.yolo_head import YoloxHead
    from yolox.models.yolo_pafpn import YoloPafpn
    from yolox.models.yolox import YoloxModule

    from ciod_core.model.yolox.detector import SCALES

    width, depth, depthwise = SCALES[arguments.model]
    device = images.device
    backbone = YoloPafpn(depth, width, depthwise=depthwise)
    network: nn.Module = YoloxModule(backbone, YoloxHead(CLASSES, width, depthwise=depthwise)).to(device).train()
    boxes = torch.rand(len(images), OBJECTS, 5, device=device) * arguments.image_size / 2
    boxes[..., 0] = torch.randint(CLASSES, boxes.shape[:2], device=device)

    def step() -> None:
        with torch.autocast(device.type, PRECISIONS[arguments.precision], enabled=arguments.precision != "fp32"):
            losses = network(images, boxes)
        losses["total_loss"].backward()

    return images_per_second(step, images)


def random_images(arguments: argparse.Namespace, batch_size: int, device: torch.device) -> Tensor:
    """A batch of noise, 0..255."""
    return torch.rand(batch_size, 3, arguments.image_size, arguments.image_size, device=device) * 255


def images_per_second(step: Callable[[], None], images: Tensor) -> float:
    """By the median of some iterations."""
    times = []
    for _ in range(WARMUP + ITERATIONS):
        started = time.perf_counter()
        step()
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        times.append(time.perf_counter() - started)
    return len(images) / median(times[WARMUP:])


def row(name: str, speed: float, alone: float, run: Estimate | None = None) -> None:
    """Print a speed and its share of the network's own."""
    print(f"{name:18s} {speed:9.1f} images/s  {speed / alone:5.2f} of the network alone{told(run)}", flush=True)


def told(run: Estimate | None) -> str:
    """What a run adds to its row."""
    if run is None:
        return ""
    used = "" if run.memory_bytes is None else f"  {run.memory_bytes / 2**30:6.1f} GiB"
    compiling = "".join(f"; {note}" for note in run.notes if note.startswith("compiling"))
    return f"{used}  {run.loading_share:4.0%} loading{compiling}"


if __name__ == "__main__":
    main()
