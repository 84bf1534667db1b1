"""Every optax schedule we share, step by step, and where we differ. Theirs are float32."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import FLOAT32
from parity import agree as agree_within

from ratecraft import (
    ScheduleError,
    constant,
    cosine,
    decay,
    linear,
    one_cycle,
    polynomial,
    staircase,
    warmup,
)

jax = pytest.importorskip("jax")
peer = pytest.importorskip("optax.schedules")
pytestmark = pytest.mark.peers

agree = partial(agree_within, within=FLOAT32)
few = settings(max_examples=max(10, settings.default.max_examples // 10))  # each is compiled

STEPS = 120  # every test reads on past the end of what it draws
peaks = st.floats(1e-5, 10)
shares = st.floats(0, 1)
lengths = st.integers(1, 100)


def drawn(*strategies):
    return lambda test: few(given(*strategies)(test))


def read(schedule, steps=STEPS):
    return np.asarray(jax.vmap(lambda k: jax.numpy.asarray(schedule(k)))(np.arange(steps)))


@drawn(peaks)
def test_constant(lr):
    theirs = peer.constant_schedule(lr)
    agree(constant(lr), [theirs(k) for k in range(STEPS)])


@drawn(peaks, shares, lengths, st.integers(0, 30))
def test_linear(peak, share, length, begin):
    theirs = read(peer.linear_schedule(peak, share * peak, length, begin))
    agree(peak * constant(1, over=begin).then(linear(1, share, over=length)), theirs)


@drawn(peaks, shares, st.floats(0.1, 4), lengths)
def test_polynomial(peak, share, power, length):
    theirs = read(peer.polynomial_schedule(peak, share * peak, power, length))
    agree(peak * polynomial(1, share, power, over=length), theirs)


@drawn(peaks, st.floats(0.1, 1), st.integers(1, 50), st.integers(0, 30), shares)
def test_exponential_decay(peak, lr, every, begin, floor):
    made = peer.exponential_decay(peak, every, lr, begin, end_value=floor * peak)
    agree(peak * constant(1, over=begin).then(decay(lr, every)).clip(low=floor), read(made))


@drawn(peaks, st.floats(0.1, 1), st.integers(1, 50))
def test_exponential_decay_in_steps(peak, lr, every):
    made = peer.exponential_decay(peak, every, lr, staircase=True)
    agree(peak * constant(1, over=every).repeat(decay=lr), read(made))


@drawn(peaks, shares, lengths)
def test_cosine_decay(peak, share, length):
    theirs = read(peer.cosine_decay_schedule(peak, length, alpha=share))
    agree(peak * cosine(1, share, over=length), theirs)


@drawn(peaks, lengths)
def test_warmup_constant(peak, rise):
    agree(peak * warmup(rise), read(peer.warmup_constant_schedule(0, peak, rise)))


@drawn(peaks, shares, st.integers(1, 50), st.integers(1, 50), shares)
def test_warmup_cosine_decay(peak, first, rise, fall, share):
    made = peer.warmup_cosine_decay_schedule(first * peak, peak, rise, rise + fall, share * peak)
    plan = warmup(rise, start=first).then(cosine(1, share))
    agree(peak * plan, read(made), total_steps=rise + fall)


@drawn(peaks, st.integers(1, 50), st.floats(0.1, 1), st.integers(1, 50))
def test_warmup_exponential_decay(peak, rise, lr, every):
    made = peer.warmup_exponential_decay_schedule(0, peak, rise, every, lr)
    agree(peak * warmup(rise).then(decay(lr, every)), read(made))


@drawn(peaks, st.dictionaries(lengths, st.floats(0, 1), max_size=5))
def test_piecewise_constant(peak, factors):
    at = sorted(factors)
    values = np.cumprod([1, *(factors[k] for k in at)])
    theirs = read(peer.piecewise_constant_schedule(peak, factors))
    agree(peak * staircase(values, at=at), theirs)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@drawn(peaks, st.dictionaries(lengths, st.floats(0.1, 2), min_size=1, max_size=5))
def test_piecewise_interpolate(shape, peak, factors):
    ramp = {"linear": linear, "cosine": cosine}[shape]
    at = sorted(factors)
    values = np.cumprod([1, *(factors[k] for k in at)])
    parts = [
        ramp(values[i], values[i + 1], over=int(length))
        for i, length in enumerate(np.diff([0, *at]))
    ]
    theirs = read(peer.piecewise_interpolate_schedule(shape, peak, factors))
    agree(peak * parts[0].then(*parts[1:]), theirs)


@drawn(peaks, st.lists(st.integers(1, 30), min_size=1, max_size=4), st.floats(0.5, 1))
def test_join(peak, sizes, lr):
    """Each schedule starts again at its own 0."""
    parts = [linear(1, 0.1, over=20), cosine(1, 0.1, over=25), decay(lr), constant(0.3)]
    made = [
        peer.linear_schedule(peak, 0.1 * peak, 20),
        peer.cosine_decay_schedule(peak, 25, 0.1),
        peer.exponential_decay(peak, 1, lr),
        peer.constant_schedule(0.3 * peak),
    ]
    count = len(sizes)
    plan = peak * parts[0].over(sizes[0])
    for part, size in zip(parts[1:count], sizes[1:], strict=True):
        plan = plan.then(peak * part.over(size))
    plan = plan.then(peak * constant(0.3))
    joined = peer.join_schedules(
        [*made[:count], peer.constant_schedule(0.3 * peak)], np.cumsum(sizes).tolist()
    )
    agree(plan, read(joined, 150), total_steps=150)


@drawn(peaks, st.integers(0, 5), st.integers(1, 20), st.integers(1, 3), st.floats(0.1, 1))
def test_sgdr(peak, rise, fall, grow, shrink):
    made = peer.sgdr_schedule(
        [
            {
                "init_value": 0,
                "peak_value": peak * shrink**i,
                "warmup_steps": rise * grow**i,
                "decay_steps": (rise + fall) * grow**i,
            }
            for i in range(4)
        ]
    )
    plan = warmup(rise).then(cosine(over=fall)).repeat(4, grow=grow, decay=shrink)
    agree(peak * plan, read(made))


@drawn(peaks, st.integers(10, 100), st.floats(0.1, 0.5), st.floats(1.1, 100), st.floats(1, 1e4))
def test_cosine_one_cycle(peak, total, share, div, final_div):
    made = peer.cosine_onecycle_schedule(total, peak, share, div, final_div)
    plan = one_cycle(int(share * total), start=1 / div, end=1 / div / final_div)
    agree(peak * plan, read(made), total_steps=total)


@drawn(
    peaks,
    st.integers(20, 100),
    st.floats(0.1, 0.5),
    st.floats(0.6, 0.9),
    st.floats(1.1, 100),
    st.floats(1, 1e4),
)
def test_linear_one_cycle(peak, total, share, final_share, div, final_div):
    made = peer.linear_onecycle_schedule(total, peak, share, final_share, div, final_div)
    top, low = int(share * total), int(final_share * total)
    plan = linear(1 / div, 1, over=top).then(linear(1, 1 / div, over=low - top))
    plan = plan.then(linear(1 / div, 1 / div / final_div))
    agree(peak * plan, read(made), total_steps=total)


def test_linear_one_cycle_of_three_even_phases_by_its_word():
    made = peer.linear_onecycle_schedule(100, 1.0, 0.3, 0.6)
    agree(one_cycle(shape="linear", three_phase=True), read(made), total_steps=100)


# Where we differ, on purpose -------------------------------------------------------------------


def test_their_warm_up_of_no_length_never_trains_and_ours_is_at_its_end():
    theirs = peer.warmup_constant_schedule(0.0, 1.0, warmup_steps=0)
    assert [theirs(k) for k in range(5)] == [0] * 5
    assert warmup(0).resolve(total_steps=5).values().tolist() == [1] * 5


def test_boundaries_in_the_wrong_order_pass_there_and_are_refused_here():
    parts = [peer.constant_schedule(v) for v in (1.0, 0.1, 0.01)]
    theirs = read(peer.join_schedules(parts, [8, 4]), 10)
    assert theirs[4] == pytest.approx(0.01)  # the middle one is never read
    assert 0.1 not in theirs.round(3)
    with pytest.raises(ScheduleError, match="must not go down"):
        staircase([1, 0.1, 0.01], at=[8, 4]).resolve(total_steps=10)


def test_too_few_boundaries_drop_a_part_there_and_no_part_is_without_a_length_here():
    parts = [peer.constant_schedule(v) for v in (1.0, 0.1, 0.01)]
    assert read(peer.join_schedules(parts, [4]), 10)[-1] == pytest.approx(0.1)
    with pytest.raises(ScheduleError, match="at most one part"):
        constant(1, over=4).then(constant(0.1)).then(constant(0.01))


def test_float32_cannot_tell_late_steps_apart_and_ours_can():
    last = 2**24 + 1
    theirs = peer.linear_schedule(0.0, 1.0, 2**25)
    assert theirs(last) == theirs(last - 1)
    ours = linear(0, 1, over=2**25).resolve()
    assert ours(last) - ours(last - 1) == 2**-25
    assert ours(last) == last / 2**25
