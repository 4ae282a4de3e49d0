"""Box plots, read back from the lines and outlines that Axes.bxp draws."""

from __future__ import annotations

from .axis import finite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Box:
    """A box with its whiskers; `position` is where it stands on the axis of its label."""

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
    def of(cls, vertices: Any) -> Box | None:
        """The box with this outline, as Axes.bxp draws it, notched or not; None if it isn't one."""
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
        """What the lines of one box have in common."""
        across = points[:, 1 if self.horizontal else 0]
        return round(float(across.min() + across.max()) / 2, 9)

    def add(self, line: Any) -> None:
        """Take one of the lines that stand where it stands."""
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
        """Whether it has whiskers and a median."""
        return len(self.extremes) >= 4 and bool(self.levels)

    def element(self) -> dict[str, Any]:
        """An element, but for its label."""
        low, high = min(self.extremes), max(self.extremes)
        outliers = [value for value in self.loose if not low <= value <= high]
        return {
            "min": finite(low),
            "first_quartile": finite(self.quartiles[0]),
            # Axes.bxp draws both caps before the median, and the mean after it.
            "median": finite(self.levels[2] if len(self.levels) > 2 else self.levels[0]),
            "third_quartile": finite(self.quartiles[1]),
            "max": finite(high),
            "outliers": [v for v in map(finite, outliers) if v is not None],
        }


def boxes_of(lines: list[Any], patches: list[Any]) -> list[Box]:
    """The boxes that these make, filled (patches) or not (lines); none if they make more."""
    from matplotlib.patches import PathPatch

    if patches:
        if not all(isinstance(patch, PathPatch) for patch in patches):
            return []
        found = [Box.of(patch.get_path().vertices) for patch in patches]
        rest = lines
    else:
        outlines = [(line, Box.of(line.get_xydata())) for line in lines]
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
