"""What the kernel is told of how to send what a client gets."""

import socket
from contextlib import suppress
from typing import Any, Final

# What the kernel takes of a WebSocket's before it can send it. Left to itself that is 4 MiB for who
# once was fast, and pongs and the echoes of keys lie behind it.
UNSENT_BYTES: Final = 128 << 10
# The one that each kernel has, and lets everybody choose.
PLAINEST: Final = b"reno"


def limit_unsent(sock: socket.socket) -> None:
    """Have the kernel take no more than UNSENT_BYTES beyond what it has sent.

    What is on its way isn't counted, so that a long path is used to the full. A unix socket's
    buffer doesn't grow. Source: ip-sysctl.rst, tcp_notsent_lowat.
    """
    with suppress(OSError):  # that it is a unix socket, or closed by now
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def spare_pacing(sock: socket.socket, peername: Any) -> None:
    """Have the kernel not ration what it sends to a client on this machine.

    Where the system's congestion control is one that paces, as BBR, it takes up to twice as long to
    send a long reply, though there is no path that could be congested. A client elsewhere keeps
    what the system has. Source: tcp(7), TCP_CONGESTION.

    Args:
        peername: the client's address and more, or else what it is in place of that.
    """
    host = peername[0] if isinstance(peername, tuple) else ""
    if host == "::1" or host.startswith("127."):
        with suppress(OSError):  # that it is closed by now, or the system won't have it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, PLAINEST)
