"""Use of processors, memory and disk. Source: proc_stat(5), proc_meminfo(5), statvfs(3)."""

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from procd.errors import ProcdError

# The CPU use is measured anew after this time: over a few ticks of 10 ms it would be 0 or 100.
LEAST_INTERVAL_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUsage:
    cpu_count: int
    cpu_used_pct: float
    mem_total: int
    mem_used: int
    mem_cache: int
    disk_total: int
    disk_used: int
    disk_free: int


class Host:
    """Measures the machine; CPU use is that since the previous measurement, or since boot."""

    def __init__(self) -> None:
        self._measured_at = float("-inf")
        self._used_pct = 0.0
        self._busy_ticks = 0
        self._total_ticks = 0

    def usage(self, disk: str) -> HostUsage:
        """Measure now; the disk is the file system of the directory `disk`."""
        try:
            return self._usage(disk)
        except OSError as exc:
            raise ProcdError(f"the machine can't be looked at: {exc.strerror}") from exc

    def _usage(self, disk: str) -> HostUsage:
        lines = Path("/proc/meminfo").read_text().splitlines()
        memory = {
            name: int(value.split()[0]) << 10
            for name, _, value in (line.partition(":") for line in lines)
        }
        cache = memory["Cached"] + memory["Buffers"] + memory.get("SReclaimable", 0)
        file_system = _file_system(disk)
        unit = file_system.f_frsize
        return HostUsage(
            cpu_count=os.cpu_count() or 1,
            cpu_used_pct=self._cpu_used_pct(),
            mem_total=memory["MemTotal"],
            mem_used=memory["MemTotal"] - memory["MemFree"] - cache,
            mem_cache=cache,
            disk_total=file_system.f_blocks * unit,
            disk_used=(file_system.f_blocks - file_system.f_bfree) * unit,
            disk_free=file_system.f_bavail * unit,
        )

    def _cpu_used_pct(self) -> float:
        now = time.monotonic()
        if now - self._measured_at < LEAST_INTERVAL_S:
            return self._used_pct
        with open("/proc/stat") as lines:  # noqa: PTH123 - the first line alone
            fields = lines.readline().split()[1:9]
        if len(fields) < 8:  # in a sandbox without it
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, fields)
        busy = user + nice + system + irq + softirq + steal
        total = busy + idle + iowait
        spent, elapsed = busy - self._busy_ticks, total - self._total_ticks
        self._measured_at, self._busy_ticks, self._total_ticks = now, busy, total
        self._used_pct = round(100 * spent / elapsed, 2) if elapsed > 0 else 0.0
        return self._used_pct


def _file_system(directory: str) -> os.statvfs_result:
    """The file system of the directory, or of its nearest existing parent."""
    while True:
        parent = os.path.dirname(directory)  # noqa: PTH120 - a str, as every path of a child is
        try:
            return os.statvfs(directory)
        except OSError:
            if parent == directory:
                raise
        directory = parent
