"""What charts are read from figures, and that the official SDK takes each of them.

On real figures, without pyplot, so that nothing is left open between tests.
"""

import ast
import base64
import datetime
import io
import json
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import daytona_toolbox_api_client
import matplotlib
import numpy as np
import pytest
from daytona.common import charts as sdk
from matplotlib import dates
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from procd.worker import charts
from procd.worker.charts import chart_of

WORKER = Path(charts.__file__).parent
CLASSES = {
    "line": sdk.LineChart,
    "scatter": sdk.ScatterChart,
    "bar": sdk.BarChart,
    "pie": sdk.PieChart,
    "box_and_whisker": sdk.BoxAndWhiskerChart,
    "composite_chart": sdk.CompositeChart,
    "unknown": sdk.Chart,
}


@pytest.fixture(autouse=True, scope="module")
def fonts() -> None:
    """Let matplotlib open its fonts, which it keeps open, before descriptors are counted."""
    figure = Figure()
    figure.text(0, 0, "text, $10^{x}$")
    figure.savefig(io.BytesIO())


def chart(figure: Any) -> Any:
    """The chart, after a trip through JSON and the SDK's strict models, which must keep it all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as the hook has it
        made = chart_of(figure)
    text = json.dumps(made, allow_nan=False)
    generated = daytona_toolbox_api_client.Chart.from_json(text)
    assert generated is not None
    parsed = sdk.parse_chart(generated)
    assert type(parsed) is CLASSES[made["type"]]
    assert parsed.to_dict() == _without_nulls(json.loads(text))
    return parsed


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(of) for key, of in value.items() if of is not None}
    return [_without_nulls(of) for of in value] if isinstance(value, list) else value


def points(parsed: Any) -> list[Any]:
    return [element.points for element in parsed.elements]


def labels(parsed: Any) -> list[str]:
    return [element.label for element in parsed.elements]


def values(parsed: Any) -> list[str | None]:
    return [element.value for element in parsed.elements]


def size(parsed: Any) -> tuple[int, int]:
    """Width and height of the picture, in pixels."""
    png = base64.b64decode(parsed.png, validate=True)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


# --- Lines and points ---


def test_line() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.plot([1, 2, 3], [2, 4, 8], label="powers")
    ax.plot([1, 2.5, 3], [1, 0, 1])
    ax.set(title="Growth", xlabel="time", ylabel="size", xticks=[1, 2, 3], yticks=[0, 5])
    line = chart(figure)
    assert (line.type, line.title, line.x_label, line.y_label) == ("line", "Growth", "time", "size")
    assert labels(line) == ["powers", ""]
    assert points(line) == [[[1, 2], [2, 4], [3, 8]], [[1, 1], [2.5, 0], [3, 1]]]
    assert (line.x_ticks, line.x_tick_labels, line.x_scale) == (
        [1, 2, 3],
        ["1", "2", "3"],
        "linear",
    )
    assert (line.y_ticks, line.y_tick_labels, line.y_scale) == ([0, 5], ["0", "5"], "linear")


def test_the_picture_is_all_of_the_figure_at_100_dpi() -> None:
    figure = Figure(figsize=(3, 2), dpi=250)
    figure.subplots().plot([1, 2, 3])
    small = size(chart(figure))
    assert 200 < small[0] < 320
    assert 130 < small[1] < 220
    figure.text(1.5, 1.5, "outside")  # the box is tight around everything
    large = size(chart(figure))
    assert large[0] > small[0]
    assert large[1] > small[1]
    assert figure.dpi == 250


def test_what_json_lacks_is_left_out() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.plot([1, 2, 3, 4], [1, np.nan, np.inf, 4])
    assert points(chart(figure)) == [[[1, 1], [4, 4]]]
    ax.clear()
    ax.scatter([1, 2, 3], np.ma.masked_equal([1, 7, 3], 7))
    assert points(chart(figure)) == [[[1, 1], [3, 3]]]


def test_straight_lines_are_grid_lines() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.plot([1, 2, 3], [1, 2, 1], label="data")
    ax.plot([1, 3], [2, 2])
    ax.plot([2, 2], [1, 3])
    ax.axhline(1)
    ax.axvline(1)
    ax.axline((0, 0), slope=1)
    ax.axvspan(1, 2)
    line = chart(figure)
    assert line.type == "line"
    assert labels(line) == ["data"]


def test_what_is_there_for_a_legend_only_is_ignored() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.scatter([1, 2], [3, 4])
    ax.plot([], [], label="of a colour")
    ax.fill_between([], [])
    ax.add_patch(Rectangle((0, 0), 0, 0, label="of another"))
    assert chart(figure).type == "scatter"


def test_line_with_error_bars() -> None:
    figure = Figure()
    figure.subplots().errorbar([1, 2, 3], [4, 5, 7], yerr=[1, 1, 2], capsize=3)
    line = chart(figure)
    assert line.type == "line"
    assert points(line) == [[[1, 4], [2, 5], [3, 7]]]


DAYS = [datetime.datetime(2024, 1, day, tzinfo=datetime.UTC) for day in (1, 2, 4)]


@pytest.mark.parametrize("converted", [False, True])
def test_dates(*, converted: bool) -> None:
    figure = Figure()
    ax = figure.subplots()
    if converted:  # numbers, and only their looks say what they are
        ax.plot(dates.date2num(DAYS), [1, 2, 3])
        ax.xaxis.set_major_formatter(dates.DateFormatter("%d %b"))
    else:
        ax.plot(DAYS, [1, 2, 3])
    ax.set_xticks(dates.date2num([DAYS[0], DAYS[2]]))
    line = chart(figure)
    assert (line.type, line.x_scale, line.y_scale) == ("line", "datetime", "linear")
    stamps = [day.timestamp() for day in DAYS]
    assert points(line) == [[[stamps[0], 1], [stamps[1], 2], [stamps[2], 3]]]
    assert line.x_ticks == [stamps[0], stamps[2]]
    assert line.x_tick_labels == ["2024-01-01T00:00:00+00:00", "2024-01-04T00:00:00+00:00"]


def test_scatter() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.scatter([1, 2], [3, 4], label="first", s=[10, 20], c=[0, 1])
    ax.scatter([5], [6])
    ax.legend()
    ax.axhline(4)
    scatter = chart(figure)
    assert scatter.type == "scatter"
    assert labels(scatter) == ["first", ""]
    assert points(scatter) == [[[1, 3], [2, 4]], [[5, 6]]]


# --- Bars ---


def test_bars_and_boxes_have_ticks() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.bar(["a", "b"], [3, 4])
    ax.set(yscale="log", yticks=[1, 10])
    bars = chart(figure)
    assert (bars.x_ticks, bars.x_tick_labels, bars.x_scale) == ([0, 1], ["a", "b"], "categorical")
    assert (bars.y_ticks, bars.y_scale) == ([1, 10], "log")
    ax.clear()
    ax.barh(["a", "b"], [3, 4])  # each axis keeps its own, where the labels change places
    bars = chart(figure)
    assert (bars.y_tick_labels, bars.y_scale, bars.x_scale) == (["a", "b"], "categorical", "linear")
    ax.clear()
    ax.boxplot([[1, 2, 3]])
    box = chart(figure)
    assert (box.x_ticks, box.x_tick_labels, box.y_scale) == ([1], ["1"], "linear")


def test_bars_of_categories() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.bar(["a", "b", "c"], [3, 2.5, np.nan])
    ax.set(title="Fruit", xlabel="kind", ylabel="count")
    bars = chart(figure)
    assert (bars.type, bars.title, bars.x_label, bars.y_label) == ("bar", "Fruit", "kind", "count")
    assert labels(bars) == ["a", "b", "c"]
    assert values(bars) == ["3", "2.5", None]
    assert [element.group for element in bars.elements] == ["", "", ""]


def test_horizontal_bars() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.barh(["a", "b"], [3, 3], label="share")
    ax.set(xlabel="count", ylabel="kind")
    bars = chart(figure)
    assert labels(bars) == ["a", "b"]
    assert values(bars) == ["3", "3"]
    assert [element.group for element in bars.elements] == ["share", "share"]
    assert (bars.x_label, bars.y_label) == ("kind", "count")


def test_grouped_bars_with_errors() -> None:
    figure = Figure()
    ax = figure.subplots()
    at = np.arange(2)
    ax.bar(at - 0.2, [1, 2], 0.4, label="old", yerr=[0.1, 0.2], capsize=2)
    ax.bar(at + 0.2, [3, 4], 0.4, label="new")
    ax.set_xticks(at, ["left", "right"])
    bars = chart(figure)
    assert [(e.label, e.group, e.value) for e in bars.elements] == [
        ("left", "old", "1"),
        ("right", "old", "2"),
        ("left", "new", "3"),
        ("right", "new", "4"),
    ]


# --- Pies and boxes ---


def test_pie() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.pie([1, 3], labels=["a", "b"], radius=2, autopct="%.0f%%", counterclock=False)
    ax.set_title("Shares")
    pie = chart(figure)
    assert (pie.type, pie.title) == ("pie", "Shares")
    assert labels(pie) == ["a", "b"]
    assert [element.angle for element in pie.elements] == pytest.approx([90, 270], abs=1e-3)
    assert [element.radius for element in pie.elements] == [2, 2]


RECENT = matplotlib.__version_info__ >= (3, 10)
SAMPLE = [1, 2, 3, 4, 5, 30, -20]  # quartiles 1.5, 3, 4.5


@pytest.mark.parametrize("filled", [True, False])
@pytest.mark.parametrize("lying", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"showmeans": True}, {"showmeans": True, "meanline": True}, {"showcaps": False}]
)
@pytest.mark.parametrize("notch", [True, False])
def test_boxes(*, filled: bool, lying: bool, options: dict[str, Any], notch: bool) -> None:
    figure = Figure()
    ax = figure.subplots()
    samples: Sequence[Sequence[float]] = [SAMPLE, [10 * value for value in SAMPLE]]
    ax.boxplot(
        samples,
        patch_artist=filled,
        notch=notch,
        **(
            {"orientation": "horizontal" if lying else "vertical"}
            if RECENT
            else {"vert": not lying}
        ),
        **options,
    )
    (ax.yaxis if lying else ax.xaxis).set_ticks([1, 2], ["one", "ten"])
    ax.set(xlabel="x", ylabel="y")
    boxes = chart(figure)
    assert boxes.type == "box_and_whisker"
    assert (boxes.x_label, boxes.y_label) == (("y", "x") if lying else ("x", "y"))
    assert labels(boxes) == ["one", "ten"]
    for element, factor in zip(boxes.elements, (1, 10), strict=True):
        assert element.min == factor
        assert element.first_quartile == 1.5 * factor
        assert element.median == 3 * factor
        assert element.third_quartile == 4.5 * factor
        assert element.max == 5 * factor
        assert sorted(element.outliers) == [-20 * factor, 30 * factor]


@pytest.mark.parametrize(
    ("options", "outliers"),
    [({}, [100]), ({"meanline": True}, [100]), ({"showfliers": False}, [])],
)
def test_a_mean_beyond_the_whiskers(options: dict[str, bool], outliers: list[int]) -> None:
    figure = Figure()
    figure.subplots().boxplot([[1, 2, 2, 3, 100]], showmeans=True, **options)
    (element,) = chart(figure).elements
    assert (element.min, element.max, element.outliers) == (1, 3, outliers)


# --- Several axes, and none ---


def test_subplots() -> None:
    figure = Figure()
    (a, b), (c, _) = figure.subplots(2, 2)
    a.plot([1, 2, 3])
    a.set(title="A", xlabel="ax", ylabel="ay")
    b.barh(["x", "y"], [1, 2])
    b.set(title="B", xlabel="bx", ylabel="by")
    figure.colorbar(c.imshow([[1, 2], [3, 4]]), ax=c)
    figure.suptitle("All")
    composite = chart(figure)
    assert (composite.type, composite.title) == ("composite_chart", "All")
    assert [(e.type, e.title, e.x_label, e.y_label) for e in composite.elements] == [
        ("line", "A", "ax", "ay"),
        ("bar", "B", "by", "bx"),
        ("unknown", "", "", ""),
    ]


@pytest.mark.parametrize("given", [True, False])
def test_colour_bars_are_no_charts(*, given: bool) -> None:
    figure = Figure()
    ax, place = figure.subplots(1, 2)
    shown = ax.scatter([1, 2, 3], [4, 5, 6], c=[7, 8, 9])
    figure.colorbar(shown, cax=place if given else None, ax=None if given else ax)
    assert chart(figure).type == "scatter"


@pytest.mark.parametrize("axes", [0, 1, 2])
def test_empty(axes: int) -> None:
    figure = Figure()
    for number in range(axes):
        figure.add_subplot(1, 2, number + 1)
    empty = chart(figure)
    assert (empty.type, empty.elements) == ("unknown", [])
    assert size(empty)


# --- What goes wrong, and how much there may be ---


class Undrawable(Line2D):  # type: ignore[misc]  # Any
    """An artist of the user's, with a fault."""

    def draw(self, _renderer: object) -> None:
        raise RuntimeError("can't be drawn")

    def get_tightbbox(self, *_: object) -> None:
        raise RuntimeError("can't be measured")


class Unreadable(Line2D):  # type: ignore[misc]  # Any
    """Another."""

    def get_xydata(self) -> Any:
        raise RuntimeError("can't be read")


def test_what_cannot_be_drawn_is_read() -> None:
    figure = Figure()
    figure.subplots().add_line(Undrawable([1, 2, 3], [1, 2, 4]))
    line = chart(figure)
    assert line.png is None
    assert points(line) == [[[1, 1], [2, 2], [3, 4]]]


def test_what_cannot_be_read_is_drawn() -> None:
    figure = Figure()
    figure.subplots().add_line(Unreadable([1, 2, 3], [1, 2, 4]))
    unknown = chart(figure)
    assert (unknown.type, unknown.elements) == ("unknown", [])
    assert size(unknown)


def test_what_lies_far_outside_is_cut_off() -> None:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([1, 2, 3])
    figure.text(0, 1e4, "far")  # a picture of 2.3 GB
    assert size(chart(figure)) == (300, 200)


def test_points_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "POINTS_MAX", 10)
    figure = Figure()
    ax = figure.subplots()
    ax.plot([1, 2, 4, 8, 16])
    ax.plot(range(5), label="b")
    assert [len(of) for of in points(chart(figure))] == [5, 5]
    ax.plot([1, 2, 4])
    made = chart_of(figure)
    assert (made["type"], made["elements"], made["points"]) == ("line", [], 13)
    assert made["png"]
    ax.clear()
    ax.scatter(range(11), range(11))
    assert chart_of(figure)["points"] == 11
    ax.clear()
    ax.boxplot([SAMPLE + [100 + extra for extra in range(50)]], whis=(30, 60))
    assert chart_of(figure)["points"] > 10


def test_text_is_text() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.plot([1, 2, 3], label="half \udc80")
    ax.set_title("whole 🙂")
    line = chart(figure)
    assert labels(line) == ["half ?"]
    assert line.title == "whole 🙂"


@pytest.mark.parametrize("module", sorted(WORKER.glob("*.py")), ids=lambda path: path.name)
def test_the_language_is_that_of_python_3_8(module: Path) -> None:
    tree = ast.parse(module.read_text(), feature_version=(3, 8))
    if module.name != "__init__.py":
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert imports[0].module == "__future__"
