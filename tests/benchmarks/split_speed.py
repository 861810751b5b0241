"""How long `ciod split` takes at COCO's size, as a share of what pycocotools takes just to load the file.

    python -m tests.benchmarks.split_speed FOLDER [--rounds 3]

FOLDER is filled by `tests.benchmarks.coco_size` first where it is empty (about 0.6 GB). Every figure is of a whole
process: start, imports, reading, checking, hashing, writing. A round is one process each, one after the other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.coco_size import generate

LOAD = "import sys; from pycocotools.coco import COCO; COCO(sys.argv[1])"


class Cost(NamedTuple):
    """Wall time in seconds and peak resident memory in MB of one process."""

    seconds: float
    megabytes: float


def measure(command: list[str]) -> Cost:
    """Run a command to its end.

    Raises:
        SystemExit: it failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    scale = 1024**2 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return Cost(time.perf_counter() - start, usage.ru_maxrss / scale)


def one_round(folder: Path) -> dict[str, Cost]:
    """The processes of a round."""
    annotations = folder / "annotations" / "instances_train2017.json"
    costs = {"pycocotools COCO()": measure([sys.executable, "-c", LOAD, str(annotations)])}
    for plan in ("70+10", "40+40"):
        with tempfile.TemporaryDirectory(dir=folder.parent) as out:
            command = [
                sys.executable,
                "-m",
                "ciod_cli",
                "split",
                str(folder),
                "--plan",
                plan,
                "--out",
                f"{out}/experiment",
            ]
            costs[f"ciod split, {plan}"] = measure(command)
    return costs


def main() -> None:
    """Print the median of the rounds and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    generate(arguments.folder)
    rounds = [one_round(arguments.folder) for _ in range(arguments.rounds)]
    median = {
        name: Cost(*(statistics.median(values) for values in zip(*(costs[name] for costs in rounds), strict=True)))
        for name in rounds[0]
    }
    reference = median["pycocotools COCO()"]
    print(f"{'':20}{'seconds':>9}{'of COCO()':>11}{'MB':>7}{'of COCO()':>11}")
    for name, cost in median.items():
        print(
            f"{name:20}{cost.seconds:9.2f}{cost.seconds / reference.seconds:11.2f}"
            f"{cost.megabytes:7.0f}{cost.megabytes / reference.megabytes:11.2f}"
        )


if __name__ == "__main__":
    main()
