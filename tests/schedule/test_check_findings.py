"""check(): all findings word for word, and the findings of common schedules."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import leaves, schedules

from ratecraft import (
    Finding,
    check,
    constant,
    cooldown,
    cosine,
    custom,
    decay,
    epochs,
    exp_range,
    inverse_sqrt,
    knee,
    linear,
    linear_to_zero,
    noam,
    one_cycle,
    parse,
    percent,
    polynomial,
    power_scheduler,
    restarts,
    rex,
    samples,
    staircase,
    steps,
    tokens,
    trapezoid,
    triangular,
    triangular2,
    warmup,
    wsd,
)

UP = warmup(10, start=0.1)
"""A warmup that begins above 0, so that it has no finding itself."""


def findings_of(schedule, total_steps=None, **units):
    """Return the findings as (level, message, the marked part of the text)."""
    return [
        (finding.level, finding.message, finding.text[finding.start : finding.end])
        for finding in check(schedule, total_steps, **units)
    ]


# Every kind of finding ---------------------------------------------------------------------------

# Each row: a schedule, the run, and all findings.
FINDINGS = {
    "does not resolve": (
        cosine(1, 0.1),
        None,
        [
            (
                "error",
                "cosine(1, 0.1) needs total_steps=, or over= as a length of its own",
                "cosine(1, 0.1)",
            )
        ],
    ),
    "no room": (
        UP.then(cosine(1, 0.1)),
        5,
        [
            (
                "error",
                "no room: -5 steps left for cosine(1, 0.1), since the other parts take 10 of 5",
                "warmup(10, start=0.1).then(cosine(1, 0.1))",
            )
        ],
    ),
    "never reached": (
        UP.then(constant(1, over=90)).then(cooldown(50, end=0.1)),
        100,
        [
            (
                "error",
                "cooldown(50, end=0.1) would begin at step 100, and the run ends at 100: it is "
                "never reached",
                "cooldown(50, end=0.1)",
            ),
            (
                "warning",
                "the schedule is 150 steps long, and the run ends at 100, at lr 1",
                "warmup(10, start=0.1).then(constant(1, over=90)).then(cooldown(50, end=0.1))",
            ),
        ],
    ),
    "never reached, and nothing is left": (
        UP.then(constant(1, over=90)).then(cosine(1, 0.1)),
        100,
        [
            (
                "error",
                "cosine(1, 0.1) would begin at step 100, and the run ends at 100: it is never "
                "reached",
                "cosine(1, 0.1)",
            )
        ],
    ),
    "shorter than a step": (
        warmup(percent(10), start=0.1).then(cosine(1, 0.1)),
        5,
        [
            (
                "warning",
                "warmup(percent(10), start=0.1) is 0.5 steps long: no step may fall into it",
                "warmup(percent(10), start=0.1)",
            )
        ],
    ),
    "of no length": (
        warmup(0).then(constant(1)),
        5,
        [("warning", "warmup(0) is 0 steps long: no step may fall into it", "warmup(0)")],
    ),
    "a leaf shorter than a step": (
        warmup(steps(0.25), start=0.1),
        steps(0.25),
        [
            (
                "warning",
                "warmup(steps(0.25), start=0.1) is 0.25 steps long: no step may fall into it",
                "warmup(steps(0.25), start=0.1)",
            )
        ],
    ),
    "the warmup is cut": (
        warmup(500, start=0.1),
        300,
        [
            (
                "error",
                "the warmup takes 500 steps, and the run has 300: it is cut short",
                "warmup(500, start=0.1)",
            )
        ],
    ),
    "the warmup is cut, and more was to come": (
        cosine(0.1, 1, over=500).then(constant(1, over=50)),
        300,
        [
            (
                "error",
                "constant(1, over=50) would begin at step 500, and the run ends at 300: it is "
                "never reached",
                "constant(1, over=50)",
            ),
            (
                "error",
                "the warmup takes 500 steps, and the run has 300: it is cut short",
                "cosine(0.1, 1, over=500)",
            ),
        ],
    ),
    "the schedule is longer": (
        UP.then(cosine(1, 0, over=180)),
        100,
        [
            (
                "warning",
                "the schedule is 190 steps long, and the run ends at 100, at lr 0.5",
                "warmup(10, start=0.1).then(cosine(1, 0, over=180))",
            )
        ],
    ),
    "a rise that is no warmup is cut": (
        constant(0.1, over=10).then(warmup(100, start=0.1)),
        60,
        [
            (
                "warning",
                "the schedule is 110 steps long, and the run ends at 60, at lr 0.55",
                "constant(0.1, over=10).then(warmup(100, start=0.1))",
            )
        ],
    ),
    "the schedule is shorter, and ends at 0": (
        UP.then(cosine(1, 0, over=90)),
        150,
        [
            (
                "error",
                "the schedule ends at step 100 at lr 0: the last 50 steps train nothing",
                "warmup(10, start=0.1).then(cosine(1, 0, over=90))",
            )
        ],
    ),
    "the schedule is shorter, and holds": (
        UP.then(cosine(1, 0.25, over=90)),
        150,
        [
            (
                "note",
                "the schedule ends at step 100, and lr 0.25 holds for the last 50 steps",
                "warmup(10, start=0.1).then(cosine(1, 0.25, over=90))",
            )
        ],
    ),
    "a jump up from a ramp": (
        cosine(1, 0.25, over=10).then(linear(0.5, 0.1)),
        100,
        [
            ("warning", "the lr jumps from 0.25 to 0.5 at step 10", "linear(0.5, 0.1)"),
        ],
    ),
    "a jump down from a ramp": (
        UP.then(linear(0.5, 0.1)),
        100,
        [("warning", "the lr jumps from 1 to 0.5 at step 10", "linear(0.5, 0.1)")],
    ),
    "a jump from a level": (
        UP.then(constant(1, over=50)).then(constant(0.1)),
        100,
        [("note", "the lr jumps from 1 to 0.1 at step 60", "constant(0.1)")],
    ),
    "a negative lr": (
        linear(1, -1),
        steps(6.5),
        [("error", "the lr is negative: -0.846154 at step 6", "linear(1, -1)")],
    ),
    "step 0": (
        warmup(10).then(cosine(1, 0.1)),
        100,
        [("note", "step 0 has lr 0 and trains nothing", "warmup(10)")],
    ),
    "step 0 of a leaf": (
        linear(0, 1),
        100,
        [("note", "step 0 has lr 0 and trains nothing", "linear(0, 1)")],
    ),
    "a step inside": (
        linear(1, 0, over=10).then(linear(0, 0.5)),
        100,
        [
            (
                "warning",
                "step 10 has lr 0 and trains nothing",
                "cooldown(10).then(linear(0, 0.5))",
            )
        ],
    ),
    "the end is reached a step early": (
        cosine(1, 0, over=percent(100) - 1),
        100,
        [
            (
                "note",
                "the last step, 99, has lr 0 and trains nothing",
                "cosine(1, 0, over=percent(100) - 1)",
            )
        ],
    ),
    "the run ends less than a step late": (
        cosine(1, 0, over=100),
        steps(100.75),
        [("note", "the last step, 100, has lr 0 and trains nothing", "cosine(1, 0, over=100)")],
    ),
    "the end is reached two steps early": (
        cosine(1, 0, over=percent(100) - 2),
        100,
        [
            (
                "error",
                "the schedule ends at step 98 at lr 0: the last 2 steps train nothing",
                "cosine(1, 0, over=percent(100) - 2)",
            )
        ],
    ),
    "the last step of a level": (
        staircase([1, 0.1, 0], at=[50, 99]),
        100,
        [
            (
                "note",
                "the last step, 99, has lr 0 and trains nothing",
                "staircase([1, 0.1, 0], at=[50, 99])",
            )
        ],
    ),
    "growth after a wave": (
        cosine(1, 0.1, 2),
        100,
        [
            (
                "warning",
                "the lr grows again around step 54, after a fall to 0.1",
                "cosine(1, 0.1, 2)",
            )
        ],
    ),
    "growth in a staircase": (
        UP.then(staircase([1, 0.5, 0.8], every=30)),
        100,
        [
            (
                "warning",
                "the lr grows again around step 70, after a fall to 0.5",
                "staircase([1, 0.5, 0.8], every=30)",
            )
        ],
    ),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_each_problem_gives_exactly_these_findings(name):
    schedule, total, expected = FINDINGS[name]
    assert findings_of(schedule, total) == expected


# Schedules that are in common use.
FINE = {
    "a constant": (constant(0.1), 100),
    "an endless constant": (constant(0.1), None),
    "warmup and cosine": (UP.then(cosine(1, 0.1)), 100),
    "to zero": (UP.then(linear(1, 0)), 100),
    "to zero, rex": (rex(), 100),
    "a run of one step": (linear(1, 0), 1),
    "half a step over": (cosine(), steps(33.5)),
    "a warmup as long as the run": (UP, 10),
    "a run that ends less than a step late": (cosine(1, 0.1, over=100), steps(100.75)),
    "a run that ends before the end value": (cosine(over=percent(100) - steps(0.5)), 100),
    "cycles to 0, scaled": (2 * restarts(n=4), 100),
    "cycles to a floor": (restarts(10, grow=2, end=0.1), 70),
    "cycles after a warmup": (UP.then(restarts(n=4, end=0.1)), 110),
    "a run that ends less than a rounding early": (cosine(1, 0.1, over=100), steps(100 - 1e-10)),
    "a part of one step": (warmup(1, start=0.1).then(cosine(1, 0.1)), 100),
    "a part of one step at the end": (UP.then(constant(1)).then(cooldown(1)), 100),
    "a small jump": (UP.then(linear(0.995, 0.1)), 100),
    "a fall by the clock": (UP.then(inverse_sqrt(10)), 100),
    "endless": (UP.then(decay(0.5, every=10)), None),
    "endless cycles": (cosine(1, 0.1, over=10).repeat(), None),
    "a rise that is written": (cosine(1, 0.1, over=50).then(linear(0.1, 1)), 100),
    "a fall of a fall": (cosine(1, 0.5, over=50).then(polynomial(0.5, 0.1, 2)), 100),
    "steps down": (staircase([1, 0.5, 0.1], at=[30, 60]), 100),
    "a little growth": (staircase([1, 0.5, 0.505], at=[30, 60]), 100),
    "a rise of a staircase": (staircase([0.1, 0.5, 1], at=[30, 60]), 100),
    "cycles to 0": (restarts(n=4), 100),
    "cycles of parts": (UP.then(cosine(1, 0.1)).repeat(4), 200),
    "triangles": (triangular(10), 100),
    "falling triangles": (triangular2(10), 100),
    "triangles by the clock": (exp_range(0.99, 10), 100),
    "one cycle": (one_cycle(), 100),
    "one cycle in three phases": (one_cycle(three_phase=True), 100),
    "knee": (knee(percent(50)), 100),
    "straight to zero": (linear_to_zero(), 100),
    "on another clock": (warmup(tokens(500), start=0.1).then(cosine(1, 0.1)), tokens(10**9)),
    "a wave of one way": (cosine(1, 0.1, 1), 100),
    "tokens and steps": (UP.then(cosine(1, 0.1)), tokens(10**6)),
    "a limit": (UP.clip(low=0.5), 10),
}


@pytest.mark.parametrize("name", FINE)
def test_common_schedules_have_no_finding(name):
    schedule, total = FINE[name]
    assert findings_of(schedule, total, tokens_per_step=1000) == []


WARMED = {
    "wsd": wsd(10),
    "wsd to a floor": wsd(10, shape="exponential", end=0.01),
    "trapezoid": trapezoid(10, 20),
    "noam": noam(10, 64),
    "power scheduler": power_scheduler(10, 20),
    "knee": knee(percent(50), 10),
    "linear_to_zero": linear_to_zero(10),
}


@pytest.mark.parametrize("name", WARMED)
def test_the_only_finding_is_the_warm_up_from_zero(name):
    assert findings_of(WARMED[name], 100) == [
        ("note", "step 0 has lr 0 and trains nothing", "warmup(10)")
    ]


def test_only_the_first_of_several_zero_steps_is_reported():
    schedule = staircase([1, 0, 0, 1], every=10)
    zeros = [entry for entry in findings_of(schedule, 40) if "has lr 0" in entry[1]]
    assert zeros == [("warning", "step 10 has lr 0 and trains nothing", repr(schedule))]


def test_epochs_and_samples_are_converted_to_steps():
    schedule = warmup(epochs(2), start=0.1).then(cosine(1, 0, over=epochs(2)))
    assert findings_of(schedule, epochs(5), steps_per_epoch=10) == [
        (
            "error",
            "the schedule ends at step 40 at lr 0: the last 10 steps train nothing",
            repr(schedule),
        )
    ]
    assert findings_of(schedule, epochs(4), steps_per_epoch=10) == []
    schedule = constant(1, over=samples(640)).then(constant(0.1))
    assert findings_of(schedule, 100, samples_per_step=32) == [
        ("note", "the lr jumps from 1 to 0.1 at step 20", "constant(0.1)")
    ]


OTHER_LENGTH = "pass another total_steps=, or change the lengths in the schedule"


@pytest.mark.parametrize(
    ("total", "message", "fix"),
    [
        (0, "total_steps=0: a run needs at least one step", OTHER_LENGTH),
        (-5, "steps(-5): a length must be >= 0", OTHER_LENGTH),
        (percent(50), "total_steps=percent(50): the run itself cannot be a percent", OTHER_LENGTH),
        (
            epochs(3),
            "total_steps=: epochs(3) needs steps_per_epoch= (steps per epoch)",
            "pass steps_per_epoch=, or write the length in steps",
        ),
        (10**19, "a length must be >= 0 and at most 1e18", OTHER_LENGTH),
        (10**400, "is too large for a float", OTHER_LENGTH),
    ],
)
def test_an_invalid_run_length_is_a_finding(total, message, fix):
    (finding,) = check(constant(1), total)
    assert finding.level == "error"
    assert message in finding.message
    assert finding.fix == fix
    assert (finding.start, finding.end) == (0, len("constant(1)"))


@pytest.mark.parametrize("schedule", [cosine(1, 0), UP.then(cosine(1, 0)), warmup(percent(10))])
def test_a_schedule_that_needs_a_run_length_asks_for_it(schedule):
    (finding,) = check(schedule)
    assert finding.fix == "pass total_steps=, or write over= in the schedule"


def test_a_length_in_epochs_asks_for_the_steps_of_an_epoch():
    (finding,) = check(warmup(epochs(2)).then(cosine(1, 0)), 100)
    assert finding.fix == "pass steps_per_epoch=, or write the length in steps"


def test_a_run_length_of_the_wrong_type_raises_type_error():
    with pytest.raises(TypeError, match="total_steps= must be an int"):
        check(constant(1), 0.5)


# Parts inside of combinations --------------------------------------------------------------------

INNER = UP.then(constant(1, over=20)).then(constant(0.1))
AROUND = {
    "scale": (2 * INNER, 0, 2),
    "product": (constant(1) * INNER, 0, 1),
    "product, left": (INNER * constant(1), 0, 1),
    "scaled product": (2 * INNER * constant(3), 0, 6),
    "over": (INNER.over(100), 0, 1),
    "over twice": (INNER.over(100).over(100), 0, 1),
    "clip": (INNER.clip(high=5), 0, 1),
    "rescale": (INNER.rescale(0, 3), 0, 3),
    "repeat": (INNER.repeat(2), 0, 1),
    "after": (cosine(0.5, 0.1, over=7).then(INNER), 7, 1),
    "after and over": (constant(0.1, over=7).then((4 * INNER).over(93)), 7, 4),
    "after and clip": (constant(0.1, over=7).then((4 * INNER).clip(low=0)), 7, 4),
}


@pytest.mark.parametrize("name", AROUND)
def test_a_jump_is_marked_inside_each_combination(name):
    schedule, start, factor = AROUND[name]
    jumps = [finding for finding in check(schedule, 100) if "jumps" in finding.message]
    expected = f"the lr jumps from {factor} to {round(factor / 10, 6)} at step {start + 30}"
    jump = next(finding for finding in jumps if finding.message == expected)
    assert jump.level == "note"
    assert jump.text[jump.start : jump.end] == "constant(0.1)"
    assert jump.text[: jump.start].endswith("constant(1, over=20)).then(")


def test_the_last_of_three_equal_parts_is_marked():
    schedule = constant(1, over=5).then(constant(1, over=5)).then(constant(1, over=5))
    late = [f for f in check(schedule, 10) if "never reached" in f.message]
    assert [(f.start, f.end) for f in late] == [(51, 70)]


def test_a_scaled_warm_up_is_marked_without_its_factor():
    schedule = 3e-4 * warmup(10).then(cosine(1, 0.1))
    assert findings_of(schedule, 100) == [
        ("note", "step 0 has lr 0 and trains nothing", "warmup(10)")
    ]
    (finding,) = check(schedule, 100)
    assert (finding.start, finding.end) == (9, 19)


def test_a_short_part_of_a_cycle_is_reported_once():
    schedule = warmup(percent(1), start=0.1).then(cosine(1, 0.1)).repeat(10)
    assert findings_of(schedule, 500) == [
        (
            "warning",
            "warmup(percent(1), start=0.1) is 0.5 steps long: no step may fall into it",
            "warmup(percent(1), start=0.1)",
        )
    ]
    assert findings_of(schedule, 5000) == []


def test_the_percent_of_an_over_is_of_its_length():
    schedule = warmup(percent(5), start=0.1).then(cosine(1, 0.1)).over(10).then(constant(0.1))
    assert findings_of(schedule, 1000) == [
        (
            "warning",
            "warmup(percent(5), start=0.1) is 0.5 steps long: no step may fall into it",
            "warmup(percent(5), start=0.1)",
        )
    ]


def test_a_warm_up_cut_in_a_product_is_an_error():
    schedule = warmup(500, start=0.1).then(constant(1, over=10)) * constant(2)
    assert ("error", "the warmup takes 500 steps, and the run has 300: it is cut short",
            "warmup(500, start=0.1)") in findings_of(schedule, 300)  # fmt: skip


def test_growth_of_a_function_is_marked_at_its_part():
    schedule = UP.then(custom(lambda t: abs(t - 40) / 40 + 0.1))
    ((level, message, marked),) = (f for f in findings_of(schedule, 90) if "grows" in f[1])
    assert level == "warning"
    assert message.startswith("the lr grows again around step 51, after a fall to 0.1")
    assert marked.startswith("custom(<")


def test_growth_in_a_scaled_leaf_is_marked_at_the_leaf():
    schedule = 2 * custom(lambda t: abs(t - 50) + 1)
    ((level, message, marked),) = findings_of(schedule, 100)
    assert (level, marked) == ("warning", repr(schedule)[4:])
    assert message == "the lr grows again around step 51, after a fall to 2"


# Nested parts ------------------------------------------------------------------------------------

INNER = warmup(4, start=0.1).then(constant(1, over=6))


@pytest.mark.parametrize(
    ("before", "join"),
    [
        (INNER.repeat(3), 30),
        (INNER.over(50), 50),
        (INNER * warmup(4, start=0.1).then(constant(1, over=2)), 10),
        (2 * INNER.repeat(3), 30),
    ],
    ids=repr,
)
def test_a_jump_after_a_nested_part_is_reported(before, join):
    jumps = [message for _, message, _ in findings_of(before.then(constant(0.1)), 100)]
    assert any(f"at step {join}" in message and "jumps" in message for message in jumps)


def test_a_jump_from_a_scaled_level_is_a_note():
    assert findings_of((2 * constant(1, over=9)).then(3 * constant(0.1, over=9)), 18) == [
        ("note", "the lr jumps from 2 to 0.3 at step 9", "3 * constant(0.1, over=9)")
    ]


def test_reversed_parts_are_checked_at_their_reversed_position():
    # A level of 100 steps, then a fall over 500.
    schedule = warmup(500, start=0.1).then(constant(1, over=100)).reversed()
    assert [message for _, message, _ in findings_of(schedule, 300)] == [
        "the schedule is 600 steps long, and the run ends at 300, at lr 0.64"
    ]
    assert "never reached" in findings_of(schedule, 100)[0][1]
    assert findings_of(schedule, 100)[0][2] == "warmup(500, start=0.1)"
    # The jump is at 60 of 100, and the part that begins there is the one written first.
    jump = linear(1, 0.5, over=40).then(linear(0.1, 0.8, over=60)).reversed()
    assert findings_of(jump, 100) == [
        ("warning", "the lr jumps from 0.1 to 0.5 at step 60", "cooldown(40, end=0.5)")
    ]


def test_a_scaled_warm_up_that_is_cut_is_an_error():
    level, message, marked = findings_of(3e-4 * warmup(500, start=0.1), 300)[0]
    assert (level, marked) == ("error", "warmup(500, start=0.1)")
    assert "is cut short" in message


def test_a_function_that_fails_at_a_single_step_is_a_finding():
    schedule = custom(lambda t: math.nan if t == 5 else 1.0)
    ((level, message, marked),) = findings_of(schedule, 10)
    assert (level, marked) == ("error", repr(schedule))
    assert "at 5" in message


def test_growth_outside_cycles_is_reported():
    wave = cosine(1, 0.1, half_cycles=2)
    after_cycles = linear(1, 0.1, over=10).repeat(2).then(cosine(1, 0.1, half_cycles=2, over=20))
    ((level, _, marked),) = [f for f in findings_of(after_cycles, 40) if "grows" in f[1]]
    assert (level, marked) == ("warning", "cosine(1, 0.1, 2, over=20)")
    assert not [m for _, m, _ in findings_of(wave.over(40).repeat(2), 80) if "grows" in m]


# Long runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [10**6, 10**12, 10**18])
def test_long_runs_are_checked_in_bounded_time(total):
    schedule = warmup(percent(1)).then(cosine(1, 0.1, over=percent(50))).then(constant(0.5))
    problems = [
        (level, message.split(" at step")[0]) for level, message, _ in findings_of(schedule, total)
    ]
    assert problems[0] == ("warning", "the lr jumps from 0.1 to 0.5")
    assert ("note", "step 0 has lr 0 and trains nothing") in problems


# Findings as values ------------------------------------------------------------------------------


def test_findings_compare_by_value():
    first, second = (check(warmup(10).then(cosine(1, 0.1)), 100)[0] for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first == Finding(
        "note", "step 0 has lr 0 and trains nothing",
        "begin above 0, for example with start=0.01", repr(warmup(10).then(cosine(1, 0.1))), 0, 10,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "total", "fixed"),
    [
        (warmup(10).then(cosine(1, 0.1)), 100, warmup(10, start=0.01).then(cosine(1, 0.1))),
        (warmup(500, 0.1), 300, warmup(percent(5), 0.1).then(constant(1))),
        (UP.then(cosine(1, 0, over=90)), 150, UP.then(cosine(1, 0))),
        (linear(1, -1), 150, linear(1, -1).clip(low=1e-3)),
        (cosine(1, 0.1, 2), 100, cosine(1, 0.1, 1)),
        (UP.then(linear(0.5, 0.1)), 100, UP.then(linear(1, 0.1))),
    ],
    ids=repr,
)
def test_the_suggested_fix_removes_the_finding(schedule, total, fixed):
    assert findings_of(schedule, total)
    assert findings_of(fixed, total) == []


# Never an exception ------------------------------------------------------------------------------

totals = st.one_of(
    st.none(),
    st.integers(-3, 200),
    st.sampled_from([10**6, 10**18, 10**19, 10**400]),
    st.sampled_from([epochs(3), epochs(0), percent(5), tokens(9e9), samples(1000), tokens(7) + 3]),
    st.sampled_from([steps(33.5), steps(0.5), steps(1e-3), steps(1e-12), 100 - epochs(1)]),
)
units = st.fixed_dictionaries(
    {},
    optional={
        "steps_per_epoch": st.sampled_from([10, 1, 0.3]),
        "tokens_per_step": st.sampled_from([1000, 0.1]),
    },
)


@settings(max_examples=300)
@given(schedules() | leaves(), totals, units)
@example(constant(0), steps(1e-12), {})
@example(linear(1, 0).repeat(3, grow=1e17), 5, {})
@example(1e300 * constant(1e300), 5, {})
@example(decay(1e-300), 10**18, {})
def test_check_never_raises_for_any_run(schedule, total, units):
    findings = check(schedule, total, **units)
    text = repr(schedule)
    for finding in findings:
        assert finding.text == text
        marked = text[finding.start : finding.end]
        assert marked
        parse(marked)  # the mark covers a whole part
        assert str(finding).count("\n") == 3
        assert "nan" not in finding.message
    levels = [finding.level for finding in findings]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
