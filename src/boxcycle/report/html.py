"""A report as one HTML file that needs nothing beside it: no network, no scripts, pictures inside."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image

from boxcycle.engine.checkpoint import write_text


class WithSpread(NamedTuple):
    """A mean and its standard deviation (NaN: of one value)."""

    mean: float
    std: float


class Interval(NamedTuple):
    """A difference and half the width of its interval (infinite: of one pair)."""

    mean: float
    half: float


Cell = str | int | float | WithSpread | Interval | None  # a number that is not known is NaN or None


class Change(float):
    """A difference: shown with its sign, and in the colour of a gain or a loss."""


class CountChange(int):
    """A difference of two counts of which less is better."""


@dataclass(frozen=True)
class Figure:
    """A headline number, its unit or meaning under it."""

    name: str
    value: Cell
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under column names; the first cell of a row names it. Numbers stand right, texts left."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Row:
    """Pictures of one image beside each other, each with its caption, under a title."""

    title: str
    pictures: Sequence[tuple[str, Image.Image]]


@dataclass(frozen=True)
class Report:
    """What a report says, in that order. ``charts``: SVG by title. ``details``: long texts by title."""

    title: str
    lead: str
    figures: Sequence[Figure] = ()
    warnings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Mapping[str, str] = field(default_factory=dict)
    pictures_note: str = ""
    legend: Mapping[str, str] = field(default_factory=dict)  # colour by class name
    pictures: Sequence[Row] = ()
    details: Mapping[str, str] = field(default_factory=dict)


def write_report(path: Path, report: Report) -> None:
    """Write ``report`` to ``path``. Every name in it is escaped; ``charts`` alone are taken as they are."""
    charts = {title: Markup(svg) for title, svg in report.charts.items()}
    write_text(path, _template().render(report=report, charts=charts))


@lru_cache
def _template() -> Template:
    loader = PackageLoader("boxcycle.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(cell=format_cell, kind=kind_of_cell, data_uri=data_uri)
    return environment.get_template("report.html.j2")


def format_cell(value: Cell) -> str:
    """A cell as text: whole numbers in groups of three, others with one decimal, a dash for what is not known."""
    if isinstance(value, WithSpread | Interval):
        number = Change(value.mean) if isinstance(value, Interval) else value.mean
        known = math.isfinite(value[1]) and not math.isnan(value.mean)
        return f"{format_cell(number)} ± {value[1]:.1f}" if known else format_cell(number)
    if isinstance(value, CountChange):
        return f"{int(value):+,}".replace("-", "−") if value else "0"
    if isinstance(value, float):
        sign = "+" if kind_of_cell(value) == "gain" else ""
        text = sign + f"{round(value, 1) + 0.0:.1f}"  # the sum makes 0.0 of -0.0
        return "–" if math.isnan(value) else text.replace("-", "−")
    return "–" if value is None else value if isinstance(value, str) else f"{value:,}"


def kind_of_cell(value: Cell) -> str:
    """The CSS class of a cell: text, gain, loss, or none."""
    if isinstance(value, Interval):  # coloured where the interval leaves out 0
        return kind_of_cell(Change(value.mean)) if value.half < abs(value.mean) else ""
    if isinstance(value, Change) and abs(value) >= 0.05:  # what rounds to 0.0 is neither
        return "gain" if value > 0 else "loss"
    if isinstance(value, CountChange) and value:
        return "gain" if value < 0 else "loss"
    return "text" if isinstance(value, str) else ""


def data_uri(picture: Image.Image) -> str:
    """The picture as a JPEG inside an address."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
