"""What an interpreter's messages say."""

import pytest

from procd.services.interpreter.worker_protocol import (
    MAX_BUNDLE_BYTES,
    Display,
    NonsenseError,
    parse,
)


def _shown(text: str) -> bytes:
    return b'{"op":"result","id":1,"data":{"text/plain":"%b"}}' % text.encode()


def test_a_bundle_is_bounded_as_it_is_kept() -> None:
    """Which takes up to three times what it took on the way."""
    most = MAX_BUNDLE_BYTES - len('{"text/plain":""}')
    shown = parse(_shown("x" * most), 1)
    assert isinstance(shown, Display)
    assert len(shown.bundle) == MAX_BUNDLE_BYTES
    for text in ("x" * (most + 1), "\u00e9" * (most // 4)):
        with pytest.raises(NonsenseError):
            parse(_shown(text), 1)
