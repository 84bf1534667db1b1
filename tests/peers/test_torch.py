"""Every family shared with torch.optim.lr_scheduler, step by step, and where ratecraft differs."""

import math
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import agree, lrs
from torch.optim import lr_scheduler as peer

from ratecraft import (
    constant,
    cosine,
    custom,
    decay,
    exp_range,
    linear,
    multiplicative,
    one_cycle,
    percent,
    polynomial,
    restarts,
    staircase,
    steps,
    triangular,
    triangular2,
    warmup,
)

STEPS = 100
quarter = settings(max_examples=settings.default.max_examples // 4)  # each steps torch 100 times


def drawn(*strategies):
    return lambda test: quarter(given(*strategies)(test))


peaks = st.floats(1e-5, 10)
lengths = st.integers(1, 120)  # some end within the run, some are cut by it
shares = st.floats(0.01, 1)
milestones = st.lists(st.integers(1, 120), min_size=1, max_size=5).map(sorted)


# Steps and lines -------------------------------------------------------------------------------


@drawn(peaks, lengths, shares)
def test_step(peak, size, gamma):
    theirs = lrs(partial(peer.StepLR, step_size=size, gamma=gamma), STEPS, peak)
    agree(peak * constant(1, over=size).repeat(decay=gamma), theirs)


@drawn(peaks, milestones, shares)
def test_multi_step(peak, at, gamma):
    theirs = lrs(partial(peer.MultiStepLR, milestones=at, gamma=gamma), STEPS, peak)
    agree(peak * staircase([gamma**i for i in range(len(at) + 1)], at=at), theirs)


@drawn(peaks, lengths, shares)
def test_constant(peak, length, factor):
    theirs = lrs(partial(peer.ConstantLR, factor=factor, total_iters=length), STEPS, peak)
    agree(peak * staircase([factor, 1], at=[length]), theirs)
    if length < STEPS:
        agree(peak * warmup(length, factor, shape="constant").then(constant(1)), theirs)


@drawn(peaks, lengths, shares, st.floats(0, 1))
def test_linear(peak, length, first, last):
    scheduler = partial(peer.LinearLR, start_factor=first, end_factor=last, total_iters=length)
    agree(peak * linear(first, last, over=length), lrs(scheduler, STEPS, peak))


@drawn(peaks, st.floats(0.5, 1.01))
def test_exponential(peak, gamma):
    theirs = lrs(partial(peer.ExponentialLR, gamma=gamma), STEPS, peak)
    agree(peak * decay(gamma), theirs)


@drawn(peaks, lengths, st.floats(0.1, 4))
def test_polynomial(peak, length, power):
    theirs = lrs(partial(peer.PolynomialLR, total_iters=length, power=power), STEPS, peak)
    agree(peak * polynomial(1, 0, power, over=length), theirs)


# Cosines ---------------------------------------------------------------------------------------


@drawn(peaks, st.integers(2, 200), st.floats(0, 1))
def test_cosine_annealing(peak, length, share):
    scheduler = partial(peer.CosineAnnealingLR, T_max=length, eta_min=share * peak)
    agree(cosine(peak, share * peak), lrs(scheduler, length, peak))


def test_cosine_annealing_that_reaches_eta_min_at_the_last_step():
    theirs = lrs(partial(peer.CosineAnnealingLR, T_max=STEPS - 1), STEPS)
    agree(cosine(over=percent(100) - 1), theirs)
    assert theirs[-1] == 0


@drawn(peaks, st.integers(1, 40), st.integers(1, 3), st.floats(0, 1))
def test_cosine_annealing_warm_restarts(peak, first, grow, share):
    scheduler = partial(
        peer.CosineAnnealingWarmRestarts, T_0=first, T_mult=grow, eta_min=share * peak
    )
    agree(peak * restarts(first, grow=grow, end=share), lrs(scheduler, 3 * STEPS, peak))


# Cycles ----------------------------------------------------------------------------------------


def torch_cycle(total_steps, share, shape="cos", **options):
    return partial(
        peer.OneCycleLR,
        max_lr=options.pop("peak", 1.0),
        total_steps=total_steps,
        pct_start=share,
        anneal_strategy=shape,
        cycle_momentum=False,
        **options,
    )


def test_one_cycle_with_the_defaults_of_both():
    theirs = lrs(torch_cycle(STEPS, 0.3, peak=0.1), STEPS)
    agree(0.1 * one_cycle(steps(29)).over(99), theirs)
    # The same in percent of the run.
    rise = cosine(0.04, 1, over=percent(30) - 1)
    agree(0.1 * rise.then(cosine(1, 4e-6, over=percent(70))), theirs)


@drawn(
    peaks,
    st.integers(10, 200),
    st.floats(0.15, 0.45),
    st.sampled_from(["cos", "linear"]),
    st.floats(1.1, 100),
    st.floats(1, 1e5),
    st.booleans(),
)
def test_one_cycle(peak, total_steps, share, shape, div, final_div, three):
    scheduler = torch_cycle(
        total_steps,
        share,
        shape,
        peak=peak,
        div_factor=div,
        final_div_factor=final_div,
        three_phase=three,
    )
    word = {"cos": "cosine", "linear": "linear"}[shape]
    cycle = one_cycle(steps(share * total_steps - 1), 1 / div, 1 / div / final_div, word, three)
    agree(peak * cycle.over(total_steps - 1), lrs(scheduler, total_steps))


CYCLES = {
    "triangular": lambda gamma: triangular,
    "triangular2": lambda gamma: triangular2,
    "exp_range": lambda gamma: partial(exp_range, gamma),
}


@pytest.mark.parametrize("mode", CYCLES)
@drawn(peaks, shares, st.integers(1, 30), st.integers(1, 30), st.floats(0.9, 1))
def test_cyclic(mode, peak, low, up, down, gamma):
    scheduler = partial(
        peer.CyclicLR,
        base_lr=low * peak,
        max_lr=peak,
        step_size_up=up,
        step_size_down=down,
        mode=mode,
        gamma=gamma,
        cycle_momentum=False,
    )
    agree(peak * CYCLES[mode](gamma)(up, down, low), lrs(scheduler, STEPS))


# Functions -------------------------------------------------------------------------------------


@drawn(peaks, st.integers(1, 20), shares)
def test_lambda(peak, size, gamma):
    def factor(t):
        return gamma ** (t // size) / (1 + t)

    agree(peak * custom(factor), lrs(partial(peer.LambdaLR, lr_lambda=factor), STEPS, peak))


@drawn(peaks, shares)
def test_multiplicative(peak, gamma):
    def factor(k):
        return gamma if k % 10 == 0 else 1 - 1 / (k + 1)

    theirs = lrs(partial(peer.MultiplicativeLR, lr_lambda=factor), STEPS, peak)
    agree(peak * multiplicative(factor), theirs)


# Schedules of schedules ------------------------------------------------------------------------


@drawn(peaks, st.integers(1, STEPS - 2), shares, st.floats(0, 1))
def test_sequential_warmup_and_cosine(peak, rise, first, share):
    def scheduler(optimizer):
        warm = peer.LinearLR(optimizer, start_factor=first, total_iters=rise)
        wave = peer.CosineAnnealingLR(optimizer, T_max=STEPS - rise, eta_min=share * peak)
        return peer.SequentialLR(optimizer, [warm, wave], [rise])

    schedule = warmup(rise, start=first).then(cosine(1, share))
    agree(peak * schedule, lrs(scheduler, STEPS, peak))


@drawn(peaks, lengths, shares, st.floats(0.5, 1))
def test_chained_warmup_and_exponential(peak, rise, first, gamma):
    def scheduler(optimizer):
        warm = peer.LinearLR(optimizer, start_factor=first, total_iters=rise)
        return peer.ChainedScheduler([warm, peer.ExponentialLR(optimizer, gamma)], optimizer)

    agree(peak * (warmup(rise, start=first) * decay(gamma)), lrs(scheduler, STEPS, peak))


# Where ratecraft differs ------------------------------------------------------------------------


def test_after_its_end_cosine_stays_at_eta_min_where_torch_rises_again():
    theirs = lrs(partial(peer.CosineAnnealingLR, T_max=10, eta_min=0.1), 21)
    assert theirs[10] == pytest.approx(0.1)
    assert theirs[20] == pytest.approx(1)
    curve = cosine(1, 0.1).resolve(total_steps=10)
    assert curve.values([10, 15, 20]).tolist() == [0.1, 0.1, 0.1]


def test_after_its_end_linear_one_cycle_stays_where_torch_is_negative():
    theirs = lrs(torch_cycle(10, 0.3, "linear"), 11)
    assert theirs[9] == pytest.approx(4e-6)
    assert theirs[10] == pytest.approx(-0.142853, abs=1e-6)
    curve = one_cycle(2, shape="linear").over(9).resolve(total_steps=10)
    assert curve.values([9, 10, 11]).tolist() == [4e-6] * 3


def test_after_its_end_cosine_one_cycle_stays_where_torch_rises_and_raises():
    theirs = lrs(torch_cycle(10, 0.3), 11)
    assert theirs[10] == pytest.approx(0.049519, abs=1e-6)
    with pytest.raises(ValueError, match="Tried to step 11 times"):
        lrs(torch_cycle(10, 0.3), 12)
    assert one_cycle(2).over(9).resolve(total_steps=10).values([10, 11]).tolist() == [4e-6] * 2


def test_one_cycle_with_a_warmup_of_one_step_starts_at_the_peak_where_torch_raises():
    with pytest.raises(ZeroDivisionError):
        lrs(torch_cycle(10, 0.1), 10)
    assert one_cycle(steps(0.1 * 10 - 1)).over(9).resolve(total_steps=10)(0) == 1


def test_warmup_of_zero_length_is_at_its_end_where_torch_stays_at_its_start():
    theirs = lrs(partial(peer.LinearLR, start_factor=0.25, total_iters=0), 5)
    assert theirs == [0.25] * 5
    assert warmup(0, start=0.25).resolve(total_steps=5).values().tolist() == [1] * 5


def test_constant_of_zero_length_is_never_read_where_torch_stays_at_its_factor():
    theirs = lrs(partial(peer.ConstantLR, factor=0.25, total_iters=0), 5)
    assert theirs == [0.25] * 5
    schedule = warmup(0, 0.25, shape="constant").then(constant(1))
    assert schedule.resolve(total_steps=5).values().tolist() == [1] * 5


def test_lr_of_zero_can_rise_where_torch_raises():
    with pytest.raises(ZeroDivisionError):
        lrs(partial(peer.ConstantLR, factor=0, total_iters=2), 4)
    schedule = warmup(2, 0, shape="constant").then(constant(1))
    assert schedule.resolve(total_steps=4).values().tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="greater than 0"):
        lrs(partial(peer.LinearLR, start_factor=0, total_iters=2), 4)
    assert warmup(2).resolve(total_steps=4).values().tolist() == [0, 0.5, 1, 1]


def test_milestone_between_two_steps_is_reached_where_torch_ignores_it():
    theirs = lrs(partial(peer.MultiStepLR, milestones=[2.5]), 5)
    assert theirs == [1] * 5
    ours = staircase([1, 0.1], at=[steps(2.5)]).resolve(total_steps=5)
    assert ours.values().tolist() == [1, 1, 1, 0.1, 0.1]


def test_milestone_at_the_end_of_the_run_is_not_read_where_torch_reaches_it():
    theirs = lrs(partial(peer.MultiStepLR, milestones=[3, 5]), 6)
    ours = staircase([1, 0.1, 0.01], at=[3, 5])
    agree(ours, theirs[:5])
    agree(ours, theirs, total_steps=6)
    assert theirs[5] == pytest.approx(0.01)
    assert ours.resolve(total_steps=5)(5) == 0.1  # rule 3 of docs/semantics.md


def test_composite_as_a_second_phase_works_where_torch_raises():
    def scheduler(optimizer):
        chain = peer.ChainedScheduler([peer.ExponentialLR(optimizer, 0.5)], optimizer)
        return peer.SequentialLR(optimizer, [peer.ConstantLR(optimizer, 1, 2), chain], [2])

    with pytest.raises(NotImplementedError):
        lrs(scheduler, 5)
    schedule = constant(1, over=2).then(decay(0.5, over=2).then(constant(0.125)))
    assert schedule.resolve(total_steps=5).values().tolist() == [1, 1, 1, 0.5, 0.125]


def test_product_with_eta_min_is_exact_where_torchs_chain_is_not():
    eta_min = 0.1

    def scheduler(optimizer):
        warm = peer.LinearLR(optimizer, start_factor=0.1, total_iters=10)
        wave = peer.CosineAnnealingLR(optimizer, T_max=100, eta_min=eta_min)
        return peer.ChainedScheduler([warm, wave], optimizer)

    theirs = lrs(scheduler, 100)
    ours = (warmup(10, start=0.1) * cosine(1, eta_min)).resolve(total_steps=100)
    wave = eta_min + (1 - eta_min) * (1 + math.cos(math.pi * 50 / 100)) / 2
    assert ours(50) == pytest.approx(wave)
    assert theirs[50] - wave == pytest.approx(6.46e-4, abs=1e-6)
