"""procd attach."""

import os
import sys

import click

from procd.cli import detach
from procd.cli.client import Client
from procd.cli.ids import complete_terminal
from procd.cli.options import Number, cwd_option, env_option, environment, pass_target
from procd.cli.target import Target

# What programs on the server should know of the terminal here.
TOLD = ("TERM", "COLORTERM")


@click.command("attach")
@click.argument("pty_id", metavar="[ID]", required=False, shell_complete=complete_terminal)
@click.option("--view", "-v", "views", is_flag=True, help="Only look on.")
@click.option("--no-create", is_flag=True, help="Fail if there is no terminal of this name.")
@cwd_option
@env_option
@click.option(
    "--detach-keys",
    default=detach.DEFAULT,
    show_default=True,
    envvar="PROCD_DETACH_KEYS",
    show_envvar=True,
    metavar="KEYS",
    help="Keys that leave the terminal, with commas between; empty for none. One of them that isn't"
    " followed by the next within half a second is sent on.",
)
@click.option(
    "--retry",
    "retry_s",
    type=Number(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to look for a server that was lost.",
)
@pass_target
def command(
    target: Target,
    *,
    pty_id: str | None,
    views: bool,
    no_create: bool,
    cwd: str,
    envs: tuple[str, ...],
    detach_keys: str,
    retry_s: float,
) -> None:
    """Use a terminal of the server in this one.

    A terminal that isn't there is created, and only then --cwd and --env count; without ID, a new
    one is. What was printed before is shown first. The size of the window here becomes the
    terminal's. When its shell ends, its exit code becomes this one's.

    Ctrl-P Ctrl-Q leaves the terminal, and all that runs in it goes on. A connection that is lost is
    taken up where it broke off, without a byte lost or shown twice; what is typed meanwhile is
    dropped. This terminal is restored in any case.

    With --view nothing is typed, resized or created, and Ctrl-C leaves as well.

    \b
    Examples:
      procd attach work
      procd attach --cwd /src --env EDITOR build
      procd attach --view work
      procd attach --detach-keys ctrl-a,d work
    """
    from procd.cli.attachment import Attachment
    from procd.cli.terminal import Terminal

    keys = detach.parse(detach_keys)
    name = pty_id or f"t-{os.urandom(3).hex()}"
    terminal = Terminal()
    told = {variable: os.environ[variable] for variable in TOLD if os.environ.get(variable)}
    with Client(target) as client:
        code = Attachment(
            client,
            name,
            terminal,
            detach_keys=keys,
            views=views,
            creates=not no_create and not (views and pty_id is None),
            cwd=cwd,
            envs=told | environment(envs),
            retry_s=retry_s,
        ).run()
    if code is None:
        again = f"procd attach {'--view ' if views else ''}{name}"
        click.echo(f"[left {name}: come back with `{again}`]", err=True)
        return
    click.echo(f"[{name} has ended with exit code {code}]", err=True)
    sys.exit(code)
