"""Every fvcore schedule, step by step, and where we differ.

Theirs are functions of the share of the run that is over; step k of n is at k / n.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parity import agree

from ratecraft import constant, cosine, exponential, linear, percent, polynomial, staircase, warmup

peer = pytest.importorskip("fvcore.common.param_scheduler")
pytestmark = pytest.mark.peers

lrs = st.floats(1e-5, 10)
totals = st.integers(1, 300)


def read(scheduler, total):
    return [scheduler(k / total) for k in range(total)]


@given(lrs, totals)
def test_constant(lr, total):
    agree(constant(lr), read(peer.ConstantParamScheduler(lr), total))


@given(lrs, lrs, totals)
def test_cosine(start, end, total):
    agree(cosine(start, end), read(peer.CosineParamScheduler(start, end), total))


@given(lrs, st.floats(1e-4, 10), totals)
def test_exponential(start, ratio, total):
    theirs = read(peer.ExponentialParamScheduler(start, ratio), total)
    agree(exponential(start, start * ratio), theirs)


@given(st.floats(0, 10), lrs, totals)
def test_linear(start, end, total):
    agree(linear(start, end), read(peer.LinearParamScheduler(start, end), total))


@given(lrs, st.floats(0.1, 4), totals)
def test_polynomial(start, power, total):
    theirs = read(peer.PolynomialDecayParamScheduler(start, power), total)
    agree(polynomial(start, 0, power), theirs)


@given(st.lists(lrs, min_size=1, max_size=6), st.data())
def test_multi_step(values, data):
    total = data.draw(st.integers(len(values), 300))
    joins = st.integers(1, total - 1) if total > 1 else st.nothing()
    size = len(values) - 1
    at = sorted(data.draw(st.lists(joins, min_size=size, max_size=size, unique=True)))
    agree(staircase(values, at=at), read(peer.MultiStepParamScheduler(values, total, at), total))


@given(st.lists(lrs, min_size=1, max_size=6), totals)
def test_multi_step_of_even_levels(values, repeats):
    total = repeats * len(values)
    theirs = read(peer.MultiStepParamScheduler(values, num_updates=total), total)
    agree(staircase(values, every=repeats), theirs)


@given(st.lists(lrs, min_size=1, max_size=6), totals)
def test_step(values, total):
    theirs = read(peer.StepParamScheduler(total, values), total)
    agree(staircase(values, every=percent(100 / len(values))), theirs)


@given(lrs, st.integers(1, 6), st.floats(0.01, 2), totals)
def test_step_with_a_fixed_gamma(lr, decays, gamma, total):
    scheduler = peer.StepWithFixedGammaParamScheduler(lr, decays, gamma, total)
    agree(lr * constant(1).repeat(decays + 1, decay=gamma), read(scheduler, total))


@given(lrs, st.floats(0, 1), st.integers(1, 90), totals)
def test_composite_of_rescaled_parts(peak, first, share, total):
    scheduler = peer.CompositeParamScheduler(
        [peer.LinearParamScheduler(first * peak, peak), peer.CosineParamScheduler(peak, 0)],
        [share / 100, 1 - share / 100],
        ["rescaled", "rescaled"],
    )
    agree(peak * warmup(percent(share), first).then(cosine()), read(scheduler, total))


@given(lrs, st.floats(0, 1), st.integers(1, 90), totals)
def test_composite_of_a_rescaled_and_a_fixed_part(peak, first, share, total):
    """As detectron2 warms up: the cosine runs from the start, its beginning is covered up."""
    wave = peer.CosineParamScheduler(peak, 0)
    joined = wave(share / 100)
    scheduler = peer.CompositeParamScheduler(
        [peer.LinearParamScheduler(first * peak, joined), wave],
        [share / 100, 1 - share / 100],
        ["rescaled", "fixed"],
    )
    rest = cosine(peak, 0, over=total).reversed().over(percent(100 - share)).reversed()
    plan = linear(first * peak, joined, over=percent(share)).then(rest)
    agree(plan, read(scheduler, total))


@given(lrs, lrs, st.integers(1, 99), totals)
def test_composite_of_a_part_cut_short(start, end, share, total):
    scheduler = peer.CompositeParamScheduler(
        [peer.LinearParamScheduler(start, end), peer.ConstantParamScheduler(end)],
        [share / 100, 1 - share / 100],
        ["fixed", "rescaled"],
    )
    plan = linear(start, end, over=total).over(percent(share)).then(constant(end))
    agree(plan, read(scheduler, total))


# Where we differ, on purpose -------------------------------------------------------------------


def test_past_the_end_each_of_theirs_does_something_else_and_ours_hold():
    with pytest.raises(RuntimeError, match="must be in"):
        peer.ConstantParamScheduler(1)(1.0)
    with pytest.raises(IndexError):
        peer.StepParamScheduler(10, [1, 0.1])(1.0)
    with pytest.raises(RuntimeError, match="must be in"):
        peer.MultiStepParamScheduler([1, 0.1], 10, [5])(1.1)
    assert peer.LinearParamScheduler(1, 0)(1.5) == -0.5
    assert peer.CosineParamScheduler(1, 0)(2) == 1
    assert isinstance(peer.PolynomialDecayParamScheduler(1, 0.5)(1.5), complex)
    ends = {
        constant(1): 1,
        staircase([1, 0.1], every=percent(50)): 0.1,
        staircase([1, 0.1], at=[5]): 0.1,
        linear(1, 0): 0,
        cosine(): 0,
        polynomial(1, 0, 0.5): 0,
    }
    for plan, end in ends.items():
        assert plan.resolve(total_steps=10).values([10, 11, 15, 20]).tolist() == [end] * 4


def test_lengths_that_do_not_fill_the_run_are_changed_there_and_the_rest_is_held_here():
    lengths = [0.5, 0.4995]
    parts = [peer.ConstantParamScheduler(1), peer.LinearParamScheduler(1, 0)]
    peer.CompositeParamScheduler(parts, lengths, ["rescaled"] * 2)
    assert lengths == [0.5, 0.5]  # the caller's own list
    plan = constant(1, over=percent(50)).then(linear(1, 0, over=percent(49.95)))
    assert plan.resolve(total_steps=10_000).values(
        [9_994, 9_995, 10_000]
    ).tolist() == pytest.approx([1 / 4995, 0, 0])


def test_a_level_of_theirs_begins_a_millionth_of_the_run_early_and_ours_on_time():
    total = 10_000_000
    theirs = peer.MultiStepParamScheduler([1, 0.1], total, [total // 2])
    assert theirs((total // 2 - 5) / total) == 0.1
    ours = staircase([1, 0.1], at=[total // 2]).resolve(total_steps=total)
    assert ours.values([total // 2 - 1, total // 2]).tolist() == [1, 0.1]
