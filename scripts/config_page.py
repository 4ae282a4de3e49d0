"""`python scripts/config_page.py > docs/config.md`: the page of all settings."""

import sys
from dataclasses import Field, fields
from typing import Any, Final

from procd.config import Config

HEAD: Final = """\
# Configuration

<!-- Made by scripts/config_page.py from procd/config.py: change it there. -->

`procd serve --config FILE` reads a TOML file; so does `PROCD_CONFIG=FILE procd serve`. Without a
file, each setting has its default. [config.example.toml](../config.example.toml) is a file with
every setting, to copy.

- **Variables** override the file: `PROCD_<SECTION>_<KEY>`, for example `PROCD_SERVER_PORT=2281`. A
  list has commas between its items, and neither brackets nor quotes:
  `PROCD_SERVER_ALLOWED_HOSTS=a.example,b.example`.
- **Options** of `procd serve` override both: `--host` and `--port`.
- **Mistakes.** With an unknown key, a wrong type or a figure that can't work, procd doesn't start.
  It names the key and says what the value must be. A directory that a setting names must exist.
- **Paths.** A relative path begins in the directory that procd was started in.
- **While procd runs**, SIGHUP (`systemctl reload procd.service`) has it read the file again, of
  which only `log.level` can change. It also reads the tokens again and reopens `audit.file`. A
  configuration or token file that is a pipe, as with `--config <(…)`, is read at the start only.
"""
UNITS: Final = {1 << 30: "GiB", 1 << 20: "MiB", 1 << 10: "KiB"}


def shown(key: "Field[Any]", value: Any) -> str:
    """A value as a file would have it; a size in the unit that it is a multiple of."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[]`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if key.name.endswith("_bytes"):
        for size, unit in UNITS.items():
            if value and value % size == 0:
                return f"`{value}` ({value // size} {unit})"
    return f"`{value}`"


def bounds(key: "Field[Any]") -> str:
    """What the value may be, beyond its type; nothing if that is all that its type can be."""
    lowest, highest = key.metadata["bounds"]
    rules = []
    if key.metadata["choices"]:
        return ", ".join(f'`"{choice}"`' for choice in key.metadata["choices"])
    if lowest:
        rules.append(f"≥ {lowest}")
    if highest != float("inf"):
        rules.append(f"≤ {highest}")
    text = ", ".join(rules)
    return f"0, or {text}" if key.metadata["or_zero"] else text


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for section in fields(Config):
        kind = type(getattr(Config(), section.name))
        lines += [f"## `[{section.name}]`", "", kind.__doc__ or "", ""]
        lines += ["| Key | Default | Allowed | What it is |", "|---|---|---|---|"]
        lines += [
            f"| `{key.name}` | {shown(key, key.default)} | {bounds(key)} | {key.metadata['doc']} |"
            for key in fields(kind)
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
