"""Training progress: lines in a log, a live line on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ciod_cli import console, progress
from ciod_cli.comparison import SuiteDisplay
from ciod_cli.progress import TrainingDisplay, describe, progress_counter
from ciod_core.runs.compare.runner import RunProgress
from ciod_core.training.progress import EpochEvaluation, TrainingRecord


def record(iteration: int, epoch: int = 1, kept: float | None = None) -> TrainingRecord:
    return TrainingRecord(
        epoch=epoch,
        iteration=iteration,
        iterations=100,
        losses={"loss": 3.5, "class": 1.25},
        lr=0.001,
        images_per_second=123.4,
        eta_seconds=65.0,
        data_wait_share=0.25,
        kept_per_image=kept,
    )


def test_a_record_is_one_line_with_all_numbers() -> None:
    text = describe(record(20, kept=17.25), epochs=12)
    for part in (
        "epoch 1/12",
        "loss 3.500",
        "class 1.250",
        "lr 1.00e-03",
        "123.4 images/s",
        "ETA 1:05",
        "data wait 25 %",
        "17.2 teacher boxes/image",
    ):
        assert part in text


def test_without_a_teacher_no_boxes_are_reported() -> None:
    assert "teacher" not in describe(record(20), epochs=12)


def test_a_log_has_a_line_per_epoch_and_few_between(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 101.0, 106.5, 107.0, 108.0, 109.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with TrainingDisplay() as display:
        display.begin("step2", 2, 100, ["from step1"])
        for iteration, epoch in ((10, 1), (20, 1), (30, 1), (40, 1), (60, 2), (100, 2)):
            display.record(record(iteration, epoch))
        display.end(5.0)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[:2] == ["Training step2: 100 iterations in 2 epochs", "  from step1"]
    assert [line.split()[1] for line in lines[2:]] == ["10/100", "30/100", "60/100", "100/100"]


def test_an_evaluation_is_one_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingDisplay() as display:
        display.begin("step2", 9, 100, [])
        display.measured(EpochEvaluation(1, 10, ap=0.41234, old=0.4, new=0.45, best=True))
        display.measured(EpochEvaluation(2, 20, ap=0.4, old=None, new=0.4, best=False))
        display.ended_early("Training ends after 2 of 9 epochs: enough")
    assert capsys.readouterr().err.splitlines()[1:] == [
        "epoch 1/9  AP 41.2  old classes 40.0  new classes 45.0  best so far",
        "epoch 2/9  AP 40.0",
        "Training ends after 2 of 9 epochs: enough",
    ]


def test_a_warning_is_one_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingDisplay() as display:
        display.begin("step2", 2, 100, [])
        display.warn("2 images cannot be loaded")
    assert capsys.readouterr().err.splitlines()[1:] == ["warning: 2 images cannot be loaded"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_terminal_shows_a_live_line_that_ends(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=width)
    monkeypatch.setattr(console, "stderr", lambda: screen)
    with pytest.raises(KeyboardInterrupt), TrainingDisplay() as display:
        display.begin("step2", 2, 100, [])
        display.record(record(40, kept=3.0))
        raise KeyboardInterrupt
    output = screen.file.getvalue()
    for word in ("3.500", "images/s", "1:05", "3.0 teacher"):
        assert word in output, "a narrow terminal wraps, it does not cut"
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1


def test_counting_is_one_note_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_counter("Evaluating step1", "images") as on_batch:
        on_batch(32)
    assert capsys.readouterr().err == "Evaluating step1\n"


def test_counting_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr(console, "stderr", lambda: screen)
    with progress_counter("Evaluating step1", "images") as on_batch:
        on_batch(32)
        on_batch(8)
    assert "40 images" in screen.file.getvalue()


def test_counting_can_start_with_the_first_report(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), progress_counter("Running the teacher", "images", at_once=False):
        raise KeyError
    assert capsys.readouterr().err == ""
    with progress_counter("Running the teacher", "images", at_once=False) as on_images:
        on_images(0)
        on_images(32)
    assert capsys.readouterr().err == "Running the teacher\n"


def test_runs_side_by_side_have_a_live_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr(console, "stderr", lambda: screen)
    with pytest.raises(KeyboardInterrupt), SuiteDisplay() as display:
        display.running([RunProgress("step2-erd", 0, 12), RunProgress("step2-lwf", 3, 12)])
        display.running([RunProgress("step2-lwf", 4, 12)])
        assert display._progress.tasks[0].description == "step2-lwf" and len(display._progress.tasks) == 1
        raise KeyboardInterrupt
    output = screen.file.getvalue()
    for word in ("step2-erd", "starting", "epoch 3/12", "epoch 4/12"):
        assert word in output
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1


def test_runs_side_by_side_share_a_line_of_a_log_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 101.0, 106.0, 107.0, 112.0, 113.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with SuiteDisplay() as display:
        display.running([RunProgress("step2-erd", 1, 12)])  # too early
        display.running([RunProgress("step2-erd", 2, 12), RunProgress("step2-lwf", 0, 12)])
        display.running([RunProgress("step2-erd", 3, 12)])  # too early again
        display.running([RunProgress("step2-erd", 2, 12)])  # nothing new
        display.running([])
    captured = capsys.readouterr()
    assert (captured.out, captured.err.split("\n")) == ("", ["     step2-erd epoch 2/12", ""])


def test_a_document_reaches_stdout_beside_a_bar_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(console, "stderr", lambda: screen)
    with progress_counter("Running on 3 images", "images", total=3) as on_image:
        console.write_json("[]")
        on_image(1)
    assert capsys.readouterr().out == "[]"
    output = screen.file.getvalue()
    assert "1/3 images" in output and "[]" not in output
