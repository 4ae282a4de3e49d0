"""Reads a Config from a TOML file and the environment.

The variable `PROCD_<SECTION>_<KEY>` overrides a key of the file. An unknown key, a wrong type and a
value out of bounds are errors that name the key.
"""

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import Field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, BinaryIO, Final

from procd.config import Config, ConfigError

# The path of the file, the token, and the variables of the client.
NO_SETTINGS: Final = frozenset(
    {
        "PROCD_CONFIG", "PROCD_AUTH_TOKEN",
        "PROCD_URL", "PROCD_TOKEN", "PROCD_TOKEN_FILE", "PROCD_CLIENT_CONFIG", "PROCD_DETACH_KEYS",
    }
)  # fmt: skip

# Source: TOML 1.0, "Integer".
LARGEST: Final = (1 << 63) - 1


def open_file(path: Path, *, again: bool = False) -> BinaryIO:
    """Open a file of settings or tokens.

    Args:
        again: whether it was read before. Then it must be a regular file: a pipe would block.

    Raises:
        ConfigError: it can't be read again.
        OSError: it can't be opened.
    """
    if not again:
        return path.open("rb")
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ConfigError(f"{path}: can't be read again: not a regular file")
    return os.fdopen(number, "rb")


def load(path: Path | None, environ: Mapping[str, str], *, again: bool = False) -> Config:
    """Read the file at `path`, if any, and the PROCD_* variables; `again` as `open_file`.

    Raises:
        ConfigError: the file can't be read, or has a bad key.
    """
    document: dict[str, Any] = {}
    if path is not None:
        try:
            with open_file(path, again=again) as file:
                document = tomllib.load(file)
        except OSError as exc:
            raise ConfigError(f"{path}: {exc.strerror}") from exc
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"{path}: {exc}") from exc
    overrides = {
        name: value
        for name, value in environ.items()
        if name.startswith("PROCD_") and name not in NO_SETTINGS
    }
    config = from_mapping(document, overrides)
    if overrides:
        raise ConfigError(f"{min(overrides)}: no such setting")
    return config


def from_mapping(document: Mapping[str, Any], overrides: dict[str, str] | None = None) -> Config:
    """Build a Config from a parsed document; removes the known entries from `overrides`."""
    overrides = {} if overrides is None else overrides
    sections = {section.name: section.default for section in fields(Config)}
    for name in document:
        if name not in sections:
            raise ConfigError(f"{name}: no such section")
    built: dict[str, Any] = {
        name: _section(name, type(default), document.get(name, {}), overrides)
        for name, default in sections.items()
    }
    return Config(**built)


def _section(name: str, kind: type[Any], given: object, overrides: dict[str, str]) -> object:
    if not isinstance(given, dict):
        raise ConfigError(f"{name}: must be a table")
    known = {key.name: key for key in fields(kind)}
    for key in given:
        if key not in known:
            raise ConfigError(f"{name}.{key}: no such setting")
    values: dict[str, object] = {}
    for key, declared in known.items():
        path = f"{name}.{key}"
        variable = f"PROCD_{name}_{key}".upper()
        if variable in overrides:
            value = _parsed(variable, overrides.pop(variable), declared.default)
            values[key] = _checked(variable, value, declared)
        elif key in given:
            values[key] = _checked(path, given[key], declared)
    return kind(**values)


def _parsed(label: str, text: str, default: object) -> object:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.strip().lower()]
        if isinstance(default, tuple):
            return [item.strip() for item in text.split(",") if item.strip()]
        if isinstance(default, str):
            return text
        # Only ASCII digits: int() and float() accept those of any script in a str.
        return type(default)(text.encode("ascii"))  # type: ignore[call-arg]  # int or float
    except (ValueError, KeyError):
        raise ConfigError(f"{label}: must be {_kind(default)}") from None


def _checked(label: str, value: object, declared: Field[object]) -> object:
    default, rules = declared.default, declared.metadata
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{label}: must be {_kind(default)}")
        value = tuple(value)
    elif type(value) is int:
        if not -LARGEST <= value <= LARGEST:
            raise ConfigError(f"{label}: must fit into 64 bits")
        if isinstance(default, float):
            value = float(value)
    elif isinstance(value, bool) and "true" in rules["choices"]:
        value = str(value).lower()
    if type(value) is not type(default):
        raise ConfigError(f"{label}: must be {_kind(default)}")
    if isinstance(value, int | float):
        least, most = rules["bounds"]
        if not (value >= least or (rules["or_zero"] and value == 0)):
            raise ConfigError(f"{label}: must be at least {least}")
        if value == float("inf"):
            raise ConfigError(f"{label}: must be finite")
        if value > most:
            raise ConfigError(f"{label}: must be at most {most}")
    if isinstance(value, str | tuple) and "\0" in "".join(value):
        raise ConfigError(f"{label}: must not have a NUL in it")
    if rules["choices"] and value not in rules["choices"]:
        raise ConfigError(f"{label}: must be one of {', '.join(rules['choices'])}")
    if rules["is_path"] and value:
        return os.path.abspath(str(value))  # noqa: PTH100 - paths of children are str
    return value


def _kind(default: object) -> str:
    return {
        str: "a string",
        bool: "true or false",
        int: "an integer",
        float: "a number",
        tuple: "a list of strings",
    }[type(default)]


def networks(trusted: tuple[str, ...]) -> list[IPv4Network | IPv6Network]:
    """The networks of `server.trusted_proxies`; an entry `unix`, for the unix socket, is skipped.

    Raises:
        ConfigError: an entry is neither a network nor `unix`.
    """
    found: list[IPv4Network | IPv6Network] = []
    for entry in trusted:
        if entry == "unix":
            continue
        try:
            found.append(ip_network(entry))
        except ValueError:
            raise ConfigError(
                f"server.trusted_proxies: not an address, a network or unix: {entry}"
            ) from None
    return found
