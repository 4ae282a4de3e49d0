"""Whether procd can accept work."""

from procd.config import HealthConfig
from procd.errors import Exhausted, SpawnFailed
from procd.process.shell import Shell
from procd.process.supervisor import Supervisor
from procd.services.shell.sessions import ShellSessions


class Readiness:
    """Collects the reasons why procd can't accept work.

    Attributes:
        stopping: whether procd is shutting down.
    """

    def __init__(
        self, config: HealthConfig, supervisor: Supervisor, shell: Shell, sessions: ShellSessions
    ) -> None:
        self.stopping = False
        self._config = config
        self._supervisor = supervisor
        self._shell = shell
        self._sessions = sessions

    def reasons(self, lag_s: float) -> list[str]:
        """Why procd isn't ready; empty if it is.

        An exhausted `process.max_spawns_per_s` doesn't count, as it recovers within moments.

        Args:
            lag_s: the present lag of the event loop, seconds.
        """
        reasons = ["shutting down"] if self.stopping else []
        limit = self._supervisor.config.max_processes
        if self._supervisor.supervised >= limit:
            reasons.append(f"limit of {limit} processes is reached")
        checks = (
            self._supervisor.check_memory,
            self._supervisor.check_descriptors,
            self._shell.path,
            self._sessions.check_memory,
        )
        for check in checks:
            try:
                check()
            except (Exhausted, SpawnFailed) as exc:
                reasons.append(exc.message)
        problem = self._sessions.storage_problem(self._config.min_disk_bytes)
        if problem:
            reasons.append(problem)
        if 0 < self._config.max_loop_lag_s < lag_s:
            reasons.append(f"event loop lags by {lag_s:.1f} s")
        return reasons
