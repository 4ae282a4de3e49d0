"""Version gates: contract, sections 2.2 and 2.3."""

import pytest
from aiohttp.test_utils import make_mocked_request

from procd.http.client import Client, client_of


def seen(*headers: tuple[str, str]) -> Client:
    """The client behind a request with these headers."""
    request = make_mocked_request("GET", "/")
    return client_of(request.clone(headers=dict(headers)))


@pytest.mark.parametrize(
    ("version", "labelled", "modern", "at_home"),
    [
        ("0.20.0", False, False, True),
        ("0.26.9", False, False, True),
        ("0.26.99-alpha", False, False, True),
        ("0.27.0-alpha.1", True, False, True),
        ("0.27.0", True, False, True),
        ("0.102.9", True, False, True),
        ("0.103.0a1", True, False, False),
        ("0.103.0", True, False, False),
        ("0.150.0", True, False, False),
        ("0.166.9", True, False, False),
        ("0.167.0-alpha.1", True, True, False),
        ("0.167.0a1", True, True, False),
        ("0.167.0", True, True, False),
        ("v0.167.0", True, True, False),
        ("0.226.1", True, True, False),
        ("1.0.0", True, True, False),
        ("10.2.3+build.7", True, True, False),
        ("0.0.0-dev", True, True, False),
        ("0.0.1-dev", True, True, True),
        ("0.20.0.dev3", True, True, False),
        ("dev", True, True, False),
        ("unknown", True, False, False),
        ("1", True, False, False),
        ("0.167", True, False, False),
        ("-1.0.0", True, False, False),
        ("\u0660.167.0", True, False, False),
    ],
)
def test_version(version: str, labelled: bool, modern: bool, at_home: bool) -> None:
    client = seen(("X-Daytona-SDK-Version", version))
    assert (client.labelled, client.modern, client.starts_at_home) == (labelled, modern, at_home)
    assert client.json_logs == modern


def test_no_version() -> None:
    assert seen() == Client(labelled=False, modern=False, json_logs=False, starts_at_home=False)
    assert seen(("X-Daytona-SDK-Version", "")) == seen()


@pytest.mark.parametrize(
    ("value", "labelled"), [("true", True), ("True", False), ("1", False), ("", False)]
)
def test_split_header_counts_without_a_version(value: str, labelled: bool) -> None:
    assert seen(("X-Daytona-Split-Output", value)).labelled == labelled
    old = seen(("X-Daytona-Split-Output", value), ("X-Daytona-SDK-Version", "0.20.0"))
    assert not old.labelled


@pytest.mark.parametrize(
    "protocols",
    [
        "X-Daytona-SDK-Version~0.200.0",
        "other, X-Daytona-SDK-Version~0.200.0",
        "X-Daytona-SDK-Version~0.200.0,X-Daytona-SDK-Version~0.20.0",
    ],
)
def test_version_in_sub_protocol(protocols: str) -> None:
    assert seen(("Sec-WebSocket-Protocol", protocols)).modern


def test_header_wins_over_sub_protocol() -> None:
    client = seen(
        ("X-Daytona-SDK-Version", "0.150.0"),
        ("Sec-WebSocket-Protocol", "X-Daytona-SDK-Version~0.200.0"),
    )
    assert (client.labelled, client.modern) == (True, False)


@pytest.mark.parametrize(
    ("accept", "json_logs"),
    [
        ("application/json", True),
        ("text/plain, application/json;q=0.5", True),
        ("*/*", False),
        ("application/jsonl", False),
        ("text/plain", False),
    ],
)
def test_accept_decides_without_a_version(accept: str, json_logs: bool) -> None:
    client = seen(("Accept", accept))
    assert (client.json_logs, client.modern) == (json_logs, False)
    assert not seen(("Accept", accept), ("X-Daytona-SDK-Version", "0.150.0")).json_logs
