"""procd completion."""

from typing import Final

import click
from click.shell_completion import get_completion_class

# Switches zsh's completion on, if the user's own files don't.
ZSH_FIRST: Final = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }\n"
# Replaces click's, which inserts names unquoted: others choose names, and bash would run what is in
# them. Within open quotes a name that needs quoting isn't offered.
# Source: bash(1), "Programmable Completion".
BASH: Final = r"""_procd_completion() {
    local line name
    COMPREPLY=()
    while IFS= read -r line; do
        printf -v name %q "${line#*,}"
        case $line in
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
            plain,"$name") COMPREPLY+=("$name") ;;
            plain,*) [[ ${COMP_WORDS[COMP_CWORD]} == *[\'\"]* ]] || COMPREPLY+=("$name") ;;
        esac
    done < <(
        IFS=$'\n'
        COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _PROCD_COMPLETE=bash_complete "$1"
    )
}
complete -o nosort -F _procd_completion procd
"""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, *, shell: str) -> None:
    """Print a script that makes a shell complete procd's commands, options and names.

    \b
    Examples:
      procd completion bash >> ~/.bashrc
      procd completion zsh >> ~/.zshrc
      procd completion fish > ~/.config/fish/completions/procd.fish
    """
    if shell == "bash":
        click.echo(BASH, nl=False)
        return
    found = get_completion_class(shell)
    assert found is not None
    source = found(ctx.find_root().command, {}, "procd", "_PROCD_COMPLETE").source()
    if shell == "zsh":
        tag, newline, rest = source.partition("\n")  # the tag has to be the first line
        source = tag + newline + ZSH_FIRST + rest
    click.echo(source)
