"""What a matplotlib figure shows, as plain data.

Runs in the user's Python (3.8 or newer) with the user's matplotlib (3.3 or newer).

Source: Process API contract, section 7.4.
"""

from __future__ import annotations

import base64
import io
import math

from .axis import finite, label_of, namer, plain, text_of, ticks_of, to_number
from .boxes import boxes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

POINTS_MAX = 1_000_000  # of a chart: some 40 MB of JSON, and 130 MB more while that is made
DPI = 100
PIXELS_MAX = 50_000_000  # of a picture (200 MB while it is drawn): fewer dots per inch above that


def chart_of(figure: Any) -> dict[str, Any]:
    """The chart that a figure shows: the `value` of an artifact.

    One with more than POINTS_MAX says with `points` how many, and has no elements.
    A figure that can't be made sense of, or fails to be read, is of the type "unknown"; one that
    fails to be drawn has no `png`. Drawing may warn, as it does anywhere.
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
    """The picture of a figure in Base64; None if it can't be drawn."""
    for tight in (True, False):
        data = io.BytesIO()
        try:
            if tight:
                # What lies far outside of the figure would make this picture as large.
                get_renderer = getattr(figure.canvas, "get_renderer", None)
                box = figure.get_tightbbox(get_renderer and get_renderer())
                if box.width * box.height * DPI**2 > PIXELS_MAX:
                    continue
                figure.savefig(data, format="png", dpi=DPI, bbox_inches="tight")
            else:
                width, height = figure.get_size_inches()
                dpi = min(DPI, math.sqrt(PIXELS_MAX / (width * height)))
                figure.savefig(data, format="png", dpi=dpi)
        except Exception:  # noqa: BLE001, S112  # as above: the chart goes without
            continue
        return base64.b64encode(data.getvalue()).decode()
    return None


def _content(figure: Any) -> dict[str, Any]:
    """What of a chart is not its picture."""
    suptitle = getattr(figure, "_suptitle", None)  # get_suptitle() is of matplotlib 3.8
    title = text_of(suptitle.get_text()) if suptitle is not None else ""
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
    if kind not in ("pie", "unknown"):  # which have no scale to read them by
        for name, axis in (("x", ax.xaxis), ("y", ax.yaxis)):
            ticks, labels, scale = ticks_of(axis)
            chart.update({f"{name}_ticks": ticks, f"{name}_tick_labels": labels})
            chart[f"{name}_scale"] = scale
    points = sum(len(_points_of(kind, part)) for part in parts)
    if points > POINTS_MAX:
        return {**chart, "points": points, "elements": []}
    chart["elements"] = list(_elements(ax, kind, parts))
    return chart


def _colour_bars(figure: Any) -> list[Any]:
    """The axes that only explain another's colours, be they made for that or given by the user."""
    mappables = (part for ax in figure.axes for part in (*ax.images, *ax.collections))
    bars = [getattr(getattr(part, "colorbar", None), "ax", None) for part in mappables]
    return bars + [
        ax for ax in figure.axes if hasattr(ax, "_colorbar") or ax.get_label() == "<colorbar>"
    ]


def _recognise(ax: Any) -> tuple[str, list[Any]]:
    """The type of the chart in some axes, and the parts of them that it is made of."""
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
        # What isn't in data coordinates marks a place or a range of an axis.
        if isinstance(part, Line2D) and part.get_transform() is ax.transData:
            lines.append(part)
        elif isinstance(part, Patch) and part.get_data_transform() is ax.transData:
            patches.append(part)
        elif isinstance(part, ScalarMappable):
            others.append(part)
    # Lines without points are there for a legend, unless they are all that there is.
    drawn = [line for line in lines if len(line.get_xydata()) and not _is_straight(line)]

    kind: str
    found: list[Any]
    if ax.name == "3d":
        kind, found = "unknown", []  # what there is are projections
    elif not others and (boxes := boxes_of(lines, patches)):
        kind, found = "box_and_whisker", boxes
    elif lines and not patches and not others:
        kind, found = "line", drawn or lines
    elif drawn:
        kind, found = "unknown", []
    elif bars and not others and all(isinstance(patch, Rectangle) for patch in patches):
        kind, found = "bar", bars
    elif patches and not others and all(isinstance(patch, Wedge) for patch in patches):
        kind, found = "pie", patches
    elif others and not patches and all(_is_scatter(ax, part) for part in others):
        kind, found = "scatter", others
    else:
        kind, found = "unknown", []
    return kind, found


def _is_nothing(part: Any) -> bool:
    """Whether a part has no extent: seaborn adds such ones for its legends and error bands."""
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.patches import Rectangle

    if isinstance(part, Rectangle):
        return not part.get_width() and not part.get_height()
    return isinstance(part, (LineCollection, PolyCollection)) and not len(part.get_paths())


def _is_scatter(ax: Any, part: Any) -> bool:
    from matplotlib.collections import PathCollection

    # In older versions filled contours are such collections too, but stand nowhere.
    return isinstance(part, PathCollection) and part.get_offset_transform() is ax.transData


def _is_straight(line: Any) -> bool:
    """Whether it is a grid line, as the contract has it: two points, horizontal or vertical."""
    points = line.get_xydata()
    return len(points) == 2 and bool((points[0] == points[1]).any())


def _heading(ax: Any, kind: str, parts: list[Any]) -> dict[str, Any]:
    """Type, title and labels of axes: an element of a composite chart, the beginning of any other.

    The labels change places where values run along the x axis.
    """
    title = next((t for t in map(ax.get_title, ("center", "left", "right")) if t), "")
    heading = {"type": kind, "title": text_of(title)}
    labels = [text_of(ax.get_xlabel()), text_of(ax.get_ylabel())]
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
            yield {"label": label_of(part), "points": _points(ax, _points_of(kind, part))}
    elif kind == "pie":
        for wedge in parts:
            angle = finite(wedge.theta2 - wedge.theta1)
            yield {"label": label_of(wedge), "angle": angle, "radius": finite(wedge.r)}
    elif kind == "bar":
        yield from _bars(ax, parts)
    elif kind == "box_and_whisker":
        names = namer(ax.yaxis if parts[0].horizontal else ax.xaxis)
        for box, name in zip(parts, names([box.position for box in parts])):
            yield {"label": name, **box.element()}


def _points_of(kind: str, part: Any) -> Any:
    """The points of a line or a scatter, or the outliers of a box, as they are in the figure."""
    if kind == "line":
        return part.get_xydata()
    if kind == "scatter":
        return part.get_offsets()
    return part.loose if kind == "box_and_whisker" else ()


def _points(ax: Any, points: Any) -> list[list[float]]:
    """Rows of two; a gap in a line, or what is masked, is left out, since it can't be null."""
    to_x, to_y = to_number(ax.xaxis), to_number(ax.yaxis)
    return [
        [to_x(x), to_y(y)]
        for x, y in points.tolist()
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    ]


def _bars(ax: Any, containers: list[Any]) -> Iterator[dict[str, Any]]:
    horizontal = _is_horizontal("bar", containers)
    names = namer(ax.yaxis if horizontal else ax.xaxis)
    for container in containers:
        bars = list(container)
        if horizontal:
            centres = [bar.get_y() + bar.get_height() / 2 for bar in bars]
        else:
            centres = [bar.get_x() + bar.get_width() / 2 for bar in bars]
        # Without a name of the user's, matplotlib's tells the groups apart, if there are several.
        group = label_of(container)
        if not group and len(containers) > 1:
            group = text_of(container.get_label())
        for bar, name in zip(bars, names(centres)):
            value = bar.get_width() if horizontal else bar.get_height()
            yield {"label": name, "group": group, "value": plain(value)}
