"""What others have written, for people."""


def clean(text: str) -> str:
    """Text on one line, and without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)
