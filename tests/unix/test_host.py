"""Host: figures of this machine that agree with each other and with the kernel's."""

import itertools
import os
import time
from pathlib import Path

from procd.unix.host import LEAST_AGE_S, Host


def test_the_figures_agree() -> None:
    """Totals are the machine's, and parts are no more than their whole."""
    usage = Host().usage("/")
    total_kib = next(
        int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    assert usage.cpu_count == os.cpu_count()
    assert usage.mem_total == total_kib * 1024
    assert 0 < usage.mem_used < usage.mem_total
    assert 0 < usage.mem_cache < usage.mem_total
    assert usage.mem_used + usage.mem_cache <= usage.mem_total
    disk = os.statvfs("/")
    assert usage.disk_total == disk.f_blocks * disk.f_frsize
    assert 0 < usage.disk_used <= usage.disk_total
    assert 0 <= usage.disk_free <= usage.disk_total - usage.disk_used


def test_the_disk_is_the_one_asked_for() -> None:
    """Another file system has other figures."""
    disk = os.statvfs("/proc")
    usage = Host().usage("/proc")
    assert usage.disk_total == disk.f_blocks * disk.f_frsize


def test_a_directory_that_has_gone() -> None:
    """The nearest above it that is there stands for it."""
    for gone in ("/proc/absent", "/proc/absent/more", "/proc/version/file"):
        assert Host().usage(gone).disk_total == Host().usage("/proc").disk_total
    root = os.statvfs("/")
    assert Host().usage("/absent").disk_total == root.f_blocks * root.f_frsize


def test_cpu_use_is_a_share_of_the_time_between() -> None:
    """The first figure is since boot, the next since the one before; both are a percentage."""
    seconds = itertools.count()
    host = Host(lambda: next(seconds))
    assert 0 < host.usage("/").cpu_used_pct <= 100
    for _ in range(3):
        sum(range(300_000))
        assert 0 <= host.usage("/").cpu_used_pct <= 100


def test_who_asks_again_at_once_gets_the_same_cpu_use() -> None:
    """Between two clients that ask at the same time there is no time to have a share of."""
    now = 5.0
    host = Host(lambda: now)
    first = host.usage("/").cpu_used_pct
    until = time.thread_time() + 0.1  # several ticks of the kernel's clock, all of them used
    while time.thread_time() < until:
        assert host.usage("/").cpu_used_pct == first
    now += LEAST_AGE_S
    second = host.usage("/").cpu_used_pct
    assert second > 0, "of the time since the first"
    assert host.usage("/").cpu_used_pct == second
