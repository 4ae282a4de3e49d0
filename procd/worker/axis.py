"""An axis: its ticks, its dates, and values as JSON and the official SDK take them.

The SDK's models are strict: numbers are finite, and never null inside a list. matplotlib counts
dates in days since an epoch; a chart has them as POSIX timestamps, and as ISO 8601 text where there
is room for text.
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
    """Where the ticks are, what they say, and the axis's scale."""
    places = [float(place) for place in axis.get_majorticklocs()]
    places = [place for place in places if math.isfinite(place)]
    if is_date(axis):
        return [_timestamp(place, _epoch()) for place in places], list(map(iso, places)), "datetime"
    # Not the texts of the ticks, which are hidden inside of a grid that shares its axes.
    labels = [text_of(label) for label in axis.get_major_formatter().format_ticks(places)]
    count = list(range(len(places)))
    if any(labels) and places == count and labels != list(map(str, count)):
        return places, labels, "categorical"
    return places, labels, text_of(axis.get_scale())


def namer(axis: Any) -> Callable[[list[float]], list[str]]:
    """What tells what an axis calls places: labels of its ticks, or else the places themselves."""
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
        written = [plain(round(place, 12)) or "" for place in places]  # less what halving added
        if not ticks:
            return written
        found = {place: nearest(place) for place in set(places)}
        # Bars of a group stand beside the tick that they share. Ticks that matplotlib chose, or
        # that are fewer than the bars, only name what stands on them; each category has a tick.
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
    # Ticks of the user's own leave the converter; numbers shown as dates have only the formatter.
    get_converter = getattr(axis, "get_converter", None)  # since matplotlib 3.10
    converter = axis.converter if get_converter is None else get_converter()
    formatters = (dates.DateFormatter, dates.AutoDateFormatter, dates.ConciseDateFormatter)
    return (
        isinstance(converter, dates.DateConverter)
        or type(converter).__module__ == dates.__name__
        or isinstance(axis.get_major_formatter(), formatters)
    )


def to_number(axis: Any) -> Callable[[float], float]:
    """What turns the finite coordinates of an axis into those of a chart."""
    if not is_date(axis):
        return float
    epoch = _epoch()
    return lambda days: _timestamp(days, epoch)


def iso(days: float) -> str:
    """A date as text; empty before the year 1 and after 9999."""
    from matplotlib import dates

    try:
        return str(dates.num2date(days).isoformat())
    except (ValueError, OverflowError):
        return ""


def finite(value: Any) -> float | None:
    """A number that JSON has; None for any other."""
    number = float(value)
    return number if math.isfinite(number) else None


def plain(value: Any) -> str | None:
    """A number as a person would write it: "3", "2.5"."""
    number = finite(value)
    if number is None:
        return None
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    return repr(number)


def label_of(part: Any) -> str:
    """The user's name for a part; those that matplotlib makes up begin with an underscore."""
    label = text_of(part.get_label() or "")
    return "" if label.startswith("_") else label


def text_of(value: Any) -> str:
    """Text that UTF-8 has: half of a surrogate pair becomes a question mark."""
    return str(value).encode("utf-8", "replace").decode()


def _epoch() -> float:
    from matplotlib import dates

    return float(dates.date2num(datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)))


def _timestamp(days: float, epoch: float) -> float:
    return round((days - epoch) * 86400, 6)
