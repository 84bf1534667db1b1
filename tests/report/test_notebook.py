import re
import xml.etree.ElementTree as ET

import pytest
from quadratic import (
    make_comparison,
    make_forecast,
    make_grid_comparison,
    make_lr_finder_result,
    make_range_test_result,
)

from ratecraft import constant
from ratecraft.results import Breakdown, Comparison

BREAKDOWN = Breakdown("a <b>", 0.1, {"StepLR <i>": (1.0, 0.5), "warmup": (0.0, 1.0)}, (0.0, 0.05))
RESULTS = [
    make_comparison(),
    make_comparison(lr=3.0),
    make_grid_comparison(lrs=(0.01, 0.02)),
    make_forecast(),
    make_lr_finder_result(),
    make_lr_finder_result(None),
    make_range_test_result(),
    make_range_test_result(None),
    BREAKDOWN,
]


@pytest.mark.parametrize("result", RESULTS, ids=repr)
def test_a_notebook_shows_a_sentence_a_table_and_a_picture(result) -> None:
    html = ET.fromstring(f"<body>{result._repr_html_()}</body>")  # noqa: S314 - our own text
    tags = [element.tag.split("}")[-1] for element in html.iter()]
    assert tags.count("table") == tags.count("svg") - 1 == 1  # the plot is an inner svg
    assert len(html.findall(".//tr")) > 1
    assert html.find("p").text
    assert "script" not in tags


def test_a_notebook_shows_the_verdict_of_a_comparison() -> None:
    result = make_comparison()
    html = ET.fromstring(f"<body>{result._repr_html_()}</body>")  # noqa: S314 - our own text
    assert html.find("p").text == result.verdict()


def test_a_notebook_shows_the_best_of_many_schedules() -> None:
    many = make_comparison({f"s{i}": (1 + i / 50) * constant(1) for i in range(40)}, seeds=1)
    html = many._repr_html_()
    assert "20 more rows are left out." in html
    assert len(set(re.findall(r">(s\d+)</text>", html))) == 8


def test_a_long_name_is_not_cut_in_the_table() -> None:
    name = "x" * 300
    result = make_comparison({name: constant(1)})
    assert isinstance(result, Comparison)
    assert f">{name}</td>" in result._repr_html_()
