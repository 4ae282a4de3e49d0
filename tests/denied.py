"""Run a program on a kernel that refuses some system calls: `denied.py RULE… -- PROGRAM…`.

A rule is NAME=ERRNO, or NAME&MASK=ERRNO for calls with one of the bits of `MASK` in their third
argument. The filter is inherited by all that the program starts, and can't be taken away.

Source: seccomp(2), "Filters"; linux/filter.h, linux/seccomp.h.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from typing import Final

# What the kernel calls the machine (linux/audit.h), and the numbers of the calls there.
MACHINES: Final[dict[str, tuple[int, dict[str, int]]]] = {
    "x86_64": (
        0xC000003E,
        {
            "fcntl": 72, "flock": 73, "memfd_create": 319, "openat": 257, "pidfd_open": 434,
            "pidfd_send_signal": 424, "prctl": 157, "prlimit64": 302, "setsockopt": 54,
            "waitid": 247,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "fcntl": 25, "flock": 32, "memfd_create": 279, "openat": 56, "pidfd_open": 434,
            "pidfd_send_signal": 424, "prctl": 167, "prlimit64": 261, "setsockopt": 208,
            "waitid": 95,
        },
    ),
}  # fmt: skip
POSSIBLE: Final = platform.machine() in MACHINES

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, IF_EQUAL, IF_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER_AT, MACHINE_AT, THIRD_AT = 0, 4, 32  # in struct seccomp_data
ALLOW, ERROR = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def deny(rules: Sequence[str]) -> None:
    """Deny system calls to this process and its descendants."""
    machine, numbers = MACHINES[platform.machine()]
    code = [(LOAD, 0, 0, MACHINE_AT), (IF_EQUAL, 1, 0, machine), (RETURN, 0, 0, ALLOW)]
    for rule in rules:
        call, _, error = rule.partition("=")
        name, _, mask = call.partition("&")
        code += [(LOAD, 0, 0, NUMBER_AT), (IF_EQUAL, 0, 3 if mask else 1, numbers[name])]
        if mask:
            code += [(LOAD, 0, 0, THIRD_AT), (IF_BITS, 0, 1, int(mask, 0))]
        code.append((RETURN, 0, 0, ERROR | getattr(errno, error)))
    code.append((RETURN, 0, 0, ALLOW))
    program = _Program(len(code), b"".join(struct.pack("HBBI", *step) for step in code))
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def command(rules: Sequence[str], program: Sequence[str]) -> tuple[str, ...]:
    """The command that runs `program` by these rules."""
    return (sys.executable, __file__, *rules, "--", *program)


if __name__ == "__main__":
    end = sys.argv.index("--")
    deny(sys.argv[1:end])
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
