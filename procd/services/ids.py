"""Ids that clients choose: names in URL paths, and never anything else."""

from typing import Final
from unicodedata import category

from procd.errors import BadRequest

MAX_ID_LENGTH: Final = 255
# Categories of Unicode: control characters, lone surrogates, separators of lines and paragraphs.
NOT_IN_IDS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def check_id(session_id: str, *reserved: str) -> None:
    """Raise BadRequest for an id that can't be in a URL path (contract, section 4.7)."""
    if not session_id:
        raise BadRequest("session ID is required")
    if len(session_id) > MAX_ID_LENGTH:
        raise BadRequest(f"session ID is longer than {MAX_ID_LENGTH} characters")
    if session_id in (".", "..", *reserved):
        raise BadRequest(f"session ID '{session_id}' is reserved")
    if "/" in session_id or any(category(character) in NOT_IN_IDS for character in session_id):
        raise BadRequest("session ID must not contain '/', control characters or line separators")
