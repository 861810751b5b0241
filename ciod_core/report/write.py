"""A report as one HTML file without any other, or as Markdown with its pictures in a folder beside it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from ciod_core.errors import ConfigError, did_you_mean
from ciod_core.files import MostBytes, atomic_write_bytes, atomic_write_text, open_readable
from ciod_core.report.document import Block, Document, Figure, Figures, Fold
from ciod_core.temporaries import remove_dead

ReportFormat = Literal["html", "md"]
FORMATS: tuple[ReportFormat, ...] = ("html", "md")
# In the first bytes of every report, so that no other file is taken for one and replaced.
GENERATOR = "ciod report"
_HEAD_BYTES = 4096
# What Markdown, or HTML in it, would obey.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def write_report(document: Document, path: Path, format: ReportFormat) -> None:
    """Write a report, in place of an earlier one.

    Markdown has its pictures in the folder `NAME.files` beside it.

    Raises:
        OSError: the folder cannot be written.
    """
    remove_dead(path.parent)
    if format == "html":
        atomic_write_text(path, html_text(document))
        return
    files = path.with_suffix(".files")
    for figure in _figures(block for section in document.sections for block in section.blocks):
        picture = figure.picture
        content = picture if isinstance(picture, bytes) else _standalone(picture).encode()
        atomic_write_bytes(files / _file_name(figure), content)
    atomic_write_text(path, markdown_text(document, files.name))


def html_text(document: Document) -> str:
    """The report as one HTML page that needs nothing else."""
    page = _environment(autoescape=True).get_template("report.html")
    styles = {f"{name}_css": _template_text(f"{name}.css") for name in ("chart", "page")}
    return page.render(document=document, generator=GENERATOR, **styles).strip() + "\n"


def markdown_text(document: Document, files: str) -> str:
    """The report as Markdown that shows the pictures in the folder `files`."""
    text = (
        _environment(autoescape=False)
        .get_template("report.md")
        .render(document=document, generator=GENERATOR, files=files)
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def report_format(name: str | None, out: Path | None) -> ReportFormat:
    """The format by name, else by the suffix of the file, else HTML.

    Raises:
        ConfigError: an unknown format, or a file with the suffix of another.
    """
    by_suffix = None if out is None else out.suffix.lower().lstrip(".")
    chosen = next((known for known in FORMATS if known == (name or by_suffix or "html")), None)
    if chosen is None and name is not None:
        raise ConfigError(f"`format`: unknown format '{name}'; {did_you_mean(name, FORMATS)}")
    if chosen is None or by_suffix not in (None, chosen):
        raise ConfigError(f"`out` {out}: a report ends in .{chosen or 'html or .md'}")
    return chosen


def check_replaceable(path: Path) -> None:
    """Refuse to write a report where something else is.

    Raises:
        ConfigError: a folder, or a file that is no report.
    """
    if path.is_dir():
        raise ConfigError(f"`out` {path}: it is a folder; pass the name of a file")
    if path.exists():
        with open_readable(path, MostBytes.TENSORS) as stream:
            if GENERATOR.encode() not in stream.read(_HEAD_BYTES):
                raise ConfigError(f"`out` {path}: it is there and no report of ciod; pass another name, or remove it")


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("ciod_core.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": lambda block: type(block).__name__,
        "base64": lambda content: base64.b64encode(content).decode(),
        "markdown": lambda text: _MARKUP.sub(r"\\\1", " ".join(str(text).split())),
        "file_name": _file_name,
    }
    return environment


def _template_text(name: str) -> str:
    environment = _environment(autoescape=False)
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _figures(blocks: Iterable[Block]) -> Iterator[Figure]:
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Figures):
            yield from block.figures
        elif isinstance(block, Fold):
            yield from _figures(block.blocks)


def _file_name(figure: Figure) -> str:
    return f"{figure.name}.{'jpg' if isinstance(figure.picture, bytes) else 'svg'}"


def _standalone(svg: str) -> str:
    """An SVG as a file of its own, with the styles that the page gives it."""
    named = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return named.replace(">", f"><style>{_template_text('chart.css')}</style>", 1)
