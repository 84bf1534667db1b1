"""The laws of docs/semantics.md, for random schedules."""

import copy
import math
import pickle

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import (
    EPOCH,
    VERBS,
    assert_same,
    bound,
    closed,
    decays,
    fixed_lengths,
    growths,
    is_steep,
    leaves,
    lengths,
    numbers,
    open_leaves,
    opened,
    ramps,
    resolved,
    schedules,
    shares_of_scope,
    span,
    spans,
)

from ratecraft import (
    Schedule,
    ScheduleError,
    constant,
    cosine,
    exponential,
    linear,
    parse,
    percent,
    polynomial,
    staircase,
    steps,
)


def curve_of(schedule, total):
    """Return the curve of a schedule; skip the example if it does not resolve."""
    try:
        return resolved(schedule, span(total))
    except ScheduleError:
        assume(False)


def sample_times(total):
    """Return up to a few hundred step numbers over the span and past it."""
    stride = max(1, int(total) // 200)
    return np.arange(0, int(total) + 3 * stride, stride, dtype=np.float64)


# Text and value ------------------------------------------------------------------------------


@given(schedules())
def test_parse_inverts_repr(s):
    again = parse(repr(s))
    assert again == s
    assert hash(again) == hash(s)
    assert repr(again) == repr(s)


@given(schedules())
def test_eval_inverts_repr(s):
    words = vars(__import__("ratecraft"))
    assert eval(repr(s), {"__builtins__": {}}, dict(words)) == s  # noqa: S307


@given(schedules())
def test_pickles_and_copies_are_equal(s):
    for again in (pickle.loads(pickle.dumps(s)), copy.copy(s), copy.deepcopy(s)):  # noqa: S301
        assert again == s
        assert hash(again) == hash(s)
        assert repr(again) == repr(s)


# Resolving -----------------------------------------------------------------------------------


@given(schedules(), spans | st.none())
def test_resolve_gives_a_curve_or_raises_schedule_error(s, total):
    try:
        curve = resolved(s, None if total is None else span(total))
    except ScheduleError:
        return
    for t in (-1, 0, 1, 33, 34, 1e3, 1e9):
        assert math.isfinite(curve(t))


extremes = st.sampled_from([0, 5e-324, 1e-320, 1e-300, 1e-160, 1, 1e160, 1e200, 1e300, 1.7e308])
wild = st.one_of(extremes, extremes.map(lambda x: -x), st.floats(-10, 10))
wild_lengths = st.one_of(
    extremes.map(steps), st.sampled_from([1, 4, steps(1e-10), percent(10), percent(1e-300)])
)


@st.composite
def wild_leaves(draw):
    """Draw leaves with numbers of every size."""
    a, b, over = draw(wild), draw(wild), draw(wild_lengths)
    makers = [
        lambda: constant(a, over=over),
        lambda: linear(a, b, over=over),
        lambda: cosine(a, b, over=over),
        lambda: exponential(a, a * 1000, over=over),
        lambda: polynomial(a, b, draw(extremes), over=over),
        lambda: polynomial(a, b, draw(extremes)),
        lambda: staircase([a, b, a], every=over),
    ]
    try:
        return draw(st.sampled_from(makers))()
    except ScheduleError:
        return constant(a, over=over)


@st.composite
def wild_schedules(draw):
    """Draw schedules with numbers and lengths of every size; invalid methods are skipped."""
    a = draw(wild_leaves())
    for verb in draw(st.lists(st.sampled_from([*VERBS, "then", "endless", "repeat"]), max_size=3)):
        try:
            match verb:
                case "repeat" | "endless":
                    n = draw(st.sampled_from([1, 2, 5, 1100, 10**9, 10**300, 10**400]))
                    grow, decay = draw(growths | extremes), draw(decays | extremes)
                    if verb == "endless":
                        n, grow, decay = None, max(grow, 1), min(decay, 1)
                    a = a.repeat(n, grow=grow, decay=decay)
                case "scale":
                    a = draw(wild) * a
                case "product":
                    a = a * draw(wild_leaves())
                case "clip":
                    a = a.clip(*sorted([draw(wild), draw(wild)]))
                case "rescale":
                    a = a.rescale(draw(wild), draw(wild))
                case "over":
                    a = a.over(draw(wild_lengths))
                case "then":
                    a = a.then(draw(wild_leaves()), constant(2, over=draw(wild_lengths)))
                case _:
                    a = a.reversed()
        except ScheduleError:
            continue
    return a


@given(wild_schedules(), st.one_of(spans, extremes, st.none()))
def test_resolve_of_numbers_of_any_size_is_finite_or_raises_schedule_error(s, total):
    try:
        curve = s.resolve(
            total_steps=None if total is None else steps(total), steps_per_epoch=EPOCH
        )
    except ScheduleError:
        return
    times = [0.0, 1.0, 7.5, 8.0, 34.5, 1e6, 1e300]
    for t in times:
        assert math.isfinite(curve(t))
    assert np.isfinite(curve.values(times)).all()
    assert np.isfinite(curve.values(times[::-1])).all()


# Values --------------------------------------------------------------------------------------


@given(schedules(), spans)
def test_single_values_equal_the_array(s, total):
    curve = curve_of(s, total)
    values = curve.values()
    assert len(values) == len(curve) == math.ceil(total)
    tolerance = 1e-6 if is_steep(s) else 1e-12
    stride = max(1, len(values) // 200)
    for k in range(0, len(values), stride):
        assert abs(curve(k) - values[k]) <= tolerance * bound(curve)


@given(schedules(), spans, st.floats(-0.05, 1.05))
def test_single_values_equal_the_array_at_any_real_time(s, total, share):
    curve = curve_of(s, total)
    times = [math.floor(share * total) + eighth / 8 for eighth in range(-40, 120)]
    tolerance = 1e-6 if is_steep(s) else 1e-12
    for t, value in zip(times, curve.values(times), strict=True):
        assert abs(curve(t) - value) <= tolerance * bound(curve)


@given(schedules(), spans, st.randoms(use_true_random=False))
def test_the_order_of_the_times_changes_no_value(s, total, random):
    curve = curve_of(s, total)
    times = sample_times(total)
    order = list(range(len(times)))
    random.shuffle(order)
    tolerance = 1e-6 if is_steep(s) else 1e-12
    np.testing.assert_allclose(
        curve.values(times[order]),
        curve.values(times)[order],
        rtol=0,
        atol=tolerance * bound(curve),
    )


@given(schedules(), spans)
def test_torch_values_equal_numpy_values(s, total):
    curve = curve_of(s, total)
    times = sample_times(total)
    ours, theirs = curve.values(times), curve.values(torch.from_numpy(times))
    assert theirs.dtype == torch.float64
    tolerance = 1e-6 if is_steep(s) else 1e-12
    np.testing.assert_allclose(theirs.numpy(), ours, rtol=0, atol=tolerance * bound(curve))


@given(leaves(fixed_lengths), spans)
def test_leaf_values_agree_to_two_ulp_in_numpy_and_four_in_torch(s, total):
    curve = curve_of(s, total)
    times = sample_times(total)
    single = np.array([curve(t) for t in times])
    ulp = math.ulp(bound(curve))  # of |start| + |end|: at most twice the larger
    many, shuffled = curve.values(times), curve.values(times[::-1])[::-1]
    tensor = curve.values(torch.from_numpy(times)).numpy()
    assert np.abs(many - single).max() <= 2 * ulp
    assert np.abs(shuffled - single).max() <= 2 * ulp
    assert np.abs(tensor - single).max() <= 4 * ulp


@given(schedules(), spans)
def test_no_value_depends_on_an_earlier_call(s, total):
    curve, fresh = curve_of(s, total), curve_of(s, total)
    forward = [curve(t) for t in sample_times(total)]
    backward = [fresh(t) for t in sample_times(total)[::-1]]
    assert forward == backward[::-1]


@given(schedules(), spans)
def test_every_value_is_finite_and_within_the_bound(s, total):
    curve = curve_of(s, total)
    values = curve.values(sample_times(total))
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= bound(curve) * (1 + 1e-12)


@given(schedules(), spans)
def test_past_the_end_the_value_is_the_left_limit_at_the_end(s, total):
    curve = curve_of(s, total)
    final = curve(total)
    for late in (total + 0.25, total + 1, 2 * total, 1e12):
        assert curve(late) == final
    assert (curve.values([total, total + 1, 1e12]) == final).all()
    before = curve(total - 2e-9)
    tolerance = 1e-3 if is_steep(s) else 1e-5
    assert abs(before - final) <= tolerance * max(bound(curve), 1e-300)


@given(schedules(2), spans)
def test_a_part_that_begins_at_the_end_has_no_effect(s, total):
    outside = constant(1e3, over=5)
    assert_same(lambda: s.over(span(total)).then(outside), lambda: s, total, tolerance=1e-12)
    assert_same(lambda: outside.over(0).then(s), lambda: s, total, tolerance=1e-12)


@given(schedules(), spans, st.sampled_from([-0.25, -1, -1e6]))
def test_before_zero_the_value_at_zero_holds(s, total, early):
    curve = curve_of(s, total)
    # A level that begins at 0 also holds before 0.
    begins_at_zero = curve_of(staircase([7, 1], at=[0]) * s, total)
    for c in (curve, begins_at_zero):
        assert c(early) == c(0)
        assert c.values([early])[0] == c.values([early, 0])[0] == c.values([0])[0]
        assert c.values([0, early])[1] == c.values([0])[0]


# Sequences -----------------------------------------------------------------------------------


@given(schedules(2), schedules(2), schedules(2), spans)
def test_then_is_associative(a, b, c, total):
    assert_same(lambda: a.then(b).then(c), lambda: a.then(b.then(c)), total)


@given(closed(1), schedules(1), closed(1))
def test_then_is_associative_as_a_value(a, b, c):
    assert a.then(b).then(c) == a.then(b.then(c)) == a.then(b, c)


@given(numbers, schedules(2), schedules(2), spans)
def test_a_number_distributes_over_then(k, a, b, total):
    assert_same(lambda: k * a.then(b), lambda: (k * a).then(k * b), total)


@given(closed(1), numbers, closed(1), schedules(1) | opened(1), closed(1), spans)
def test_a_number_distributes_over_then_inside_a_sequence(x, k, a, b, d, total):
    assert_same(
        lambda: x.then(k * a.then(b)).then(d), lambda: x.then(k * a).then(k * b).then(d), total
    )


@given(closed(1), numbers, numbers, closed(1), schedules(1) | opened(1), closed(1), spans)
def test_clip_distributes_over_then_inside_a_sequence(x, k, m, a, b, d, total):
    low, high = sorted([k, m])
    assert_same(
        lambda: x.then(a.then(b).clip(low, high)).then(d),
        lambda: x.then(a.clip(low, high)).then(b.clip(low, high)).then(d),
        total,
    )


@given(closed(1), numbers, numbers, closed(1), schedules(1) | opened(1), closed(1), spans)
def test_rescale_distributes_over_then_inside_a_sequence(x, low, high, a, b, d, total):
    assert_same(
        lambda: x.then(a.then(b).rescale(low, high)).then(d),
        lambda: x.then(a.rescale(low, high)).then(b.rescale(low, high)).then(d),
        total,
    )


# Products ------------------------------------------------------------------------------------


@given(numbers, schedules(2), schedules(2), spans)
def test_a_number_may_scale_either_factor(k, a, b, total):
    assert_same(lambda: k * (a * b), lambda: a * (k * b), total)


@given(schedules(2), schedules(2), spans)
def test_products_commute(a, b, total):
    assert_same(lambda: a * b, lambda: b * a, total)


@given(schedules(2), schedules(2), schedules(1), spans)
def test_products_associate(a, b, c, total):
    assert_same(lambda: (a * b) * c, lambda: a * (b * c), total)


@given(closed(1), closed(1), schedules(1) | opened(1), closed(1), spans)
def test_products_commute_inside_a_sequence(x, a, b, d, total):
    assert_same(lambda: x.then(a * b).then(d), lambda: x.then(b * a).then(d), total)


@given(schedules(2), spans)
def test_a_factor_of_one_changes_nothing(a, total):
    unit = constant(1, over=0)
    assert_same(lambda: a * unit, lambda: a, total)
    assert_same(lambda: 1 * a, lambda: a, total)


@given(schedules(2), schedules(2), spans)
def test_a_product_is_the_product_of_its_factors_at_every_step(a, b, total):
    # Factors that fill the span have the same values as alone.
    left, right = curve_of(a, total), curve_of(b, total)
    both = curve_of(a * b, total)
    times = np.arange(int(total))
    size = bound(left) * bound(right)
    expected = left.values(times) * right.values(times)
    np.testing.assert_allclose(both.values(times), expected, rtol=0, atol=1e-9 * size)


# Over ----------------------------------------------------------------------------------------


@given(schedules(2), st.integers(1, 60))
def test_within_its_length_over_equals_a_separate_resolve(a, length):
    inner = curve_of(a, length)
    outer = curve_of(constant(7, over=5).then(a.over(length)), 1000)
    times = np.arange(length + 20)
    tolerance = 1e-6 if is_steep(a) else 1e-9
    np.testing.assert_allclose(
        outer.values(times + 5), inner.values(times), rtol=0, atol=tolerance * bound(inner)
    )


@given(schedules(3), spans)
def test_over_the_whole_scope_changes_nothing_at_the_top(a, total):
    assert_same(lambda: a.over(percent(100)), lambda: a, total)


@given(open_leaves, lengths)
def test_over_on_a_leaf_without_a_length_fills_it_in(a, length):
    assert type(a.over(length)) is type(a)
    assert not a.over(length)._is_open()


# Repeats -------------------------------------------------------------------------------------


@given(opened(), decays, growths, spans)
def test_one_cycle_of_an_open_body_is_the_body(a, decay, grow, total):
    assert_same(lambda: a.repeat(1, decay=decay, grow=grow), lambda: a, total)


@given(closed(2, fixed_lengths), st.integers(1, 5), decays, spans)
def test_a_repeat_is_its_cycles_written_out(a, n, decay, total):
    assume(not a._names_percent())

    def written_out():
        return a.then(*(decay**i * a for i in range(1, n)))

    assert_same(lambda: a.repeat(n, decay=decay), written_out, total)


@given(closed(2, fixed_lengths), closed(1, fixed_lengths), st.integers(1, 5), decays, spans)
def test_a_repeat_is_its_cycles_written_out_inside_a_sequence(a, x, n, decay, total):
    assume(not a._names_percent())
    assert_same(
        lambda: x.then(a.repeat(n, decay=decay)),
        lambda: x.then(a, *(decay**i * a for i in range(1, n))),
        total,
    )


@given(ramps(st.none()), st.integers(1, 30), st.integers(1, 5), growths, decays, spans)
def test_a_growing_repeat_of_a_ramp_is_its_stretched_cycles_written_out(
    ramp, length, n, grow, decay, total
):
    assert_same(
        lambda: ramp.over(length).repeat(n, grow=grow, decay=decay),
        lambda: ramp.over(length).then(
            *(decay**i * ramp.over(steps(length * grow**i)) for i in range(1, n))
        ),
        total,
    )


@given(opened(1), st.integers(1, 4), decays, spans)
def test_an_open_repeat_divides_the_span_evenly(a, n, decay, total):
    cycle = steps(total / n)
    assert_same(
        lambda: a.repeat(n, decay=decay),
        lambda: a.over(cycle).then(*(decay**i * a.over(cycle) for i in range(1, n))),
        total,
    )


@given(closed(2, fixed_lengths), st.floats(0.1, 1), spans)
def test_an_endless_repeat_equals_a_counted_one(a, decay, total):
    curve_of(a, total)
    try:
        endless = a.repeat(decay=decay)
        length = a.resolve(steps_per_epoch=EPOCH).natural_length
    except ScheduleError:
        assume(False)
    assume(length > 0.5)
    n = math.ceil(total / length) + 1
    assert_same(lambda: endless, lambda: a.repeat(n, decay=decay), total)


# Reversal ------------------------------------------------------------------------------------


@given(schedules(2), spans)
def test_reversing_twice_changes_nothing(a, total):
    assume(curve_of(a, total)._piece.length < math.inf)
    assert_same(lambda: a.reversed().reversed(), lambda: a, total, tolerance=1e-6)


@given(schedules(2), schedules(2), spans)
def test_reversing_a_sequence_reverses_its_parts_and_their_order(a, b, total):
    try:
        curve = resolved(a.then(b), span(total))
    except ScheduleError:
        pass
    else:
        assume(curve._piece.length > 0)
    assert_same(
        lambda: a.then(b).reversed(), lambda: b.reversed().then(a.reversed()), total, tolerance=1e-6
    )


@given(ramps(st.none()), st.sampled_from([32, 64, 100]))
def test_a_reversed_ramp_is_the_ramp_from_its_end(ramp, total):
    curve, back = curve_of(ramp, total), curve_of(ramp.reversed(), total)
    times = np.arange(total + 1)
    np.testing.assert_allclose(
        back.values(times), curve.values(total - times), rtol=0, atol=1e-12 * bound(curve)
    )


@given(shares_of_scope, schedules(1))
def test_every_method_returns_a_schedule(length, a):
    made = [2 * a, a * 2, a * a, a.clip(low=0), a.rescale(0, 1), a.over(length), a.reversed()]
    assert all(isinstance(s, Schedule) for s in made)
