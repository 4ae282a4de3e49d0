"""Access to pytest's private directories for processes of another user."""

from pathlib import Path


def let_pass(directory: Path) -> None:
    """Let other users pass through a test's directory."""
    for place in (directory, *directory.parents):
        if place.name.startswith(("pytest-", "popen-", "test_")):
            place.chmod(0o711)
