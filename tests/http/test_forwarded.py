"""Whose word is taken for who the client is."""

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from procd.config import ConfigError, ServerConfig
from procd.config_file import networks
from procd.http.client import Proxies


def client_of(peer: str | None, trusted: tuple[str, ...], *lines: str) -> str:
    """The client, by the peer's address, if that is known, and the header's lines."""
    headers = CIMultiDict([("X-Forwarded-For", line) for line in lines])
    request = make_mocked_request("GET", "/", headers=headers).clone(remote=peer or "")
    return Proxies(ServerConfig(trusted_proxies=trusted)).client_of(request)


@pytest.mark.parametrize(
    ("peer", "trusted", "lines", "client"),
    [
        ("9.9.9.9", (), ["1.1.1.1"], "9.9.9.9"),
        ("9.9.9.9", ("10.0.0.0/8",), ["1.1.1.1"], "9.9.9.9"),
        ("10.0.0.1", ("10.0.0.0/8",), [], "10.0.0.1"),
        ("10.0.0.1", ("10.0.0.0/8",), ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ("10.0.0.1",), ["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ("10.0.0.0/8",), ["6.6.6.6", "1.1.1.1 , 10.0.0.2"], "1.1.1.1"),
        ("10.0.0.1", ("10.0.0.0/8",), ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ("10.0.0.0/8",), ["1.1.1.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ("10.0.0.0/8",), ["1.1.1.1,"], "10.0.0.1"),
        ("10.0.0.1", ("::/0",), ["1.1.1.1"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ("10.0.0.0/8",), ["1.1.1.1"], "1.1.1.1"),
        ("::ffff:9.9.9.9", ("10.0.0.0/8",), ["1.1.1.1"], "::ffff:9.9.9.9"),
        ("10.0.0.1", ("10.0.0.0/8",), ["1.1.1.1, ::ffff:10.0.0.2"], "1.1.1.1"),
        ("fd00::1", ("fd00::/8",), ["2001:db8::1"], "2001:db8::1"),
        ("unix", (), ["1.1.1.1"], "unix"),
        ("unix", ("10.0.0.0/8",), ["1.1.1.1"], "unix"),
        ("unix", ("unix",), ["1.1.1.1"], "1.1.1.1"),
        (None, ("unix", "::/0", "0.0.0.0/0"), ["1.1.1.1"], "unknown"),
    ],
)
def test_the_client(
    peer: str | None, trusted: tuple[str, ...], lines: list[str], client: str
) -> None:
    assert client_of(peer, trusted, *lines) == client


@pytest.mark.parametrize("entry", ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", ""])
def test_what_is_no_network(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.trusted_proxies: not an address"):
        networks((entry,))
