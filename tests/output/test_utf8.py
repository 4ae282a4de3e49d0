"""Characters cut at the end, compared with what Python's decoder holds back."""

from codecs import getincrementaldecoder

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.output.multiplex import incomplete_bytes


@pytest.mark.parametrize("last", [b"\xff", b"\xc0", b"\xf5", b"\xf8\x80"])
def test_byte_that_begins_no_character(last: bytes) -> None:
    assert incomplete_bytes(b"a" + last) == 0


@given(st.binary(max_size=6))
def test_like_a_decoder(data: bytes) -> None:
    """It may find more only in data that no decoder accepts."""
    decoder = getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    kept, _ = decoder.getstate()
    if incomplete_bytes(data) != len(kept):
        assert incomplete_bytes(data) > len(kept)
        with pytest.raises(UnicodeDecodeError):
            getincrementaldecoder("utf-8")().decode(data)
