"""procd where the kernel, or the sandbox around it, refuses something."""

import json
import subprocess
import sys

import pytest

from tests import denied
from tests.capabilities import needs_namespaces
from tests.daemon.daemon import PROCD, Daemon, environment

pytestmark = pytest.mark.skipif(not denied.POSSIBLE, reason="the numbers of its calls aren't known")

NEEDED = [
    ("pidfd_open=ENOSYS", "pidfd_open (Linux 5.3): Function not implemented"),
    ("pidfd_open=EPERM", "pidfd_open (Linux 5.3): Operation not permitted"),
    ("pidfd_send_signal=ENOSYS", "pidfd_send_signal (Linux 5.1): Function not implemented"),
    ("waitid=EINVAL", "waitid for a pidfd (Linux 5.4): Invalid argument"),
    # Of the third argument, to set one and not to get one: any in the lower half.
    ("prlimit64&0xffffffff=EPERM", "RLIMIT_RTTIME (Linux 2.6.25): not allowed to raise "),
    ("prctl=EINVAL", "PR_SET_CHILD_SUBREAPER (Linux 3.4): Invalid argument"),
    ("memfd_create=EPERM", "memfd_create (Linux 3.17): Operation not permitted"),
]


def refused(*command: str) -> tuple[str, dict[str, str]]:
    """What serve says as it refuses to start, and the problem that the doctor finds."""
    served = subprocess.run(
        [*command, "serve", "--port", "0"], env=environment(), capture_output=True, text=True
    )
    assert served.returncode == 2
    assert served.stderr.count("\n") == 1
    doctor = subprocess.run(
        [*command, "doctor", "--json"], env=environment(), capture_output=True, text=True
    )
    assert doctor.returncode == 1
    assert doctor.stderr == ""
    finding: dict[str, str]
    (finding,) = json.loads(doctor.stdout)
    assert (finding["name"], finding["state"]) == ("kernel", "problem")
    return served.stderr, finding


@pytest.mark.parametrize(("rule", "told"), NEEDED)
def test_what_it_can_not_do_without(rule: str, told: str) -> None:
    """It doesn't start, rather than run what it can't end; the doctor says so too."""
    served, finding = refused(*denied.command([rule], PROCD))
    assert served.startswith(f"procd: this system lacks {told}")
    assert finding["found"].startswith(f"lacks {told}")
    assert "run a newer one" in finding["advice"]


WITHOUT_PROC = ("--mount", "sh", "-c", 'umount -l /proc && exec "$@"', "sh")


@needs_namespaces
@pytest.mark.parametrize("place", [("--pid", "--fork", "--kill-child"), WITHOUT_PROC])
def test_the_proc_of_another_pid_namespace_or_none(place: tuple[str, ...]) -> None:
    """What it has started can't be found in there."""
    served, finding = refused("unshare", *place, *PROCD)
    for said in served, finding["found"]:
        assert "children of this PID namespace (CONFIG_PROC_CHILDREN): No such file" in said
    assert "mount -t proc proc /proc" in finding["advice"]


WITHOUT_DEV = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh")


@needs_namespaces
@pytest.mark.parametrize("command", ["serve", "doctor", "ps"])
def test_a_machine_without_dev_null(command: str) -> None:
    """Whatever is asked for: it is said in a sentence."""
    result = subprocess.run(
        [*WITHOUT_DEV, *PROCD, command], env=environment(), capture_output=True, text=True
    )
    assert result.stderr == "procd: /dev/null: No such file or directory\n"
    assert result.returncode == 1


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        # O_EXCL, by which files are made where others may write.
        ("openat&0x80=EROFS", "sessions.state_dir: No usable temporary directory found in ["),
        ("flock=ENOLCK", "sessions.state_dir: No locks available: "),
    ],
)
def test_a_state_directory_that_can_not_be_used(rule: str, told: str) -> None:
    command = denied.command([rule], PROCD)
    with pytest.raises(RuntimeError) as caught:
        Daemon.start(command=command)
    assert f"procd: {told}" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    doctor = subprocess.run([*command, "doctor"], env=environment(), capture_output=True, text=True)
    assert doctor.stderr == ""
    assert f"problem  configuration  {told}" in doctor.stdout


HIDING = """
mount -t proc -o hidepid=1 proc /proc
exec setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps=-all "$@"
"""


@needs_namespaces
def test_processes_that_may_not_be_looked_at() -> None:
    """They are nobody's, and hide no others; the doctor says that there are some."""
    foreign = subprocess.Popen(["sleep", "100"])
    script = f"""
from procd.unix import procfs
from procd.process import tags
print(procfs.stat_of({foreign.pid}), tags.tag_of({foreign.pid}))
"""
    hidden = ("unshare", "--mount", "sh", "-c", HIDING, "sh")
    looked = subprocess.run([*hidden, sys.executable, "-c", script], capture_output=True, text=True)
    foreign.kill()
    foreign.wait()
    assert looked.stdout == "None 0\n", looked.stderr
    doctor = subprocess.run(
        [*hidden, *PROCD, "doctor"], env=environment(), capture_output=True, text=True
    )
    assert "warning  process trees  /proc hides" in doctor.stdout, doctor.stderr


def test_all_that_is_missing_is_named() -> None:
    command = denied.command(["memfd_create=EPERM", "pidfd_send_signal=ENOSYS"], PROCD)
    with pytest.raises(RuntimeError, match=r"lacks pidfd_send_signal .*; memfd_create "):
        Daemon.start(command=command)
    doctor = subprocess.run([*command, "doctor"], env=environment(), capture_output=True, text=True)
    assert doctor.stdout.count("problem  kernel") == 2
