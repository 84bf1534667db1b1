import math
import xml.etree.ElementTree as ET

import pytest

from ratecraft import (
    constant,
    cosine,
    custom,
    decay,
    epochs,
    linear,
    multiplicative,
    percent,
    restarts,
    samples,
    tokens,
    triangular,
    warmup,
    wsd,
)
from ratecraft.report._picture import curve_svg, nominal_curve

KINDS = [
    cosine(1, 0),
    warmup(500),
    warmup(20_000).then(cosine(1, 0)),
    wsd(epochs(3), percent(20)),
    constant(1),
    decay(0.99),
    restarts(10, grow=2),
    triangular(5),
    warmup(tokens(100)).then(linear(1, 0, over=samples(50))),
    custom(lambda t: 1 / (1 + t)),
    multiplicative(lambda k: 0.99),
]


@pytest.mark.parametrize("schedule", KINDS, ids=repr)
def test_every_kind_of_schedule_shows_itself_in_a_notebook(schedule) -> None:
    picture = ET.fromstring(schedule._repr_svg_())  # noqa: S314 - our own
    assert picture.tag.endswith("svg")
    assert repr(schedule) in "".join(picture.itertext())


def test_a_schedule_is_shown_over_its_own_length_or_a_round_run_that_fits() -> None:
    assert nominal_curve(warmup(70)).length == 70
    assert nominal_curve(cosine(1, 0)).length == 1_000
    assert nominal_curve(warmup(20_000).then(cosine(1, 0))).length == 100_000


def test_what_fits_no_run_shows_nothing_rather_than_an_error() -> None:
    assert warmup(10**12).then(cosine(1, 0))._repr_svg_() is None


def test_a_curve_shows_itself() -> None:
    assert "<svg" in cosine(1, 0).resolve(total_steps=50)._repr_svg_()
    assert ">step<" in curve_svg(constant(1).resolve())
    assert ">token<" in curve_svg(cosine(1, 0).resolve(total_steps=tokens(1e9)))
    assert math.isinf(constant(1).resolve().length)
