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

SCHEDULES = [
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


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedule_has_svg_repr(schedule) -> None:
    picture = ET.fromstring(schedule._repr_svg_())  # noqa: S314 -- our own text
    assert picture.tag.endswith("svg")
    assert repr(schedule) in "".join(picture.itertext())


def test_nominal_curve_uses_own_or_round_length() -> None:
    assert nominal_curve(warmup(70)).length == 70
    assert nominal_curve(cosine(1, 0)).length == 1_000
    assert nominal_curve(warmup(20_000).then(cosine(1, 0))).length == 100_000


def test_svg_repr_of_unresolvable_schedule_is_none() -> None:
    assert warmup(10**12).then(cosine(1, 0))._repr_svg_() is None


def test_curve_has_svg_repr() -> None:
    assert "<svg" in cosine(1, 0).resolve(total_steps=50)._repr_svg_()
    assert ">step<" in curve_svg(constant(1).resolve())
    assert ">token<" in curve_svg(cosine(1, 0).resolve(total_steps=tokens(1e9)))
    assert math.isinf(constant(1).resolve().length)
