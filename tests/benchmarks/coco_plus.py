"""A COCO detector learns further classes from images that hardly ever show a COCO object.

    python -m tests.benchmarks.coco_plus --shared FOLDER --out TABLES [--data bccd neu-det] [--seeds 3] [--jobs 2]

FOLDER holds `weights/yolox_nano.pth` and the datasets `data/coco-tiny`, `data/bccd`, `data/neu-det`. The weights are
imported at 320 pixels; each method learns the new classes in a few epochs of batches of 8, every seed from the same
imported weights. AP of the 80 old classes is measured on coco-tiny's validation images, with negatives: these images
count as images without new classes. Trains only what is missing in TABLES and ends with a table for each dataset.

Methods that end in -photos also get 80 photographs of COCO without their labels (`--unlabeled`). `consolidated` is
auto-photos as one network again, of the same seed and with the same photographs.

COCO's validation images are 80; their AP has a standard error of several points, so compare on the same images: the
imported detector has the AP of the first row there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

COMMON = ("--batch-size", "8", "--workers", "0", "--negatives")
# Of the new images: 292 of bccd, 1,440 of neu-det.
EPOCHS = {"bccd": "5", "neu-det": "2"}
SIDE = "320"
# Only auto has the defaults; the others are told what somebody who knows them would choose.
METHODS: dict[str, tuple[str, ...]] = {
    "finetune": ("--method", "finetune", "--lr", "1e-3"),
    "pseudo-label": ("--method", "pseudo-label", "--lr", "1e-4"),
    "crs-ckd": ("--method", "crs-ckd", "--lr", "1e-4"),
    "crs-ckd-fast": ("--method", "crs-ckd", "--lr", "1e-3"),
    "head-branch": ("--method", "frozen-branch", "--set", "branch.depth=head"),
    "auto": (),
    "auto-photos": (),
    "finetune-photos": ("--method", "finetune", "--lr", "1e-3"),
}
# One network that a run with branches is consolidated into, and for how long.
CONSOLIDATED, WITH_BRANCHES = "consolidated", "auto-photos"
CONSOLIDATION_EPOCHS = {"bccd": "16", "neu-det": "4"}
# Methods that also get photographs without new objects: coco-tiny's training images, whose labels are not read.
WITH_PHOTOS = "-photos"


class Measured(NamedTuple):
    """What one run reached; APs in percent."""

    old: float
    new: float
    with_negatives: float
    false_alarms: float
    parameters: int
    seconds: float
    method: str


def main() -> None:
    """Import, train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with weights and data")
    parser.add_argument("--out", type=Path, required=True, help="where weights and experiments go")
    parser.add_argument("--data", nargs="+", choices=list(EPOCHS), default=list(EPOCHS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--consolidate", action="store_true", help=f"also {WITH_BRANCHES} into one network")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    weights = arguments.out / "nano.safetensors"
    if not weights.exists():
        published = arguments.shared / "weights" / "yolox_nano.pth"
        ciod("import", str(published), "--out", str(weights), "--image-size", SIDE)
    for data in arguments.data:
        solve(arguments, data, weights)


def solve(arguments: argparse.Namespace, data: str, weights: Path) -> None:
    """Train the missing runs of one dataset and print its table."""
    experiment, folder = arguments.out / data, arguments.shared / "data"
    if not experiment.exists():
        ciod("split", str(folder / "coco-tiny"), "--plan", "80", "--order", "id", "--out", str(experiment))
    before = ciod("evaluate", str(weights), "--experiment", str(experiment), "--workers", "0")
    methods = list(dict.fromkeys([*arguments.methods, *([WITH_BRANCHES] if arguments.consolidate else [])]))
    runs = [(method, seed) for seed in range(arguments.seeds) for method in methods]
    consolidated = [(CONSOLIDATED, seed) for seed in range(arguments.seeds) if arguments.consolidate]
    photos = ("--unlabeled", str(folder / "coco-tiny" / "train2017"))

    def train(run: tuple[str, int]) -> Measured:
        method, seed = run
        name = f"{method}-seed{seed}"
        if (experiment / name / "metrics.json").exists():
            return measured(experiment, name)
        common = ("--experiment", str(experiment), "--name", name, "--overwrite", *COMMON, "--seed", str(seed))
        if method == CONSOLIDATED:
            epochs = ("--epochs", CONSOLIDATION_EPOCHS[data])
            ciod("consolidate", f"{WITH_BRANCHES}-seed{seed}", *common, *photos, *epochs)
        else:
            source = ("--data", str(folder / data)) if "step2" not in steps_of(experiment) else ()
            given = (*METHODS[method], *(photos if method.endswith(WITH_PHOTOS) else ()), "--epochs", EPOCHS[data])
            ciod("train-step", "--teacher", str(weights), *source, *common, *given)
        return measured(experiment, name)

    results: dict[str, list[Measured]] = {}
    # The first run adds the step; the others find it.
    found = [train(runs[0])]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        found += pool.map(train, runs[1:])
        found += pool.map(train, consolidated)
    for (method, _), values in zip(runs + consolidated, found, strict=True):
        results.setdefault(method, []).append(values)
    old = 100 * before["report"]["groups"]["all"]["metrics"]["ap"]
    print(f"\n80 COCO classes + {data}; old AP of the imported detector: {old:.1f}\n")
    print("| method | old | new | new, with negatives | false alarms | parameters | seconds | trained as |")
    print("|---|---|---|---|---|---|---|---|")
    for method, values in results.items():
        cells = [spread([value[column] for value in values]) for column in range(3)]
        alarms = spread([value.false_alarms for value in values], digits=2)
        last = values[-1]
        seconds = fmean(value.seconds for value in values)
        names = ", ".join(sorted({value.method for value in values}))
        print(f"| {method} | {' | '.join(cells)} | {alarms} | {last.parameters:,} | {seconds:.0f} | {names} |")


def steps_of(experiment: Path) -> set[str]:
    """The steps that an experiment has."""
    document = json.loads((experiment / "experiment.json").read_text())
    return {f"step{step['step']}" for step in document["steps"]}


def measured(experiment: Path, name: str) -> Measured:
    """The numbers of a finished run."""
    # Imported here: the other functions only start commands.
    from safetensors import safe_open

    report = json.loads((experiment / name / "metrics.json").read_text())
    document = json.loads((experiment / "experiment.json").read_text())
    record = next(run for run in document["runs"] if run["name"] == name)
    alarms = report["false_alarms"]
    with safe_open(experiment / f"{name}.safetensors", framework="numpy") as file:
        sizes = [file.get_tensor(key).size for key in file.keys() if not key.endswith("num_batches_tracked")]  # noqa: SIM118
    return Measured(
        old=100 * report["groups"]["old"]["metrics"]["ap"],
        new=100 * report["groups"]["new"]["metrics"]["ap"],
        with_negatives=100 * alarms["new_with_negatives"]["ap"],
        false_alarms=alarms["per_image"],
        parameters=sum(sizes),
        seconds=record["seconds"],
        method=record["method"],
    )


def spread(values: list[float], digits: int = 1) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"


def ciod(*arguments: str) -> dict[str, Any]:
    """Run a command with one thread; its JSON document."""
    print("ciod", *arguments, flush=True)
    command = [sys.executable, "-c", "import torch; torch.set_num_threads(1); from ciod_cli.app import main; main()"]
    finished = subprocess.run([*command, *arguments, "--json"], capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(finished.stderr)
    document: dict[str, Any] = json.loads(finished.stdout)
    return document


if __name__ == "__main__":
    main()
