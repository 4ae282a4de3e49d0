"""Config: every setting, with its default and its unit. `procd.config_file` reads them."""

from dataclasses import dataclass, field
from typing import Any, Final

# aiohttp's parser takes one more, as an unsigned int.
MOST_MESSAGE_BYTES: Final = (1 << 32) - 2


class ConfigError(Exception):
    """The configuration can't be used. The message names the key."""


# `Any`, as dataclasses.field() has it: a setting has the type of its default.
def setting(
    default: Any,
    doc: str,
    *,
    minimum: float = 0,
    maximum: float = float("inf"),
    or_zero: bool = False,
    choices: tuple[str, ...] = (),
    is_path: bool = False,
) -> Any:
    """Declare a key.

    Args:
        default: gives the type as well.
        doc: what it means, with its unit.
        or_zero: whether 0 is allowed though it is out of bounds.
        choices: the allowed values; empty for any.
        is_path: whether it is made absolute when it is read.
    """
    rules = {"doc": doc, "bounds": (minimum, maximum), "or_zero": or_zero, "choices": choices,
             "is_path": is_path}  # fmt: skip
    return field(default=default, metadata=rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where procd listens, and what its clients may cost."""

    host: str = setting("127.0.0.1", "address to listen on; empty: no TCP")
    port: int = setting(2280, "TCP port; 0 picks a free one", maximum=65535)
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "names allowed in the Host header, with any port; empty: those of loopback, if procd"
        " listens there, else all; *: all",
    )
    unix: str = setting(
        "",
        "path of a unix socket to listen on as well, for its owner and group; empty: none",
        is_path=True,
    )
    loop: str = setting("uvloop", "event loop: uvloop or asyncio", choices=("uvloop", "asyncio"))
    nice: int = setting(
        -10,
        "procd's own priority, as in nice(2), if it may set it; 0: unchanged",
        minimum=-20,
        maximum=0,
    )
    max_body_bytes: int = setting(64 << 20, "largest request body, bytes", minimum=1024)
    max_body_values: int = setting(20_000, "values in a request's JSON, at all depths", minimum=64)
    trusted_proxies: tuple[str, ...] = setting(
        (),
        "proxies that X-Forwarded-For is taken from for logs, and X-Forwarded-Host to tell procd's"
        " own pages: addresses, networks, or unix",
    )
    max_connections: int = setting(
        10_000,
        "connections of clients that are let in, at most half of all descriptors; beyond, the"
        " longest idle one is closed for a new one",
        minimum=1,
    )
    max_header_bytes: int = setting(
        128 << 10,
        "longest request line and longest of 128 header fields, bytes; all together three times"
        " that",
        minimum=8190,
    )
    max_strangers_bytes: int = setting(
        32 << 20,
        "kept of clients that are not let in yet: requests, and replies that they don't read, all"
        " together, bytes; beyond, the clients with most are disconnected",
        minimum=1 << 20,
    )
    keepalive_s: float = setting(75.0, "idle keep-alive of an HTTP connection, seconds", minimum=1)
    body_s: float = setting(
        60.0, "silence within a request's body after which it is refused, seconds", minimum=0.1
    )
    ping_s: float = setting(
        25.0, "interval of WebSocket pings, at most half of dead_peer_s, seconds", minimum=0.05
    )
    dead_peer_s: float = setting(
        85.0,
        "time without a sign of life of a WebSocket client, or without progress of a reply, after"
        " which the client is disconnected, seconds",
        minimum=0.1,
    )
    shutdown_s: float = setting(
        3.0, "time for sockets, contexts and requests to finish at shutdown, seconds", minimum=0.1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessConfig:
    """How processes are started, and what they may do and use."""

    shell: str = setting("", "absolute path of a shell like sh; empty: zsh, bash, $SHELL or sh")
    work_dir: str = setting(
        "",
        "working directory of procd, and of its processes by default; empty: where it was started",
        is_path=True,
    )
    cgroup: str = setting(
        "auto", "cgroup v2 directory for leaves: auto (if delegated), off, or an absolute path"
    )
    drain_s: float = setting(
        0.1, "wait for output after exit while a background child holds it open, seconds"
    )
    max_processes: int = setting(4096, "supervised processes at a time", minimum=1)
    max_spawns_per_s: float = setting(0.0, "processes started per second on average; 0: any number")
    spawn_burst: int = setting(
        64,
        "processes that may start at once when few have lately, with max_spawns_per_s",
        minimum=1,
    )
    max_total_output_bytes: int = setting(
        0,
        "output of commands and terminals held in memory, and requests that run or wait, all"
        " together, bytes; 0: a quarter of the memory that there is, 1 GiB at the most",
        minimum=1 << 20,
        or_zero=True,
    )
    user: str = setting("", "user to run processes as, by name or number; empty: procd's own")
    group: str = setting("", "their group, by name or number; empty: the user's")
    groups: tuple[str, ...] = setting((), "their supplementary groups; empty: the user's")
    no_new_privs: bool = setting(
        default=False, doc="whether nothing they start may gain privileges, as by sudo: prctl(2)"
    )
    rlimits: tuple[str, ...] = setting(
        (), "their resource limits, each NAME=SOFT:HARD as in prlimit(1), such as nofile=1024:4096"
    )
    umask: str = setting("", "their umask, octal; empty: procd's own")
    oom_score_adj: int = setting(
        0, "added to procd's own, so that they go first when memory runs out", maximum=2000
    )
    memory_max_bytes: int = setting(0, "memory of one process's cgroup, bytes; 0: any")
    pids_max: int = setting(0, "tasks in one process's cgroup; 0: any number")
    cpu_weight: int = setting(
        0,
        "share of the processor of one process's cgroup, 1 to 10000; 0: as others",
        maximum=10_000,
    )

    def total_output_bytes(self, memory_bytes: int) -> int:
        """What `max_total_output_bytes` means where there is so much memory."""
        return self.max_total_output_bytes or min(memory_bytes // 4, 1 << 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteConfig:
    """POST /process/execute. All but `default_timeout_s` holds for `code-run` as well."""

    default_timeout_s: float = setting(10.0, "timeout when a request gives none; 0: unlimited")
    max_timeout_s: float = setting(0.0, "longest timeout a request gets; 0: no ceiling")
    max_output_bytes: int = setting(
        64 << 20,
        "output kept of one command, bytes: half from its head, half from its tail",
        minimum=1024,
    )
    max_concurrent: int = setting(1024, "commands running at a time", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRunConfig:
    """POST /process/code-run, beyond what `execute` limits."""

    python: str = setting("", "absolute path of the interpreter; empty: python3 on the PATH")
    max_artifact_bytes: int = setting(
        32 << 20, "charts taken of one run, bytes; what comes beyond is dropped", minimum=1024
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PtyConfig:
    """Terminals, which the API calls PTY sessions."""

    max_sessions: int = setting(2048, "live sessions", minimum=1)
    max_clients: int = setting(256, "attached clients of one session", minimum=1)
    max_ended: int = setting(128, "ended sessions kept for resuming")
    linger_s: float = setting(60.0, "how long an ended session can be resumed, seconds")
    backlog_bytes: int = setting(8 << 20, "output kept of one session, bytes", minimum=128 << 10)
    replay_bytes: int = setting(256 << 10, "output replayed at attach, bytes; 0: none")
    max_message_bytes: int = setting(
        16 << 20,
        "largest input message of a client, bytes",
        minimum=1024,
        maximum=MOST_MESSAGE_BYTES,
    )
    input_queue_bytes: int = setting(
        8 << 20,
        "unread input beyond which more waits in procd, as much of each client, bytes",
        minimum=1024,
    )
    hangup_s: float = setting(
        0.2, "time between SIGHUP and SIGKILL when a session is deleted, seconds"
    )
    record: bool = setting(
        default=False, doc="record every session: its output, never what is typed"
    )
    max_recording_bytes: int = setting(
        32 << 20, "longest recording, bytes; it ends there", minimum=4096
    )
    max_recordings: int = setting(100, "recordings kept; the oldest finished go first", minimum=1)
    resize_policy: str = setting(
        "latest",
        "whose size counts among clients that tell theirs: latest or smallest (visible)",
        choices=("latest", "smallest"),
    )
    window_bytes: int = setting(
        512 << 10,
        "output ahead of what such a client has drawn, after which no message begins, bytes",
        minimum=64 << 10,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsConfig:
    """Shell sessions and their commands."""

    state_dir: str = setting(
        "",
        "where logs are kept, a directory that exists; empty: $STATE_DIRECTORY, or the directory"
        " for temporary files",
        is_path=True,
    )
    max_sessions: int = setting(2048, "live or ended sessions", minimum=1)
    max_commands: int = setting(
        10_000, "commands remembered of one session; the oldest finished go first", minimum=1
    )
    max_queued: int = setting(1000, "commands waiting in one session", minimum=1)
    max_log_bytes: int = setting(
        1 << 30, "output kept of one command, bytes; the oldest goes first", minimum=1 << 20
    )
    max_total_log_bytes: int = setting(
        4 << 30, "output kept of all commands, bytes", minimum=1 << 20
    )
    max_total_text_bytes: int = setting(
        0,
        "remembered commands in memory, mostly texts, bytes; the session with the most loses its"
        " oldest finished first; 0: a sixteenth of the memory that there is, 256 MiB at the most",
        minimum=1 << 20,
        or_zero=True,
    )
    input_queue_bytes: int = setting(
        1 << 20, "unread input of a command beyond which more has to wait, bytes", minimum=1024
    )
    grace_s: float = setting(5.0, "time between SIGTERM and SIGKILL, seconds")
    max_wait_s: float = setting(300.0, "longest wait for a command's end in one request, seconds")

    def total_text_bytes(self, memory_bytes: int) -> int:
        """What `max_total_text_bytes` means where there is so much memory."""
        return self.max_total_text_bytes or min(memory_bytes // 16, 256 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterpreterConfig:
    """Contexts: interpreters that keep their state."""

    python: str = setting("", "absolute path of the interpreter; empty: python3 on the PATH")
    warm: int = setting(
        1, "spare interpreters kept ready, the default context's beside them; 0: none at all"
    )
    preload: tuple[str, ...] = setting((), "modules that every interpreter imports as it starts")
    max_contexts: int = setting(256, "contexts, the default one not counted", minimum=1)
    max_queued: int = setting(128, "executions waiting in one context", minimum=1)
    max_message_bytes: int = setting(
        128 << 20,
        "largest request of an execution, bytes",
        minimum=1024,
        maximum=MOST_MESSAGE_BYTES,
    )
    first_message_s: float = setting(
        60.0, "how long a client may take to say what to run, seconds", minimum=0.05
    )
    default_timeout_s: float = setting(
        600.0, "time of an execution that gives no timeout, seconds; 0: unlimited"
    )
    grace_s: float = setting(
        2.0, "time between SIGINT or SIGTERM and SIGKILL, seconds", minimum=0.01
    )
    start_s: float = setting(30.0, "time an interpreter may take to start, seconds", minimum=0.1)
    variables_s: float = setting(
        10.0,
        "how long a listing of variables may take until it is interrupted, seconds",
        minimum=0.05,
    )
    buffer_bytes: int = setting(
        1 << 20, "unread output beyond which the code has to wait, bytes", minimum=64 << 10
    )
    idle_ttl_s: float = setting(
        0.0, "idle time after which a context's interpreter is ended, seconds; 0: never"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsConfig:
    """Pages of other origins that get CORS headers."""

    allowed_origins: tuple[str, ...] = setting((), "origins that may call; empty: none")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    """Who may call. Tokens come as the credential `procd-tokens`, too, and as $PROCD_AUTH_TOKEN."""

    mode: str = setting(
        "auto",
        "auto: by token, or open to all on loopback if there are none; token; none: open",
        choices=("auto", "token", "none"),
    )
    token_file: str = setting(
        "", "file of tokens, made by `procd token`; empty: none", is_path=True
    )
    allowed_origins: tuple[str, ...] = setting(
        (), "origins whose pages may call, besides cors.allowed_origins and procd's own"
    )
    max_tokens: int = setting(100, "tokens in force at a time", minimum=1)
    max_tickets: int = setting(1000, "tickets waiting to be used", minimum=1)
    ticket_s: float = setting(
        30.0, "how long a ticket can be used, seconds", minimum=0.1, maximum=30
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """The audit record: one line of JSON for each request."""

    file: str = setting(
        "", "file to append to, opened again at SIGHUP; empty: no record", is_path=True
    )
    refused_per_s: int = setting(
        10, "refused requests recorded in a second; more are counted", minimum=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """The web terminal."""

    enabled: bool = setting(default=True, doc="serve the page /terminal")


@dataclass(frozen=True, slots=True, kw_only=True)
class StandaloneConfig:
    """The control plane that Daytona's clients ask where their sandbox is."""

    enabled: str = setting(
        "auto",
        "answer as the control plane of one sandbox: true, false, or auto: if server.host is an"
        " address of loopback and server.trusted_proxies is empty",
        choices=("auto", "true", "false"),
    )
    sandbox_id: str = setting("local", "id of that sandbox: letters, digits, '.', '_' and '-'")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """procd's own log, on stderr."""

    level: str = setting(
        "info", "debug, info, warning or error", choices=("debug", "info", "warning", "error")
    )
    format: str = setting("human", "human, or json: one object a line", choices=("human", "json"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """When /readyz answers 503."""

    min_disk_bytes: int = setting(
        64 << 20, "free space for logs below which procd isn't ready, bytes; 0: any"
    )
    max_loop_lag_s: float = setting(
        1.0, "turn of the event loop above which procd isn't ready, seconds; 0: any"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """GET /metrics, for Prometheus."""

    enabled: bool = setting(default=True, doc="whether to serve metrics: true or false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    server: ServerConfig = ServerConfig()
    process: ProcessConfig = ProcessConfig()
    execute: ExecuteConfig = ExecuteConfig()
    code_run: CodeRunConfig = CodeRunConfig()
    pty: PtyConfig = PtyConfig()
    sessions: SessionsConfig = SessionsConfig()
    interpreter: InterpreterConfig = InterpreterConfig()
    cors: CorsConfig = CorsConfig()
    auth: AuthConfig = AuthConfig()
    audit: AuditConfig = AuditConfig()
    web: WebConfig = WebConfig()
    standalone: StandaloneConfig = StandaloneConfig()
    log: LogConfig = LogConfig()
    health: HealthConfig = HealthConfig()
    metrics: MetricsConfig = MetricsConfig()
