"""What the commands' options have in common."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import click

from procd.cli.target import Target, resolve


def pass_target(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the target that the options before it, the environment or a file name."""

    def with_target(*args: Any, **kwargs: Any) -> Any:
        options: dict[str, str | None] = click.get_current_context().find_root().params
        target: Target = resolve(options.get("url"), options.get("token_file"))
        return function(target, *args, **kwargs)

    return update_wrapper(with_target, function)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
