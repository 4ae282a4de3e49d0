"""The notification socket: one datagram to a socket that the test owns."""

import os
import socket
from pathlib import Path

import pytest

from procd.systemd import notify


def test_without_a_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, or an empty one: nothing is sent and nothing is wrong."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    notify("READY=1")


def test_a_state_is_one_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state arrives as it was given, lines and all."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1\nSTATUS=listening on café")
        assert manager.recv(4096).decode() == "READY=1\nSTATUS=listening on café"
        notify("STOPPING=1")
        assert manager.recv(4096) == b"STOPPING=1"


def test_the_abstract_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leading @ stands for the NUL of an abstract address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0procd-test-{os.getpid()}")
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@procd-test-{os.getpid()}")
        notify("READY=1")
        assert manager.recv(4096) == b"READY=1"


def test_nobody_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named socket that is not there is an error, and no descriptor is left."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError):
        notify("READY=1")
