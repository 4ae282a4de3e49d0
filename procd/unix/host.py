"""How busy this machine is. Source: proc_stat(5), proc_meminfo(5), statvfs(3)."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from procd.errors import ProcdError


class CpuTicks(NamedTuple):
    """What all processors have done since boot, in ticks of the kernel's clock."""

    user: int
    nice: int
    system: int
    idle: int
    iowait: int
    irq: int
    softirq: int
    steal: int


def cpu_ticks() -> CpuTicks:
    """Read them.

    Raises:
        OSError: the kernel, or a sandbox, doesn't tell.
    """
    with open("/proc/stat") as lines:  # noqa: PTH123 - the first line alone
        figures = lines.readline().split()[1:]
    if len(figures) < len(CpuTicks._fields):
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
    return CpuTicks._make(map(int, figures[: len(CpuTicks._fields)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUsage:
    """Figures of one moment; sizes in bytes."""

    cpu_count: int
    cpu_used_pct: float
    mem_total: int
    mem_used: int
    mem_cache: int
    disk_total: int
    disk_used: int
    disk_free: int


# For how long a CPU use is answered again. The kernel counts in ticks of 10 ms: for less time than
# many of them there is none, and whoever asks a moment after somebody else would be told 0 or 100.
LEAST_AGE_S: Final = 0.5


class Host:
    """Measures the machine; CPU use is that since the measurement before, or since boot.

    Args:
        now: a monotonic clock, seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._measured_at = float("-inf")
        self._used_pct = 0.0
        self._busy = 0
        self._total = 0

    def usage(self, disk: str) -> HostUsage:
        """The figures now, with those of the file system that holds `disk`, or held it.

        Raises:
            ProcdError: they can't be read.
        """
        try:
            return self._usage(disk)
        except OSError as exc:
            raise ProcdError(f"the machine can't be looked at: {exc.strerror}") from exc

    def _usage(self, disk: str) -> HostUsage:
        memory = {
            name: int(value.split()[0]) << 10
            for name, _, value in (
                line.partition(":") for line in Path("/proc/meminfo").read_text().splitlines()
            )
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
        now = self._now()
        if now - self._measured_at < LEAST_AGE_S:
            return self._used_pct
        self._measured_at = now
        ticks = cpu_ticks()
        total = sum(ticks)
        busy = total - ticks.idle - ticks.iowait
        spent, elapsed = busy - self._busy, total - self._total
        self._busy, self._total = busy, total
        self._used_pct = round(100 * spent / elapsed, 2) if elapsed > 0 else 0.0
        return self._used_pct


def _file_system(place: str) -> os.statvfs_result:
    """That of the directory, or of the nearest above it that is there."""
    while True:
        above = os.path.dirname(place)  # noqa: PTH120 - a str, as every path of a child is
        try:
            return os.statvfs(place)
        except OSError:
            if above == place:
                raise
        place = above
