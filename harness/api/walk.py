"""One walk over values that others wrote, such as JSON or YAML: however deep they are, and even where they hold themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_SCALARS = (str, int, float, bytes, type(None))


class Node(NamedTuple):
    """A value, or a key of a mapping, with its place in the whole.

    Attributes:
        value: the value, or the key.
        depth: 0 for the whole, 1 for what it holds, and so on; a key has the depth of its mapping.
        part: the key or the number under which the container holds the value; empty for the whole, and for a key.
        parent: the node of the container; None for the whole.
        is_key: whether this is a key.
    """

    value: Any
    depth: int = 0
    part: Any = ""
    parent: Node | None = None
    is_key: bool = False

    @property
    def place(self) -> str:
        """Return the dotted path from the whole, as in `methods.0.name`; empty for the whole. A key's is its mapping's."""
        parts: list[str] = []
        node: Node | None = self
        while node is not None:
            if node.parent is not None and not node.is_key:
                parts.append(str(node.part))
            node = node.parent
        return ".".join(reversed(parts))

    @property
    def field(self) -> str:
        """Return the place; of a key, the place of the value under it."""
        if not self.is_key:
            return self.place
        return f"{self.place}.{self.value}" if self.place else str(self.value)


def walk(value: Any, deepest: int | None = None) -> Iterator[Node]:
    """Yield the nodes of a value in its order, itself first; each key comes before the value under it.

    Mappings and sequences are entered, text and bytes are not. A container that holds itself is yielded where it recurs and
    not entered again; one that stands in several places is entered in each.

    Args:
        deepest: nodes of a greater depth are yielded and not entered.
    """
    root = Node(value)
    yield root
    # A stack in place of recursion: the depth of a file is its writer's choice, and must not exhaust Python's stack.
    stack = [(root, _children(root))]
    entered = {id(value)}  # containers on the way from the whole to here, which is what a cycle comes back to
    while stack:
        container, children = stack[-1]
        for node in children:
            yield node
            # Scalars are most of all values, and the test for them is far quicker than the one for abstract classes.
            if isinstance(node.value, _SCALARS) or node.is_key or id(node.value) in entered:
                continue
            if isinstance(node.value, Mapping | Sequence) and (deepest is None or node.depth <= deepest):
                entered.add(id(node.value))
                stack.append((node, _children(node)))
                break  # the rest of these children come after what the node holds: the iterator stands where it was
        else:
            stack.pop()
            entered.discard(id(container.value))


def _children(node: Node) -> Iterator[Node]:
    value, inside = node.value, node.depth + 1
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield Node(key, node.depth, "", node, True)
            yield Node(child, inside, key, node)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for number, child in enumerate(value):
            yield Node(child, inside, number, node)
