"""procd completion."""

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, *, shell: str) -> None:
    """Print what makes a shell complete procd's commands, options and names.

    \b
    Examples:
      procd completion bash >> ~/.bashrc
      procd completion zsh >> ~/.zshrc
      procd completion fish > ~/.config/fish/completions/procd.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "procd", "_PROCD_COMPLETE").source())
