"""Tables, numbers and where they are printed."""

from __future__ import annotations

import io
import json

import pytest
from rich.cells import cell_len
from rich.console import Console

from ciod_cli import console


def test_long_cells_are_not_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    name = "x" * 150
    console.show(console.table("title", ("class", "boxes"), [(name, "1")]))
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_a_comparison_of_methods_fits_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is longer than the terminal, and no word of the table is lost or broken."""
    columns = ("method", "AP old", "AP new", "AP all", "RelGap %", "Ω", "forgetting", "RSD %", "RPD %", "time")
    spreads = ("24.6 ±0.2", "69.5 ±1.1", "39.6 ±0.5", "-1.1 ±1.6", "1.006 ±0.008", "1.1 ±0.2", "-2.0 ±3.0", "4.5 ±2.0")
    rows = [("joint, the upper bound", *["–"] * 8, "4:00"), ("crs-ckd+replay", *spreads, "2:01")]
    screen = Console(width=width, file=io.StringIO(), markup=False)
    monkeypatch.setattr(console, "stdout", lambda: screen)
    console.show(console.table("After step 2", columns, rows))
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(cell_len(line.rstrip()) <= width for line in lines)
    printed = " ".join(lines).replace("│", " ").replace("┃", " ").split()
    for word in " ".join((*columns, *(cell for row in rows for cell in row))).split():
        assert word in printed


def test_markup_in_names_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(console.table("[bold]title[/bold]", ("[a]", "n"), [("[red]old[/red]", "1")]))
    console.warn("[old] is a class")
    captured = capsys.readouterr()
    assert "[red]old[/red]" in captured.out
    assert "[bold]title[/bold]" in captured.out
    assert "[a]" in captured.out
    assert captured.err == "warning: [old] is a class\n"


def test_json_is_the_only_thing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console.note("for people")
    console.show_json({"Ω": 0.5, "gap": None})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"Ω": 0.5, "gap": None}
    assert "for people" in captured.err


def test_json_never_holds_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        console.show_json({"ap": float("nan")})


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (3723, "1:02:03")]
)
def test_durations(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_percent() -> None:
    assert console.percent(0.33614) == "33.6"
    assert console.percent(0.33614, 2) == "33.61"
    assert console.percent(-0.0004) == "0.0"
    assert console.percent(None) == "–"


HOSTILE = "a\x1b[31mb\x07\x9b2J\u202e\n[/]:smile:"
HARMLESS = r"a\x1b[31mb\x07\x9b2J\u202e\n[/]:smile:"


def test_no_name_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(HOSTILE)
    console.show(console.table(HOSTILE, (HOSTILE, "n"), [(HOSTILE, "1")]))
    for say in (console.note, console.warn, console.fail):
        say(HOSTILE)
    captured = capsys.readouterr()
    assert captured.out.count(HARMLESS) == 4
    assert captured.err == f"{HARMLESS}\nwarning: {HARMLESS}\nerror: {HARMLESS}\n"
    assert captured.out.isascii() or not set(captured.out) & set("\x1b\x07\x9b\u202e")


def test_json_of_such_a_name_is_harmless_and_exact(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_json({HOSTILE: [HOSTILE, "Ω\u200d"]})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {HOSTILE: [HOSTILE, "Ω\u200d"]}
    assert not set(printed) & set("\x1b\x07\x9b\u202e")
    assert "Ω\u200d" in printed


def test_a_message_keeps_its_ends(capsys: pytest.CaptureFixture[str]) -> None:
    console.fail(f"data.yaml: {'a' * 100_000}; correct it")
    printed = capsys.readouterr().err
    assert printed.startswith("error: data.yaml: aaa") and printed.endswith("aaa; correct it\n")
    assert len(printed) < 5000
