"""The rules of docs/semantics.md, by number, and further behaviour of schedules."""

import copy
import math
import pickle
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from ratecraft import (
    ScheduleError,
    constant,
    cooldown,
    cosine,
    custom,
    epochs,
    exponential,
    linear,
    parse,
    percent,
    polynomial,
    samples,
    staircase,
    steps,
    tokens,
    warmup,
)


def read(schedule, total, times, **units):
    """Return the values at the given times, and check that the array has the same values."""
    curve = schedule.resolve(total_steps=total, **units)
    single = [curve(t) for t in times]
    np.testing.assert_allclose(curve.values(times), single, rtol=0, atol=1e-15)
    return pytest.approx(single, abs=5e-7)


# Rules 1 to 5: ownership of times --------------------------------------------------------------


def test_rule_1_step_k_has_the_value_at_k():
    assert read(linear(1, 0), 4, range(6)) == [1, 0.75, 0.5, 0.25, 0, 0]


def test_rule_1_times_between_steps_are_on_the_same_curve():
    assert read(linear(1, 0), 4, [0.5, 1.5, 2.5, 3.5]) == [0.875, 0.625, 0.375, 0.125]


def test_rule_2_a_join_belongs_to_the_later_part():
    s = warmup(4).then(linear(1, 0))
    assert read(s, 8, [3, 4, 5, 7, 8, 9]) == [0.75, 1, 0.75, 0.25, 0, 0]
    assert read(linear(1, 0, over=4).then(constant(0.25)), 8, [0, 4]) == [1, 0.25]


def test_rule_3_past_the_end_the_left_limit_at_the_end_holds():
    s = linear(1, 0, over=4).repeat()
    assert read(s, 8, [7, 8, 100]) == [0.25, 0, 0]
    assert read(s, None, [7, 8]) == [0.25, 1]


def test_rule_3_a_level_that_begins_at_the_end_is_never_read():
    s = staircase([1, 0.1], at=[8])
    assert read(s, 8, [7, 8, 9]) == [1, 1, 1]
    assert read(s, None, [7, 8, 9]) == [1, 0.1, 0.1]
    assert read(s.over(8), None, [7, 8, 9]) == [1, 1, 1]
    assert read(linear(1, 0, over=4).repeat().over(8), None, [4, 7, 8, 9]) == [1, 0.25, 0, 0]


def test_rule_4_a_part_of_zero_length_is_never_read():
    s = linear(1, 0).then(constant(0.5, over=0))
    assert read(s, 4, [3, 4, 5]) == [0.25, 0, 0]
    assert read(constant(0.5, over=0).then(linear(1, 0)), 4, [0, 1]) == [1, 0.75]


def test_rule_5_a_join_that_rounding_puts_late_still_belongs_to_the_later_part():
    assert 10 * (0.1 + 0.2) > 3  # so the warmup ends just after step 3
    s = warmup(epochs(0.1) + epochs(0.2)).then(constant(5))
    assert read(s, None, [2, 3], steps_per_epoch=10) == [0.666667, 5]


def test_rule_5_holds_in_the_frame_of_a_cycle_and_backwards():
    ten_tenths = constant(0, over=steps(0.1)).then(constant(1, over=steps(0.2)))
    assert read(ten_tenths.repeat(), None, [0, 3, 6, 300]) == [0] * 4
    thirds = constant(1, over=steps(1 / 3)).then(constant(2, over=steps(1 / 3)))
    s = thirds.then(constant(3, over=steps(1 / 3))).repeat(30)
    assert read(s, None, [1, 7, 29]) == [1, 1, 1]
    assert read(s.reversed(), None, [1, 7, 29]) == [3, 3, 3]


# Rules 6 to 12: lengths, scopes and room -------------------------------------------------------


def test_rule_6_lengths_are_ints_words_sums_and_differences():
    assert read(linear(1, 0, over=percent(100) - 1), 5, range(5)) == [1, 0.75, 0.5, 0.25, 0]
    assert linear(1, 0, over=epochs(1) + 100).resolve(steps_per_epoch=50)._piece.length == 150
    assert linear(1, 0, over=100 - epochs(1)).resolve(steps_per_epoch=50)._piece.length == 50


@pytest.mark.parametrize("length", [0.1, 100.0, np.float64(0.1)])
def test_rule_6_a_bare_float_raises_with_what_to_write(length):
    with pytest.raises(TypeError, match=rf"write percent\({length * 100:g}\) .* or steps\("):
        linear(1, 0, over=length)


@pytest.mark.parametrize("length", [True, False, np.True_, "10", [3], 1j, Fraction(1, 2)])
def test_rule_6_no_other_type_is_a_length(length):
    with pytest.raises(TypeError, match=r"over= must be"):
        linear(1, 0, over=length)


def test_rule_6_numpy_and_torch_ints_are_lengths():
    plain = warmup(4)
    assert warmup(np.int64(4)) == plain
    assert warmup(torch.tensor(4)) == plain
    assert repr(warmup(np.int64(4))) == "warmup(4)"


def test_rule_6_a_difference_must_measure_zero_or_more():
    s = linear(1, 0, over=percent(10) - 20)
    assert s.resolve(total_steps=200)(0) == 0  # zero: rule 4
    with pytest.raises(ScheduleError, match=r"percent\(10\) - 20 measures -10 steps"):
        s.resolve(total_steps=100)


def test_rule_7_fractions_of_a_step_are_not_rounded():
    s = warmup(percent(10))
    assert s.resolve(total_steps=15)._piece.length == 1.5
    assert read(s, 15, [0, 1, 2]) == [0, 0.666667, 1]


def test_rule_8_percent_in_nested_sequences_is_of_the_run():
    s = warmup(10).then(constant().then(cooldown(percent(20))))
    assert read(s, 100, [80, 90, 99]) == [1, 0.5, 0.05]


@pytest.mark.parametrize(
    "transparent",
    [
        lambda a: 1 * a,
        lambda a: a * constant(1, over=0),
        lambda a: a.clip(-9, 9),
        lambda a: a.rescale(0, 1),
        lambda a: a.reversed().reversed(),
        lambda a: constant(1, over=0).then(a),
    ],
)
def test_rule_8_only_repeat_and_over_set_a_scope(transparent):
    s = constant(0, over=50).then(transparent(cooldown(percent(20))))
    assert read(s, 100, [50, 60, 70]) == [1, 0.5, 0]


def test_rule_9_joining_two_parts_without_a_length_raises():
    with pytest.raises(ScheduleError, match=r"at most one part") as error_info:
        cosine().then(warmup(3)).then(constant(2))
    assert "cosine(1, 0), constant(2)" in str(error_info.value)
    assert "over=percent(30)" in str(error_info.value)


def test_rule_9_an_open_part_fills_the_rest():
    s = warmup(10).then(linear(1, 0)).then(constant(5, over=epochs(1)))
    assert read(s, 100, [9, 10, 45, 80], steps_per_epoch=20) == [0.9, 1, 0.5, 5]


def test_rule_9_a_nested_open_part_fills_the_rest_of_its_sequence():
    s = constant(1, over=20).then(2 * constant(1, over=40).then(linear(1, 0)))
    assert read(s, 100, [19, 20, 60, 80, 99]) == [1, 2, 2, 1, 0.05]


def test_rule_9_missing_room_raises_with_its_size():
    with pytest.raises(ScheduleError, match=r"no room: -200 steps left for cosine\(1, 0\)"):
        warmup(500).then(cosine()).resolve(total_steps=300)


def test_rule_9_a_room_of_zero_is_never_read():
    assert read(warmup(4).then(linear(9, 8)), 4, [3, 4]) == [0.75, 1]


def test_rule_9_a_rounding_error_is_not_missing_room():
    tenths = [warmup(epochs(0.1)) for _ in range(10)]
    s = tenths[0].then(*tenths[1:]).then(linear(9, 8))
    assert math.fsum([3 * 0.1] * 10) > 3 - 1e-15
    assert s.resolve(total_steps=epochs(1), steps_per_epoch=3)(3) == pytest.approx(1)
    assert warmup(steps(1 + 1e-12)).then(cosine()).resolve(total_steps=1)(1) == pytest.approx(1)


def test_rule_10_a_closed_part_shorter_than_the_run_holds():
    assert read(warmup(4), 100, [2, 4, 99]) == [0.5, 1, 1]


def test_rule_10_a_closed_part_longer_than_the_run_is_cut():
    assert read(warmup(500), 300, [299, 300, 400]) == [0.598, 0.6, 0.6]


def test_rule_11_over_resolves_separately():
    s = warmup(10).then(constant().then(cooldown(percent(20))).over(50))
    assert read(s, 1000, [50, 55, 60]) == [1, 0.5, 0]


def test_rule_11_over_cuts_or_holds_but_never_stretches():
    assert read(warmup(500).over(300), None, [299, 300, 400]) == [0.598, 0.6, 0.6]
    assert read(warmup(100).over(300), None, [50, 100, 299]) == [0.5, 1, 1]


def test_rule_11_on_an_open_leaf_over_fills_in_the_argument():
    assert cosine().over(30) == cosine(over=30)
    assert constant(2).over(percent(30)) == constant(2, over=percent(30))
    assert staircase([1, 2], at=[3]).over(9) == staircase([1, 2], at=[3], over=9)
    assert repr(warmup(4).over(9)) == "warmup(4).over(9)"


@pytest.mark.parametrize(
    "schedule",
    [
        constant(2),
        staircase([1, 0.1], at=[30]),
        warmup(30),
        warmup(4).then(constant(2)),
        linear(1, 0, over=4).repeat(),
        constant(1, over=30).repeat(decay=0.1),
        warmup(4) * constant(3),
        custom(abs),
    ],
)
def test_rule_12_schedules_that_need_no_end_may_be_endless(schedule):
    assert math.isinf(schedule.resolve().length)
    assert math.isfinite(schedule.resolve()(10**9))


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (cosine(), r"cosine\(1, 0\) needs total_steps=, or over= as a length of its own"),
        (warmup(percent(10)), r"percent\(10\) needs total_steps="),
        (warmup(4) * linear(1, 0), "needs total_steps="),
        (cosine().repeat(4), r"cosine\(1, 0\).repeat\(4\) divides the run .* needs total_steps="),
        (staircase([1, 2], every=percent(10)), "needs total_steps="),
        (constant().then(cooldown(5)), "follows constant.*which has no end.*total_steps="),
        (constant().reversed(), "no end to start from; it needs total_steps="),
    ],
)
def test_rule_12_schedules_that_need_the_end_raise(schedule, words):
    with pytest.raises(ScheduleError, match=words):
        schedule.resolve()


# Rules 13 to 15: repeats -----------------------------------------------------------------------


def test_rule_13_cycle_i_is_the_first_stretched_and_scaled():
    times = [0, 4, 8, 12, 20, 28]
    expected = [1, 0.5, 0.25, 0.25, 0.125, 0]
    assert expected == read(linear(1, 0, over=4).repeat(3, grow=2, decay=0.5), None, times)
    assert expected == read(linear(1, 0).repeat(3, grow=2, decay=0.5), 28, times)


def test_rule_13_everything_in_a_cycle_stretches():
    s = warmup(2).then(linear(1, 0)).repeat(2, grow=2)
    assert read(s, 30, [1, 2, 10, 12, 14]) == [0.5, 1, 0, 0.5, 1]


@pytest.mark.parametrize("grow", [1, 2, 0.5, 1.5, 1 + 1e-6, 1 - 1e-9, 1.0009, 1.0011])
def test_rule_13_the_cycles_of_an_open_body_fill_the_room(grow):
    curve = linear(1, 0).repeat(5, grow=grow).resolve(total_steps=100)
    first = 100 / sum(grow**i for i in range(5))
    start = 0.0
    for i in range(5):
        middle = start + first * grow**i / 2
        assert curve(middle) == pytest.approx(0.5, abs=1e-9)
        assert curve.values([middle])[0] == pytest.approx(0.5, abs=1e-9)
        start += first * grow**i
    assert curve(100) == pytest.approx(0, abs=1e-9)


def test_rule_14_the_scope_of_a_repeat_is_its_cycle():
    s = constant(1).then(cooldown(percent(50))).repeat(2)
    assert read(s, 80, [0, 20, 30, 40, 70]) == [1, 1, 0.5, 1, 0.5]


def test_rule_14_a_closed_body_with_percent_raises():
    with pytest.raises(ScheduleError, match=r"percent is of the cycle") as error_info:
        cosine(1, 0, over=percent(25)).repeat(4)
    assert "leave over= out, or put .over(percent()) after the .repeat()" in str(error_info.value)
    assert read(cosine().repeat(4), 100, [0, 12.5, 25]) == [1, 0.5, 1]


def test_rule_14_a_closed_percent_may_stand_after_the_repeat():
    assert read(linear(1, 0).repeat(2).over(percent(50)), 80, [0, 10, 20, 40]) == [1, 0.5, 1, 0]


def test_rule_15_an_endless_repeat_is_exact_at_any_time():
    s = linear(1, 0, over=4).repeat()
    assert read(s, None, [10**9 + 1]) == [0.75]
    assert read(s, 10**9 + 2, [10**9 + 1, 10**9 + 2, 10**9 + 4]) == [0.75, 0.5, 0.5]


def test_rule_15_an_endless_repeat_is_cut_by_its_room():
    assert read(linear(1, 0, over=4).repeat().then(constant(7, over=4)), 10, [4, 2, 6]) == [
        1,
        0.5,
        7,
    ]


def test_rule_15_an_endless_repeat_needs_a_cycle_that_has_a_length():
    with pytest.raises(ScheduleError, match=r"repeated endlessly; write the number of cycles"):
        cosine().repeat()
    for length in (0, steps(1e-12)):
        with pytest.raises(ScheduleError, match="a cycle of length 0"):
            constant(1, over=length).repeat().resolve()


@pytest.mark.parametrize("settings", [{"grow": 0.5}, {"decay": 1.5}])
def test_rule_15_an_endless_repeat_that_shrinks_or_rises_raises(settings):
    with pytest.raises(ScheduleError, match=r"grow >= 1 and decay <= 1, since it never ends"):
        warmup(4).repeat(**settings)
    assert warmup(4).repeat(3, **settings).resolve()(1) == 0.25


@pytest.mark.parametrize("n", [2.0, True, "3", np.float64(2)])
def test_the_number_of_cycles_is_an_int(n):
    with pytest.raises(TypeError, match=r"\.repeat\(n\): n must be an int"):
        warmup(4).repeat(n)


@pytest.mark.parametrize("n", [0, -1])
def test_there_is_at_least_one_cycle(n):
    with pytest.raises(ScheduleError, match=rf"\.repeat\({n}\): needs at least one cycle"):
        warmup(4).repeat(n)


@pytest.mark.parametrize("settings", [{"grow": 0}, {"grow": -1}, {"decay": -0.5}, {"grow": 1e200}])
def test_cycles_grow_by_a_positive_factor_and_decay_by_one_that_is_not_negative(settings):
    with pytest.raises(ScheduleError, match=r"grow=.* must be > 0 .*decay=.* must be >= 0"):
        warmup(4).repeat(2, **settings)


def test_too_many_cycles_for_a_float_raise():
    for s in (warmup(4).repeat(10**400), warmup(4).repeat(9999, grow=2)):
        with pytest.raises(ScheduleError, match="too long or too high for a float"):
            s.resolve()
    with pytest.raises(ScheduleError, match="more than 1e18 steps"):
        warmup(4).repeat(10**18).resolve()


def test_cycles_that_shrink_to_zero_are_finite_up_to_their_end():
    curve = linear(1, 0, over=4).repeat(5000, grow=0.5).resolve()
    assert curve(6) == pytest.approx(0.0 + 1)
    assert curve(7) == curve.values([7])[0] == 1
    assert math.isfinite(curve(8))
    assert math.isfinite(curve.values([8])[0])
    back = linear(1, 0, over=4).repeat(5000, grow=0.5).repeat(2, grow=1e12).reversed().resolve()
    for t in (0, 1e-3, 1):
        assert math.isfinite(back(t))
        assert math.isfinite(back.values([t])[0])


# Rules 16 to 20: the other verbs -----------------------------------------------------------------


def test_rule_16_factors_start_together_and_the_open_one_fills_the_room():
    assert read(warmup(4) * linear(1, 0), 8, [2, 4, 6]) == [0.375, 0.5, 0.25]


def test_rule_16_the_shorter_factor_holds():
    s = linear(1, 0, over=4) * linear(1, 0.5, over=8)
    assert read(s, None, [2, 4, 6, 9]) == [0.4375, 0, 0, 0]
    assert s.resolve()._piece.length == 8


def test_rule_16_a_closed_factor_longer_than_the_room_is_cut():
    s = (warmup(100) * linear(1, 1)).then(constant(7, over=2))
    assert read(s, 10, [7, 8]) == [0.07, 7]


def test_rule_17_a_number_scales_values_and_clip_binds_tighter():
    assert read((3 * warmup(4)).clip(high=2), None, [2, 3, 4]) == [1.5, 2, 2]
    assert read(3 * warmup(4).clip(high=2), None, [2, 3, 4]) == [1.5, 2.25, 3]
    assert read(3 * warmup(4).clip(high=0.75).then(constant(0.5)), None, [2, 3, 4]) == [
        1.5,
        2.25,
        1.5,
    ]


def test_rule_17_clip_applies_both_limits():
    assert read(warmup(4).clip(0.25, 0.75), None, range(5)) == [0.25, 0.25, 0.5, 0.75, 0.75]


def test_rule_18_rescale_maps_0_to_low_and_1_to_high():
    assert read(warmup(4).rescale(0.5, 1), None, [0, 2, 4]) == [0.5, 0.75, 1]
    assert read(warmup(4).rescale(1, 0.5), None, [0, 2, 4]) == [1, 0.75, 0.5]


def test_rule_19_reversed_reads_left_limits_from_the_end():
    s = staircase([1, 0.1], at=[30], over=100).reversed()
    assert read(s, None, [69, 70]) == [0.1, 1]
    assert read(warmup(4).reversed(), 100, [0, 1, 4]) == [1, 0.75, 0]
    assert read(staircase([1, 0], at=[0], over=2).reversed(), 9, [0, 1, 2, 8]) == [0, 0, 0, 0]


def test_rule_20_a_level_begins_at_its_own_time():
    s = staircase([1, 0.1, 0.01], at=[30, 60])
    assert read(s, None, [29, 30, 59, 60]) == [1, 0.1, 0.1, 0.01]
    assert read(
        staircase([1, 0.1, 0.01], every=epochs(3)), 1000, [29, 30, 59, 60, 999], steps_per_epoch=10
    ) == [1, 0.1, 0.1, 0.01, 0.01]


def test_rule_20_times_count_from_the_start_of_the_staircase():
    s = warmup(10).then(staircase([1, 0.1], at=[30]))
    assert read(s, None, [10, 39, 40]) == [1, 1, 0.1]


def test_rule_20_the_last_of_levels_that_begin_together_wins():
    assert read(staircase([1, 2, 3], at=[5, 5]), None, [4, 5]) == [1, 3]
    assert read(staircase([1, 2], at=[0]), None, [0, -3]) == [2, 2]


def test_rule_20_decreasing_times_raise():
    with pytest.raises(ScheduleError, match=r"in at= must not decrease, but 30 follows 60"):
        staircase([1, 2, 3], at=[60, 30]).resolve()


# Against torch ---------------------------------------------------------------------------------


def torch_lrs(make, steps):
    """Return the lr that a torch scheduler sets for every step and one past, from an lr of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    lrs = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        for _ in range(steps + 1):
            lrs.append(optimizer.param_groups[0]["lr"])
            if len(lrs) <= steps:
                optimizer.step()
                if len(lrs) < steps or not isinstance(scheduler, lr_scheduler.OneCycleLR):
                    scheduler.step()
    return np.array(lrs)


PEERS = {
    "StepLR": (
        lambda o: lr_scheduler.StepLR(o, 30, 0.1),
        constant(over=30).repeat(decay=0.1),
        None,
        (0.001, 0.001),
    ),
    "MultiStepLR": (
        lambda o: lr_scheduler.MultiStepLR(o, [30, 60], 0.1),
        staircase([1, 0.1, 0.01], at=[30, 60]),
        None,
        (0.01, 0.01),
    ),
    "CosineAnnealingLR": (
        lambda o: lr_scheduler.CosineAnnealingLR(o, 100),
        cosine(),
        100,
        (0.000246720, 0),
    ),
    "CyclicLR triangular2": (
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 1, 20, mode="triangular2"),
        linear(0, 1, over=20).then(linear(1, 0, over=20)).repeat(decay=0.5).rescale(0.1, 1),
        None,
        None,
    ),
    "CosineAnnealingWarmRestarts": (
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 2),
        cosine(1, 0, over=10).repeat(grow=2),
        None,
        None,
    ),
    "ExponentialLR": (
        lambda o: lr_scheduler.ExponentialLR(o, 0.97),
        exponential(1, 0.97**100),
        100,
        None,
    ),
    "LinearLR": (
        lambda o: lr_scheduler.LinearLR(o, 0.25, 1, 20),
        warmup(20, start=0.25),
        None,
        (1, 1),
    ),
    "PolynomialLR": (
        lambda o: lr_scheduler.PolynomialLR(o, 100, 2),
        polynomial(1, 0, 2),
        100,
        (1e-4, 0),
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_every_step_and_one_past_equals_torch(name):
    make, ours, total, ends = PEERS[name]
    steps = 150 if "Restarts" in name else 100
    theirs = torch_lrs(make, steps)
    mine = ours.resolve(total_steps=total).values(range(steps + 1))
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-15)
    if ends is not None:
        assert mine[-2:].tolist() == pytest.approx(ends, abs=5e-10)


def test_step_lr_is_equal_to_the_last_bit_but_one():
    theirs = torch_lrs(lambda o: lr_scheduler.StepLR(o, 30, 0.1), 100)
    mine = constant(over=30).repeat(decay=0.1).resolve().values(range(101))
    np.testing.assert_array_max_ulp(mine, theirs, 2)


def test_a_milestone_at_the_end_applies_in_torch_only():
    theirs = torch_lrs(lambda o: lr_scheduler.MultiStepLR(o, [30, 100], 0.1), 100)
    mine = staircase([1, 0.1, 0.01], at=[30, 100]).resolve(total_steps=100).values(range(101))
    np.testing.assert_allclose(mine[:100], theirs[:100], rtol=0, atol=1e-17)
    assert mine[100] == 0.1
    assert theirs[100] == pytest.approx(0.01)


def test_a_cosine_of_99_reaches_its_minimum_at_the_last_of_100_steps():
    theirs = torch_lrs(lambda o: lr_scheduler.CosineAnnealingLR(o, 99), 99)
    mine = cosine(over=percent(100) - 1).resolve(total_steps=100).values()
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=5e-16)
    assert mine[99] == 0


def test_one_cycle_lr_is_two_cosines_one_step_short():
    theirs = torch_lrs(lambda o: lr_scheduler.OneCycleLR(o, 1, total_steps=100, div_factor=25), 100)
    s = cosine(0.04, 1, over=percent(30) - 1).then(cosine(1, 4e-6, over=percent(70)))
    mine = s.resolve(total_steps=100).values()
    np.testing.assert_allclose(mine, theirs[:100], rtol=0, atol=1e-15)
    assert mine[98] == pytest.approx(0.000507465, abs=5e-10)
    assert mine[99] == 4e-6


def test_our_one_cycle_ends_one_step_later_than_torch():
    s = cosine(0.04, 1, over=percent(30)).then(cosine(1, 4e-6))
    assert s.resolve(total_steps=100)(99) == pytest.approx(0.000507465, abs=5e-6)
    assert s.resolve(total_steps=100)(100) == 4e-6


# Values ------------------------------------------------------------------------------------------


def test_ints_floats_and_numpy_numbers_build_equal_schedules():
    for number in (1, 1.0, np.float64(1), np.int32(1), np.float32(1), Fraction(1)):
        assert constant(number) == constant(1)
        assert hash(constant(number)) == hash(constant(1))
        assert repr(constant(number)) == "constant(1)"
        assert type(constant(number).start) is float


def test_minus_zero_is_zero():
    assert repr(constant(-0.0)) == "constant(0)"
    assert math.copysign(1, linear(-0.0, 1).resolve(total_steps=4)(0)) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10**400])
@pytest.mark.parametrize(
    "make",
    [
        constant,
        lambda x: x * cosine(),
        lambda x: cosine().clip(high=x),
        lambda x: cosine().rescale(0, x),
        lambda x: staircase([x], at=[]),
        lambda x: polynomial(1, 0, x),
        lambda x: cosine().repeat(2, decay=x),
        steps,
        percent,
    ],
)
def test_non_finite_numbers_raise(make, bad):
    with pytest.raises(ScheduleError, match=r"must be finite|too large for a float"):
        make(bad)


@pytest.mark.parametrize("bad", [True, "1", None, 1j, [1]])
@pytest.mark.parametrize(
    "make", [constant, lambda x: cosine().rescale(0, x), lambda x: x * cosine(), epochs]
)
def test_non_numbers_raise_type_error(make, bad):
    with pytest.raises(TypeError, match="must be a number, not"):
        make(bad)


def test_numpy_and_python_numbers_multiply_from_both_sides():
    plain = 3 * cosine()
    assert plain == cosine() * 3 == np.float64(3) * cosine() == cosine() * np.int64(3)


def test_equality_compares_the_tree_without_arithmetic():
    a, b = warmup(4), cosine()
    assert 2 * (3 * a) != 6 * a
    assert a * b != b * a
    assert (a.then(b)).then(constant(1, over=1)) == a.then(b.then(constant(1, over=1)))
    assert a != "warmup(4)"
    assert len({a, warmup(4), warmup(steps(4)), linear(0, 1, 4)}) == 1


def test_the_text_is_a_function_of_the_value():
    assert repr(linear(0, 1, 4)) == "warmup(4)"
    assert repr(linear(0.5, 1, 4)) == "warmup(4, start=0.5)"
    assert repr(linear(1, 0.1, epochs(2))) == "cooldown(epochs(2), end=0.1)"
    assert repr(linear(0, 1)) == "linear(0, 1)"
    assert repr(linear(2, 1, 4)) == "linear(2, 1, over=4)"
    assert repr(linear(1, -1, 4)) == "linear(1, -1, over=4)"
    assert repr(linear(3, 3, 4)) == "constant(3, over=4)"
    assert repr(polynomial(1, 0)) == "polynomial(1, 0, 1)"
    assert repr(cosine()) == "cosine(1, 0)"
    assert repr(staircase([1, 0.1], every=epochs(30))) == "staircase([1, 0.1], every=epochs(30))"
    assert repr(staircase([1], at=())) == "staircase([1], at=[])"
    assert repr((2 * cosine()).then(warmup(4))) == "(2 * cosine(1, 0)).then(warmup(4))"
    assert repr(2 * cosine() * (3 * warmup(4))) == "2 * cosine(1, 0) * (3 * warmup(4))"
    assert repr(2 * (cosine() * warmup(4))) == "2 * (cosine(1, 0) * warmup(4))"
    assert repr(warmup(4).repeat(grow=2)) == "warmup(4).repeat(grow=2)"
    assert repr(warmup(4).repeat(3, decay=0.5)) == "warmup(4).repeat(3, decay=0.5)"
    assert repr(cosine().clip(0, 1)) == "cosine(1, 0).clip(low=0, high=1)"
    assert repr(cosine().rescale(-1, 1e-5)) == "cosine(1, 0).rescale(-1, 1e-05)"
    assert repr(cosine().reversed()) == "cosine(1, 0).reversed()"


@pytest.mark.parametrize(
    "schedule",
    [
        cosine(),
        staircase([1, 2], at=[3]),
        warmup(4).then(cosine()),
        2 * cosine(),
        cosine() * cosine(),
        cosine().repeat(2),
        cosine().clip(low=0),
        cosine().rescale(0, 1),
        warmup(4).over(2),
        cosine().reversed(),
        custom(abs),
    ],
)
def test_a_schedule_cannot_be_changed(schedule):
    before = hash(schedule), repr(schedule)
    for name in schedule._fields:
        with pytest.raises(AttributeError, match=f"cannot change '{name}'"):
            setattr(schedule, name, 3)
    with pytest.raises((AttributeError, TypeError)):
        schedule.other = 3
    assert (hash(schedule), repr(schedule)) == before
    assert pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule) == schedule  # noqa: S301


def test_then_without_arguments_returns_an_equal_schedule():
    assert cosine().then() == cosine()


# Custom functions --------------------------------------------------------------------------------


def half_every_ten(t):
    return 0.5 ** (t // 10)


def test_a_custom_function_takes_the_steps_since_its_start():
    s = warmup(10).then(custom(half_every_ten))
    assert read(s, None, [9, 10, 19, 20, 30]) == [0.9, 1, 1, 0.5, 0.25]


def test_a_custom_function_past_its_length_holds_its_left_limit():
    assert read(custom(half_every_ten, over=20), 100, [9, 19, 20, 99]) == [1, 0.5, 0.5, 0.5]
    assert read(custom(half_every_ten, over=30).reversed(), None, [0, 10, 20]) == [0.25, 0.5, 1]


def test_a_custom_function_gets_whole_steps_despite_rounding():
    s = constant(1, over=steps(100 + 1e-10)).then(custom(half_every_ten))
    assert read(s, None, [109, 110]) == [1, 0.5]


def test_a_custom_function_that_returns_no_number_raises_with_its_name():
    with pytest.raises(ScheduleError, match=r"custom\(<.*<lambda>>\) at .* must be finite"):
        custom(lambda _: math.nan).resolve()(3)
    with pytest.raises(TypeError, match=r"custom\(<.*<lambda>>\) at .* must be a number"):
        custom(lambda _: None).resolve()(3)


def test_custom_functions_are_equal_by_identity_and_have_no_text():
    assert custom(half_every_ten) == custom(half_every_ten)
    assert custom(lambda t: t) != custom(lambda t: t)
    text = repr(custom(half_every_ten, over=3))
    assert text == f"custom(<{__name__}.half_every_ten>, over=3)"
    with pytest.raises(ScheduleError, match="build it in Python"):
        parse(text)


def test_custom_takes_a_function():
    with pytest.raises(TypeError, match=r"custom\(\) takes a function of t, not 3"):
        custom(3)


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operate",
    [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: a >> b,
        lambda a, b: a | b,
        lambda a, b: a / b,
        lambda a, b: a @ b,
        lambda a, b: a & b,
        lambda a, _: a + 1,
        lambda a, _: 1 + a,
        lambda a, _: 1 - a,
        lambda a, _: a / 2,
        lambda a, _: 3 >> a,
        lambda a, _: 3 | a,
    ],
)
def test_every_operator_but_times_raises(operate):
    with pytest.raises(TypeError, match=r"write a\.then\(b\); to multiply use '\*'"):
        operate(warmup(4), cosine())


def test_then_takes_schedules_only():
    with pytest.raises(TypeError, match=r"\.then\(\) takes schedules, not 3 \(int\)"):
        warmup(4).then(3)


def test_clip_needs_a_limit_and_limits_in_order():
    with pytest.raises(ScheduleError, match=r"needs low=, high= or both"):
        cosine().clip()
    with pytest.raises(ScheduleError, match=r"clip\(low=2, high=1\): low must not be above high"):
        cosine().clip(2, 1)


@pytest.mark.parametrize("ends", [(1, 0), (0, 1), (1, -1), (0, 0), (1e300, 1e-300)])
def test_an_exponential_needs_ends_on_one_side_of_zero(ends):
    with pytest.raises(ScheduleError, match=r"exponential\(.*write for example exponential\(1, 0"):
        exponential(*ends)


@pytest.mark.parametrize("power", [0, -1])
def test_the_power_of_a_polynomial_is_positive(power):
    with pytest.raises(ScheduleError, match=rf"polynomial: power={power} must be > 0"):
        polynomial(1, 0, power)


def test_invalid_staircase_arguments_raise():
    with pytest.raises(ScheduleError, match=r"needs at least one level"):
        staircase([], at=[])
    with pytest.raises(ScheduleError, match=r"exactly one of every=, at= and lengths=; write"):
        staircase([1, 2])
    with pytest.raises(ScheduleError, match=r"exactly one of every=, at= and lengths=; write"):
        staircase([1, 2], every=3, at=[3])
    with pytest.raises(ScheduleError, match=r"3 levels need 2 times in at=, not 3"):
        staircase([1, 2, 3], at=[1, 2, 3])
    with pytest.raises(ScheduleError, match=r"every= measures 0 steps"):
        staircase([1, 2], every=percent(100) - 50).resolve(total_steps=50)
    with pytest.raises(TypeError, match=r"at= must be a list, not 30"):
        staircase([1, 2], at=30)
    with pytest.raises(TypeError, match=r"values must be a list, not '12'"):
        staircase("12", every=3)


@pytest.mark.parametrize("total", [0, -3, steps(0), tokens(0), 100 - epochs(20)])
def test_a_run_has_at_least_one_step(total):
    with pytest.raises(ScheduleError, match=r"at least one step|must be >= 0"):
        constant().resolve(total_steps=total, steps_per_epoch=10)


def test_a_percent_as_run_length_raises():
    with pytest.raises(ScheduleError, match=r"total_steps=percent\(50\): the run itself"):
        constant().resolve(total_steps=percent(50))


@pytest.mark.parametrize("total", [0.5, 1000.0, "1000", True])
def test_a_run_length_of_the_wrong_type_raises(total):
    with pytest.raises(TypeError, match=r"total_steps= must be"):
        constant().resolve(total_steps=total)


@pytest.mark.parametrize(
    "units", [{"steps_per_epoch": 0}, {"samples_per_step": -1}, {"tokens_per_step": 0}]
)
def test_the_size_of_a_unit_is_positive(units):
    (name,) = units
    with pytest.raises(ScheduleError, match=rf"{name}= must be > 0"):
        constant().resolve(total_steps=100, **units)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (
            epochs(1),
            r"warmup\(epochs\(1\)\): epochs\(1\) needs steps_per_epoch= \(steps per epoch\)",
        ),
        (samples(9), r"needs samples_per_step= \(samples per step\)"),
        (tokens(9), r"needs tokens_per_step= \(tokens per step\)"),
    ],
)
def test_a_missing_unit_size_raises_with_its_argument(length, words):
    with pytest.raises(ScheduleError, match=words):
        warmup(length).resolve(total_steps=100)


@pytest.mark.parametrize(
    "schedule",
    [
        1e200 * (1e200 * constant(1)),
        constant(1e200) * constant(1e200),
        constant(1e200).rescale(0, 1e200),
        linear(1.7e308, -1.7e308),
        2 * constant(1).clip(low=1e308),
        2 * constant(1).clip(high=-1e308),
        constant(1e20, over=3).repeat(100, decay=1e3),
    ],
)
def test_overflowing_values_raise(schedule):
    with pytest.raises(ScheduleError, match="overflows: its values are not finite numbers"):
        schedule.resolve(total_steps=100)


def test_a_limit_that_is_not_reached_does_not_overflow():
    assert (10 * constant(1).clip(high=1e308)).resolve(total_steps=3)(0) == 10
    assert (1e200 * constant(1e100).clip(high=2)).resolve(total_steps=3)(0) == 2e200


@pytest.mark.parametrize(
    "schedule",
    [
        constant(1, over=steps(1e308)).then(constant(2, over=steps(1e308)), constant(3, over=2)),
        staircase([1, 2, 3], every=steps(1e308)),
        warmup(steps(1e19)),
    ],
)
def test_lengths_above_1e18_raise(schedule):
    with pytest.raises(ScheduleError, match="a length must be >= 0 and at most 1e18"):
        schedule.resolve()


def test_a_percent_inside_a_leaf_is_of_the_length_given_to_over():
    # Regression: filling in over=100 would leave the percent to the run.
    stairs = staircase([1, 0.5], every=percent(5))
    assert repr(stairs.over(100)) == "staircase([1, 0.5], every=percent(5)).over(100)"
    curve = constant(7, over=5).then(stairs.over(100)).resolve(total_steps=1000)
    assert [curve(5 + k) for k in (4, 5, 99)] == [1, 0.5, 0.5]
    plain = staircase([1, 0.5], every=5)
    assert plain.over(100) == staircase([1, 0.5], every=5, over=100)
