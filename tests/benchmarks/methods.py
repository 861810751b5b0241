"""Every method on four small problems, over several seeds: the tables of the README.

    python -m tests.benchmarks.methods --data FOLDER --out TABLES [--seeds 3] [--only neu-det ...]

FOLDER holds the datasets `bccd` and `neu-det`; the other two problems use the demo's images. Runs the `ciod` commands
that it prints, trains only what is missing in TABLES, and ends with the tables and the mean over the problems.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

METHODS = "finetune,lwf,rilod,sid,erd,frozen-branch,pseudo-label,crs-ckd,crs-ckd+replay"
COLUMNS = ("ap_old", "ap_new", "ap_all", "relative_gap", "omega", "seconds")
HEADINGS = ("method", "AP old", "AP new", "AP all", "RelGap %", "Ω", "time")
# Images this small and this few are best seen as they are.
COMMON = (
    "--batch-size 8 --lr 0.002 --workers 0",
    "--set data.multi_scale=false --set data.photometric=false",
)
Row = dict[str, Any]
# The rows of every method, by step.
Table = dict[str, dict[int, Row]]


@dataclass(frozen=True)
class Problem:
    """A dataset, how it is split, and how its runs train.

    Attributes:
        dataset: folder below the data folder, or `demo`.
        plan: of `ciod split`.
        options: of `ciod run`, besides `COMMON`. Replay gets a tenth of the images of step 1.
    """

    dataset: str
    plan: str
    options: str


PROBLEMS = {
    "neu-det": Problem("neu-det", "3+3", "--image-size 96 --first-epochs 12 --epochs 8 --set replay.images=79"),
    "bccd": Problem("bccd", "2+1", "--image-size 128 --first-epochs 18 --epochs 10 --set replay.images=29"),
    "demo-4+4": Problem("demo", "4+4", "--image-size 96 --first-epochs 16 --epochs 6 --set replay.images=128"),
    "demo-2x4": Problem("demo", "2x4", "--image-size 96 --first-epochs 24 --epochs 4 --set replay.images=87"),
}


def main() -> None:
    """Split, train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with bccd and neu-det")
    parser.add_argument("--out", type=Path, required=True, help="where the experiments go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--model", default="yolox-micro", help="the detector; a folder of its own for each")
    parser.add_argument("--only", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    arguments = parser.parse_args()

    tables: dict[str, Table] = {}
    for name in arguments.only:
        started = time.monotonic()
        tables[name] = _solve(name, arguments)
        print(f"\n{name}: mean ± standard deviation of {arguments.seeds} seeds, AP in %", end="")
        print(f" ({(time.monotonic() - started) / 60:.0f} min for what was missing)\n")
        _print_problem(tables[name])
    print("\nAP of all classes, mean over the problems\n")
    names = [method for method in tables[arguments.only[0]] if method != "base"]
    _print_table(("method", "AP all"), [(method, f"{100 * _mean_ap(method, tables):.1f}") for method in names])


def _solve(name: str, arguments: argparse.Namespace) -> Table:
    """The rows of every method; step 1 is `base`."""
    problem, experiment = PROBLEMS[name], arguments.out / name
    dataset = problem.dataset if problem.dataset == "demo" else str(arguments.data / problem.dataset)
    if not experiment.exists():
        _ciod("split", dataset, "--plan", problem.plan, "--out", str(experiment))
    compared = ("--methods", arguments.methods, "--seeds", str(arguments.seeds), "--jobs", str(arguments.jobs))
    options = shlex.split(" ".join((problem.options, *COMMON)))
    document = _ciod("run", str(experiment), *compared, "--model", arguments.model, *options, "--json")
    table: Table = {}
    for row in json.loads(document)["rows"]:
        table.setdefault(row["method"], {})[row["step"]] = row
    return table


def _ciod(*arguments: str) -> str:
    print("ciod", shlex.join(arguments), flush=True)
    command = [sys.executable, "-m", "ciod_cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _print_problem(table: Table) -> None:
    """Every measure after the last step; before that, AP of all classes after the steps between."""
    last = max(step for rows in table.values() for step in rows)
    between = range(2, last)
    lines = []
    for method, rows in table.items():
        final = rows[max(rows)]["measures"]
        passed = [_cell("ap_all", rows[step]["measures"]["ap_all"]) if step in rows else "" for step in between]
        lines.append((method, *passed, *(_cell(measure, final[measure]) for measure in COLUMNS)))
    _print_table((HEADINGS[0], *(f"AP all, step {step}" for step in between), *HEADINGS[1:]), lines)


def _cell(measure: str, spread: dict[str, Any]) -> str:
    if spread["mean"] is None:
        return ""
    if measure == "seconds":
        return f"{spread['mean']:.0f} s"
    factor, digits = (1.0, 3) if measure == "omega" else (100.0, 1)
    deviation = "" if spread["sd"] is None else f" ± {factor * spread['sd']:.{digits}f}"
    return f"{factor * spread['mean']:.{digits}f}{deviation}"


def _mean_ap(method: str, tables: dict[str, Table]) -> float:
    return fmean(table[method][max(table[method])]["measures"]["ap_all"]["mean"] for table in tables.values())


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for cells in (headings, ["---"] * len(headings), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
