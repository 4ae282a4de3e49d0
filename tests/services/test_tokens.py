"""Token files: what is read, what is refused, and how one is added to."""

import os
import stat
from pathlib import Path

import pytest

from procd.config import ConfigError
from procd.services.tokens import (
    Scope,
    Token,
    add_token,
    digest_of,
    new_secret,
    read_tokens,
    redacted,
)

HASH = "ab" * 32


def token(name: str, scope: Scope = Scope.READ) -> Token:
    return Token(name=name, scope=scope, digest=digest_of(new_secret()))


def test_what_was_added_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    made = [token("a"), token("b.c-d_1", Scope.WRITE), token("e", Scope.ADMIN)]
    for each in made:
        add_token(path, each)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_tokens(path) == made
    assert os.listdir(tmp_path) == ["tokens"]


def test_lines_of_one_s_own_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# mine\n\n  a   read  sha256:{HASH}")
    path.chmod(0o600)
    add_token(path, token("b"))
    assert path.read_text().startswith(f"# mine\n\n  a   read  sha256:{HASH}\nb read sha256:")
    assert [each.name for each in read_tokens(path)] == ["a", "b"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "tokens")
    add_token(tmp_path / "link", token("a"))
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "tokens").is_symlink()


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a read",
        f"a read sha256:{HASH} more",
        f"a all sha256:{HASH}",
        f"a READ sha256:{HASH}",
        f"a read {HASH}",
        f"a read md5:{HASH}",
        f"a read sha256:{HASH[:-2]}",
        f"a read sha256:{HASH[:-1]}x",
        "a read sha256:",
        f"-a read sha256:{HASH}",
        f"{'a' * 65} read sha256:{HASH}",
        f"ä read sha256:{HASH}",
    ],
)
def test_a_wrong_line_is_refused_and_not_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"b read sha256:{HASH}\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_tokens(path)
    assert str(caught.value) == f"{path}: line 2: must be NAME SCOPE sha256:HASH"


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    add_token(path, token("a"))
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="others than its owner can write it"):
            read_tokens(path)
    path.chmod(0o444)
    assert len(read_tokens(path)) == 1


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for name in ("nowhere", "."):
        with pytest.raises(ConfigError, match=str(tmp_path)):
            read_tokens(tmp_path / name)
    with pytest.raises(ConfigError, match=r"tokens\.new: No such file or directory"):
        add_token(tmp_path / "nowhere" / "tokens", token("a"))


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("#" * (1 << 20) + "\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="longer than"):
        read_tokens(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/?DAYTONA_SANDBOX_AUTH_KEY=abc&b=1", "/?DAYTONA_SANDBOX_AUTH_KEY=[redacted]&b=1"),
        ("'/a?b=1&ticket=abc'", "'/a?b=1&ticket=[redacted]'"),
        ("no secrets: tickets=1", "no secrets: tickets=1"),
    ],
)
def test_redacted(text: str, expected: str) -> None:
    assert redacted(text) == expected
