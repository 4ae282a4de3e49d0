"""The C library, for calls that Python has no function for."""

import ctypes
from typing import Final

LIBC: Final = ctypes.CDLL(None, use_errno=True)
