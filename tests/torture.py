"""Commands that are killed and started again end as if nothing had happened.

    python -m tests.torture [--kills 1000] [--seed 0] [--only split ...]

A command gets SIGKILL, SIGTERM or SIGINT before a random file operation or at a random moment, or finds the disk full
from a random file operation on. Every command runs in a fork of this process, which has imported all that it
needs and computes nothing itself: torch's threads do not survive a fork. With more than a few kills, more commands are
killed. `tests/test_torture.py` runs it.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ciod_cli.app import main as main_of_ciod
from ciod_core.demo.shapes import generate_shapes
from ciod_core.files import sha256_of_file
from ciod_core.records import CHECKSUM_KEY
from ciod_core.temporaries import TEMPORARY

FEW_KILLS = 20
OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.flock")
SETTINGS = (
    *("--set", "data.image_size=64", "--epochs", "2", "--batch-size", "8", "--workers", "0", "--device", "cpu"),
    *("--set", "training.deterministic=true"),
)
EVALUATIONS = ("--evaluate-every", "1", "--set", "training.keep=best", "--set", "evaluation.batch_size=12")


SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOST_WHEN_FULL = 20_000
# Done, ended by the signal, or by the command itself: 128 and the signal, as shells say it.
ENDS = (0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM, 128 + signal.SIGINT)


class Scenario(NamedTuple):
    """A command, with `@` for the experiment and `#` for the dataset, and what it is when it is started again."""

    name: str
    command: tuple[str, ...]
    again: tuple[str, ...] = ()
    after: str | None = None
    weight: float = 1.0
    """How often it is killed; commands that take longer less often."""


SCENARIOS = (
    Scenario("split", ("split", "#", "--plan", "5+3", "--out", "@")),
    Scenario(
        "step1", ("train-step", "--experiment", "@", "--model", "yolox-micro", *SETTINGS, *EVALUATIONS),
        ("--resume",), "split",
    ),
    Scenario(
        "distill",
        ("distill", "--experiment", "@", "--teacher", "step1", "--device", "cpu", "--workers", "0"),
        (), "step1",
    ),
    Scenario("step2", ("train-step", "--experiment", "@", "--teacher", "step1", *SETTINGS), ("--resume",), "distill"),
    Scenario(
        "branch",
        ("train-step", "--experiment", "@", "--teacher", "step1", "--method", "frozen-branch", *SETTINGS),
        ("--resume",), "step1",
    ),
    Scenario(
        "added",
        ("train-step", "--experiment", "@", "--teacher", "step2", "--data", "#", "--method", "finetune", *SETTINGS),
        ("--resume",), "step2",
    ),
    Scenario("evaluate", ("evaluate", "step1", "--experiment", "@", "--device", "cpu", "--workers", "0"), (), "step1"),
    Scenario(
        "export", ("export", "step1", "--experiment", "@", "--format", "pt2", "--no-nms"),
        ("--overwrite",), "step1", 0.1,
    ),
    Scenario(
        "run",
        (
            "run", "@", "--methods", "finetune", "--no-upper-bounds", "--jobs", "1", "--model", "yolox-micro",
            "--seeds", "1", *SETTINGS,
        ),
        (), "split", 0.1,
    ),
)  # fmt: skip


class Ended(NamedTuple):
    """How a command ended: its status (negative: the signal), file operations in the folder, seconds and messages."""

    code: int
    operations: int
    seconds: float
    said: str


class Kill(NamedTuple):
    """Before which file operation (0: none) a command gets a signal or the disk is full, or else when it gets one."""

    operation: int = 0
    full: bool = False
    seconds: float = 0.0
    signal: signal.Signals = signal.SIGKILL

    @classmethod
    def draw(cls, draw: random.Random, whole: Ended, *, at_moments: bool) -> Kill:
        """Any operation or moment of a command that was not killed."""
        if not at_moments or draw.random() < 0.6:
            operation = draw.randint(1, whole.operations)
            return cls(operation=operation, full=draw.random() < 0.4, signal=draw.choice(SIGNALS))
        return cls(seconds=draw.uniform(0, whole.seconds), signal=draw.choice(SIGNALS))


def run(arguments: Sequence[str], folder: Path, kill: Kill = Kill()) -> Ended:  # noqa: B008 - a tuple never changes
    """Run a command in a fork, and kill it."""
    started = time.monotonic()
    log = folder.with_name("log")
    reading, writing = os.pipe()
    # Here already, for a child that is killed at once.
    output = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
            watch(folder, kill)
            sys.argv = ["ciod", *arguments]
            try:
                main_of_ciod()
                code = 0
            except SystemExit as error:
                code = int(error.code or 0)
            os.write(writing, str(_operations).encode())
        except KeyboardInterrupt:
            # Before or after the command, which has to end by itself.
            code = 128 + signal.SIGINT
        finally:
            os._exit(code)
    os.close(writing)
    os.close(output)
    timer = threading.Timer(kill.seconds, os.kill, (child, kill.signal))
    if kill.seconds > 0:
        timer.start()
    # Waited for without collecting it, so that its number is nobody else's when the timer sends its signal.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    timer.cancel()
    if timer.is_alive():
        timer.join()
    _, status = os.waitpid(child, 0)
    counted = os.read(reading, 20).decode()
    os.close(reading)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Ended(code, int(counted or 0), time.monotonic() - started, log.read_text(errors="replace"))


_operations = 0


def watch(folder: Path, kill: Kill) -> None:
    """Count file operations in a folder; send the process a signal, or let the disk be full, before the given one."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        global _operations
        if event not in OPERATIONS:
            return
        if event != "fcntl.flock" and str(folder) not in os.fsdecode(str(arguments[0])):
            return
        _operations += 1
        if _operations == kill.operation and not kill.full:
            os.kill(os.getpid(), kill.signal)
        writes = event == "os.mkdir" or (event == "open" and _writes(arguments))
        if kill.full and _operations >= kill.operation and writes:
            # Files that are open already can take no more than messages have.
            resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_WHEN_FULL, resource.RLIM_INFINITY))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    sys.addaudithook(hook)


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or any(letter in str(mode) for letter in "wax+")


def content(folder: Path) -> dict[str, Any]:
    """What must be equal: the manifest without times, and the other files that depend on no time, by hash."""
    document = json.loads((folder / "experiment.json").read_text())
    for key in ("created", CHECKSUM_KEY):
        del document[key]
    for each in document["runs"]:
        del each["started"], each["seconds"], each["files"]
        each["outputs"].pop("metrics", None)
    files = [*folder.rglob("*.safetensors"), *(folder / "splits").glob("step*.json"), *folder.rglob("metrics.json")]
    return {"manifest": document} | {str(path.relative_to(folder)): sha256_of_file(path) for path in sorted(files)}


class Torture:
    """The scenarios, each with the experiment that it begins with and what it leads to."""

    def __init__(self, folder: Path, dataset: Path, kills: int) -> None:
        self.folder, self.dataset = folder, dataset
        # A few kills are those of a test, which are the same every time; moments are not.
        self.is_test = kills <= FEW_KILLS
        self.scenarios = SCENARIOS[:4] if self.is_test else SCENARIOS
        self.whole: dict[str, Ended] = {}
        for scenario in self.scenarios:
            place = self.begin(scenario, folder / scenario.name / "experiment")
            ended = self.whole[scenario.name] = run(self.command(scenario, place), place)
            assert ended.code == 0, ended.said

    def begin(self, scenario: Scenario, place: Path) -> Path:
        """What is there before the scenario's command."""
        place.parent.mkdir(exist_ok=True)
        if scenario.after is not None:
            shutil.copytree(self.folder / scenario.after / "experiment", place)
        return place

    def command(self, scenario: Scenario, place: Path) -> list[str]:
        """The arguments of a scenario's command."""
        values = {"@": str(place), "#": str(self.dataset)}
        return [values.get(argument, argument) for argument in scenario.command]

    def kill(self, scenario: Scenario, draw: random.Random) -> None:
        """Kill the command once or twice, start it again, and compare what it leads to."""
        # The place is the same for all: weights name their teacher's path in no way, but messages and records may.
        place = self.begin(scenario, self.folder / "victim" / "experiment")
        command, kills = self.command(scenario, place), []
        for _ in range(draw.choice((1, 1, 2))):
            kills.append(Kill.draw(draw, self.whole[scenario.name], at_moments=not self.is_test))
            ended = run([*command, *scenario.again] if len(kills) > 1 else command, place, kills[-1])
            failed = kills[-1].full and "error: " in ended.said and _remedy(ended.said)
            assert ended.code in ENDS or _is_done(ended.said) or failed, (scenario.name, kills, ended)
            assert "Traceback" not in ended.said, (scenario.name, kills, ended)
        ended = run([*command, *scenario.again], place)
        done = _is_done(ended.said)
        assert ended.code == 0 or done, (scenario.name, kills, ended)
        expected, found = content(self.folder / scenario.name / "experiment"), content(place)
        differing = sorted(key for key in found | expected if found.get(key) != expected.get(key))
        assert not differing, (scenario.name, kills, differing)
        ended = run(["status", str(place), "--verify"], place)
        assert ended.code == 0, (scenario.name, kills, ended)
        left = [*place.rglob(f"{TEMPORARY}*"), *place.rglob("state")]
        assert not left or done, (scenario.name, kills, left)
        shutil.rmtree(place.parent)


def _remedy(said: str) -> bool:
    """Whether a command says what to do about a full disk."""
    return "free some space" in said or "the free space" in said


def _is_done(said: str) -> bool:
    """Whether a command found that it had done its work before it was killed, or was ended before it had begun."""
    return (
        "Aborted" in said or "is finished" in said or "an experiment exists there" in said or "exists already" in said
    )


def main() -> None:
    """Kill commands; the first one that does not end as it should ends this, too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=FEW_KILLS)
    parser.add_argument("--seed", type=int, default=0, help="of the operations that are not done any more")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in SCENARIOS], help="the commands to kill")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    for module in ("torch._dynamo", "hotcoco", "ciod_core.runs.verify", "ciod_core.evaluation.evaluate_run"):
        importlib.import_module(module)
    started, draw = time.monotonic(), random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_shapes(folder / "shapes", train_images=8, val_images=4, image_size=64, seed=7, workers=1)
        torture, killed = Torture(folder, folder / "shapes", arguments.kills), Counter[str]()
        candidates = [each for each in torture.scenarios if each.name in (arguments.only or torture.whole)]
        for number in range(arguments.kills):
            if number % 50 == 0 and number:
                print(f"{number} commands killed", file=sys.stderr)
            # Whatever has been killed least for its weight.
            scenario = min(candidates, key=lambda each: (killed[each.name] + 1) / each.weight)
            torture.kill(scenario, draw)
            killed[scenario.name] += 1
    print(f"{arguments.kills} commands killed, all ended as they should ({time.monotonic() - started:.0f} s)")
    print(", ".join(f"{name} {count}" for name, count in killed.items()))


if __name__ == "__main__":
    main()
