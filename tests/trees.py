"""Who is in a tree of processes."""

from collections.abc import Container

from procd.process.tree import TreeGroup, Tree, members


def members_of(tree: Tree | TreeGroup, supervised: Container[int]) -> dict[int, int]:
    """All of them: pid → start time."""
    return dict(filter(None, members(tree, supervised)))
