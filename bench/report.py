"""Rows of the report: a figure, its floor, the ratio, and the target."""

import json
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.peers import PEERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line.

    Attributes:
        rounds: the figure of each round, for the spread.
        ok: whether the target was met; None if there is none.
    """

    group: str
    figure: str
    unit: str
    value: float
    rounds: tuple[float, ...]
    floor_name: str = ""
    floor: float | None = None
    ratio: float | None = None
    target: str = ""
    ok: bool | None = None
    peer: str = ""


def median(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def percentile(values: list[float], percent: float) -> float:
    """The value below which `percent` of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Report:
    """Collects the rows and prints each as soon as it is known."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._group = ""

    def start(self, group: str) -> None:
        """Begin a group of rows."""
        self._group = group
        print(f"# {group}", file=sys.stderr, flush=True)

    def add(
        self,
        figure: str,
        unit: str,
        rounds: list[float],
        *,
        floor_name: str = "",
        floors: list[float] | None = None,
        target: str = "",
        met: Callable[[float, float], bool] | None = None,
    ) -> Row:
        """Add a row; the ratio is the median of those of the rounds.

        Args:
            met: told the median ratio and the median of figure less floor, whether that is enough.
        """
        value = median(rounds)
        floor = ratio = None
        ok = None
        if floors:
            floor = median(floors)
            pairs = list(zip(rounds, floors, strict=True))
            ratio = median(figure / base for figure, base in pairs) if all(floors) else None
            if met is not None and ratio is not None:
                ok = met(ratio, median(figure - base for figure, base in pairs))
        elif met is not None:
            ok = met(value, value)
        row = Row(
            group=self._group, figure=figure, unit=unit, value=value, rounds=tuple(rounds),
            floor_name=floor_name, floor=floor, ratio=ratio, target=target, ok=ok,
            peer=PEERS.get(figure, ""),
        )  # fmt: skip
        self.rows.append(row)
        return row

    def table(self) -> str:
        """All rows, aligned."""
        heads = [
            "figure",
            "procd",
            "floor",
            "of floor",
            "target",
            "",
            "best peer",
            "lowest..highest",
        ]
        lines = [heads]
        lines += [
            [
                row.figure,
                f"{_number(row.value)} {row.unit}",
                "" if row.floor is None else f"{_number(row.floor)} {row.floor_name}",
                "" if row.ratio is None else f"{row.ratio:.2f}",
                row.target,
                {True: "ok", False: "NOT", None: ""}[row.ok],
                row.peer,
                f"{_number(min(row.rounds))}..{_number(max(row.rounds))}",
            ]
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def write_json(self, path: Path) -> None:
        """All rows and rounds, for programs."""
        path.write_text(json.dumps([asdict(row) for row in self.rows], indent=2) + "\n")


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
