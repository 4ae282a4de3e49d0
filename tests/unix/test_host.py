"""Host: figures that agree with each other and with the kernel's."""

import os
from pathlib import Path

from procd.unix.host import LEAST_INTERVAL_S, Host


def test_figures_agree() -> None:
    usage = Host().usage("/")
    first_line = Path("/proc/meminfo").read_text().splitlines()[0]
    assert usage.mem_total == int(first_line.split()[1]) * 1024
    assert usage.cpu_count == os.cpu_count()
    assert min(usage.mem_used, usage.mem_cache, usage.disk_used) > 0
    assert usage.mem_used + usage.mem_cache <= usage.mem_total
    assert 0 <= usage.disk_free <= usage.disk_total - usage.disk_used


def test_file_system_of_a_directory_or_its_parent() -> None:
    disk = os.statvfs("/proc")
    for path in ("/proc", "/proc/absent", "/proc/absent/more", "/proc/version/file"):
        assert Host().usage(path).disk_total == disk.f_blocks * disk.f_frsize
    assert Host().usage("/absent").disk_total == Host().usage("/").disk_total


def test_cpu_use_since_the_previous_measurement() -> None:
    """At first since boot; it isn't measured anew over a short time."""
    now = 5.0
    host = Host(lambda: now)
    first = host.usage("/").cpu_used_pct
    assert 0 < first <= 100
    cpu = os.times()
    while sum(os.times()[:2]) - sum(cpu[:2]) < 0.1:  # several ticks of the kernel's clock
        assert host.usage("/").cpu_used_pct == first
    now += LEAST_INTERVAL_S
    second = host.usage("/").cpu_used_pct
    assert 0 < second <= 100
    assert host.usage("/").cpu_used_pct == second
