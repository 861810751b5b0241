"""metrics.csv: one row per record, and a resumed run goes on where it continues."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from ciod_core.training.metrics_log import FIXED_COLUMNS, MetricsLog, last_epoch, read_log
from ciod_core.training.progress import EpochEvaluation, TrainingRecord


def record(iteration: int, **losses: float) -> TrainingRecord:
    return TrainingRecord(
        epoch=1 + (iteration - 1) // 10,
        iteration=iteration,
        iterations=40,
        losses=losses or {"loss": iteration / 3, "class": 0.5},
        lr=1e-3,
        images_per_second=12.0,
        eta_seconds=7.25,
        data_wait_share=0.125,
        kept_per_image=None,
    )


def write(path: Path, iterations: list[int], after_iteration: int = 0) -> None:
    log = MetricsLog(path, after_iteration=after_iteration)
    for iteration in iterations:
        log.record(record(iteration))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "step2" / "metrics.csv"


def test_rows_hold_what_was_recorded(path: Path) -> None:
    write(path, [5, 10])
    found = rows(path)
    assert list(found[0]) == [*FIXED_COLUMNS, "loss", "class"]
    assert [row["iteration"] for row in found] == ["5", "10"]
    assert float(found[0]["loss"]) == pytest.approx(5 / 3, rel=1e-5)
    assert (found[0]["lr"], found[0]["eta_seconds"], found[0]["kept_per_image"]) == ("0.001", "7.25", "")


def test_the_columns_are_read_back(path: Path) -> None:
    write(path, [5, 10])
    with path.open("a") as file:
        file.write("1,15,0.001,12")  # cut off while it was written
    found = read_log(path)
    assert found["iteration"] == [5, 10] and found["kept_per_image"] == [None, None]
    assert found["loss"] == pytest.approx([5 / 3, 10 / 3], rel=1e-5)


@pytest.mark.parametrize("content", [None, b"", b"epoch,iteration\n", b"\xff\x00,\n\n", b"loss\nnan\n"])
def test_no_log_that_can_be_read(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    assert [value for column in read_log(path).values() for value in column if value is not None] == []


def test_a_fresh_run_replaces_the_file(path: Path) -> None:
    write(path, [5, 10, 15])
    write(path, [5])
    assert [row["iteration"] for row in rows(path)] == ["5"]


def test_evaluations_have_a_file_of_their_own_that_is_resumed_alike(path: Path) -> None:
    log = MetricsLog(path)
    for epoch in (1, 2, 3):
        log.record(record(10 * epoch))
        log.measured(EpochEvaluation(epoch, 10 * epoch, ap=epoch / 8, old=None, new=0.25, best=True))
    resumed = MetricsLog(path, after_iteration=20)
    resumed.measured(EpochEvaluation(3, 30, ap=0.5, old=None, new=0.25, best=True))
    expected = ["epoch,iteration,all,old,new", "1,10,0.125,,0.25", "2,20,0.25,,0.25", "3,30,0.5,,0.25"]
    assert path.with_name("evaluations.csv").read_text().splitlines() == expected
    assert [row["iteration"] for row in rows(path)] == ["10", "20"]
    MetricsLog(path)
    assert not path.with_name("evaluations.csv").exists()


def test_nothing_is_written_before_the_first_record(path: Path) -> None:
    MetricsLog(path)
    assert not path.exists()


def test_resuming_drops_rows_of_the_unfinished_epoch(path: Path) -> None:
    write(path, [5, 10, 15, 20, 25])
    before = path.read_text().splitlines()
    write(path, [25, 30], after_iteration=20)
    assert [row["iteration"] for row in rows(path)] == ["5", "10", "15", "20", "25", "30"]
    assert path.read_text().splitlines()[:6] == before[:6]
    assert path.read_text().count("iteration") == 1


def test_resuming_twice_equals_resuming_once(path: Path) -> None:
    write(path, [5, 10, 15])
    write(path, [15, 20], after_iteration=10)
    write(path, [15, 20], after_iteration=10)
    assert [row["iteration"] for row in rows(path)] == ["5", "10", "15", "20"]


def test_resuming_without_a_file_starts_one(path: Path) -> None:
    write(path, [15], after_iteration=10)
    assert [row["iteration"] for row in rows(path)] == ["15"]


@pytest.mark.parametrize("torn", ["2,1", "2,15,0.001", "2", "2,"])
def test_a_row_that_was_cut_off_in_the_middle_is_dropped(torn: str, path: Path) -> None:
    """The machine went down while a row was being written; its iteration may read smaller than it was."""
    write(path, [5, 10])
    with path.open("a", encoding="utf-8") as file:
        file.write(torn)
    write(path, [15], after_iteration=10)
    assert [row["iteration"] for row in rows(path)] == ["5", "10", "15"]


def test_columns_stay_when_the_losses_of_a_record_differ(path: Path) -> None:
    log = MetricsLog(path)
    log.record(record(5, loss=1.0, box=2.0))
    log.record(record(10, loss=1.5, other=9.0))
    found = rows(path)
    assert [row["box"] for row in found] == ["2", ""]
    assert "other" not in found[0]


def test_the_last_epoch_is_read_back(path: Path) -> None:
    assert last_epoch(path, since=0.0) == 0
    write(path, [5, 10, 15, 31])
    assert last_epoch(path, since=0.0) == 4
    with path.open("a", encoding="utf-8") as file:
        file.write("5,4")
    assert last_epoch(path, since=0.0) == 4, "a row that is being written"
    os.utime(path, (1000.0, 1000.0))
    assert last_epoch(path, since=1000.5) == 0, "what an earlier run left"
    path.write_text("epoch,iteration\n", encoding="utf-8")
    assert last_epoch(path, since=0.0) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path)
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        log.record(record(5))
    assert caught.value.filename == str(path)


@pytest.mark.parametrize(
    "damage", [b"\x80\xff", b"epoch,lr\n1,2\n", b"epoch,iteration\n1\n1,2,3\n\0", b"\xb2,\xb2\n\xb2,1\n"]
)
def test_a_damaged_file_begins_anew(damage: bytes, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)
    assert last_epoch(path, 0.0) in (0, 1)
    write(path, [15], after_iteration=10)
    assert [row["iteration"] for row in rows(path)] == ["15"]
