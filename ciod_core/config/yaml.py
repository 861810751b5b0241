"""Reading YAML that a user wrote: strictly, and with errors of one line."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ciod_core.errors import ConfigError
from ciod_core.files import MostBytes, read_bytes

_MERGE = "tag:yaml.org,2002:merge"
_DECIMAL = re.compile(r"0|-?[1-9][0-9]{0,17}")
# The parser takes seconds for so many.
MOST_VALUES = 100_000


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, without what it does to a text silently.

    A repeated key is an error instead of the last one, and only plain decimal integers are integers: 010, 0x1F, 12:30
    and 1_000, which YAML reads as 8, 31, 750 and 1000, stay texts, and so do integers of more than 18 digits.

    A few hundred bytes of aliases to aliases can stand for billions of values, so what an alias repeats counts as if it
    were written out.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = 0
        self._values_in: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark
        before = self._values
        node = super().compose_node(parent, index)
        assert node is not None
        if is_alias and node not in self._values_in:
            raise yaml.composer.ComposerError(None, None, "an alias stands inside what it repeats", mark)
        self._values += self._values_in[node] if is_alias else 1
        self._values_in.setdefault(node, self._values - before)
        if self._values > MOST_VALUES:
            problem = f"more than {MOST_VALUES:,} values, counting what aliases repeat"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        return node

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
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" at line {mark.line + 1}"
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ValueError(f"{reason}{place}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # Impossible dates are ValueErrors; values that do not fit their tags make yaml stumble in many ways.
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else f"a value cannot be read ({error!r})"
        raise ValueError(" ".join(reason.split())) from None


def read_yaml(path: Path, where: str) -> Any:
    """The content of a YAML file; None when it is empty.

    Args:
        path: the file.
        where: how a message begins; names the file.

    Raises:
        ConfigError: the file cannot be read, is no text or no YAML, or has a key twice.
    """
    try:
        text = read_bytes(path, MostBytes.YAML).decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}; pass a readable YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: not a text file; pass YAML in UTF-8") from None
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from None
