"""What a report is made of, whatever it is written as: sections with texts, tables, figures and parts to unfold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: what it says.
        color: CSS color of the mark before the text; None: no mark.
        shade: 0..1, how strongly the cell is colored; None: not at all.
        code: whether it is an identifier such as a hash.
    """

    text: str
    color: str | None = None
    shade: float | None = None
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under column titles; the first cell of a row says what the row is about, text columns come first."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    text_columns: int = 1


@dataclass(frozen=True)
class Figure:
    """A picture: an SVG text with its own description, or the bytes of a JPEG described by `alt`.

    Attributes:
        name: of its file, without a suffix, where figures are files.
        caption: below the picture; empty inside a row of pictures that share one.
    """

    name: str
    caption: str
    picture: str | bytes
    alt: str = ""


@dataclass(frozen=True)
class Figures:
    """Figures side by side, as far as there is room; small ones need less of it."""

    figures: Sequence[Figure]
    caption: str = ""
    small: bool = False


@dataclass(frozen=True)
class Branch:
    """A run in the tree of runs, and those that it taught."""

    name: str
    text: str
    status: str
    children: list[Branch] = field(default_factory=list)


@dataclass(frozen=True)
class Tree:
    """The tree of runs."""

    branches: Sequence[Branch]


@dataclass(frozen=True)
class Text:
    """A paragraph; a warning stands out."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Fold:
    """Details that are unfolded when they are wanted."""

    title: str
    blocks: Sequence[Block]
    open: bool = False


Block = Text | Table | Figure | Figures | Tree | Fold


@dataclass(frozen=True)
class Section:
    """A titled part of a report; `key` names it in links."""

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    summary: Sequence[str]
    sections: Sequence[Section]
    version: str
