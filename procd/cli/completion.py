"""procd completion."""

from typing import Final

import click
from click.shell_completion import get_completion_class

# Where the user's own files don't do so, zsh's completion is to be switched on first.
ZSH_FIRST: Final = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }\n"


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
    source = found(ctx.find_root().command, {}, "procd", "_PROCD_COMPLETE").source()
    if shell == "zsh":
        tag, newline, rest = source.partition("\n")  # a line for zsh, which has to be the first
        source = tag + newline + ZSH_FIRST + rest
    click.echo(source)
