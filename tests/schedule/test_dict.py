"""Schedules as plain data: to_dict, from_dict and its errors."""

import inspect
import json
import math
from collections import OrderedDict
from types import MappingProxyType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import fixed_lengths, lengths, numbers, schedules

from ratecraft import (
    Schedule,
    ScheduleError,
    constant,
    cooldown,
    cosine,
    custom,
    decay,
    epochs,
    exponential,
    from_dict,
    inverse_sqrt,
    knee,
    linear,
    multiplicative,
    noam,
    one_cycle,
    parse,
    percent,
    polynomial,
    power_law,
    power_scheduler,
    restarts,
    samples,
    square,
    staircase,
    steps,
    tanh,
    to_dict,
    tokens,
    triangular,
    triangular2,
    warmup,
    wsd,
)
from ratecraft.schedule._parser import MAX_DEPTH, MAX_PARTS, VERBS, WORDS

# The law -----------------------------------------------------------------------------------------

COUNTED = [samples(50_000), tokens(3e9), tokens(0.5) + 3, percent(10) - samples(5), steps(1e15)]
newer_lengths = lengths | st.sampled_from(COUNTED)
slopes = st.sampled_from([-7, -1.5, 0, 0.3, 3])
newer_leaves = st.one_of(
    st.builds(tanh, numbers, numbers, slopes, slopes, st.none() | newer_lengths),
    st.builds(inverse_sqrt, newer_lengths, st.none() | newer_lengths),
    st.builds(power_law, st.sampled_from([-0.5, -1.5]), newer_lengths, newer_lengths),
    st.builds(staircase, st.tuples(numbers, numbers), at=st.tuples(newer_lengths)),
    st.builds(restarts, fixed_lengths, st.integers(1, 4), end=numbers),
    st.builds(triangular2, fixed_lengths, low=numbers),
    st.builds(wsd, newer_lengths, newer_lengths),
    st.builds(power_scheduler, newer_lengths, newer_lengths),
    st.builds(noam, st.integers(1, 10**6), st.integers(1, 10**6)),
)


@st.composite
def newer_schedules(draw):
    """Draw a random schedule combined with one of the newer functions."""
    a, b = draw(newer_leaves), draw(schedules(2))
    match draw(st.sampled_from(["alone", "then", "product", "rescale", "over"])):
        case "then" if not (a._is_open() and b._is_open()):
            return a.then(b)
        case "product":
            return a * b
        case "rescale":
            return a.rescale(draw(numbers), draw(numbers))
        case "over":
            return a.over(draw(newer_lengths))
    return a


@given(schedules() | newer_schedules())
@example(staircase([1], at=[]))
@example(constant(1e15).then(constant(1e16, over=steps(1e15))))
@example(linear(-0.0, 5e-324))
@example(0.1 * (cosine() * cosine()) * warmup(3))
def test_from_dict_undoes_to_dict_and_json(schedule):
    data = json.loads(json.dumps(to_dict(schedule), allow_nan=False))
    again = from_dict(data)
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert to_dict(again) == data


@given(schedules(2))
def test_dict_and_text_give_equal_schedules(schedule):
    assert from_dict(to_dict(schedule)) == parse(repr(schedule))


# The form of the data ----------------------------------------------------------------------------

FORMS = [
    (constant(1), {"constant": {"value": 1}}),
    (constant(0.5, over=10), {"constant": {"value": 0.5, "over": 10}}),
    (warmup(500), {"warmup": {"over": 500}}),
    (warmup(percent(5), 0.1), {"warmup": {"over": "percent(5)", "start": 0.1}}),
    (cooldown(epochs(1) + 10, 0.1), {"cooldown": {"over": "epochs(1) + 10", "end": 0.1}}),
    (warmup(steps(2.5)), {"warmup": {"over": "steps(2.5)"}}),
    (warmup(0), {"warmup": {"over": 0}}),
    (linear(1e15, 1e-3), {"linear": {"start": 1e15, "end": 0.001}}),
    (cosine(2, -1), {"cosine": {"start": 2, "end": -1}}),
    (cosine(1, 0, 3), {"cosine": {"start": 1, "end": 0, "half_cycles": 3}}),
    (exponential(1, 0.01, 5), {"exponential": {"start": 1, "end": 0.01, "over": 5}}),
    (polynomial(1, 0, 0.9), {"polynomial": {"start": 1, "end": 0, "power": 0.9}}),
    (square(1, 0), {"square": {"start": 1, "end": 0}}),
    (tanh(1, 0), {"tanh": {"start": 1, "end": 0, "low": -7, "high": 3}}),
    (decay(0.5), {"decay": {"gamma": 0.5, "every": 1}}),
    (inverse_sqrt(tokens(9)), {"inverse_sqrt": {"timescale": "tokens(9)"}}),
    (power_law(-1, 9), {"power_law": {"exponent": -1, "timescale": 9}}),
    (power_law(-1, 9, 3), {"power_law": {"exponent": -1, "timescale": 9, "shift": 3}}),
    (
        staircase([1, 0.1], every=epochs(30)),
        {"staircase": {"values": [1, 0.1], "every": "epochs(30)"}},
    ),
    (
        staircase([1, 0.1, 0], at=[30, percent(50)], over=100),
        {"staircase": {"values": [1, 0.1, 0], "at": [30, "percent(50)"], "over": 100}},
    ),
    (
        warmup(5).then(constant(1)).then(cooldown(5)),
        {
            "then": [
                {"warmup": {"over": 5}},
                {"constant": {"value": 1}},
                {"cooldown": {"over": 5}},
            ]
        },
    ),
    (3e-4 * cosine(), {"scale": {"by": 3e-4, "of": {"cosine": {"start": 1, "end": 0}}}}),
    (2.0 * constant(1), {"scale": {"by": 2, "of": {"constant": {"value": 1}}}}),
    (
        warmup(5) * cosine(),
        {"product": [{"warmup": {"over": 5}}, {"cosine": {"start": 1, "end": 0}}]},
    ),
    (warmup(5).repeat(), {"repeat": {"of": {"warmup": {"over": 5}}}}),
    (
        warmup(5).repeat(3, grow=2, decay=0.5),
        {"repeat": {"of": {"warmup": {"over": 5}}, "n": 3, "grow": 2, "decay": 0.5}},
    ),
    (warmup(5).repeat(3, decay=0), {"repeat": {"of": {"warmup": {"over": 5}}, "n": 3, "decay": 0}}),
    (warmup(5).clip(low=0), {"clip": {"of": {"warmup": {"over": 5}}, "low": 0}}),
    (warmup(5).clip(high=0.5), {"clip": {"of": {"warmup": {"over": 5}}, "high": 0.5}}),
    (warmup(5).rescale(0, 1), {"rescale": {"of": {"warmup": {"over": 5}}, "low": 0, "high": 1}}),
    (
        warmup(5).over(epochs(1)),
        {"over": {"of": {"warmup": {"over": 5}}, "length": "epochs(1)"}},
    ),
    (warmup(5).over(9), {"over": {"of": {"warmup": {"over": 5}}, "length": 9}}),
    (warmup(5).reversed(), {"reversed": {"of": {"warmup": {"over": 5}}}}),
]
forms = pytest.mark.parametrize(("schedule", "data"), FORMS, ids=[repr(s) for s, _ in FORMS])


@forms
def test_to_dict_returns_the_documented_form(schedule, data):
    written = to_dict(schedule)
    assert written == data
    assert json.dumps(written) == json.dumps(data)  # 1 and 1.0 are equal, but differ in JSON


@forms
def test_from_dict_reads_the_documented_form(schedule, data):
    assert from_dict(data) == schedule


@pytest.mark.parametrize(
    "schedule",
    [
        custom(math.sqrt),
        multiplicative(abs),
        warmup(5).then(custom(math.sqrt)),
        (2 * multiplicative(abs)).clip(0, 1),
    ],
)
def test_to_dict_raises_for_python_functions(schedule):
    with pytest.raises(ScheduleError, match=r">.* contains a Python function, which has no"):
        to_dict(schedule)


# Written by hand ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "schedule"),
    [
        ({"cosine": {}}, cosine()),
        ({"one_cycle": {}}, one_cycle()),
        ({"one_cycle": {"three_phase": True}}, one_cycle(three_phase=True)),
        ({"wsd": {"warmup": 500, "shape": "linear"}}, wsd(500, shape="linear")),
        ({"noam": {"warmup": 4000, "model_width": 512}}, noam(4000, 512)),
        ({"knee": {"explore": 100}}, knee(100)),
        ({"restarts": {"first": 10, "n": None}}, restarts(10)),
        ({"linear": {"end": 0, "start": 1}}, linear(1, 0)),
        ({"cosine": {"start": 1.0, "end": 0, "over": None}}, cosine()),
        ({"warmup": {"over": " epochs( 1 )+ 10 "}}, warmup(epochs(1) + 10)),
        ({"warmup": {"over": "500"}}, warmup(500)),
        ({"warmup": {"over": 5, "shape": "cosine", "hold": 2}}, warmup(5, shape="cosine", hold=2)),
        ({"decay": {"gamma": 0.5, "every": "epochs(1)"}}, decay(0.5, epochs(1))),
        (
            {"power_law": {"exponent": -1, "timescale": "percent(1)", "shift": "epochs(1)"}},
            power_law(-1, percent(1), epochs(1)),
        ),
        (
            {"staircase": {"values": (1, 2), "at": ("epochs(3)",)}},
            staircase([1, 2], at=[epochs(3)]),
        ),
        (
            {"staircase": {"values": [0.1, 0.2], "lengths": (10, 20)}},
            constant(0.1, over=10).then(constant(0.2, over=20)),
        ),
        ({"then": ({"warmup": {"over": 5}}, {"cosine": {}})}, warmup(5).then(cosine())),
        ({"then": [{"warmup": {"over": 5}}]}, warmup(5)),
        (
            {
                "then": [
                    {"warmup": {"over": 1}},
                    {"then": [{"warmup": {"over": 2}}, {"cosine": {}}]},
                ]
            },
            warmup(1).then(warmup(2)).then(cosine()),
        ),
        ({"scale": {"of": {"cosine": {}}, "by": 0.1}}, 0.1 * cosine()),
        ({"repeat": {"of": {"cosine": {}}, "n": 4, "grow": 1}}, cosine().repeat(4)),
        ({"clip": {"of": {"cosine": {}}, "low": None, "high": 1}}, cosine().clip(high=1)),
        ({"over": {"of": {"cosine": {}}, "length": "percent(50)"}}, cosine(over=percent(50))),
    ],
    ids=str,
)
def test_from_dict_reads_handwritten_configs(data, schedule):
    assert from_dict(data) == schedule


def test_from_dict_reads_any_mapping_and_modifies_none():
    inner = OrderedDict(over=5)
    data = MappingProxyType({"scale": {"by": 2, "of": MappingProxyType({"warmup": inner})}})
    assert from_dict(data) == 2 * warmup(5)
    assert from_dict(data) == 2 * warmup(5)
    assert inner == {"over": 5}


def test_every_function_and_method_has_a_dict_form():
    # All functions but those for lengths, with their required arguments.
    required = {
        "start": 1, "end": 0.5, "value": 1, "gamma": 0.5, "k": 1, "timescale": 10, "exponent": -1,
        "over": 5, "values": [1], "warmup": 5, "cooldown": 5, "model_width": 9,
        "explore": 5, "up": 5, "first": 5, "every": 5,
    }  # fmt: skip
    lengths = {"steps", "epochs", "percent", "samples", "tokens", "untuned_warmup"}
    for word in WORDS.keys() - lengths:
        parameters = inspect.signature(WORDS[word]).parameters
        content = {
            name: required[name]
            for name, p in parameters.items()
            if p.default is p.empty
            or (word, name) in {("staircase", "every"), ("restarts", "first")}
        }
        assert from_dict({word: content}) == WORDS[word](**content)
    assert set(VERBS) | {"scale", "product"} >= {
        word for _, data in FORMS for word in data if word not in WORDS
    }


# Invalid data: each error has the path ------------------------------------------------------------

WARM = {"warmup": {"over": 5}}
NESTED = {"scale": {"by": 2, "of": {"then": [WARM, {"clip": {"of": None}}]}}}
REFUSED = {
    "None": (None, "schedule: expected a dict with one key, such as {'warmup': {'over': 500}}, "
             "not None"),
    "text": ("warmup(5)", "schedule: expected a dict with one key, such as {'warmup': {'over': "
             "500}}, not 'warmup(5)'"),
    "list": ([WARM], "schedule: expected a dict with one key, such as"),
    "number": (5, "schedule: expected a dict with one key"),
    "empty": ({}, "schedule: expected a dict with one key"),
    "two words": (WARM | {"cosine": {}}, "schedule: expected a dict with one key"),
    "long": ({"a" * 100: 1, "b": 2}, "not {'aaaaaaaaaaaa...aaaaaaaaaaaaa': 1, 'b': 2}"),
    "no arguments": ({"cosine": None}, "schedule.cosine: expected a dict of arguments, not None"),
    "a list of them": ({"cosine": [1, 0]}, "schedule.cosine: expected a dict of arguments, not [1"),
    "verb": ({"scale": 2}, "schedule.scale: expected a dict of arguments, not 2"),
    "unknown": ({"cosin": {}}, "schedule.cosin: 'cosin' is not a word of the notation; did you mean"
                " 'cosine'?"),
    "far from all": ({"zzz": {}}, "schedule.zzz: 'zzz' is not a word of the notation"),
    "custom": ({"custom": {"function": 1}}, "schedule.custom: 'custom' is not a word"),
    "length": ({"epochs": {"n": 5}}, "schedule.epochs: expected a schedule, not a length"),
    "untuned": ({"untuned_warmup": {}}, "schedule.untuned_warmup: expected a schedule, not a "
                "length"),
    "argument": ({"cosine": {"stat": 1}}, "schedule.cosine: cosine() has no stat=; did you mean "
                 "'start'?; it takes (start, end, half_cycles, over)"),
    "missing": ({"warmup": {}}, "schedule.warmup: warmup(): missing a required argument: "
                "'over'; it takes (over, start, shape, hold)"),
    "a number": ({"cosine": {"start": "1"}}, "schedule.cosine: cosine: start must be a number, not "
                 "'1' (str)"),
    "bool": ({"constant": {"value": True}}, "must be a number, not True (bool)"),
    "nan": ({"constant": {"value": math.nan}}, "must be finite, not nan"),
    "too large": ({"constant": {"value": 10**400}}, "is too large for a float"),
    "share": ({"warmup": {"over": 0.1}}, "schedule.warmup: warmup: over= must be an int (steps)"),
    "a wrong length": ({"warmup": {"over": "epoch(1)"}}, "schedule.warmup: 'epoch' is not a word "
                       "of the notation; did you mean 'epochs'?"),
    "a schedule": ({"warmup": {"over": "cosine()"}}, "schedule.warmup: the length must be an int"),
    "empty text": ({"warmup": {"over": ""}}, "schedule.warmup: the text is empty"),
    "value": ({"warmup": {"over": -5}}, "schedule.warmup: steps(-5): a length must be >= 0"),
    "in a list": ({"staircase": {"values": [1, 2], "at": ["x"]}}, "schedule.staircase: 'x' is not"),
    "then": ({"then": WARM}, "schedule.then: expected a list of schedules, not {'warmup'"),
    "then of nothing": ({"then": []}, "schedule.then: expected a list of schedules, not []"),
    "then of text": ({"then": "ab"}, "schedule.then: expected a list of schedules, not 'ab'"),
    "two open": ({"then": [{"cosine": {}}, {"cosine": {}}]}, "schedule.then: at most one part of a "
                 "sequence may have no length"),
    "in then": ({"then": [WARM, {"then": [WARM, 5]}]}, "schedule.then[1].then[1]: expected a dict "
                "with one key"),
    "product of one": ({"product": [WARM]}, "schedule.product: expected two schedules, not 1"),
    "product of three": ({"product": [WARM] * 3}, "product: expected two schedules, not 3"),
    "in product": ({"product": [WARM, {"cosine": {"x": 1}}]}, "schedule.product[1].cosine: cosine()"
                   " has no x="),
    "no of": ({"repeat": {"n": 3}}, "schedule.repeat: 'of' is missing, the schedule to apply it "
              "to"),
    "in of": (NESTED, "schedule.scale.of.then[1].clip.of: expected a dict with one key"),
    "no by": ({"scale": {"of": WARM}}, "schedule.scale: scale(): missing a required argument: "
              "'by'; it takes (by)"),
    "a number as a word": ({1: {}}, "schedule: expected a word of the notation, not 1"),
    "None as a word": ({None: {}}, "schedule: expected a word of the notation, not None"),
    "k": ({"exp_decay": {"k": -1000}}, "schedule.exp_decay: exp_decay: k=-1000 is too small"),
    "width": ({"noam": {"warmup": 1, "model_width": 10**400}}, "noam: model_width is too large"),
    "by": ({"scale": {"of": WARM, "by": "2"}}, "schedule.scale: the factor of a schedule must be a "
           "number, not '2'"),
    "by schedule": ({"scale": {"of": WARM, "by": WARM}}, "schedule.scale: expected a number, a "
                    "length or a list of them, not {'warmup': {'over': 5}}"),
    "n": ({"repeat": {"of": WARM, "n": 2.5}}, "schedule.repeat: .repeat(n): n must be an int, not "
          "2.5"),
    "n 0": ({"repeat": {"of": WARM, "n": 0}}, "schedule.repeat: .repeat(0): needs at least one"),
    "endless": ({"repeat": {"of": {"cosine": {}}}}, "schedule.repeat: cosine(1, 0) has no length"),
    "clip": ({"clip": {"of": WARM}}, "schedule.clip: .clip() needs low=, high= or both"),
    "limits": ({"clip": {"of": WARM, "low": 2, "high": 1}}, "schedule.clip: .clip(low=2, high=1)"),
    "rescale": ({"rescale": {"of": WARM, "low": 0}}, "schedule.rescale: "),
    "over": ({"over": {"of": WARM, "length": "0.5"}}, "schedule.over: the length must be an int"),
    "reversed": ({"reversed": {"of": WARM, "n": 2}}, "schedule.reversed: "),
}  # fmt: skip


def nested(around, times=100_000):
    data = []
    for _ in range(times):
        data = around(data)
    return data


DEEP = {
    "lists": nested(lambda inner: [inner]),
    "a list as a value": {"constant": {"value": nested(lambda inner: [inner])}},
    "a dict as a value": {"constant": {"value": nested(lambda inner: {"x": inner})}},
    "a list of levels": {"staircase": {"values": nested(lambda inner: [inner]), "every": 1}},
    "parts": {"then": nested(lambda inner: {"a": inner, "b": 1})},
    "verbs": nested(lambda inner: {"reversed": {"of": inner}}),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_data_raises_a_short_error(name):
    with pytest.raises(ScheduleError) as caught:
        from_dict(DEEP[name])
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize(
    ("data", "same"),
    [
        (
            {"wsd": {"warmup": "percent(10)", "cooldown": "epochs(1)"}},
            wsd(percent(10), epochs(1)),
        ),
        ({"warmup": {"over": 10, "hold": "epochs(1)"}}, warmup(10, hold=epochs(1))),
        (
            {"staircase": {"values": [0.1], "lengths": ["epochs(1)"]}},
            staircase([0.1], lengths=[epochs(1)]),
        ),
        ({"restarts": {"first": "epochs(1)"}}, restarts(epochs(1))),
        ({"triangular": {"up": "epochs(1)", "down": "5"}}, triangular(epochs(1), 5)),
        ({"knee": {"explore": "percent(50)"}}, knee(percent(50))),
    ],
    ids=str,
)
def test_every_length_may_be_text(data, same):
    assert from_dict(data) == same


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_data_raises_with_the_path(name):
    data, message = REFUSED[name]
    with pytest.raises(ScheduleError) as caught:
        from_dict(data)
    assert message in str(caught.value)


# Hostile data -------------------------------------------------------------------------------------


def deep(levels):
    data = WARM
    for _ in range(levels):
        data = {"reversed": {"of": data}}
    return data


def test_the_depth_limit_is_that_of_the_text():
    assert isinstance(from_dict(deep(MAX_DEPTH)), Schedule)
    for depth in (MAX_DEPTH + 1, 10_000):
        with pytest.raises(ScheduleError, match=r"of: too large; at most 2,000 parts, 50 levels"):
            from_dict(deep(depth))


def test_deep_lists_of_schedules_raise():
    data = WARM
    for i in range(10_000):
        data = {"then": [data]} if i % 2 else {"product": [data, WARM]}
    with pytest.raises(ScheduleError, match="too large"):
        from_dict(data)


def test_the_size_limit_is_that_of_the_text():
    # The sequence itself is one of them.
    assert len(from_dict({"then": [WARM] * (MAX_PARTS - 1)}).parts) == MAX_PARTS - 1
    with pytest.raises(ScheduleError, match=r"schedule.then\[1999\]: too large; at most 2,000"):
        from_dict({"then": [WARM] * 10**6})


def test_self_referential_data_raises():
    itself = {"reversed": {}}
    itself["reversed"]["of"] = itself
    listed = {"then": []}
    listed["then"] += [listed, WARM]
    for data in (itself, listed):
        with pytest.raises(ScheduleError, match="too large"):
            from_dict(data)


def test_a_long_list_of_levels_does_not_count_as_parts():
    schedule = from_dict({"staircase": {"values": list(range(100_000)), "every": 1}})
    assert schedule.resolve()(99_999) == 99_999
    with pytest.raises(ScheduleError, match="100000 levels need 99999 times in at=, not 1"):
        from_dict({"staircase": {"values": [1] * 100_000, "at": [1]}})


def test_error_messages_are_of_bounded_length():
    for data in ({"cosine": [1] * 10**5}, {"then": "x" * 10**5}, ["x"] * 10**5):
        with pytest.raises(ScheduleError) as caught:
            from_dict(data)
        assert len(str(caught.value)) < 250


TEXTS = [
    "",
    "x",
    "epochs(1)",
    "percent(10) - 1",
    "500",
    "1e400",
    "1" * 5000,
    "(" * 60,
    "a" * 30_000,
]
TEXTS += [
    "cosine()",
    "*",
    "__class__",
    "linear",
    "none",
    "\0",
    "é",
    "\N{MATHEMATICAL DOUBLE-STRUCK DIGIT ONE}",
    "1-sqrt",
    "\n",
]
plain_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-700, 700),
    st.floats(),
    st.sampled_from([10**30, -(10**400), 10**400, 1e308, 5e-324, -0.0, math.nan, math.inf]),
    st.sampled_from(TEXTS),
    st.text(max_size=5),
)
arguments = st.recursive(
    plain_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
SANE = {"shape": "linear", "values": [1, 2], "at": [5], "lengths": [5, 1], "n": 3, "first": 5}


@st.composite
def calls(draw, inner):
    """Draw a function or method, mostly with valid arguments, else with arbitrary ones."""
    verbs = [verb for verb in [*VERBS, "scale"] if verb != "then"]
    word = draw(st.sampled_from([*WORDS, *verbs, *verbs, "then", "product", "x"]))
    if word in ("then", "product"):
        return {word: draw(st.lists(inner, min_size=2, max_size=3) | arguments)}
    known = {**WORDS, "x": lambda x: x, "scale": lambda self, by: by * self}.get(word)
    known = known or getattr(Schedule, word)
    content = {}
    for name, parameter in inspect.signature(known).parameters.items():
        odd = draw(st.integers(0, 15))
        if name == "self":
            content["of"] = draw(inner)
        elif odd == 0:
            content[name] = draw(arguments)
        elif parameter.default is parameter.empty or odd < 4:
            content[name] = SANE.get(name, draw(st.sampled_from([1, 0.5, 2, 0, 7, -1])))
    return {word: content}


hostile = st.recursive(calls(st.just(WARM)), calls, max_leaves=5)


@settings(max_examples=500)
@given(hostile)
@example({"constant": {5: 1}})
@example({"warmup": {None: 5}})
@example({"warmup": {("over",): 5}})
@example({"scale": {"of": WARM, "by": 1, 2: 3}})
@example({"constant": {"value": 1, "self": 2}})
@example({"wsd": {"warmup": {}, "shape": []}})
@example({"warmup": {"over": 5, "shape": ["linear"]}})
@example({"staircase": {"values": {"a": 1}, "at": {}}})
@example({"repeat": {"of": WARM, "n": 10**400}})
@example({b"warmup".decode(): {"over": b"5"}})
@example({"staircase": {"values": [[[]]], "lengths": [[[]]]}})
def test_from_dict_returns_a_schedule_or_raises_schedule_error(data):
    try:
        schedule = from_dict(data)
    except ScheduleError as error:
        schedule, message = None, str(error)
    if schedule is None:
        assert message.startswith("schedule")
    else:
        assert isinstance(schedule, Schedule)
        assert from_dict(to_dict(schedule)) == schedule
