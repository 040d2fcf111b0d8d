"""YAML with the scalars of version 1.2: PyYAML follows 1.1, which reads ``no`` as false and ``5e-4`` as text."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml import YAMLError as YAMLError


def load(text: str) -> Any:
    """The content of a document. Raises ``YAMLError``, also for a key given twice."""
    return yaml.load(text, Loader=_Loader)


def load_or_text(text: str) -> Any:
    """The content of a document, or the text itself if it is no YAML (``*.jpg``)."""
    try:
        return load(text)
    except YAMLError:
        return text


def dump(values: Any) -> str:
    """A document that :func:`load` reads back to equal values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word or a number", key.start_mark)
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes a text that either version would read as something else."""


_SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
_Loader.yaml_implicit_resolvers = {}  # none of 1.1's
for _tag, _pattern in _SCALARS.items():
    for _dialect in (_Loader, _Dumper):
        _dialect.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), None)
