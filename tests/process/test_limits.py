"""The limits of children that the settings ask for, and the user that they run as."""

import ctypes
import errno
import os
import shutil
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from procd.config import ConfigError, ProcessConfig
from procd.process.limits import ChildLimits, checked_limits, child_limits
from procd.process.run_as import PR_GET_DUMPABLE, PR_GET_PDEATHSIG, PR_SET_PDEATHSIG, RunAs
from procd.unix.libc import LIBC

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
with_util_linux = pytest.mark.skipif(
    None in (shutil.which("setpriv"), shutil.which("prlimit")), reason="util-linux is missing"
)
USER = RunAs(uid=54321, gid=54322, groups=(54323, 54324))


@with_util_linux
@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_limits_that_programs_start_with(handler: signal.Handlers) -> None:
    """Resource limits come first: the user after them may not raise any."""
    own = int(Path("/proc/self/oom_score_adj").read_text())
    config = ProcessConfig(rlimits=("core=0", "nofile=64:128"), no_new_privs=True, oom_score_adj=1)
    before = signal.signal(signal.SIGCHLD, handler)
    try:
        found = checked_limits(config)
        assert checked_limits(ProcessConfig()) == child_limits(ProcessConfig()) == ChildLimits()
        assert signal.getsignal(signal.SIGCHLD) == handler
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert found == child_limits(config)
    words = [word if word.startswith("-") else Path(word).name for word in found.wrappers]
    assert words == [
        "choom", f"--adjust={min(own + 1, 1000)}", "--",
        "prlimit", "--core=0", "--nofile=64:128", "--", "setpriv", "--no-new-privs", "--",
    ]  # fmt: skip
    assert "--adjust=1000" in child_limits(ProcessConfig(oom_score_adj=2000)).wrappers


@as_root
@with_util_linux
def test_user_by_name_and_by_number() -> None:
    found = child_limits(ProcessConfig(user="nobody"))
    assert found.run_as is not None
    assert found.run_as.uid == 65534
    assert found.environment["USER"] == "nobody"
    found = child_limits(ProcessConfig(user="54321", group="54322", groups=("54323", "54324")))
    assert found.run_as == USER
    assert found.wrappers[1:] == ("--reuid=54321", "--regid=54322", "--groups=54323,54324", "--")
    assert found.environment == {"HOME": "/", "USER": "54321", "LOGNAME": "54321"}
    assert "--clear-groups" in child_limits(ProcessConfig(user="54321")).wrappers


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ProcessConfig(user="no such"), "process.user: no such user: no such"),
        (ProcessConfig(group="root"), "process.group: takes process.user as well"),
        (ProcessConfig(groups=("root",)), "process.groups: takes process.user as well"),
        (ProcessConfig(user="0", group="no such"), "process.group: no such group: no such"),
        (ProcessConfig(user="0", groups=("no such",)), "process.groups: no such group: no such"),
        # The kernel takes -1 as "unchanged", and truncates higher numbers.
        (ProcessConfig(user="4294967295"), "process.user: no such user: 4294967295"),
        (ProcessConfig(user="4294967296"), "process.user: no such user: 4294967296"),
        (ProcessConfig(user="\u0661"), "process.user: no such user"),
        (ProcessConfig(user="0", group="4294967295"), "process.group: no such group: 4294967295"),
        (ProcessConfig(user="0", groups=("4294967296",)), "process.groups: no such group: 42949"),
        (ProcessConfig(rlimits=("rttime=1",)), "no such limit, or not to be set: rttime=1"),
        (ProcessConfig(rlimits=("nofile",)), "must be NAME=SOFT:HARD or NAME=BOTH: nofile"),
        (ProcessConfig(rlimits=("nofile=1:2:3",)), "must be NAME=SOFT:HARD or NAME=BOTH"),
        (ProcessConfig(rlimits=("nofile=-1",)), "must be NAME=SOFT:HARD or NAME=BOTH"),
        (ProcessConfig(umask="8"), "process.umask: must be an octal number"),
        (ProcessConfig(umask="7777"), "process.umask: must be an octal number"),
        (ProcessConfig(umask="\u0662\u0662"), "process.umask: must be an octal number"),
    ],
)
def test_bad_setting(config: ProcessConfig, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        child_limits(config)
    assert message in str(caught.value)


@with_util_linux
@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("nofile=2:1", "soft limit"),
        ("nofile=2000000000", "prlimit: "),  # fs.nr_open
        ("nofile=99999999999999999999999", "prlimit: failed"),
        ("nofile=2", "error while loading shared libraries"),
        ("as=1000", ""),
    ],
)
@pytest.mark.parametrize("more", [{}, {"no_new_privs": True, "oom_score_adj": 1}])
def test_limit_that_no_program_starts_with(limit: str, reason: str, more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^process\.rlimits: .*{reason}"):
        checked_limits(ProcessConfig(rlimits=("core=0", limit), **more))


@as_root
@with_util_linux
def test_limit_of_processes_that_is_reached_at_the_moment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ExitStack() as others:
        for _ in range(2):
            other = others.enter_context(subprocess.Popen(["sleep", "1000"], user=12345))
            others.callback(other.kill)
        checked_limits(ProcessConfig(user="12345", rlimits=("nproc=1:1",)))
    assert os.strerror(errno.EAGAIN) in caplog.text


def test_path_that_the_user_cannot_pass(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True, mode=0o700)
    RunAs(uid=os.geteuid(), gid=os.getegid(), groups=()).check_path(inner, "key")
    for place in (inner, inner.parent):
        place.chmod(0o700)
        with pytest.raises(ConfigError, match=f"key: uid 54321 can't pass through {place}$"):
            USER.check_path(inner, "key")
        place.chmod(0o711)


@pytest.mark.parametrize(
    ("mode", "owner", "in_group", "passes"),
    [
        (0o100, True, True, True),
        (0o677, True, True, False),
        (0o610, False, True, True),
        (0o767, False, True, False),
        (0o601, False, False, True),
        (0o776, False, False, False),
    ],
)
def test_permission_bit_that_counts(
    tmp_path: Path, mode: int, owner: bool, in_group: bool, passes: bool
) -> None:
    """The owner's, else the group's, else that of others; root needs none."""
    program = tmp_path / "program"
    program.touch()
    for place in tmp_path.parents:
        if place.stat().st_uid == os.geteuid() and "pytest" in str(place):
            place.chmod(0o711)
    tmp_path.chmod(0o711)
    if os.geteuid() == 0:
        os.chown(program, 54321, 54322)
    program.chmod(mode)
    found = program.stat()
    uid = found.st_uid if owner else found.st_uid + 1
    for gid, groups in ((found.st_gid, ()), (1, (2, found.st_gid))):
        user = RunAs(uid=uid, gid=gid if in_group else 1, groups=groups if in_group else (2,))
        assert user.may_run(program) is passes
    assert RunAs(uid=0, gid=0, groups=()).may_run(program)


@as_root
def test_acting_as_the_user_for_a_while() -> None:
    """Afterwards ids, groups, dumpable and the parent-death signal are as before."""

    def state() -> tuple[object, ...]:
        parent_death_signal = ctypes.c_int()
        LIBC.prctl(PR_GET_PDEATHSIG, ctypes.byref(parent_death_signal))
        ids = os.getresuid(), os.getresgid(), os.getgroups()
        return *ids, LIBC.prctl(PR_GET_DUMPABLE), parent_death_signal.value

    before = state()
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
    try:
        changed, gid = state(), os.getgid()
        with USER.acting():
            assert (os.geteuid(), os.getegid(), os.getgroups()) == (54321, 54322, [54323, 54324])
            assert (os.getuid(), os.getgid()) == (0, gid)
        assert state() == changed
    finally:
        LIBC.prctl(PR_SET_PDEATHSIG, before[-1])


@pytest.mark.parametrize("where", ["inner", "outer", "link", "further"])
@pytest.mark.parametrize(
    ("mode", "refused"), [(0o755, False), (0o775, True), (0o757, True), (0o1777, False)]
)
def test_path_that_the_user_could_exchange(
    tmp_path: Path, where: str, mode: int, refused: bool
) -> None:
    """Each directory on the way counts, also on that of a link."""
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "further").mkdir()
    (tmp_path / "further" / "on").symlink_to("../outer")
    (tmp_path / "link").mkdir()
    path = tmp_path / "link" / "to"
    path.symlink_to("../further/on/inner")
    place = next(tmp_path.rglob(where))
    place.chmod(mode)
    if not refused:
        USER.check_lasting(path, "key")
        return
    with pytest.raises(ConfigError, match=f"^key: uid 54321 could .* in {place}$"):
        USER.check_lasting(path, "key")


@as_root
def test_path_that_the_user_owns(tmp_path: Path) -> None:
    inner, link = tmp_path / "inner", tmp_path / "link"
    inner.mkdir()
    link.symlink_to(inner)
    os.lchown(link, 54321, -1)
    USER.check_lasting(inner, "key")
    with pytest.raises(ConfigError, match=f"could .* in {link}$"):
        USER.check_lasting(link, "key")
    os.chown(tmp_path, 54321, 54321)
    with pytest.raises(ConfigError, match=f"could .* in {tmp_path}$"):
        USER.check_lasting(inner, "key")
    RunAs(uid=0, gid=0, groups=()).check_lasting(inner, "key")


@as_root
def test_target_of_a_link_is_not_given_away(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    ChildLimits(run_as=USER).give(str(tmp_path / "link"))
    assert (tmp_path / "file").stat().st_uid == 0
