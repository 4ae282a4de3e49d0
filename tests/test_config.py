"""Config: defaults, files, variables, and each way of being wrong."""

import os
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from procd.config import Config, ConfigError, ProcessConfig
from procd.config_file import from_mapping, load
from procd.inherited import child_environment, home_dir, work_dir

SECTIONS = {section.name: type(getattr(Config(), section.name)) for section in fields(Config)}
EXAMPLE = Path(__file__).parent.parent / "config.example.toml"


def test_the_example_has_every_setting_and_its_default() -> None:
    """The example is complete, has nothing else, and is what no file at all would give."""
    document = tomllib.loads(EXAMPLE.read_text())
    assert {name: set(section) for name, section in document.items()} == {
        name: {key.name for key in fields(kind)} for name, kind in SECTIONS.items()
    }
    assert load(EXAMPLE, {}) == Config()


def test_every_setting_says_what_it_is() -> None:
    """Each key has a text, which the example repeats above it."""
    lines = EXAMPLE.read_text().splitlines()
    for name, kind in SECTIONS.items():
        begin = lines.index(f"[{name}]")
        for key in fields(kind):
            at = next(
                index
                for index, line in enumerate(lines[begin:], begin)
                if line.startswith(f"{key.name} =")
            )
            assert lines[at - 1] == f"# {key.metadata['doc']}"


def test_a_file_and_variables(tmp_path: Path) -> None:
    """A variable wins over the file, the file over the default."""
    path = tmp_path / "procd.toml"
    path.write_text('[server]\nport = 1\nhost = "::1"\nkeepalive_s = 5\n[pty]\nmax_clients = 2\n')
    config = load(path, {"PROCD_SERVER_PORT": "99", "PROCD_PTY_HANGUP_S": "1.5"})
    assert config.server.port == 99
    assert config.server.host == "::1"
    assert config.server.keepalive_s == 5.0
    assert type(config.server.keepalive_s) is float
    assert config.pty.max_clients == 2
    assert config.pty.hangup_s == 1.5
    assert config.execute == Config().execute


@pytest.mark.parametrize(
    ("text", "origins"),
    [("", ()), ("http://a", ("http://a",)), ("http://a, http://b,", ("http://a", "http://b"))],
)
def test_a_list_in_a_variable(text: str, origins: tuple[str, ...]) -> None:
    """A list is given with commas."""
    assert load(None, {"PROCD_CORS_ALLOWED_ORIGINS": text}).cors.allowed_origins == origins


@pytest.mark.parametrize(("text", "enabled"), [("true", True), ("False", False)])
def test_a_truth_value_in_a_variable(text: str, enabled: bool) -> None:
    """In any case."""
    assert load(None, {"PROCD_METRICS_ENABLED": text}).metrics.enabled is enabled


def test_paths_are_absolute() -> None:
    """Relative ones begin where procd was started, and mean the same when it is elsewhere."""
    for name in (
        "server.unix",
        "process.work_dir",
        "sessions.state_dir",
        "auth.token_file",
        "audit.file",
    ):
        section, key = name.split(".")
        for given, meant in (("a/../b", os.path.abspath("b")), ("/c", "/c"), ("", "")):
            config = from_mapping({section: {key: given}})
            assert getattr(getattr(config, section), key) == meant


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"sever": {}}, "sever: no such section"),
        ({"server": 3}, "server: must be a table"),
        ({"server": {"prot": 1}}, "server.prot: no such setting"),
        ({"server": {"port": "80"}}, "server.port: must be an integer"),
        ({"server": {"port": 80.0}}, "server.port: must be an integer"),
        ({"server": {"port": -1}}, "server.port: must be at least 0"),
        ({"server": {"host": 1}}, "server.host: must be a string"),
        ({"server": {"keepalive_s": "1"}}, "server.keepalive_s: must be a number"),
        ({"server": {"keepalive_s": 0.5}}, "server.keepalive_s: must be at least 1"),
        ({"server": {"ping_s": float("inf")}}, "server.ping_s: must be finite"),
        ({"server": {"ping_s": float("nan")}}, "server.ping_s: must be at least 0.05"),
        ({"server": {"ping_s": 10**400}}, "server.ping_s: must fit into 64 bits"),
        ({"process": {"spawn_burst": 1 << 63}}, "process.spawn_burst: must fit into 64 bits"),
        ({"server": {"unix": "/a\0"}}, "server.unix: must not have a NUL in it"),
        ({"process": {"groups": ["a", "b\0"]}}, "process.groups: must not have a NUL in it"),
        ({"server": {"max_body_bytes": 1023}}, "server.max_body_bytes: must be at least 1024"),
        (
            {"process": {"max_total_output_bytes": 1}},
            "process.max_total_output_bytes: must be at least 1048576",
        ),
        (
            {"pty": {"max_message_bytes": 1 << 32}},
            "pty.max_message_bytes: must be at most 4294967294",
        ),
        ({"server": {"loop": "trio"}}, "server.loop: must be one of uvloop, asyncio"),
        ({"metrics": {"enabled": 1}}, "metrics.enabled: must be true or false"),
        ({"log": {"level": "INFO"}}, "log.level: must be one of debug, info, warning, error"),
        ({"cors": {"allowed_origins": "*"}}, "cors.allowed_origins: must be a list of strings"),
        ({"cors": {"allowed_origins": [1]}}, "cors.allowed_origins: must be a list of strings"),
    ],
)
def test_a_wrong_document_names_the_key(document: dict[str, Any], message: str) -> None:
    """Whatever is wrong, the message names the key and what it wants."""
    with pytest.raises(ConfigError) as caught:
        from_mapping(document)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PROCD_SERVER_PORT": "http"}, "PROCD_SERVER_PORT: must be an integer"),
        ({"PROCD_SERVER_PORT": "-1"}, "PROCD_SERVER_PORT: must be at least 0"),
        ({"PROCD_SERVER_PORT": "\u0661\u0660"}, "PROCD_SERVER_PORT: must be an integer"),
        ({"PROCD_SERVER_PING_S": "\u0661.5"}, "PROCD_SERVER_PING_S: must be a number"),
        ({"PROCD_METRICS_ENABLED": "yes"}, "PROCD_METRICS_ENABLED: must be true or false"),
        ({"PROCD_SERVER_PING_S": "soon"}, "PROCD_SERVER_PING_S: must be a number"),
        ({"PROCD_SERVER_PING_S": "nan"}, "PROCD_SERVER_PING_S: must be at least 0.05"),
        (
            {"PROCD_LOG_LEVEL": "loud"},
            "PROCD_LOG_LEVEL: must be one of debug, info, warning, error",
        ),
        ({"PROCD_SERVER_PROT": "1"}, "PROCD_SERVER_PROT: no such setting"),
        ({"PROCD_B": "", "PROCD_A": ""}, "PROCD_A: no such setting"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], message: str) -> None:
    """The message names the variable, not the key it stands for."""
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    assert str(caught.value) == message


def test_what_depends_on_the_memory() -> None:
    """Unless it is set; and no less is taken for a setting than its minimum."""
    for memory_bytes, output_bytes, text_bytes in ((1 << 30, 1 << 28, 1 << 26),
                                                   (1 << 40, 1 << 30, 1 << 28)):  # fmt: skip
        assert Config().process.total_output_bytes(memory_bytes) == output_bytes
        assert Config().sessions.total_text_bytes(memory_bytes) == text_bytes
    config = from_mapping({"process": {"max_total_output_bytes": 1 << 20}})
    assert config.process.total_output_bytes(1 << 40) == 1 << 20
    config = from_mapping({"process": {"max_total_output_bytes": 0}})
    assert config == Config()


def test_the_largest_numbers() -> None:
    """What TOML promises: 64 bits, for a number with a fraction as well."""
    config = from_mapping({"pty": {"max_ended": (1 << 63) - 1, "linger_s": (1 << 63) - 1}})
    assert config.pty.max_ended == (1 << 63) - 1
    assert config.pty.linger_s == float(1 << 63)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The message has the path and the reason."""
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file or directory"):
        load(tmp_path / "absent.toml", {})


@pytest.mark.parametrize("content", [b"port 1", b"\xff = 1", b"a = " + b"[" * 10_000])
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    """Bad TOML, bad UTF-8 and TOML that is too deep name the file."""
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml: "):
        load(path, {})


def test_children_do_not_inherit_settings_or_the_service_manager() -> None:
    """What is procd's own stays out; everything else is passed on as it is."""
    kept = {"PATH": "/bin", "HOME": "/root", "PROCDX": "1", "LISTEN": "x", "EMPTY": ""}
    private = {
        "PROCD_SERVER_PORT": "1",
        "PROCD_CONFIG": "/x",
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
        "INVOCATION_ID": "x",
        "JOURNAL_STREAM": "8:1",
    }
    assert child_environment({**kept, **private}) == kept


@pytest.mark.parametrize(
    ("setting", "environ", "expected"),
    [
        ("/srv", {"DAYTONA_USER_HOME_AS_WORKDIR": "true", "HOME": "/h"}, "/srv"),
        ("", {"DAYTONA_USER_HOME_AS_WORKDIR": "true", "HOME": "/h"}, "/h"),
        ("", {"DAYTONA_USER_HOME_AS_WORKDIR": "T", "HOME": "/h"}, "/h"),
        ("", {"DAYTONA_USER_HOME_AS_WORKDIR": "1", "HOME": "/h"}, "/h"),
        ("", {"DAYTONA_USER_HOME_AS_WORKDIR": "false", "HOME": "/h"}, "."),
        ("", {"HOME": "/h"}, "."),
    ],
)
def test_work_dir(setting: str, environ: dict[str, str], expected: str) -> None:
    """The setting wins; then the home directory if asked for; then where procd was started."""
    found = work_dir(ProcessConfig(work_dir=setting), environ)
    assert found == (os.getcwd() if expected == "." else expected)


def test_home_dir_without_home() -> None:
    """Without HOME the password database is asked."""
    assert home_dir({"HOME": "/h"}) == "/h"
    assert home_dir({}) == os.path.expanduser("~")
