"""The documentation holds: links lead somewhere, commands and Python names exist."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
import typer.main

import ciod
from ciod_cli.app import app
from tests.docs.pages import PAGES, ROOT, anchors, blocks, commands, links

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
CLI = typer.main.get_command(app)
# Stands for any command.
PLACEHOLDER = re.compile(r"[A-Z]+|…")


def broken_links(page: Path) -> list[str]:
    broken = []
    for target in links(page.read_text()):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            broken.append(target)
    return broken


def wrong_words(line: str) -> list[str]:
    """What a `ciod` command line has that the command does not know."""
    words = shlex.split(line, comments=True)
    while words and words[0] != "ciod" and not words[0].endswith("/ciod"):
        words = words[1:]
    if len(words) < 2 or PLACEHOLDER.fullmatch(words[1]):
        return []
    known = CLI.commands  # type: ignore[attr-defined]
    command: click.Command | None = known.get(words[1])
    if command is None:
        return [words[1]] if not words[1].startswith("-") else []
    flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    flags |= {"--help", "-h"}
    return [word for word in words[2:] if word.startswith("-") and word.partition("=")[0] not in flags]


@pages
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


@pages
def test_commands_and_their_flags_exist(page: Path) -> None:
    found = {line: wrong_words(line) for line in commands(page.read_text()) if "ciod" in line}
    assert {line: words for line, words in found.items() if words} == {}


@pages
def test_modules_that_are_run_exist(page: Path) -> None:
    modules = [name for name in re.findall(r"python -m (tests[\w.]+)", page.read_text()) if name == name.lower()]
    assert [name for name in modules if not (ROOT / name.replace(".", "/")).with_suffix(".py").exists()] == []


@pages
def test_python_blocks_compile_and_their_names_exist(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language != "python":
            continue
        tree = ast.parse(block.text)
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ciod"
        }
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "ciod"
            for alias in node.names
        }
        assert {name for name in used | imported if not hasattr(ciod, name)} == set()


def test_paths_of_the_map_exist() -> None:
    """Every folder and file that CONTRIBUTING draws is there."""
    [tree] = [block.text for block in blocks((ROOT / "CONTRIBUTING.md").read_text()) if "ciod_core/" in block.text]
    missing, folders = [], list[str]()
    for line in tree.splitlines():
        entry = line.split()[0]
        level = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:level], entry]
        if not (ROOT / "".join(folders)).exists():
            missing.append("".join(folders))
    assert missing == []


def test_every_command_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    shown = [name for name, command in CLI.commands.items() if not command.hidden]  # type: ignore[attr-defined]
    assert [name for name in shown if f"| `ciod {name}` |" not in text] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 140


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("ciod train-step --teacher a.safetensors --epochs 3", []),
        ("cd x && .venv/bin/ciod demo", []),
        ("ciod train-stepp", ["train-stepp"]),
        ("ciod split demo --plam 4+4", ["--plam"]),
        ("ciod distill --into yolox-nano", ["--into"]),
    ],
)
def test_wrong_words_are_found(line: str, wrong: list[str]) -> None:
    assert wrong_words(line) == wrong


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# Some `code`, and more\n")
    page = tmp_path / "a.md"
    page.write_text("[1](b.md) [2](b.md#some-code-and-more) [3](c.md) [4](b.md#other) [5](https://example.org/x)\n")
    assert broken_links(page) == ["c.md", "b.md#other"]
