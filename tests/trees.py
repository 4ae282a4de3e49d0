"""The members of a tree of processes."""

from collections.abc import Container

from procd.process.tree import Tree, members


def members_of(tree: Tree, supervised: Container[int]) -> dict[int, int]:
    """All members: pid → start time."""
    return dict(filter(None, members(tree, supervised)))
