"""Reading YAML that a user wrote: strictly, and with errors of one line."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ciod_core.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"
_DECIMAL = re.compile(r"0|-?[1-9][0-9]*")


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, without what it does to a text silently.

    A repeated key is an error instead of the last one, and only plain decimal integers are integers: 010, 0x1F, 12:30
    and 1_000, which YAML reads as 8, 31, 750 and 1000, stay texts.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if key_node.tag == _MERGE else self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):  # another one is an error of the safe loader
                if key in seen:
                    problem = f"'{key}' is there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int | str:
        """The integer where it is written as Python writes it, else the text."""
        text: str = node.value
        return int(text) if _DECIMAL.fullmatch(text) else text


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_integer)


def parse_yaml(text: str) -> Any:
    """The content of a YAML text; None when it is empty.

    Raises:
        ValueError: it is no YAML, or has a key twice; the message of one line says where.
    """
    try:
        return yaml.load(text, _StrictLoader)
    # Besides its own errors, yaml lets those of impossible dates and of endless nesting through.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" at line {mark.line + 1}"
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ValueError(f"{reason}{place}") from None


def read_yaml(path: Path, where: str) -> Any:
    """The content of a YAML file; None when it is empty.

    Args:
        path: the file.
        where: how a message begins; names the file.

    Raises:
        ConfigError: the file cannot be read, is no text or no YAML, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}; pass a readable YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: not a text file; pass YAML in UTF-8") from None
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from None
