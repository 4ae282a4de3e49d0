"""What the commands' options have in common."""

import math
import os
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import click

from procd.cli.failure import Failure
from procd.cli.target import Target, resolve


def pass_target(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the target that the options before it, the environment or a file name."""

    def with_target(*args: Any, **kwargs: Any) -> Any:
        options: dict[str, str | None] = click.get_current_context().find_root().params
        target: Target = resolve(options.get("url"), options.get("token_file"))
        return function(target, *args, **kwargs)

    return update_wrapper(with_target, function)


def not_empty(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    """Refuse an empty name: it is that of a variable that isn't set, and no path names it."""
    if name == "":
        raise click.BadParameter("must not be empty", context, parameter)
    return name


class Number(click.FloatRange):
    """A number; click's own takes NaN for one in any range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
cwd_option = click.option(
    "--cwd", "-C", default="", metavar="DIR", help="Working directory on the server."
)
env_option = click.option(
    "--env",
    "-e",
    "envs",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set a variable; without a value, to the one it has here. May be repeated.",
)


def environment(given: tuple[str, ...]) -> dict[str, str]:
    """The variables that `--env` names.

    Raises:
        Failure: one is to be taken from here and isn't set.
    """
    envs = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals:
            if name not in os.environ:
                raise Failure(f"--env {name}: not set here", f"give a value: --env {name}=VALUE")
            value = os.environ[name]
        envs[name] = value
    return envs
