"""Reading YAML that people write.

PyYAML silently keeps the last of two equal keys, and reads halves of characters, which no file can hold. Both are
refused here.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MOST_CHARACTERS = 10_000_000
"""Of a file, and of what it holds with every alias written out; params.yaml has some thousands."""


class _Loader(yaml.SafeLoader):
    def compose_document(self) -> yaml.Node | None:
        node: yaml.Node | None = super().compose_document()
        if node is not None and _characters(node, {}) > MOST_CHARACTERS:
            raise yaml.YAMLError(f"its aliases (*) make more than {MOST_CHARACTERS:,} characters of it; use fewer")
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if re.search("[\ud800-\udfff]", node.value):
            line = node.start_mark.line + 1
            problem = f"the text in line {line} has half of a character; write the character itself in place of \\u"
            raise yaml.MarkedYAMLError(problem=problem)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], Any] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            other = first.setdefault((key.tag, key.value), key)
            if other is not key:
                lines = f"line {other.start_mark.line + 1} and line {key.start_mark.line + 1}"
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is there twice, at {lines}; keep one")
        return node


def _characters(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many characters and values a node has, with every alias written out."""
    if node not in known:
        inner = node.value
        if isinstance(node, yaml.ScalarNode):
            known[node] = 1 + len(inner)
        else:
            parts = (part for pair in inner for part in pair) if isinstance(node, yaml.MappingNode) else inner
            known[node] = 1 + sum(_characters(part, known) for part in parts)
    return known[node]


def load_yaml(text: str) -> Any:
    """The value in a YAML text.

    Raises:
        yaml.YAMLError: not YAML, a mapping that has a key twice, or half of a character; names key and lines. Or more
            than MOST_CHARACTERS.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply, or an alias is inside of what it names") from None
