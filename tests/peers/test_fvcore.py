"""Every fvcore schedule compared step by step, and the intended differences.

fvcore schedules are functions of the fraction of the run that is done; step k of n is k / n.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parity import agree

from ratecraft import constant, cosine, exponential, linear, percent, polynomial, staircase, warmup

peer = pytest.importorskip("fvcore.common.param_scheduler")
pytestmark = pytest.mark.peers

lrs = st.floats(1e-5, 10)
lengths = st.integers(1, 300)


def read(scheduler, total_steps):
    return [scheduler(k / total_steps) for k in range(total_steps)]


@given(lrs, lengths)
def test_constant(lr, total_steps):
    agree(constant(lr), read(peer.ConstantParamScheduler(lr), total_steps))


@given(lrs, lrs, lengths)
def test_cosine(start, end, total_steps):
    agree(cosine(start, end), read(peer.CosineParamScheduler(start, end), total_steps))


@given(lrs, st.floats(1e-4, 10), lengths)
def test_exponential(start, ratio, total_steps):
    theirs = read(peer.ExponentialParamScheduler(start, ratio), total_steps)
    agree(exponential(start, start * ratio), theirs)


@given(st.floats(0, 10), lrs, lengths)
def test_linear(start, end, total_steps):
    agree(linear(start, end), read(peer.LinearParamScheduler(start, end), total_steps))


@given(lrs, st.floats(0.1, 4), lengths)
def test_polynomial(start, power, total_steps):
    theirs = read(peer.PolynomialDecayParamScheduler(start, power), total_steps)
    agree(polynomial(start, 0, power), theirs)


@given(st.lists(lrs, min_size=1, max_size=6), st.data())
def test_multi_step(values, data):
    total_steps = data.draw(st.integers(len(values), 300))
    joins = st.integers(1, total_steps - 1) if total_steps > 1 else st.nothing()
    size = len(values) - 1
    at = sorted(data.draw(st.lists(joins, min_size=size, max_size=size, unique=True)))
    agree(
        staircase(values, at=at),
        read(peer.MultiStepParamScheduler(values, total_steps, at), total_steps),
    )


@given(st.lists(lrs, min_size=1, max_size=6), lengths)
def test_multi_step_with_equal_lengths(values, repeats):
    total_steps = repeats * len(values)
    theirs = read(peer.MultiStepParamScheduler(values, num_updates=total_steps), total_steps)
    agree(staircase(values, every=repeats), theirs)


@given(st.lists(lrs, min_size=1, max_size=6), lengths)
def test_step(values, total_steps):
    theirs = read(peer.StepParamScheduler(total_steps, values), total_steps)
    agree(staircase(values, every=percent(100 / len(values))), theirs)


@given(lrs, st.integers(1, 6), st.floats(0.01, 2), lengths)
def test_step_with_a_fixed_gamma(lr, decays, gamma, total_steps):
    scheduler = peer.StepWithFixedGammaParamScheduler(lr, decays, gamma, total_steps)
    agree(lr * constant(1).repeat(decays + 1, decay=gamma), read(scheduler, total_steps))


@given(lrs, st.floats(0, 1), st.integers(1, 90), lengths)
def test_composite_of_rescaled_parts(peak, first, share, total_steps):
    scheduler = peer.CompositeParamScheduler(
        [peer.LinearParamScheduler(first * peak, peak), peer.CosineParamScheduler(peak, 0)],
        [share / 100, 1 - share / 100],
        ["rescaled", "rescaled"],
    )
    agree(peak * warmup(percent(share), first).then(cosine()), read(scheduler, total_steps))


@given(lrs, st.floats(0, 1), st.integers(1, 90), lengths)
def test_composite_of_a_rescaled_and_a_fixed_part(peak, first, share, total_steps):
    """As in detectron2's warm-up: the cosine starts at step 0, under the warm-up."""
    wave = peer.CosineParamScheduler(peak, 0)
    joined = wave(share / 100)
    scheduler = peer.CompositeParamScheduler(
        [peer.LinearParamScheduler(first * peak, joined), wave],
        [share / 100, 1 - share / 100],
        ["rescaled", "fixed"],
    )
    rest = cosine(peak, 0, over=total_steps).reversed().over(percent(100 - share)).reversed()
    schedule = linear(first * peak, joined, over=percent(share)).then(rest)
    agree(schedule, read(scheduler, total_steps))


@given(lrs, lrs, st.integers(1, 99), lengths)
def test_composite_of_a_part_cut_short(start, end, share, total_steps):
    scheduler = peer.CompositeParamScheduler(
        [peer.LinearParamScheduler(start, end), peer.ConstantParamScheduler(end)],
        [share / 100, 1 - share / 100],
        ["fixed", "rescaled"],
    )
    schedule = linear(start, end, over=total_steps).over(percent(share)).then(constant(end))
    agree(schedule, read(scheduler, total_steps))


# Intended differences --------------------------------------------------------------------------


def test_after_the_end_fvcore_schedules_vary_and_ours_keep_the_last_value():
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
    for schedule, end in ends.items():
        assert schedule.resolve(total_steps=10).values([10, 11, 15, 20]).tolist() == [end] * 4


def test_fvcore_changes_lengths_that_do_not_fill_the_run():
    lengths = [0.5, 0.4995]
    parts = [peer.ConstantParamScheduler(1), peer.LinearParamScheduler(1, 0)]
    peer.CompositeParamScheduler(parts, lengths, ["rescaled"] * 2)
    assert lengths == [0.5, 0.5]  # the caller's list
    schedule = constant(1, over=percent(50)).then(linear(1, 0, over=percent(49.95)))
    assert schedule.resolve(total_steps=10_000).values(
        [9_994, 9_995, 10_000]
    ).tolist() == pytest.approx([1 / 4995, 0, 0])


def test_fvcore_multi_step_changes_a_millionth_of_the_run_early():
    total_steps = 10_000_000
    theirs = peer.MultiStepParamScheduler([1, 0.1], total_steps, [total_steps // 2])
    assert theirs((total_steps // 2 - 5) / total_steps) == 0.1
    ours = staircase([1, 0.1], at=[total_steps // 2]).resolve(total_steps=total_steps)
    assert ours.values([total_steps // 2 - 1, total_steps // 2]).tolist() == [1, 0.1]
