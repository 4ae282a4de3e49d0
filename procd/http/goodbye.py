"""How a client of a WebSocket is sent away: the code and the reason of a Close.

Source: RFC 6455, sections 5.5 and 7.4.
"""

import struct
from typing import Final

from aiohttp import WSCloseCode

from procd.output.frames import CLOSE, encode

# Section 5.5: a control frame carries 125 bytes, two of them the close code.
MAX_REASON_BYTES: Final = 123
# Section 7.4.2: from 3000 up to here, codes are anybody's.
LAST_CODE: Final = 4999

Goodbye = tuple[int, str]
STOPPING: Final = "server shutdown"
STOPPED: Final[Goodbye] = (WSCloseCode.GOING_AWAY, STOPPING)
TOKEN_GONE: Final[Goodbye] = (WSCloseCode.POLICY_VIOLATION, "the token is no longer valid")
TOO_SLOW: Final[Goodbye] = (WSCloseCode.POLICY_VIOLATION, "slow consumer")
TOO_LONG: Final = "the message was too long"


def close_frame(code: int, reason: str) -> bytes:
    """The frame of a Close; the reason is cut to what fits, code 0 is none."""
    message = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()
    return encode(CLOSE, (struct.pack("!H", code) if code else b"") + message)


def answer_to(code: int) -> int:
    """The code that a client's Close with `code` is answered with, of those that aiohttp lets in.

    It is the same, if a Close may carry that.
    """
    if code == WSCloseCode.ABNORMAL_CLOSURE or code > LAST_CODE:
        return WSCloseCode.PROTOCOL_ERROR
    return code
