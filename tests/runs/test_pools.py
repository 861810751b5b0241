"""Processes beside each other: each has its own fate, and all end with the one that started them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from ciod_core.errors import CiodError
from ciod_core.runs.compare.pools import process_pool
from tests.helpers.processes import start_heeding

# Each call says in a file that it has begun, and in another one that it was interrupted.
COMPARISON = """
import sys, time
from pathlib import Path
from ciod_core.runs.compare.pools import process_pool
from ciod_core.runtime.interruption import Interruption, interruptible, interruption_before

def train(file):
    try:
        file.touch()
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5)  # as while a state is written
        file.with_suffix(".interrupted").touch()
        raise

if __name__ == "__main__":
    try:
        with interruptible(), process_pool(2, 1) as pool:
            futures = [pool.submit(train, Path(sys.argv[1]) / name) for name in ("one", "two")]
            print("begun", flush=True)
            [future.result() for future in futures]
    except (Interruption, RuntimeError) as error:  # of a lock that it released before it had it
        sys.exit(interruption_before(error).number)
"""


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)


def test_each_call_has_a_process_of_its_own() -> None:
    with process_pool(2, 1) as pool:
        processes = {future.result() for future in [pool.submit(os.getpid) for _ in range(2)]}
        assert len(processes | {os.getpid()}) == 3
        assert pool.submit(torch.get_num_threads).result() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
def test_a_process_that_is_ended_takes_no_other_along() -> None:
    with process_pool(2, 1) as pool:
        killed, terminated, other = pool.submit(kill), pool.submit(terminate), pool.submit(len, "abc")
        with pytest.raises(CiodError, match=r"its process was killed by signal 9, as by a system .*; run the same"):
            killed.result()
        outcome: object = terminated.result()
        assert str(outcome) == "its process was terminated"
        assert other.result() == 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
@pytest.mark.parametrize(
    ("name", "when"),
    # While processes start, a hangup also ends Python's own helper, which says so.
    [
        ("SIGINT", "starting"),
        ("SIGTERM", "starting"),
        *((name, "training") for name in ("SIGINT", "SIGTERM", "SIGHUP")),
    ],
)
def test_all_processes_are_interrupted_together(name: str, when: str, tmp_path: Path) -> None:
    script, number = tmp_path / "comparison.py", getattr(signal, name)
    script.write_text(COMPARISON, encoding="utf-8")
    process = start_heeding(number, sys.executable, script, tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    while when == "training" and not all((tmp_path / file).exists() for file in ("one", "two")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (number, "")
    ended = {file.name for file in tmp_path.glob("*.interrupted")}
    assert ended == ({"one.interrupted", "two.interrupted"} if when == "training" else set())
