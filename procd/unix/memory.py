"""How much memory there is.

Source: proc_meminfo(5); Linux admin guide, "Control Group v2", memory.max; getrlimit(2), RLIMIT_AS.
"""

import resource
from pathlib import Path
from typing import Final

from procd.unix import cgroup

MEMINFO: Final = Path("/proc/meminfo")


def memory_bytes() -> int:
    """The machine's, or less if there is a limit that this process is under."""
    total = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemTotal:"))
    sizes = [int(total.split()[1]) << 10, *cgroup.limits("memory.max").values()]
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    return min(sizes if space == resource.RLIM_INFINITY else [*sizes, space])
