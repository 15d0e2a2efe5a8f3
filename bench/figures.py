"""A measured figure, what was promised about it, and how figures are printed and written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One figure. Without a promise it explains others. `at_most_ratio` is of `measured` to `baseline`."""

    name: str
    measured: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    at_most_ratio: float | None = None
    baseline: float | None = None
    baseline_name: str = ""

    @property
    def ratio(self) -> float | None:
        return self.measured / self.baseline if self.baseline else None

    @property
    def promise(self) -> str:
        """The promise in words, empty when there is none."""
        bounds = [
            f"<= {_number(self.at_most)} {self.unit}" if self.at_most is not None else "",
            f">= {_number(self.at_least)} {self.unit}" if self.at_least is not None else "",
            f"<= {_number(self.at_most_ratio)} x" if self.at_most_ratio is not None else "",
        ]
        return " and ".join(bound for bound in bounds if bound)

    @property
    def holds(self) -> bool | None:
        """Whether the promise is kept, None without one. Without its baseline a ratio is not kept."""
        if not self.promise:
            return None
        is_in_bounds = (self.at_most is None or self.measured <= self.at_most) and (
            self.at_least is None or self.measured >= self.at_least
        )
        return is_in_bounds and (self.at_most_ratio is None or (self.ratio or math.inf) <= self.at_most_ratio)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def print_table(figures: Sequence[Figure], console: Console) -> None:
    """One row a figure; a promise that is missed says MISSED."""
    table = Table("figure", title="Djinn's figures", title_justify="left")
    for column in ("measured", "promise", "baseline", "ratio", "holds"):
        table.add_column(column, justify="left" if column == "promise" else "right")
    for figure in figures:
        baseline = f"{_number(figure.baseline)} {figure.unit} {figure.baseline_name}" if figure.baseline else ""
        ratio = f"{figure.ratio:.2f} x" if figure.ratio is not None else ""
        holds = {True: "[green]yes[/]", False: "[bold red]MISSED[/]", None: ""}[figure.holds]
        table.add_row(figure.name, f"{_number(figure.measured)} {figure.unit}", figure.promise, baseline, ratio, holds)
    console.print(table)


def write_json(figures: Sequence[Figure], path: Path) -> None:
    """The figures with what is derived from them, as one JSON array."""
    rows = [
        {**asdict(figure), "ratio": figure.ratio, "promise": figure.promise, "holds": figure.holds}
        for figure in figures
    ]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
