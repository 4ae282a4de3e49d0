"""A file system that doesn't answer, as one whose server has gone; its root can be opened.

Run as a program it mounts one on its argument, says so, and ends with its standard input.

Source: Linux, include/uapi/linux/fuse.h.
"""

import ctypes
import os
import select
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FUSE_INIT = 26
FUSE_OPENDIR = 27
BIGGEST_REQUEST_BYTES = 1 << 17


def serve(place: str) -> None:
    """Mount it, and serve it as badly until the end of standard input."""
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40755,user_id=0,group_id=0,allow_other".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"stalled", os.fsencode(place), b"fuse", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    os.write(1, b"up\n")
    while fuse in select.select([fuse, 0], [], [])[0]:
        request = os.read(fuse, BIGGEST_REQUEST_BYTES)
        _, code, unique = struct.unpack_from("IIQ", request)
        if code == FUSE_INIT:
            body = struct.pack("IIIIHHI40x", 7, 31, 0, 0, 0, 0, 4096)
        elif code == FUSE_OPENDIR:
            body = bytes(16)
        else:
            continue
        os.write(fuse, struct.pack("IiQ", 16 + len(body), 0, unique) + body)


@contextmanager
def stalled_at(place: Path) -> Iterator[None]:
    """One at a directory; whoever waits for it waits no more when it goes.

    Tests that use it are skipped where there can be none.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, __file__, place], stdin=pipe, stdout=pipe) as server:
        assert server.stdout is not None
        if server.stdout.readline() != b"up\n":
            pytest.skip("no FUSE file system can be mounted here")
        try:
            yield
        finally:
            server.kill()
            subprocess.run(["umount", "--lazy", place], check=False)


if __name__ == "__main__":
    serve(sys.argv[1])
