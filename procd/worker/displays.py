"""What a value looks like to a rich client: MIME bundles, as Jupyter defines them.

Source: IPython's documentation, "Integrating your objects with IPython", rich display.
"""

from __future__ import annotations

import sys
from _ast import Expr, Expression, PyCF_ONLY_AST
from io import StringIO

from .isolation import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there
from .isolation import encode, import_standard

b2a_base64 = import_standard("binascii").b2a_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _ast import Module
    from typing import Any

# A frame stays under 1 MiB, what JSON adds included.
MAX_PAYLOAD_CHARS = 900_000
# By method, the MIME type and the types of what it returns. Source: IPython's core/formatters.py.
METHODS: dict[str, tuple[str, tuple[type, ...]]] = {
    "_repr_html_": ("text/html", (str,)),
    "_repr_markdown_": ("text/markdown", (str,)),
    "_repr_svg_": ("image/svg+xml", (str,)),
    "_repr_png_": ("image/png", (bytes, str)),
    "_repr_jpeg_": ("image/jpeg", (bytes, str)),
    "_repr_latex_": ("text/latex", (str,)),
    "_repr_javascript_": ("application/javascript", (str,)),
    "_repr_json_": ("application/json", (dict, list)),
}


def figure(chart: dict[str, Any]) -> str:
    title = chart.get("title") or chart.get("type", "unknown")
    data = {"text/plain": f"<Figure: {title}>"}
    if chart.get("png"):
        data["image/png"] = chart["png"]
    return limited(data)


def show_figures() -> None:
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    try:
        if pyplot.get_fignums():
            pyplot.show()
    except Exception as exc:  # noqa: BLE001 - drawing runs the user's code
        print(f"figures cannot be shown: {type(exc).__name__}: {exc}", file=sys.stderr)


def split(code: str, filename: str) -> tuple[Module, Expression | None]:
    """Split code into its statements and the last expression, if its value is to be displayed."""
    module: Any = compile(code, filename, "exec", PyCF_ONLY_AST, dont_inherit=True)
    if module.body and isinstance(module.body[-1], Expr) and not _silenced(code, module.body[-1]):
        return module, Expression(module.body.pop().value)
    return module, None


def _silenced(code: str, last: Any) -> bool:
    """Return whether a semicolon follows the last statement: as in IPython, it hides the value."""
    lines = StringIO(code, newline=None).readlines()[last.end_lineno - 1 :]  # the compiler's lines
    lines[0] = lines[0].encode()[last.end_col_offset :].decode()
    # No string can follow, so a semicolon before the comment is one.
    return any(";" in line.partition("#")[0] for line in lines)


def bundle(value: object) -> str:
    """Return a value by MIME type: `text/plain`, and what its own methods offer; as JSON."""
    data: dict[str, Any] = {}
    if not isinstance(value, type):
        data.update(_call(value, "_repr_mimebundle_", (dict,), include=None, exclude=None) or {})
        for method, (kind, types) in METHODS.items():
            if kind not in data:
                payload = _call(value, method, types)
                if payload is not None:
                    data[kind] = payload
    if "image/png" not in data and type(value).__module__ == "matplotlib.figure":
        from .charts import chart_of

        chart = chart_of(value)
        if chart.get("png"):
            data["image/png"] = chart["png"]
    if "text/plain" not in data:
        try:
            data["text/plain"] = repr(value)
        except Exception as exc:  # noqa: BLE001 - a repr of the user's
            data["text/plain"] = f"<repr failed: {type(exc).__name__}>"
    return limited(data)


def _call(value: object, name: str, types: tuple[type, ...], **arguments: Any) -> Any:
    """Return what a method returns, without metadata; None unless it is of these types."""
    try:
        method = getattr(value, name, None)
        found = method(**arguments) if callable(method) else None
        if isinstance(found, tuple):
            found, _ = found
        return found if isinstance(found, types) else None
    except Exception:  # noqa: BLE001 - a method of the user's: the other forms remain
        return None


def limited(data: dict[str, Any]) -> str:
    """Return the bundle as JSON; a note stands for a payload that is too large."""
    found: dict[str, str] = {}
    room = MAX_PAYLOAD_CHARS
    for name, payload in data.items():
        kind = encode(str(name))
        if isinstance(payload, bytes):
            payload = b2a_base64(payload, newline=False).decode()
        try:
            text = encode(payload)
        except (TypeError, ValueError, RecursionError):
            continue  # it can't be encoded as JSON
        if len(kind) + len(text) > room:
            text = encode(f"[{len(text)} bytes are too large to be shown]")
        if len(kind) + len(text) <= room:
            found[kind] = text
            room -= len(kind) + len(text)
    return "{" + ",".join([f"{kind}:{text}" for kind, text in found.items()]) + "}"
