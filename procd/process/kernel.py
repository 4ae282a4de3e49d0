"""The kernel features that procd needs."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from procd.process.tags import TAG_BASE, mark, tag_of, unmark
from procd.process.tree import become_subreaper
from procd.unix.fd import OwnedFd, anonymous_file
from procd.unix.procfs import own_children


def missing_features() -> list[str]:
    """The features that this system lacks: each with the Linux version that has it, and the error.

    Each is tried, as the version says little: a kernel may be built without a feature, and a
    seccomp filter or gVisor may refuse it. Afterwards this process is the subreaper of its
    descendants.
    """
    missing: list[str] = []

    @contextmanager
    def needed(feature: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            missing.append(f"{feature}: {exc.strerror}")
        except (ValueError, AttributeError) as exc:  # of `resource`; a Python built without it
            missing.append(f"{feature}: {exc}")

    with needed("pidfd_open (Linux 5.3)"):
        pidfd = OwnedFd(os.pidfd_open(os.getpid()))
        with needed("pidfd_send_signal (Linux 5.1)"):
            signal.pidfd_send_signal(pidfd.number, 0)
        with needed("waitid for a pidfd (Linux 5.4)"), suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd.number, os.WEXITED | os.WNOHANG)
        pidfd.close()
    # It is also missing in the /proc of another PID namespace.
    with needed("/proc/PID/task/TID/children of this PID namespace (CONFIG_PROC_CHILDREN)"):
        own_children()
    with needed("RLIMIT_RTTIME (Linux 2.6.25)"):
        unmark(mark(TAG_BASE))
    with needed("prlimit (Linux 2.6.36)"):
        tag_of(os.getpid())
    with needed("PR_SET_CHILD_SUBREAPER (Linux 3.4)"):
        become_subreaper()
    with needed("memfd_create (Linux 3.17)"):
        anonymous_file("procd", b"").close()
    return missing
