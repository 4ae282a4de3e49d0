"""The capabilities that the tests run with: a container lacks some of root's.

Source: capabilities(7), proc_pid_status(5).
"""

from pathlib import Path
from typing import Final

import pytest

# linux/capability.h
CAP_SYS_PTRACE: Final = 19
CAP_SYS_ADMIN: Final = 21
CAP_SYS_NICE: Final = 23


def has(capability: int) -> bool:
    status = Path("/proc/self/status").read_text().split()
    return bool(int(status[status.index("CapEff:") + 1], 16) >> capability & 1)


needs_namespaces = pytest.mark.skipif(
    not has(CAP_SYS_ADMIN), reason="needs CAP_SYS_ADMIN, to make namespaces and mount in them"
)
needs_to_see_all = pytest.mark.skipif(
    not has(CAP_SYS_PTRACE), reason="needs CAP_SYS_PTRACE, to open the descriptors of others"
)
