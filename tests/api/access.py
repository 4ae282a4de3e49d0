"""Tokens for the tests of access, and a server that asks for them."""

from pathlib import Path
from typing import Any

from procd.services.tokens import Scope, Token, add_token, digest_of, new_secret
from tests.aliases import Client, MakeClient


class Secrets:
    """A token file with one token of each scope."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read = self.made("reader", Scope.READ)
        self.write = self.made("writer", Scope.WRITE)
        self.admin = self.made("chief", Scope.ADMIN)

    def made(self, name: str, scope: Scope) -> str:
        """The secret of a new token."""
        secret = new_secret()
        add_token(self.path, Token(name=name, scope=scope, digest=digest_of(secret)))
        return secret

    def remove(self, name: str) -> None:
        """Take a token out of the file."""
        lines = self.path.read_text().splitlines(keepends=True)
        self.path.write_text("".join(line for line in lines if not line.startswith(f"{name} ")))


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def guarded(procd: MakeClient, secrets: Secrets, **sections: dict[str, Any]) -> Client:
    """A server that asks for tokens."""
    auth = {"token_file": str(secrets.path), **sections.pop("auth", {})}
    return await procd(auth=auth, **sections)
