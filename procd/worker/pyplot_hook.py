"""Makes pyplot.show() report the charts that it shows, in the user's Python (3.8 or newer).

Imports are inside functions: it costs next to nothing until matplotlib.pyplot is imported.

Source: Process API contract, section 7.4.
"""

from __future__ import annotations

import sys

from .isolation import on_import

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


def install(emit: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """Make pyplot.show() report what it shows, once pyplot is imported.

    `emit` is called with {"type": "chart", "value": chart} for each figure that is shown for the
    first time or has changed since. Returns a function that forgets which figures were shown.
    """
    reporter = _Reporter(emit)
    on_import("matplotlib.pyplot", reporter.attach)
    return reporter.forget


class _Reporter:
    def __init__(self, emit: Callable[[dict[str, Any]], None]) -> None:
        self._emit = emit
        self._reported: set[bytes] = set()  # digests of pictures

    def forget(self) -> None:
        self._reported.clear()

    def attach(self, pyplot: Any) -> None:
        import functools

        show_all, figure_class = pyplot.show, pyplot.Figure

        @functools.wraps(show_all)
        def show(*args: Any, **kwargs: Any) -> Any:
            # pause() of an animation calls it as well.
            if sys._getframe(1).f_globals is vars(pyplot):  # noqa: SLF001  # CPython is given
                return _quietly(show_all, *args, **kwargs)
            self._report(pyplot.figure(number) for number in pyplot.get_fignums())
            result = _quietly(show_all, *args, **kwargs)
            pyplot.close("all")
            return result

        pyplot.show = show
        show_one = figure_class.show
        if hasattr(show_one, "__wrapped__"):  # pyplot has been reloaded
            return

        @functools.wraps(show_one)
        def show_figure(figure: Any, *args: Any, **kwargs: Any) -> Any:
            self._report([figure])
            return _quietly(show_one, figure, *args, **kwargs)

        figure_class.show = show_figure

    def _report(self, figures: Iterable[Any]) -> None:
        import hashlib
        import warnings

        from .charts import chart_of

        for figure in figures:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the user hasn't asked for this drawing
                chart = chart_of(figure)
            if "png" in chart:
                digest = hashlib.sha256(chart["png"].encode()).digest()
                if digest in self._reported:
                    continue
                self._reported.add(digest)
            self._emit({"type": "chart", "value": chart})


def _quietly(show: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Show without the warning that this backend can't: the figure was reported."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*(is non-interactive|is a non-GUI backend)")
        return show(*args, **kwargs)
