"""breakdown returns the factor of each scheduler and their product."""

import copy

import pytest
from drawn_schedulers import SINGLE
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizers import lrs_of, named, sgd
from torch.optim import lr_scheduler

from ratecraft import cosine, warmup
from ratecraft.diagnostics import breakdown
from ratecraft.errors import BindingError
from ratecraft.report import plot_breakdown, save_figure
from ratecraft.torch import PlateauLR, ScheduleLR, drop_in

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PAIRS = [(drop_in, drop_in), (drop_in, lr_scheduler), (lr_scheduler, drop_in)]


@pytest.mark.parametrize("exponential_first", [True, False])
@pytest.mark.parametrize(("step_module", "exponential_module"), PAIRS)
def test_two_schedulers_multiply_in_either_order(
    tmp_path, step_module, exponential_module, exponential_first
):
    mine = sgd(0.1)
    schedulers = {}
    for name in ("ExponentialLR", "StepLR") if exponential_first else ("StepLR", "ExponentialLR"):
        module = step_module if name == "StepLR" else exponential_module
        schedulers[name] = getattr(module, name)(mine, *((3, 0.5) if name == "StepLR" else (0.9,)))
    seen = breakdown(*schedulers.values(), steps=100)
    lrs = [lr for (lr,) in lrs_of(mine, 100, *schedulers.values())]
    products = [0.1 * 0.5 ** (k // 3) * 0.9**k for k in range(100)]
    assert lrs == pytest.approx(products, rel=1e-12)
    assert seen.lrs == pytest.approx(products, rel=1e-12)
    assert seen.factors["StepLR"] == tuple(0.5 ** (k // 3) for k in range(100))
    assert seen.factors["ExponentialLR"] == pytest.approx([0.9**k for k in range(100)], rel=1e-12)
    figure = plot_breakdown(seen)
    above, below = figure.axes
    assert list(above.get_lines()[0].get_ydata()) == list(seen.lrs)
    assert [list(line.get_ydata()) for line in below.get_lines()] == [
        list(values) for values in seen.factors.values()
    ]
    assert save_figure(figure, tmp_path / "parts.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", SINGLE)
@given(data=st.data())
@settings(max_examples=10)
def test_breakdown_leaves_torch_schedulers_unchanged(name, data):
    its = sgd(0.1, 0.3, momentum=0.9)
    theirs = data.draw(SINGLE[name])(lr_scheduler, its)
    before = copy.deepcopy(its.param_groups), copy.copy(theirs.state_dict())
    seen = [breakdown(theirs, steps=40, group=i).lrs for i in range(2)]
    assert repr((its.param_groups, theirs.state_dict())) == repr(before)
    for k, row in enumerate(lrs_of(its, 40, theirs)):
        assert [lrs[k] for lrs in seen] == pytest.approx(row, rel=1e-9, abs=1e-16)


@pytest.mark.parametrize("module", [drop_in, lr_scheduler])
@pytest.mark.parametrize("name", ["CyclicLR", "OneCycleLR"])
def test_breakdown_leaves_momentum_unchanged(module, name):
    mine = sgd(0.1, momentum=0.9)
    scheduler = getattr(module, name)(mine, 0.01, 0.1) if name == "CyclicLR" else (
        module.OneCycleLR(mine, 0.1, 40)
    )  # fmt: skip
    momentum = mine.param_groups[0]["momentum"]
    breakdown(scheduler, steps=20)
    assert mine.param_groups[0]["momentum"] == momentum


def nested(module, mine):
    warm = module.LinearLR(mine, 0.5, 1, 4)
    both = module.ChainedScheduler([module.StepLR(mine, 3, 0.5), module.ExponentialLR(mine, 0.9)])
    return module.SequentialLR(mine, [warm, both], [6])


def test_composite_schedulers():
    mine = sgd(0.1)
    whole = nested(drop_in, mine)
    falling = drop_in.ExponentialLR(mine, 0.99)
    seen = breakdown(whole, falling, steps=30)
    assert list(seen.factors) == ["SequentialLR", "ExponentialLR"]
    lrs = [lr for (lr,) in lrs_of(mine, 30, whole, falling)]
    assert seen.lrs == pytest.approx(lrs, rel=1e-12)
    its = sgd(0.1)
    parts = [lr_scheduler.StepLR(its, 3, 0.5), lr_scheduler.ExponentialLR(its, 0.9)]
    seen = breakdown(lr_scheduler.ChainedScheduler(parts), steps=4)
    assert seen.factors["StepLR"] == (1.0, 1.0, 1.0, 0.5)
    its = sgd(0.1)
    parts = [lr_scheduler.ConstantLR(its, 0.5, 99), lr_scheduler.ExponentialLR(its, 0.5)]
    seen = breakdown(lr_scheduler.SequentialLR(its, parts, [2]), steps=5)
    assert seen.factors["SequentialLR"] == (0.5, 0.5, 1.0, 0.5, 0.25)


def test_plateau_lr_is_split_into_schedule_and_plateau():
    mine = sgd(0.2)
    schedule = ScheduleLR(mine, lr=0.1 * warmup(2).then(cosine(1, 0)), total_steps=6)
    plateau = PlateauLR(schedule, patience=0, factor=0.5)
    for metric in (1.0, 1.0):
        mine.step()
        plateau.step(metric)
    seen = breakdown(plateau, steps=6)
    first, second = seen.factors
    assert first == f"lr {schedule.curve.schedule}"
    assert seen.factors[second] == (1.0, 1.0, 0.5, 0.5, 0.5, 0.5)
    assert seen.base == 0.2  # lr= is given as a factor of the group's base lr
    assert seen.factors[first] == pytest.approx([schedule.curve(k) / 0.2 for k in range(6)])
    expected = [schedule.curve(k) * (0.5 if k >= 2 else 1) for k in range(6)]
    assert seen.lrs == pytest.approx(expected)
    assert schedule.factors() == schedule.curve(2)


def test_equal_names_are_numbered_and_groups_are_chosen_by_name_or_number():
    mine = named(body=0.1, head=1.0)
    parts = [drop_in.StepLR(mine, n, 0.5) for n in (2, 3)]
    parts.append(drop_in.LambdaLR(mine, [lambda k: 1.0, lambda k: 0.1]))
    seen = breakdown(*parts, steps=4, group="head")
    assert (seen.group, seen.base) == ("head", 1.0)
    assert list(seen.factors) == ["StepLR", "StepLR (2)", "LambdaLR"]
    assert seen.factors["LambdaLR"] == (0.1, 0.1, 0.1, 0.1)
    assert breakdown(*parts, steps=4).group == "body"  # by default the first group
    assert breakdown(*parts, steps=4, group=1) == seen


def test_invalid_arguments_raise():
    mine = sgd(0.1, momentum=0.9)
    with pytest.raises(BindingError, match="of one optimizer; got those of 0"):
        breakdown(steps=3)
    with pytest.raises(BindingError, match="of one optimizer; got those of 2"):
        breakdown(drop_in.StepLR(mine, 3), drop_in.StepLR(sgd(0.1), 3), steps=3)
    with pytest.raises(BindingError, match="no param group is named 'head'; the groups are 0"):
        breakdown(drop_in.StepLR(mine, 3), steps=3, group="head")
    with pytest.raises(TypeError, match="not int"):
        breakdown(3, steps=3)
    with pytest.raises(BindingError, match="CyclicLR and OneCycleLR both set the lr itself"):
        breakdown(
            lr_scheduler.CyclicLR(mine, 0.01, 0.1), lr_scheduler.OneCycleLR(mine, 0.1, 9), steps=3
        )

    class Custom(lr_scheduler.StepLR):
        pass

    with pytest.raises(TypeError, match=r"factor of this Custom is unknown: .* one of torch's"):
        breakdown(Custom(mine, 3), steps=3)
    with pytest.raises(TypeError, match="factor of this ReduceLROnPlateau is unknown"):
        breakdown(lr_scheduler.ReduceLROnPlateau(mine), steps=3)
