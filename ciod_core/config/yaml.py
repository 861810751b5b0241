"""Reading YAML that a user wrote: strictly, and with errors of one line."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ciod_core.errors import ConfigError


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, but a repeated key is an error instead of silently the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, where: str) -> Any:
    """The content of a YAML file; None when it is empty.

    Args:
        path: the file.
        where: how a message begins; names the file.

    Raises:
        ConfigError: the file cannot be read, is no text or no YAML, or has a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}; pass a readable YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: not a text file; pass YAML in UTF-8") from None
    # Besides its own errors, yaml lets those of impossible dates and of endless nesting through.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid YAML: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())
