"""What the settings for children ask for, and what can't be asked for."""

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

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
util_linux = pytest.mark.skipif(
    None in (shutil.which("setpriv"), shutil.which("prlimit")), reason="util-linux is missing"
)


def test_nothing_asked_for() -> None:
    """No wrapper, no owner, nothing to set."""
    assert child_limits(ProcessConfig()) == ChildLimits()


@util_linux
def test_limits_and_privileges() -> None:
    """Limits first: the user who comes after may not raise any."""
    found = child_limits(ProcessConfig(rlimits=("nofile=64:128", "core=0"), no_new_privs=True))
    names = tuple(word if word.startswith("-") else Path(word).name for word in found.wrappers)
    assert names == (
        "prlimit", "--nofile=64:128", "--core=0", "--", "setpriv", "--no-new-privs", "--",
    )  # fmt: skip


@root_only
@util_linux
def test_a_user_by_name_and_by_number() -> None:
    """Names are looked up once, here; a number needs no entry."""
    found = child_limits(ProcessConfig(user="nobody"))
    assert found.run_as is not None
    assert found.run_as.uid == 65534
    assert found.environment["USER"] == "nobody"
    found = child_limits(ProcessConfig(user="54321", group="54322", groups=("54323", "54324")))
    assert found.run_as == RunAs(uid=54321, gid=54322, groups=(54323, 54324))
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
        # The kernel takes -1 for "as it is", and other numbers for what is left of them.
        (ProcessConfig(user="4294967295"), "process.user: no such user: 4294967295"),
        (ProcessConfig(user="4294967296"), "process.user: no such user: 4294967296"),
        (ProcessConfig(user="9" * 30), "process.user: no such user: 999"),
        (ProcessConfig(user="0", group="4294967295"), "process.group: no such group: 4294967295"),
        (ProcessConfig(user="0", groups=("4294967296",)), "process.groups: no such group: 42949"),
        (ProcessConfig(rlimits=("rttime=1",)), "no such limit, or not to be set: rttime=1"),
        (ProcessConfig(rlimits=("files=1",)), "no such limit, or not to be set: files=1"),
        (ProcessConfig(rlimits=("nofile",)), "must be NAME=SOFT:HARD or NAME=BOTH: nofile"),
        (ProcessConfig(rlimits=("nofile=1:2:3",)), "must be NAME=SOFT:HARD or NAME=BOTH"),
        (ProcessConfig(rlimits=("nofile=-1",)), "must be NAME=SOFT:HARD or NAME=BOTH"),
        (ProcessConfig(rlimits=("nofile=2:1",)), "soft limit above the hard one: nofile=2:1"),
        (ProcessConfig(umask="8"), "process.umask: must be an octal number"),
        (ProcessConfig(umask="7777"), "process.umask: must be an octal number"),
        (ProcessConfig(umask="\u0662\u0662"), "process.umask: must be an octal number"),
        (ProcessConfig(user="\u0661"), "process.user: no such user"),
    ],
)
def test_what_cannot_be(config: ProcessConfig, message: str) -> None:
    """The message names the key."""
    with pytest.raises(ConfigError) as caught:
        child_limits(config)
    assert message in str(caught.value)


@util_linux
def test_oom_score() -> None:
    """It is added to procd's own, as far as the scale goes."""
    own = int(Path("/proc/self/oom_score_adj").read_text())
    for worse, score in ((1, min(own + 1, 1000)), (2000, 1000)):
        wrappers = child_limits(ProcessConfig(oom_score_adj=worse)).wrappers
        assert wrappers[1:] == (f"--adjust={score}", "--")


def test_a_path_that_the_user_cannot_pass(tmp_path: Path) -> None:
    """Each directory on the way counts, by owner, group or others."""
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    for place in (inner, *inner.parents):
        if place.stat().st_uid == os.geteuid() and place.is_relative_to(tmp_path):
            place.chmod(0o700)
    me = RunAs(uid=os.geteuid(), gid=os.getegid(), groups=())
    me.check_path(inner, "key")
    with pytest.raises(ConfigError, match=f"key: uid 54321 can't pass through {inner}"):
        RunAs(uid=54321, gid=54321, groups=()).check_path(inner, "key")
    inner.chmod(0o711)
    with pytest.raises(ConfigError, match=f"can't pass through {inner.parent}$"):
        RunAs(uid=54321, gid=54321, groups=()).check_path(inner, "key")


@pytest.mark.parametrize(
    ("mode", "owns", "in_group", "passes"),
    [
        (0o100, True, True, True),
        (0o677, True, True, False),
        (0o610, False, True, True),
        (0o767, False, True, False),
        (0o601, False, False, True),
        (0o776, False, False, False),
    ],
)
def test_which_bit_says_so(
    tmp_path: Path, mode: int, owns: bool, in_group: bool, passes: bool
) -> None:
    """One alone: the owner's, else the group's, else that of others. Root needs none."""
    place = tmp_path / "place"
    place.mkdir()
    if os.geteuid() == 0:
        os.chown(place, 54321, 54322)
    found = place.stat()
    place.chmod(mode)
    uid = found.st_uid if owns else found.st_uid + 1
    for gid, groups in ((found.st_gid, ()), (1, (2, found.st_gid))):
        owner = RunAs(uid=uid, gid=gid if in_group else 1, groups=groups if in_group else (2,))
        assert owner._may_execute(place) is passes
    assert RunAs(uid=0, gid=0, groups=())._may_execute(place)


@root_only
def test_who_acts_as_the_user_is_who_it_was_afterwards() -> None:
    """With the groups it had, and traced and ended with its parent as before."""

    def own() -> tuple[object, ...]:
        of_end = ctypes.c_int()
        LIBC.prctl(PR_GET_PDEATHSIG, ctypes.byref(of_end))
        ids = os.getresuid(), os.getresgid(), os.getgroups()
        return *ids, LIBC.prctl(PR_GET_DUMPABLE), of_end.value

    before = own()
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
    try:
        mine, gid = own(), os.getgid()
        with RunAs(uid=54321, gid=54322, groups=(54323,)).acting():
            assert (os.geteuid(), os.getegid(), os.getgroups()) == (54321, 54322, [54323])
            assert (os.getuid(), os.getgid()) == (0, gid)
        assert own() == mine
    finally:
        LIBC.prctl(PR_SET_PDEATHSIG, before[-1])


@pytest.mark.parametrize("where", ["inner", "outer", "link", "further"])
@pytest.mark.parametrize(
    ("mode", "refused"), [(0o755, False), (0o775, True), (0o757, True), (0o1777, False)]
)
def test_a_path_that_others_may_exchange(
    tmp_path: Path, where: str, mode: int, refused: bool
) -> None:
    """Each directory on the way counts, also on that of a link, and of one that it leads to."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "further").mkdir()
    (tmp_path / "further" / "on").symlink_to("../outer")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "to").symlink_to("../further/on/inner")
    place = next(tmp_path.rglob(where))
    place.chmod(mode)
    user = RunAs(uid=54321, gid=54321, groups=())
    path = tmp_path / "link" / "to"
    if refused:
        with pytest.raises(ConfigError, match=f"^key: uid 54321 could .* in {place}$"):
            user.check_lasting(path, "key")
    else:
        user.check_lasting(path, "key")
    if where != "link":
        return
    user.check_lasting(inner, "key")
    if os.geteuid() == 0:
        place.chmod(0o755)
        os.lchown(path, 54321, -1)
        with pytest.raises(ConfigError, match=f"^key: uid 54321 could .* in {path}$"):
            user.check_lasting(path, "key")


@root_only
def test_a_path_that_is_the_users(tmp_path: Path) -> None:
    """Whose a directory is may change its mode, and what is in it; root may anyway."""
    os.chown(tmp_path, 54321, 54321)
    (tmp_path / "inner").mkdir()
    with pytest.raises(ConfigError, match=f"could .* in {tmp_path}$"):
        RunAs(uid=54321, gid=54321, groups=()).check_lasting(tmp_path / "inner", "key")
    RunAs(uid=0, gid=0, groups=()).check_lasting(tmp_path / "inner", "key")


@root_only
def test_what_a_link_leads_to_is_not_given(tmp_path: Path) -> None:
    """A name that is there is a pipe or a terminal of procd's own."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    ChildLimits(run_as=RunAs(uid=54321, gid=54321, groups=())).give(str(tmp_path / "link"))
    assert (tmp_path / "file").stat().st_uid == 0


@util_linux
@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("nofile=2000000000", "prlimit: "),  # fs.nr_open
        ("nofile=99999999999999999999999", "prlimit: failed"),
        ("nofile=2", "error while loading shared libraries"),
        ("as=1000", ""),
    ],
)
@pytest.mark.parametrize("more", [{}, {"no_new_privs": True, "oom_score_adj": 1}])
def test_limits_that_no_program_starts_with(limit: str, reason: str, more: dict[str, Any]) -> None:
    """Each can be written down, and every command would fail by it."""
    config = ProcessConfig(rlimits=("core=0", limit), **more)
    if limit in ("nofile=2", "as=1000") or os.geteuid() == 0:  # else it is above procd's own
        child_limits(config)
    with pytest.raises(ConfigError, match=r"^process\.rlimits: ") as caught:
        checked_limits(config)
    if os.geteuid() == 0:
        assert reason in str(caught.value)


@root_only
@util_linux
def test_a_limit_that_is_used_up_now_may_be_free_later(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as others:
        for _ in range(2):
            other = others.enter_context(subprocess.Popen(["sleep", "1000"], user=12345))
            others.callback(other.kill)
        checked_limits(ProcessConfig(user="12345", rlimits=("nproc=1:1",)))
    assert os.strerror(errno.EAGAIN) in caplog.text


@util_linux
@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_what_programs_start_with(handler: signal.Handlers) -> None:
    config = ProcessConfig(rlimits=("core=0", "nofile=64:128"), no_new_privs=True, oom_score_adj=1)
    before = signal.signal(signal.SIGCHLD, handler)
    try:
        assert checked_limits(config) == child_limits(config)
        assert checked_limits(ProcessConfig()) == ChildLimits()
        assert signal.getsignal(signal.SIGCHLD) == handler
    finally:
        signal.signal(signal.SIGCHLD, before)
