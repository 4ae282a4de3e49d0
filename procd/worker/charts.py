"""Reads what a matplotlib figure (3.3 or newer) shows, as plain data, in the user's Python.

Source: Process API contract, section 7.4.
"""

from __future__ import annotations

import base64
import datetime
import io
import math
from bisect import bisect_left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

POINTS_MAX = 1_000_000  # of a chart: 40 MB of JSON, and 130 MB more while it is made
DPI = 100
PIXELS_MAX = 50_000_000  # of a tight picture: 200 MB while it is drawn


def chart_of(figure: Any) -> dict[str, Any]:
    """Return the chart that a figure shows: the `value` of an artifact. Drawing may warn.

    A chart with more than POINTS_MAX has their number as `points`, and no elements. A figure that
    is not recognised has the type "unknown"; one that can't be drawn has no `png`.
    """
    png = _picture(figure)  # first, since drawing is what places the ticks
    try:
        chart = _content(figure)
    except Exception:  # noqa: BLE001  # an artist may be the user's own and raise anything
        chart = {"type": "unknown", "elements": []}
    if png is not None:
        chart["png"] = png
    if not chart.get("title"):
        chart.pop("title", None)
    return chart


def _picture(figure: Any) -> str | None:
    for tight in (True, False):
        data = io.BytesIO()
        try:
            if tight:
                get_renderer = getattr(figure.canvas, "get_renderer", None)
                box = figure.get_tightbbox(get_renderer and get_renderer())
                if box.width * box.height * DPI**2 > PIXELS_MAX:  # a text far outside, say
                    continue
            figure.savefig(data, format="png", dpi=DPI, bbox_inches="tight" if tight else None)
        except Exception:  # noqa: BLE001, S112  # as above: the chart has no picture then
            continue
        return base64.b64encode(data.getvalue()).decode()
    return None


def _content(figure: Any) -> dict[str, Any]:
    suptitle = getattr(figure, "_suptitle", None)  # get_suptitle() is of matplotlib 3.8
    title = _text_of(suptitle.get_text()) if suptitle is not None else ""
    bars = _colour_bars(figure)
    shown = [ax for ax in figure.axes if ax.get_visible() and ax not in bars]
    usable = [ax for ax in shown if ax.has_data()] if len(shown) > 1 else shown
    if not usable:
        return {"type": "unknown", "title": title, "elements": []}
    if len(usable) > 1:
        elements = [_heading(ax, *_recognise(ax)) for ax in usable]
        return {"type": "composite_chart", "title": title, "elements": elements}
    (ax,) = usable
    kind, parts = _recognise(ax)
    chart = _heading(ax, kind, parts)
    chart["title"] = chart["title"] or title
    if kind not in ("pie", "unknown"):
        for name, axis in (("x", ax.xaxis), ("y", ax.yaxis)):
            ticks, labels, scale = _ticks_of(axis)
            chart.update({f"{name}_ticks": ticks, f"{name}_tick_labels": labels})
            chart[f"{name}_scale"] = scale
    points = sum(len(_points_of(kind, part)) for part in parts)
    if points > POINTS_MAX:
        return {**chart, "points": points, "elements": []}
    chart["elements"] = list(_elements(ax, kind, parts))
    return chart


def _colour_bars(figure: Any) -> list[Any]:
    mappables = (part for ax in figure.axes for part in (*ax.images, *ax.collections))
    bars = [getattr(getattr(part, "colorbar", None), "ax", None) for part in mappables]
    return bars + [
        ax for ax in figure.axes if hasattr(ax, "_colorbar") or ax.get_label() == "<colorbar>"
    ]


def _recognise(ax: Any) -> tuple[str, list[Any]]:
    """Return the type of the chart in some axes, and the parts that it is made of."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.container import BarContainer, ErrorbarContainer
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle, Shadow, Wedge
    from matplotlib.spines import Spine

    bars = [container for container in ax.containers if isinstance(container, BarContainer)]
    errors = [
        part
        for container in ax.containers
        if isinstance(container, ErrorbarContainer)
        for parts in container.lines[1:]
        for part in parts or ()
    ]
    lines: list[Any] = []
    patches: list[Any] = []
    others: list[Any] = []
    ignored = {id(part) for part in (ax.patch, *errors)}
    for part in ax.get_children():
        if id(part) in ignored or not part.get_visible() or isinstance(part, (Shadow, Spine)):
            continue
        if _is_nothing(part):
            continue
        # A part that isn't in data coordinates marks a place or a range of an axis.
        if isinstance(part, Line2D) and part.get_transform() is ax.transData:
            lines.append(part)
        elif isinstance(part, Patch) and part.get_data_transform() is ax.transData:
            patches.append(part)
        elif isinstance(part, ScalarMappable):
            others.append(part)
    # Lines without points are for a legend, unless there is nothing else.
    drawn = [line for line in lines if len(line.get_xydata()) and not _is_straight(line)]

    if ax.name == "3d":
        return "unknown", []  # the parts are projections
    if not others and (boxes := _boxes_of(lines, patches)):
        return "box_and_whisker", boxes
    if lines and not patches and not others:
        return "line", drawn or lines
    if drawn:
        return "unknown", []
    if bars and not others and all(isinstance(patch, Rectangle) for patch in patches):
        return "bar", bars
    if patches and not others and all(isinstance(patch, Wedge) for patch in patches):
        return "pie", patches
    if others and not patches and all(_is_scatter(ax, part) for part in others):
        return "scatter", others
    return "unknown", []


def _is_nothing(part: Any) -> bool:
    """Return whether a part has no extent: seaborn adds such parts for legends and error bands."""
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.patches import Rectangle

    if isinstance(part, Rectangle):
        return not part.get_width() and not part.get_height()
    return isinstance(part, (LineCollection, PolyCollection)) and not len(part.get_paths())


def _is_scatter(ax: Any, part: Any) -> bool:
    from matplotlib.collections import PathCollection

    # In older versions filled contours are such collections too, without offsets in the data.
    return isinstance(part, PathCollection) and part.get_offset_transform() is ax.transData


def _is_straight(line: Any) -> bool:
    """Return whether it is a grid line (contract): two points, horizontal or vertical."""
    points = line.get_xydata()
    return len(points) == 2 and bool((points[0] == points[1]).any())


def _heading(ax: Any, kind: str, parts: list[Any]) -> dict[str, Any]:
    """Return type, title and labels, which are swapped if values run along the x axis."""
    title = next((t for t in map(ax.get_title, ("center", "left", "right")) if t), "")
    heading = {"type": kind, "title": _text_of(title)}
    labels = [_text_of(ax.get_xlabel()), _text_of(ax.get_ylabel())]
    if kind in ("bar", "box_and_whisker") and _is_horizontal(kind, parts):
        labels.reverse()
    heading["x_label"], heading["y_label"] = labels
    return heading


def _is_horizontal(kind: str, parts: list[Any]) -> bool:
    if kind == "box_and_whisker":
        return all(box.horizontal for box in parts)
    declared = {getattr(bars, "orientation", None) for bars in parts}
    if declared != {None}:
        return declared == {"horizontal"}
    bars = [bar for container in parts for bar in container]  # matplotlib 3.3 doesn't tell
    heights = {bar.get_height() for bar in bars}
    return len(heights) == 1 and len({bar.get_width() for bar in bars}) > 1


def _elements(ax: Any, kind: str, parts: list[Any]) -> Iterator[dict[str, Any]]:
    if kind in ("line", "scatter"):
        for part in parts:
            yield {"label": _label_of(part), "points": _points(ax, _points_of(kind, part))}
    elif kind == "pie":
        for wedge in parts:
            angle = _finite(wedge.theta2 - wedge.theta1)
            yield {"label": _label_of(wedge), "angle": angle, "radius": _finite(wedge.r)}
    elif kind == "bar":
        yield from _bars(ax, parts)
    elif kind == "box_and_whisker":
        names = _namer(ax.yaxis if parts[0].horizontal else ax.xaxis)
        for box, name in zip(parts, names([box.position for box in parts])):
            yield {"label": name, **box.element()}


def _points_of(kind: str, part: Any) -> Any:
    if kind == "line":
        return part.get_xydata()
    if kind == "scatter":
        return part.get_offsets()
    return part.loose if kind == "box_and_whisker" else ()


def _points(ax: Any, points: Any) -> list[list[float]]:
    to_x, to_y = _to_number(ax.xaxis), _to_number(ax.yaxis)
    return [
        [to_x(x), to_y(y)]
        for x, y in points.tolist()
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    ]


def _bars(ax: Any, containers: list[Any]) -> Iterator[dict[str, Any]]:
    horizontal = _is_horizontal("bar", containers)
    names = _namer(ax.yaxis if horizontal else ax.xaxis)
    for container in containers:
        bars = list(container)
        if horizontal:
            centres = [bar.get_y() + bar.get_height() / 2 for bar in bars]
        else:
            centres = [bar.get_x() + bar.get_width() / 2 for bar in bars]
        # If there are several groups without labels, matplotlib's own names tell them apart.
        group = _label_of(container)
        if not group and len(containers) > 1:
            group = _text_of(container.get_label())
        for bar, name in zip(bars, names(centres)):
            value = bar.get_width() if horizontal else bar.get_height()
            yield {"label": name, "group": group, "value": _plain(value)}


class _Box:
    """A box with its whiskers, read back from the lines and outlines that Axes.bxp draws."""

    def __init__(self, vertices: Sequence[Sequence[float]], *, far: int) -> None:
        first, second = vertices[:2]
        self.horizontal = first[0] == second[0]
        along, across = (0, 1) if self.horizontal else (1, 0)  # values, positions
        self.position = (first[across] + second[across]) / 2
        self.quartiles = first[along], vertices[far][along]
        self.extremes: list[float] = []
        self.levels: list[float] = []  # of lines across: the caps, if any, the median, the mean
        self.loose: list[float] = []  # of markers: outliers
        self.layer = 0.0  # that of the whiskers

    @classmethod
    def of(cls, vertices: Any) -> _Box | None:
        """Return the box with this outline, notched or not; None if it isn't one."""
        vertices = vertices.tolist()
        corners = {5: (1, 2, 3, 4), 6: (1, 2, 3, 4), 11: (1, 5, 6, 10), 12: (1, 5, 6, 10)}
        if len(vertices) not in corners:
            return None
        a, (b, c, d, end) = vertices[0], (vertices[i] for i in corners[len(vertices)])
        upright = a[1] == b[1] and b[0] == c[0] and c[1] == d[1] and d[0] == a[0]
        lying = a[0] == b[0] and b[1] == c[1] and c[0] == d[0] and d[1] == a[1]
        if end != a or a == b or not (upright or lying):
            return None
        return cls(vertices, far=corners[len(vertices)][1])

    def key(self, points: Any) -> float:
        """Return the position of a line, which is that of its box."""
        across = points[:, 1 if self.horizontal else 0]
        return round(float(across.min() + across.max()) / 2, 9)

    def add(self, line: Any) -> None:
        points = line.get_xydata()
        values = points[:, 0 if self.horizontal else 1]
        across = points[:, 1 if self.horizontal else 0]
        if len(points) == 1 or str(line.get_linestyle()).strip() in ("", "None"):
            # Axes.bxp draws the mean above all but the median.
            if len(points) > 1 or line.get_zorder() <= self.layer:
                self.loose += values.tolist()
        elif len(points) == 2 and across[0] == across[1]:
            self.extremes += values.tolist()
            self.layer = line.get_zorder()
        elif len(points) == 2 and values[0] == values[1]:
            self.levels.append(float(values[0]))

    @property
    def complete(self) -> bool:
        return len(self.extremes) >= 4 and bool(self.levels)

    def element(self) -> dict[str, Any]:
        low, high = min(self.extremes), max(self.extremes)
        outliers = [value for value in self.loose if not low <= value <= high]
        return {
            "min": _finite(low),
            "first_quartile": _finite(self.quartiles[0]),
            # Axes.bxp draws both caps before the median, and the mean after it.
            "median": _finite(self.levels[2] if len(self.levels) > 2 else self.levels[0]),
            "third_quartile": _finite(self.quartiles[1]),
            "max": _finite(high),
            "outliers": [v for v in map(_finite, outliers) if v is not None],
        }


def _boxes_of(lines: list[Any], patches: list[Any]) -> list[_Box]:
    """Return the boxes of these, filled (patches) or not (lines); none if there is more."""
    from matplotlib.patches import PathPatch

    if patches:
        if not all(isinstance(patch, PathPatch) for patch in patches):
            return []
        found = [_Box.of(patch.get_path().vertices) for patch in patches]
        rest = lines
    else:
        outlines = [(line, _Box.of(line.get_xydata())) for line in lines]
        found = [box for _, box in outlines if box is not None]
        rest = [line for line, box in outlines if box is None]
    boxes = [box for box in found if box is not None]
    if not boxes or len(boxes) != len(found):
        return []
    at = {round(box.position, 9): box for box in boxes}
    for line in rest:
        if len(line.get_xydata()):
            owner = at.get(boxes[0].key(line.get_xydata()))
            if owner is not None:
                owner.add(line)
    return boxes if all(box.complete for box in boxes) else []


def _ticks_of(axis: Any) -> tuple[list[float], list[str], str]:
    places = [float(place) for place in axis.get_majorticklocs()]
    places = [place for place in places if math.isfinite(place)]
    if _is_date(axis):
        return (
            [_timestamp(place, _epoch()) for place in places],
            list(map(_iso, places)),
            "datetime",
        )
    # The ticks' own texts are hidden in a grid that shares its axes.
    labels = [_text_of(label) for label in axis.get_major_formatter().format_ticks(places)]
    count = list(range(len(places)))
    if any(labels) and places == count and labels != list(map(str, count)):
        return places, labels, "categorical"
    return places, labels, _text_of(axis.get_scale())


def _namer(axis: Any) -> Callable[[list[float]], list[str]]:
    """Return a function that names positions: by labels of ticks, or else by their numbers."""
    from matplotlib.category import StrCategoryLocator
    from matplotlib.ticker import FixedLocator

    if _is_date(axis):
        return lambda places: list(map(_iso, places))
    ticks, labels, _ = _ticks_of(axis)
    locator = axis.get_major_locator()
    order = sorted(range(len(ticks)), key=ticks.__getitem__)
    ascending = [ticks[i] for i in order]

    def nearest(place: float) -> int:
        at = bisect_left(ascending, place)
        return min(order[max(at - 1, 0) : at + 1], key=lambda i: abs(ticks[i] - place))

    def names(places: list[float]) -> list[str]:
        written = [_plain(round(place, 12)) or "" for place in places]  # rounded: they are means
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


def _is_date(axis: Any) -> bool:
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


def _to_number(axis: Any) -> Callable[[float], float]:
    if not _is_date(axis):
        return float
    epoch = _epoch()
    return lambda days: _timestamp(days, epoch)


def _iso(days: float) -> str:
    """Return a date as ISO 8601; empty before the year 1 and after 9999."""
    from matplotlib import dates

    try:
        return str(dates.num2date(days).isoformat())
    except (ValueError, OverflowError):
        return ""


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _plain(value: Any) -> str | None:
    """Return a number as people write it: "3", "2.5"."""
    number = _finite(value)
    if number is not None and number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    return None if number is None else repr(number)


def _label_of(part: Any) -> str:
    """Return the label of a part; matplotlib's own begin with an underscore."""
    label = _text_of(part.get_label() or "")
    return "" if label.startswith("_") else label


def _text_of(value: Any) -> str:
    """Return text that UTF-8 can encode: a lone surrogate becomes a question mark."""
    return str(value).encode("utf-8", "replace").decode()


def _epoch() -> float:
    from matplotlib import dates

    return float(dates.date2num(datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)))


def _timestamp(days: float, epoch: float) -> float:
    return round((days - epoch) * 86400, 6)
