"""The short form of `tests/torture.py`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_commands_end_as_if_nothing_had_happened() -> None:
    command = [sys.executable, "-m", "tests.torture", "--kills", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 commands killed, all ended as they should")
