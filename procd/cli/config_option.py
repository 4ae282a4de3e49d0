"""The option of the commands that read the server's settings: `serve` starts without the client."""

from pathlib import Path

import click

config_option = click.option(
    "--config", "path", type=click.Path(path_type=Path), envvar="PROCD_CONFIG", show_envvar=True,
    help="TOML file.",
)  # fmt: skip
