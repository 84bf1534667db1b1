"""The heat map as SVG: every row can be told from the others."""

import math
import xml.etree.ElementTree as ET

import pytest

from ratecraft._render._heat_map import HeatMap, svg_heat_map
from ratecraft._render._text import display_width

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    "cosine",
    *(
        f"warmup({n}).then(cosine(1, 0.1, over=percent(30))).then(constant(0.1))"
        for n in (50, 500, 5000)
    ),
    "warmup(500).then(linear(1, 0)), 100 steps",
    "warmup(500).then(linear(1, 0)), 2,000 steps",
    "学習率の予定表" * 6,
    "<b>&",
]


def heat_map(rows: list[str], groups: tuple[str, ...] = ("",)) -> HeatMap:
    cells = {
        (row, group, column): 0.1 * i + 0.01 * j if i else math.nan
        for i, row in enumerate(rows)
        for group in groups
        for j, column in enumerate(("0.001", "0.01", "0.1"))
    }
    return HeatMap(cells=cells, title="Final loss", missing="diverged")


def row_labels(text: str) -> list[str]:
    texts = ET.fromstring(text).iter(f"{SVG}text")  # noqa: S314 -- our own text
    return [element.text or "" for element in texts if element.get("text-anchor") == "end"]


@pytest.mark.parametrize("width", [360, 640])
def test_different_rows_have_different_labels(width: int) -> None:
    labels = row_labels(svg_heat_map(heat_map(ROWS), width=width))
    assert len(labels) == len(set(labels)) == len(ROWS)
    assert labels[0] == "cosine"
    assert labels[-1] == "<b>&"


@pytest.mark.parametrize("width", [360, 640])
@pytest.mark.parametrize("groups", [("",), ("adam", "a much longer name of an optimizer")])
def test_labels_and_cells_lie_within_the_picture(width: int, groups: tuple[str, ...]) -> None:
    root = ET.fromstring(svg_heat_map(heat_map(ROWS, groups), width=width))  # noqa: S314
    for element in root.iter(f"{SVG}text"):
        x, length = float(element.get("x") or 0), 6.2 * display_width(element.text or "")
        start = x - length * {"end": 1, "middle": 0.5}.get(element.get("text-anchor") or "", 0)
        assert start >= 0
        if element.get("text-anchor") == "end":
            assert x < width / 2
    for element in root.iter(f"{SVG}path"):
        assert float((element.get("d") or "")[1:].split()[0]) < width - 4


def test_a_shortened_label_has_the_whole_name_as_its_tooltip() -> None:
    root = ET.fromstring(svg_heat_map(heat_map(ROWS)))  # noqa: S314 -- our own text
    titles = {element.text for element in root.iter(f"{SVG}title")}
    assert {row for row in ROWS if display_width(row) > 36} <= titles
    assert "cosine" not in titles
