import math
import re
import xml.etree.ElementTree as ET

import pytest

from ratecraft._render._chart import PALETTE, Chart, Line, Mark, wrap
from ratecraft._render._svg import FAINT, svg_chart

SVG = "{http://www.w3.org/2000/svg}"
LABELS = {"title": "A chart", "x_label": "step", "y_label": "loss"}


def draw(*drawn: Line, width: int = 640, points: int = 1000, **settings: object) -> str:
    return svg_chart(Chart(lines=drawn, **(LABELS | settings)), width=width, points=points)


def tree(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - our own text


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def lines(root: ET.Element, color: str = PALETTE[0]) -> list[list[tuple[float, float]]]:
    """The stretches of a series, within the axes."""
    inner = root.find(f"{SVG}svg")
    assert inner is not None
    stretches = []
    for path in inner.iter(f"{SVG}path"):
        if path.get("stroke") == color:
            for stretch in path.attrib["d"].split("M")[1:]:
                pairs = [pair.split() for pair in stretch.split("L")]
                stretches.append([(float(x), float(y)) for x, y in pairs])
    return stretches


def test_a_chart_is_well_formed_and_has_a_title() -> None:
    text = draw(Line("a", range(50), [math.exp(-k / 9) for k in range(50)]))
    root = tree(text)
    assert root.get("role") == "img"
    assert root[0].tag == f"{SVG}title"
    assert root[0].text == "A chart"
    assert root.find(f"{SVG}rect").get("fill") == "#ffffff"
    assert {"step", "loss", "0", "1.0", "40"} <= set(texts(root))
    assert re.findall('https?://[^"]*', text) == ["http://www.w3.org/2000/svg"]
    assert "href" not in text
    assert len(lines(root)[0]) == 50


def test_names_are_escaped() -> None:
    name = '<b>&"</b>'
    series = [Line(name, [0, 1], [0, 1]), Line("b", [0, 1], [1, 0])]
    root = tree(draw(*series, title=name, x_label=name, y_label=name))
    assert texts(root).count(name) == 4
    assert root[0].text == name


def test_non_finite_points_are_gaps_and_a_single_point_is_a_dot() -> None:
    ys = [1, 2, math.nan, 3, math.inf, 2, 1]
    root = tree(draw(Line("a", range(7), ys)))
    assert [len(stretch) for stretch in lines(root)] == [2, 2]
    assert len(list(root.iter(f"{SVG}circle"))) == 1


def test_zeros_are_gaps_on_logarithmic_axes() -> None:
    line = Line("a", [0, 1e-4, 1e-3, 1e-2, 1e-1], [1, 10, 0, 100, 1000])
    root = tree(draw(line, log_x=True, log_y=True))
    assert [len(stretch) for stretch in lines(root)] == [2]
    assert {"1e-4", "1e-3", "0.01", "10", "100", "1000"} <= set(texts(root))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("ys", [[], [0.0], [0, 0], [3e-4, 3e-4], [math.nan], [-1, -2]], ids=str)
def test_any_range_is_drawn(ys: list[float], log: bool) -> None:
    text = draw(Line("a", range(len(ys)), ys), log_y=log)
    tree(text)
    assert "nan" not in text
    assert "inf" not in text


def test_a_long_line_is_decimated_and_preserves_its_extremes() -> None:
    ys = [1.0] * 200_000
    ys[77_777], ys[123_456] = 5.0, 0.0
    text = draw(Line("a", range(len(ys)), ys))
    (line,) = lines(tree(text))
    assert len(line) <= 1000
    assert len(text) < 20_000
    heights = [y for _, y in line]
    usual = heights[0]
    assert sum(y < usual for y in heights) == 1
    assert sum(y > usual for y in heights) == 1


def test_lines_are_clipped_at_the_axes() -> None:
    root = tree(draw(Line("a", [0, 1, 2], [0, 1e30, 1]), y_range=(0, 2)))
    inner = root.find(f"{SVG}svg")
    # An inner svg clips its content unless overflow is set.
    assert inner.get("overflow") is None
    assert "2.0" in texts(root)
    assert all(abs(y) < 1e5 for _, y in lines(root)[0])


def test_a_band_lies_around_its_line() -> None:
    xs, mean = [0, 1, 2], [3.0, 2.0, 1.0]
    band = [y - 0.5 for y in mean], [y + 0.5 for y in mean]
    root = tree(draw(Line("a", xs, mean, band=band)))
    area = next(p for p in root.iter(f"{SVG}path") if p.get("fill-opacity"))
    corners = [float(p.split()[1]) for p in re.split("[ML]", area.attrib["d"].rstrip("Z"))[1:]]
    (line,) = lines(root)
    for i, (_, y) in enumerate(line):
        assert corners[5 - i] < y < corners[i]


def test_a_mark_has_its_number_and_lies_within_the_axes() -> None:
    text = draw(Line("a", [1e-3, 1e-2], [1, 2]), log_x=True, marks=[Mark(0.25, "0.25")])
    root = tree(text)
    assert "0.25" in texts(root)
    path = next(p for p in root.iter(f"{SVG}path") if p.get("stroke-dasharray") == "4 3")
    x = float(path.attrib["d"][1:].split()[0])
    assert x < 640


def test_faint_lines_are_behind_and_use_no_palette_colour() -> None:
    smooth, raw = Line("smooth", [0, 1], [0, 1]), Line("raw", [0, 1], [0, 1], "faint")
    root = tree(draw(smooth, raw))
    inner = root.find(f"{SVG}svg")
    assert [p.get("stroke") for p in inner] == [FAINT, PALETTE[0]]


def test_dashed_lines_take_the_colour_of_another_and_are_not_in_the_legend() -> None:
    guess = Line("guess", [0, 1], [0, 1], "dashed", color=1)
    root = tree(draw(guess, Line("a", [0, 1], [0, 1]), Line("b", [0, 1], [1, 0])))
    inner = root.find(f"{SVG}svg")
    strokes = [(p.get("stroke"), p.get("stroke-dasharray")) for p in inner]
    assert strokes == [(PALETTE[1], "3 3"), (PALETTE[0], None), (PALETTE[1], None)]
    assert "guess" not in texts(root)


def test_a_small_chart_has_fewer_points() -> None:
    drawn = draw(Line("a", range(5000), [k % 7 for k in range(5000)]), width=360, points=300)
    (line,) = lines(tree(drawn))
    assert 100 < len(line) <= 300


def test_many_lines_differ_in_colour_or_dashes() -> None:
    root = tree(draw(*(Line(f"schedule number {i}", [0, 1], [i, i]) for i in range(20))))
    inner = root.find(f"{SVG}svg")
    assert len({(p.get("stroke"), p.get("stroke-dasharray")) for p in inner}) == 20
    legend = [t for t in root.iter(f"{SVG}text") if (t.text or "").startswith("schedule")]
    assert len(legend) == 20
    assert all(float(t.attrib["x"]) + 6.2 * len(t.text or "") < 640 for t in legend)
    assert float(inner.attrib["height"]) > 100


def test_a_long_title_is_wrapped_and_never_cut() -> None:
    title = "warmup(20).then(constant(1)).then(one_minus_sqrt(1, 0, over=percent(20)))" * 3
    root = tree(draw(Line("a", [0, 1], [0, 1]), title=title, width=480))
    words = [t.text or "" for t in root.iter(f"{SVG}text") if t.get("font-size") == "14"]
    assert "".join(words).replace(" ", "") == title.replace(" ", "")
    assert len(words) > 3
    assert max(map(len, words)) <= 55
    inner = root.find(f"{SVG}svg")
    assert inner is not None
    below_title = max(float(t.attrib["y"]) for t in root.iter(f"{SVG}text") if t.text in words)
    assert float(inner.attrib["y"]) > below_title
    assert float(inner.attrib["height"]) == pytest.approx(360 - 46 - 42)


@pytest.mark.parametrize("text", ["", "a", "one two  three", "x" * 50, "a.b(0.1).c d" * 9])
def test_wrapped_text_keeps_every_word_and_fits(text: str) -> None:
    wrapped = wrap(text, 10)
    assert all(len(line) <= 10 for line in wrapped)
    assert "".join(wrapped).replace(" ", "") == text.replace(" ", "")


def test_dots_and_crosses_mark_each_point() -> None:
    dots, crosses = Line("d", [0, 1], [0, 1], "dots"), Line("c", [0, 1], [1, 0], "crosses")
    root = tree(draw(dots, crosses))
    inner = root.find(f"{SVG}svg")
    assert inner is not None
    assert len(list(inner.iter(f"{SVG}circle"))) == 2
    paths = [p.attrib["d"] for p in inner.iter(f"{SVG}path") if p.get("stroke") == PALETTE[1]]
    assert [path.count("M") for path in paths] == [2]


def test_a_span_is_shaded_between_its_ends() -> None:
    root = tree(draw(Line("a", [0, 10], [0, 1]), span=(2, 4)))
    area = next(p for p in root.iter(f"{SVG}path") if p.get("fill-opacity"))
    left, right = (float(x) for x in re.findall(r"M([\d.]+) 0H([\d.]+)", area.attrib["d"])[0])
    inner = root.find(f"{SVG}svg")
    assert inner is not None
    assert (right - left) / float(inner.attrib["width"]) == pytest.approx(0.2 / 1.04, abs=0.01)
