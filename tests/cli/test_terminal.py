"""Messages during a live display, on a pseudo-terminal: they go above the live lines, and none is overwritten."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="needs a system with pseudo-terminals")

TRAINING = """
from ciod_cli.progress import TrainingDisplay
from tests.cli.test_progress import record

with TrainingDisplay() as display:
    display.begin("step1", epochs=1, iterations=100, notes=("a note",))
    for iteration in (10, 20, 30):
        display.record(record(iteration))
        display.warn(f"image {iteration} is broken")
        display.record(record(iteration + 5))
    display.end(1.0)
"""
SIDE_BY_SIDE = """
from types import SimpleNamespace
from ciod_cli.comparison import SuiteDisplay
from ciod_core.runs.compare.runner import RunProgress

def run(name): return SimpleNamespace(name=name)

with SuiteDisplay() as display:
    display.begin(total=2, missing=2)
    for epoch in (1, 2, 3):
        display.running([RunProgress("left", epoch, 3), RunProgress("right", epoch, 3)])
        display.failed(run(f"run{epoch}"), "no image")
"""


def shown(code: str) -> list[str]:
    """The lines that a terminal of 100 columns shows in the end, those of stderr and stdout alike."""
    leader, follower = pty.openpty()
    root = Path(__file__).parents[2]
    environment = os.environ | {"COLUMNS": "100", "TERM": "xterm", "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=follower, stderr=follower, env=environment, cwd=root
    )
    os.close(follower)
    received = b""
    # At the end of the process reading fails or gives nothing, depending on the system.
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:
            break
        if not chunk:
            break
        received += chunk
    os.close(leader)
    assert process.wait() == 0, received.decode()
    return screen_of(received.decode())


def screen_of(text: str) -> list[str]:
    """What a terminal makes of text with cursor movements and erased lines."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token.startswith("\x1b["):
            if token.endswith("A"):
                row = max(0, row - int(token[2:-1] or 1))
            elif token.endswith("K"):
                lines[row] = "" if token == "\x1b[2K" else lines[row][:column]
        else:
            lines[row] = lines[row].ljust(column)[:column] + token + lines[row][column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines]


def test_the_screen() -> None:
    assert screen_of("one\r\ntwo\r\x1b[2K\x1b[1A\x1b[2Kthree\r\nfour") == ["three", "four"]


def test_warnings_stay_above_the_training_line() -> None:
    lines = shown(TRAINING)
    for iteration in (10, 20, 30):
        assert lines.count(f"warning: image {iteration} is broken") == 1
    assert "  a note" in lines
    assert not any("epoch 1/1" in line for line in lines), "the live line is gone at the end"


def test_messages_stay_above_the_lines_of_runs_side_by_side() -> None:
    lines = shown(SIDE_BY_SIDE)
    for epoch in (1, 2, 3):
        assert lines.count(f"warning: run{epoch} failed: no image") == 1
    assert not any("epoch" in line for line in lines)


def test_a_usage_error_is_shown_with_the_usage() -> None:
    lines = shown(
        "import sys; from ciod_cli.app import app\ntry: app(['demo', '--seed', 'a'])\nexcept SystemExit: pass"
    )
    assert any("Usage:" in line for line in lines) and any("Error" in line for line in lines)


def test_a_status_line_goes_when_it_is_done() -> None:
    code = (
        "from ciod_cli.progress import status_line\nwith status_line('[Exporting] x …'): print('below')\nprint('end')"
    )
    lines = shown(code)
    assert "below" in lines and "end" in lines and not any("Exporting" in line for line in lines)
