"""Atomic writes: all of a file or none of it."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ciod_core.files import atomic_path, atomic_write_json, atomic_write_text, relative_if_inside, sha256_of_file
from ciod_core.temporaries import (
    JOURNAL_NAME,
    TEMPORARY,
    dead_in,
    remove_dead,
    temporary_file,
    temporary_folder,
)

if sys.platform != "win32":
    import fcntl


def test_sha256_matches_hashlib(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")

    with pytest.raises(RuntimeError, match="half way"), atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_file_lies_beside_the_target_and_keeps_its_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model.onnx") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".onnx"
        temporary.write_text("x")
    assert (tmp_path / "model.onnx").read_text() == "x"


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    atomic_write_text(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == plain.stat().st_mode


def test_errors_name_the_target(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 300)
    with pytest.raises(OSError, match="name too long") as caught:
        atomic_write_text(target, "text")
    assert caught.value.filename == str(target)


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic_write_json(tmp_path / "metrics.json", {"ap": float("nan")})
    assert not list(tmp_path.iterdir())


def test_relative_only_inside(tmp_path: Path) -> None:
    assert relative_if_inside(tmp_path / "a" / "b", tmp_path) == "a/b"
    assert relative_if_inside(tmp_path.parent, tmp_path) == tmp_path.parent.resolve().as_posix()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is known to be dead without locks of files")
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with atomic_path(tmp_path / "file"), temporary_folder(tmp_path) as folder:
            (folder / "inside").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    left = set(tmp_path.iterdir())
    assert len(left) == 2 and all(path.name.startswith(TEMPORARY) for path in left)
    with atomic_path(tmp_path / "mine") as mine, temporary_folder(tmp_path) as my_folder:
        assert set(dead_in(tmp_path)) == left
        assert set(tmp_path.iterdir()) == {mine, my_folder}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is known to be dead without locks of files")
def test_what_has_to_be_undone_first_stays(tmp_path: Path) -> None:
    folder = tmp_path / f"{TEMPORARY}1"
    folder.mkdir()
    (folder / JOURNAL_NAME).touch()
    remove_dead(tmp_path)
    assert folder.is_dir()
    for _ in dead_in(tmp_path):
        (folder / JOURNAL_NAME).unlink()
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is known to be dead without locks of files")
@pytest.mark.parametrize("lend", [temporary_folder, lambda folder: temporary_file(folder / "file")])
def test_what_passed_for_dead_before_it_was_locked_is_made_again(
    lend: Callable[[Path], AbstractContextManager[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed, flock = [], fcntl.flock

    def just_after(descriptor: int, operation: int) -> None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].rmdir() if removed[0].is_dir() else removed[0].unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", just_after)
    with lend(tmp_path) as temporary:
        assert list(tmp_path.iterdir()) == [temporary] != removed
    assert list(tmp_path.iterdir()) == []
