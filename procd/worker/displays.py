"""What a value looks like to a rich client: MIME bundles, as Jupyter defines them.

Source: IPython's documentation, "Integrating your objects with IPython", rich display.
"""

from __future__ import annotations

import ast
import base64
import json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A frame stays under 1 MiB, what JSON adds included.
MAX_PAYLOAD_CHARS = 900_000
METHODS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_javascript_": "application/javascript",
    "_repr_json_": "application/json",
}


def figure(chart: dict[str, Any]) -> dict[str, Any]:
    """The bundle of a figure that was shown."""
    title = chart.get("title") or chart.get("type", "unknown")
    data = {"text/plain": f"<Figure: {title}>"}
    if chart.get("png"):
        data["image/png"] = chart["png"]
    return limited(data)


def show_figures() -> None:
    """Emit the figures that are still open."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    try:
        if pyplot.get_fignums():
            pyplot.show()
    except Exception as exc:  # noqa: BLE001 - drawing runs the user's code
        print(f"figures cannot be shown: {type(exc).__name__}: {exc}", file=sys.stderr)


def split(code: str, filename: str) -> tuple[ast.Module, ast.Expression | None]:
    """The statements, and the last expression apart, if the code ends in one."""
    module = ast.parse(code, filename)
    if not module.body or not isinstance(module.body[-1], ast.Expr):
        return module, None
    last = module.body.pop()
    assert isinstance(last, ast.Expr)
    return module, ast.Expression(last.value)


def bundle(value: object) -> dict[str, Any]:
    """A value by MIME type: `text/plain` always, and what its own methods offer."""
    data: dict[str, Any] = {}
    if not isinstance(value, type):
        whole = _called(value, "_repr_mimebundle_", include=None, exclude=None)
        if isinstance(whole, tuple):
            whole = whole[0]
        if isinstance(whole, dict):
            data.update(whole)
        for method, kind in METHODS.items():
            if kind not in data:
                payload = _called(value, method)
                if isinstance(payload, tuple):
                    payload = payload[0]
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


def _called(value: object, name: str, **arguments: Any) -> Any:
    try:
        method = getattr(value, name, None)
        return method(**arguments) if callable(method) else None
    except Exception:  # noqa: BLE001 - a method of the user's: the other forms remain
        return None


def limited(data: dict[str, Any]) -> dict[str, Any]:
    """The bundle as JSON allows it; what is too large is replaced by its size."""
    found: dict[str, Any] = {}
    room = MAX_PAYLOAD_CHARS
    for name, payload in data.items():
        kind = str(name)
        if isinstance(payload, bytes):
            payload = base64.b64encode(payload).decode()
        try:
            size = len(json.dumps(payload, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            continue  # not JSON, whatever it calls itself
        if len(json.dumps(kind)) + size > room:
            payload = f"[{size} bytes are too large to be shown]"
            size = len(payload)
        size += len(json.dumps(kind))
        if size <= room:
            found[kind] = payload
            room -= size
    return found
