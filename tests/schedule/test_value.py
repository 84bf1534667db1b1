"""Values: immutable, and equal by their fields."""

import copy
import dataclasses
import inspect
import pickle

import pytest

from ratecraft import Duration, constant, cosine, epochs, parse, percent
from ratecraft.schedule._duration import Horizon
from ratecraft.schedule._leaves import Ramp

VALUES = [epochs(2) - 1, cosine(1, 0.1, over=percent(5)), parse("wsd(50)"), Horizon(epochs=100.0)]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_value_is_built_from_its_fields_by_name_or_in_order(value):
    values = {name: getattr(value, name) for name in value._fields}
    assert type(value)(**values) == type(value)(*values.values()) == value
    assert list(values) == list(inspect.get_annotations(type(value)))


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_value_is_no_dataclass_which_other_libraries_take_for_a_group_of_settings(value):
    assert not dataclasses.is_dataclass(value)


def test_a_value_with_another_field_is_of_the_same_class():
    assert cosine(1, 0.1)._replace(end=0.2) == cosine(1, 0.2)
    assert epochs(2)._replace() == epochs(2)
    with pytest.raises(TypeError, match=r"Ramp\(\) takes each of these once: shape, start"):
        cosine()._replace(stop=0.2)


def test_a_field_has_the_default_of_its_class():
    assert Ramp("linear", 1.0, 0.0).over_ is None


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_copy_of_a_value_is_equal_and_has_its_text(value):
    pickled = pickle.loads(pickle.dumps(value))  # noqa: S301 - of this test
    for other in (copy.copy(value), copy.deepcopy(value), pickled):
        assert other == value
        assert hash(other) == hash(value)
        assert (str(other), repr(other)) == (str(value), repr(value))


def test_values_of_two_classes_differ():
    assert constant(1).reversed() != constant(1).over(5)
    assert Duration() != Horizon()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), {"weeks": 1.0}),
        ((1.0,), {"percent": 2.0}),
        ((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), {}),
    ],
)
def test_a_wrong_field_is_a_type_error_with_the_names(arguments, named):
    with pytest.raises(TypeError, match="percent, epochs, steps, samples, tokens"):
        Duration(*arguments, **named)


def test_a_missing_field_is_a_type_error():
    with pytest.raises(TypeError, match="shape, start, end, over_, parameters"):
        Ramp("linear", 1.0)


def test_an_unformatted_value_shows_its_fields():
    assert repr(Horizon(epochs=10.0)) == (
        "Horizon(clock='steps', steps=1.0, epochs=10.0, samples=None, tokens=None)"
    )
