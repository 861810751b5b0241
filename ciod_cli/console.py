"""What the commands print: results on stdout, messages on stderr.

Messages may name parameters and settings in backticks; the user reads the command's flags.

Built on rich, with markup, emoji codes and highlighting off: a class called `[old]` prints as it is. Names may hold
characters that a terminal obeys, so all text passes through `printable` here; JSON stays exact.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from ciod_cli.settings import with_flags
from ciod_core.units import duration as duration
from ciod_core.units import percent as percent

# Wide enough that a table sent to a file or a pipe is never cut.
_WIDTH_WITHOUT_TERMINAL = 400
# Longer words, such as the path of an image, are broken where there is no room.
_LONGEST_WORD = 24

# A message may quote what somebody put into a file.
_LONGEST_MESSAGE = 4000
_ELLIPSIS = " […] "
# Control characters, line and paragraph separators, and what changes the direction of writing.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in _CONTROLS}
# JSON itself escapes those below.
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in _CONTROLS if code > 0x20}

# By whether it is stderr's.
_consoles: dict[bool, Console] = {}


def stdout() -> Console:
    """The console for results."""
    return _console(error=False)


def stderr() -> Console:
    """The console for messages and progress."""
    return _console(error=True)


def _console(*, error: bool) -> Console:
    """The console of a stream: one for as long as the stream is the same, so that messages go above live lines."""
    stream = sys.stderr if error else sys.stdout
    # A live display puts a proxy in the stream's place, for what others print.
    stream = getattr(stream, "rich_proxied_file", stream)
    known = _consoles.get(error)
    if known is None or known.file is not stream:
        width = None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL
        known = _consoles[error] = Console(
            file=stream, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False
        )
    return known


def printable(text: str) -> str:
    """Text of one line in which nothing is left that a terminal obeys: ESC becomes `\\x1b`, a line break `\\n`."""
    return text.translate(_ESCAPES)


def show(result: RenderableType) -> None:
    """Print a result: a table, or a text of one line."""
    stdout().print(Text(printable(result)) if isinstance(result, str) else result)


def show_json(document: dict[str, Any]) -> None:
    """Print the one JSON document of a `--json` command."""
    write_json(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json(text: str) -> None:
    """Write a part of a JSON document to stdout, also while stderr has a live display."""
    stdout().file.write(text.translate(_JSON_ESCAPES))


def note(message: str) -> None:
    """Print a message that is not the result."""
    stderr().print(Text(_message(message)), soft_wrap=True)


def warn(message: str) -> None:
    """Print a message about something that may affect the result."""
    stderr().print(Text.assemble(("warning: ", "yellow"), _message(message)), soft_wrap=True)


def fail(message: str) -> None:
    """Print in one line why the command ends."""
    stderr().print(Text.assemble(("error: ", "bold red"), _message(message)), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> Table:
    """A table whose first `text_columns` columns are text (left) and the others numbers (right).

    If the terminal is narrower than the table, the table loses its lines, then cells wrap at spaces.
    """
    title, columns = printable(title), [printable(column) for column in columns]
    rows = [[printable(cell) for cell in row] for row in rows]
    cells_of = [(column, *(row[position] for row in rows)) for position, column in enumerate(columns)]
    widths, available = [max(map(cell_len, cells)) for cells in cells_of], stdout().width
    result = Table(title=Text(title), title_justify="left", header_style="bold")
    if sum(widths) + 3 * len(widths) + 1 > available:
        result = Table(title=result.title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, show_edge=False)
        result.padding = (0, 1, 0, 0)
        widths = _narrowed(widths, cells_of, available - 2 * len(widths))
    for position, (column, width) in enumerate(zip(columns, widths, strict=True)):
        justify: JustifyMethod = "left" if position < text_columns else "right"
        result.add_column(Text(column), justify=justify, overflow="fold", width=width)
    for row in rows:
        result.add_row(*(Text(cell) for cell in row))
    return result


def _message(message: str) -> str:
    text = printable(with_flags(message))
    # Where it is and what to do are at the ends.
    half = (_LONGEST_MESSAGE - len(_ELLIPSIS)) // 2
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:half]}{_ELLIPSIS}{text[-half:]}"


def _narrowed(widths: Sequence[int], cells_of: Sequence[Sequence[str]], available: int) -> list[int]:
    """Widths that fit, as far as words allow; the columns with the most room to spare are narrowed first."""
    narrowed = list(widths)
    least = [
        min(max(cell_len(word) for cell in cells for word in cell.split() or [""]), _LONGEST_WORD) for cells in cells_of
    ]
    for position in sorted(range(len(widths)), key=lambda column: least[column] - widths[column]):
        excess = sum(narrowed) - available
        if excess > 0:
            narrowed[position] = max(least[position], narrowed[position] - excess)
    return narrowed
