"""What the commands print: results on stdout, everything for people on stderr.

Built on rich, with markup and highlighting off: a class called `[old]` prints as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

# Wide enough that a table sent to a file or a pipe is never cut.
_WIDTH_WITHOUT_TERMINAL = 400


def results() -> Console:
    """The console for results (stdout)."""
    return _console(stderr=False)


def people() -> Console:
    """The console for messages and progress (stderr)."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(stderr=stderr, width=width, markup=False, highlight=False, soft_wrap=False)


def show(renderable: RenderableType) -> None:
    """Print a result."""
    results().print(renderable)


def show_json(document: dict[str, Any]) -> None:
    """Print the one JSON document of a `--json` command."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def note(message: str) -> None:
    """Tell people something that is not the result."""
    people().print(Text(message), soft_wrap=True)


def warn(message: str) -> None:
    """Tell people about something that may spoil the result."""
    people().print(Text.assemble(("warning: ", "yellow"), message), soft_wrap=True)


def fail(message: str) -> None:
    """Say in one line why the command ends."""
    people().print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> Table:
    """A table whose first `text_columns` columns are text (left) and the others numbers (right)."""
    result = Table(title=Text(title), title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        result.add_column(
            Text(column),
            justify="left" if position < text_columns else "right",
            no_wrap=position >= text_columns,
            overflow="fold",
        )
    for row in rows:
        result.add_row(*(Text(cell) for cell in row))
    return result


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent, `–` where there is none."""
    return "–" if value is None else f"{100 * value:z.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds as `42 s`, `3:05` or `1:02:03`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
