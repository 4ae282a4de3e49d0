"""Who is in a tree of processes."""

from collections.abc import Container

from procd.process.tree import Forest, Tree, members


def members_of(tree: Tree | Forest, supervised: Container[int]) -> dict[int, int]:
    """All of them: pid → start time."""
    return dict(filter(None, members(tree, supervised)))
