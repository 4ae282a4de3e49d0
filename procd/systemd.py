"""The service manager's notification socket.

Source: sd_notify(3), "Native implementation".
"""

import os
import socket


def notify(state: str) -> None:
    """Send `state` (lines of KEY=VALUE) to the service manager, or do nothing without one.

    Raises:
        OSError: NOTIFY_SOCKET names a socket that does not answer.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)
