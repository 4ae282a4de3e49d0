"""Ticks, dates and values of a matplotlib axis, as JSON and the official SDK accept them.

The SDK's models are strict: numbers are finite, and never null inside a list. matplotlib counts
dates in days since an epoch; a chart has POSIX timestamps, and ISO 8601 texts for labels.
"""

from __future__ import annotations

import datetime
import math
from bisect import bisect_left

TYPE_CHECKING = False  # importing typing would take longer than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def ticks_of(axis: Any) -> tuple[list[float], list[str], str]:
    """Return the positions of the ticks, their labels, and the axis's scale."""
    places = [float(place) for place in axis.get_majorticklocs()]
    places = [place for place in places if math.isfinite(place)]
    if is_date(axis):
        return [_timestamp(place, _epoch()) for place in places], list(map(iso, places)), "datetime"
    # The ticks' own texts are hidden in a grid that shares its axes.
    labels = [text_of(label) for label in axis.get_major_formatter().format_ticks(places)]
    count = list(range(len(places)))
    if any(labels) and places == count and labels != list(map(str, count)):
        return places, labels, "categorical"
    return places, labels, text_of(axis.get_scale())


def namer(axis: Any) -> Callable[[list[float]], list[str]]:
    """Return a function that names positions: by labels of ticks, or else by their numbers."""
    from matplotlib.category import StrCategoryLocator
    from matplotlib.ticker import FixedLocator

    if is_date(axis):
        return lambda places: list(map(iso, places))
    ticks, labels, _ = ticks_of(axis)
    locator = axis.get_major_locator()
    order = sorted(range(len(ticks)), key=ticks.__getitem__)
    ascending = [ticks[i] for i in order]

    def nearest(place: float) -> int:
        at = bisect_left(ascending, place)
        return min(order[max(at - 1, 0) : at + 1], key=lambda i: abs(ticks[i] - place))

    def names(places: list[float]) -> list[str]:
        written = [plain(round(place, 12)) or "" for place in places]  # rounded: they are means
        if not ticks:
            return written
        found = {place: nearest(place) for place in set(places)}
        # Bars of a group stand beside their common tick. Ticks that matplotlib chose, or that are
        # fewer than the bars, name only bars that stand on them; each category has a tick.
        given = isinstance(locator, StrCategoryLocator) or (
            isinstance(locator, FixedLocator) and len(set(found.values())) == len(found)
        )
        return [
            labels[found[place]]
            if given or abs(ticks[found[place]] - place) <= 1e-9 * max(1.0, abs(place))
            else text
            for place, text in zip(places, written)
        ]

    return names


def is_date(axis: Any) -> bool:
    """Whether the numbers of an axis are dates."""
    from matplotlib import dates

    if hasattr(axis, "freq"):  # pandas' periods, which aren't days
        return False
    # With ticks of the user's, the converter tells; with numbers shown as dates, the formatter.
    get_converter = getattr(axis, "get_converter", None)  # since matplotlib 3.10
    converter = axis.converter if get_converter is None else get_converter()
    formatters = (dates.DateFormatter, dates.AutoDateFormatter, dates.ConciseDateFormatter)
    return (
        isinstance(converter, dates.DateConverter)
        or type(converter).__module__ == dates.__name__
        or isinstance(axis.get_major_formatter(), formatters)
    )


def to_number(axis: Any) -> Callable[[float], float]:
    """Return a function from the finite coordinates of an axis to those of a chart."""
    if not is_date(axis):
        return float
    epoch = _epoch()
    return lambda days: _timestamp(days, epoch)


def iso(days: float) -> str:
    """Return a date as ISO 8601; empty before the year 1 and after 9999."""
    from matplotlib import dates

    try:
        return str(dates.num2date(days).isoformat())
    except (ValueError, OverflowError):
        return ""


def finite(value: Any) -> float | None:
    """Return a number if it is finite; JSON has no other."""
    number = float(value)
    return number if math.isfinite(number) else None


def plain(value: Any) -> str | None:
    """Return a number as people write it: "3", "2.5"."""
    number = finite(value)
    if number is None:
        return None
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    return repr(number)


def label_of(part: Any) -> str:
    """Return the label of a part; matplotlib's own begin with an underscore."""
    label = text_of(part.get_label() or "")
    return "" if label.startswith("_") else label


def text_of(value: Any) -> str:
    """Return text that UTF-8 can encode: a lone surrogate becomes a question mark."""
    return str(value).encode("utf-8", "replace").decode()


def _epoch() -> float:
    from matplotlib import dates

    return float(dates.date2num(datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)))


def _timestamp(days: float, epoch: float) -> float:
    return round((days - epoch) * 86400, 6)
