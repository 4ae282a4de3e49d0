"""How much memory there is.

Source: sysconf(3); Linux admin guide, "Control Group v2", memory.max; getrlimit(2), RLIMIT_AS.
"""

import os
import resource

from procd.process import cgroup


def memory_bytes() -> int:
    """The machine's, or less if there is a limit that this process is under."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    sizes = [total, *cgroup.limits("memory.max").values()]
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    return min(sizes if space == resource.RLIM_INFINITY else [*sizes, space])
