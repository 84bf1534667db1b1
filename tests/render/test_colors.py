"""Colors of charts: they can be told apart, and seen on a light and on a dark page."""

import re
from importlib.resources import files
from itertools import combinations

import pytest

from ratecraft._render._chart import DARK_PALETTE, DASHES, PALETTE, Chart, Line
from ratecraft._render._heat_map import SCALE, _ink
from ratecraft._render._svg import FAINT, svg_chart, svg_key

STYLE = files("ratecraft.report").joinpath("_style.css").read_text(encoding="utf-8")


def luminance(color: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def style_colors(name: str) -> tuple[str, str]:
    """Return a color of the page in the light and in the dark."""
    light, dark = re.findall(rf"--{name}: (#[0-9a-f]{{6}})", STYLE)[:2]
    return light, dark


def test_contrast_of_black_and_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("surface", ["card", "page"])
def test_lines_have_a_contrast_of_3_to_both_backgrounds(surface: str) -> None:
    light, dark = style_colors(surface)
    faint = style_colors("faint")
    assert faint[0] == FAINT
    for color in (*PALETTE, FAINT):
        assert contrast(color, light) >= 3, color
    for color in (*DARK_PALETTE, faint[1]):
        assert contrast(color, dark) >= 3, color


@pytest.mark.parametrize("name", ["ink", "soft"])
def test_text_has_a_contrast_of_4_and_a_half(name: str) -> None:
    for color, surface in zip(style_colors(name), style_colors("page"), strict=True):
        assert contrast(color, surface) >= 4.5


def test_numbers_in_cells_can_be_read() -> None:
    for color in SCALE:
        assert contrast(color, _ink(color)) >= 4.5, color


def test_no_two_lines_and_no_two_keys_look_alike() -> None:
    count = len(PALETTE) * len(DASHES)
    assert count >= 49
    keys = [svg_key(i) for i in range(count)]
    assert len(set(keys)) == count
    lines = [Line(f"{i}", [0, 1], [0, i]) for i in range(count)]
    entries = re.findall(
        r'class="entry"[^>]*>\s*<path d="[^"]*" ([^/]*)/>', svg_chart(Chart(lines=lines))
    )
    assert len(set(entries)) == len(entries) == count
    assert [re.search("stroke=.*(?=/></svg>)", key)[0] for key in keys] == entries


def test_colors_of_a_palette_are_far_apart() -> None:
    for palette in (PALETTE, DARK_PALETTE):
        for a, b in combinations(palette, 2):
            distance = sum((int(a[i : i + 2], 16) - int(b[i : i + 2], 16)) ** 2 for i in (1, 3, 5))
            assert distance**0.5 > 50, (a, b)
