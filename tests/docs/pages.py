"""The documentation pages, their links, headings and code blocks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced code block: its language, empty for shell commands, and its text."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    """The fenced code blocks of a page."""
    return [Block(*found) for found in _FENCE.findall(text)]


def prose(text: str) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", text)


def links(text: str) -> list[str]:
    """Targets of links and pictures that are no web addresses."""
    return [target for target in _LINK.findall(prose(text)) if "://" not in target]


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = [heading.replace("`", "") for heading in _HEADING.findall(prose(text))]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> list[str]:
    """The lines of shell blocks, continued lines joined, and inline code that begins with `ciod`."""
    shell = "\n".join(block.text for block in blocks(text) if not block.language)
    lines = shell.replace("\\\n", " ").splitlines()
    return lines + [" ".join(code.split()) for code in re.findall(r"`(ciod [^`]+)`", prose(text))]
