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
from ratecraft.schedule._picture import resolve_for_chart

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
    assert picture.find("{http://www.w3.org/2000/svg}title").text == str(schedule)


def test_a_schedule_is_drawn_over_its_own_length_or_an_assumed_one() -> None:
    curve, assumed = resolve_for_chart(warmup(70))
    assert (curve.length, assumed) == (70, "")
    curve, assumed = resolve_for_chart(cosine(1, 0))
    assert (curve.length, assumed) == (1_000, "assumed: 1,000 steps")
    curve, assumed = resolve_for_chart(warmup(20_000).then(cosine(1, 0)))
    assert curve.length == 100_000
    _, assumed = resolve_for_chart(wsd(epochs(3), percent(20)))
    assert assumed == "assumed: 1,000 steps, 100 steps per epoch"
    _, assumed = resolve_for_chart(warmup(tokens(100)).then(linear(1, 0, over=samples(50))))
    assert assumed == "assumed: 1 sample per step, 1 token per step"
    _, assumed = resolve_for_chart(warmup(epochs(3)))
    assert assumed == "assumed: 100 steps per epoch"


def test_an_assumed_length_stands_in_the_picture() -> None:
    assert "step (assumed: 1,000 steps)" in cosine(1, 0)._repr_svg_()
    assert "assumed" not in cosine(1, 0).resolve(total_steps=1_000)._repr_svg_()
    assert "step (assumed: 1,000 steps)" in constant(1).resolve()._repr_svg_()
    assert cosine(1, 0).plot().get_xlabel() == "step (assumed: 1,000 steps)"
    assert cosine(1, 0).plot(1_000).get_xlabel() == "step"


def test_a_picture_has_the_text_that_the_user_wrote() -> None:
    assert "<title>wsd(20)</title>" in wsd(20)._repr_svg_()


def test_svg_repr_of_unresolvable_schedule_is_none() -> None:
    assert warmup(10**12).then(cosine(1, 0))._repr_svg_() is None


def test_curve_has_svg_repr() -> None:
    assert "<svg" in cosine(1, 0).resolve(total_steps=50)._repr_svg_()
    assert ">token<" in cosine(1, 0).resolve(total_steps=tokens(1e9))._repr_svg_()
    assert math.isinf(constant(1).resolve().length)
