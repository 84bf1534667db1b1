"""ratecraft.torch.drop_in: the lrs of torch's classes, and what torch gets wrong."""

import copy
import inspect
import io
import logging
import math
import pickle
import warnings

import pytest
import torch
from drawn_schedulers import SINGLE, STEPS
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizers import first_lrs, lrs_of, sgd
from torch.optim import lr_scheduler

from ratecraft import cosine, linear, warmup
from ratecraft.diagnostics import describe, preview
from ratecraft.errors import BindingError
from ratecraft.torch import ScheduleLR, drop_in

# torch warns if a scheduler steps before its optimizer or gets an epoch; the drop-ins do, too.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def optimizer():
    return sgd(0.1, 0.3, momentum=0.9)


def hyperparams(optimizer):
    return [(group["lr"], group["momentum"]) for group in optimizer.param_groups]


def assert_close(ours, theirs, rel=1e-9):
    for actual, expected in zip(ours, theirs, strict=True):
        assert actual == pytest.approx(expected, rel=rel, abs=1e-16)


@pytest.mark.parametrize("name", SINGLE)
@given(data=st.data())
@settings(max_examples=40)
def test_every_class_gives_the_lrs_of_torch_also_after_a_resume(name, data):
    make = data.draw(SINGLE[name])
    stop = data.draw(st.integers(0, STEPS - 1))
    mine, its = optimizer(), optimizer()
    ours, theirs = make(drop_in, mine), make(lr_scheduler, its)
    assert isinstance(ours, type(theirs))
    for k in range(STEPS):
        if k == stop:
            state = saved({"scheduler": ours.state_dict(), "optimizer": mine.state_dict()})
            mine = optimizer()
            ours = make(drop_in, mine)
            if k % 2:
                mine.load_state_dict(state["optimizer"])
            ours.load_state_dict(state["scheduler"])  # enough without the optimizer's state
            if name in ("CyclicLR", "OneCycleLR") and not k % 2:
                mine.load_state_dict(state["optimizer"])  # which holds the momentum
        assert_close(hyperparams(mine), hyperparams(its))
        assert [float(lr) for lr in ours.get_last_lr()] == [g["lr"] for g in mine.param_groups]
        for part in (mine, ours, its, theirs):
            part.step()


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", [n for n in SINGLE if n not in ("CyclicLR", "OneCycleLR")])
@given(data=st.data())
@settings(max_examples=20)
def test_two_schedulers_multiply_exactly(name, data):
    first, second = data.draw(SINGLE[name]), data.draw(SINGLE["ExponentialLR"])
    mine = optimizer()
    a, b = first(drop_in, mine), second(drop_in, mine)
    for k in range(STEPS):
        product = [
            base * x * y
            for base, x, y in zip((0.1, 0.3), spread(a.factors()), spread(b.factors()), strict=True)
        ]
        assert [g["lr"] for g in mine.param_groups] == pytest.approx(product, rel=1e-12, abs=1e-18)
        for part in (mine, a, b):
            part.step()
        assert k >= 0


def spread(factors):
    return factors if isinstance(factors, list) else [factors] * 2


@pytest.mark.parametrize("theirs_first", [False, True])
@pytest.mark.parametrize("module", [drop_in, lr_scheduler])
def test_step_lr_and_exponential_lr_over_100_epochs(module, theirs_first):
    mine = sgd(0.1)
    build = [
        lambda: drop_in.StepLR(mine, 3, 0.5),
        lambda: module.ExponentialLR(mine, 0.9),
    ]
    parts = [make() for make in (build[::-1] if theirs_first else build)]
    for k, lr in enumerate(first_lrs(mine, 100, *parts)):
        assert lr == pytest.approx(0.1 * 0.5 ** (k // 3) * 0.9**k, rel=1e-12)
    ours = parts[1] if theirs_first else parts[0]
    assert ours.factors(7) == 0.25


def test_product_with_a_schedule_lr():
    mine = sgd(0.1)
    ScheduleLR(mine, factor=cosine(1, 0.1), total_steps=50)
    step = drop_in.StepLR(mine, 10, 0.5)
    curve = cosine(1, 0.1).resolve(total_steps=50)
    for k, lr in enumerate(first_lrs(mine, 50, step)):
        assert lr == pytest.approx(0.1 * curve(k) * 0.5 ** (k // 10), rel=1e-12)
    assert describe(mine).groups[0].schedules["lr"] == "factor cosine(1, 0.1) and StepLR"


# Composites ---------------------------------------------------------------------------------------


def sequence(module, optimizer):
    parts = [
        module.LinearLR(optimizer, 0.1, total_iters=4),
        module.CosineAnnealingLR(optimizer, 9),
        module.ExponentialLR(optimizer, 0.9),
    ]
    return module.SequentialLR(optimizer, parts, [4, 12])


def chain(module, optimizer):
    parts = [module.LinearLR(optimizer, 0.1, total_iters=4), module.ExponentialLR(optimizer, 0.9)]
    return module.ChainedScheduler(parts)


@pytest.mark.parametrize("make", [sequence, chain])
@pytest.mark.parametrize("stop", [0, 3, 4, 5, 12, 20])
def test_composites_give_the_lrs_of_torch_also_after_a_resume(make, stop):
    mine, its = optimizer(), optimizer()
    ours, theirs = make(drop_in, mine), make(lr_scheduler, its)
    assert_close(lrs_of(mine, stop, ours), lrs_of(its, stop, theirs))
    state = saved(ours.state_dict())
    mine = optimizer()
    ours = make(drop_in, mine)
    ours.load_state_dict(state)
    assert_close(lrs_of(mine, STEPS, ours), lrs_of(its, STEPS, theirs))


def test_67586_sequences_nest():
    # torch's class silently shifts by a step.
    mine = sgd(1.0)
    inner = drop_in.SequentialLR(
        mine,
        [drop_in.ConstantLR(mine, 0.5, 100), drop_in.ConstantLR(mine, 0.2, 100)],
        [2],
    )
    outer = drop_in.SequentialLR(mine, [drop_in.ConstantLR(mine, 0.1, 100), inner], [3])
    assert first_lrs(mine, 8, outer) == pytest.approx([0.1] * 3 + [0.5] * 2 + [0.2] * 3)


def test_196243_chain_as_a_later_part():
    # torch's class raises NotImplementedError in the middle of the run.
    mine = sgd(1.0)
    parts = [drop_in.ConstantLR(mine, 0.1, 100), drop_in.ExponentialLR(mine, 0.5),
             drop_in.ConstantLR(mine, 0.8, 100)]  # fmt: skip
    outer = drop_in.SequentialLR(mine, [parts[0], drop_in.ChainedScheduler(parts[1:])], [3])
    assert first_lrs(mine, 5, outer) == pytest.approx([0.1] * 3 + [0.8, 0.4])


# Where torch is wrong -----------------------------------------------------------------------------


def test_193682_linear_lr_of_zero_length_is_at_its_end():
    assert first_lrs(*with_(drop_in.LinearLR, 0.1, 0.8, 0)) == [0.8] * 3


def with_(scheduler_class, *arguments):
    mine = sgd(1.0)
    return mine, 3, scheduler_class(mine, *arguments)


def test_constant_lr_returns_from_zero():
    mine, _, scheduler = with_(drop_in.ConstantLR, 0.0, 2)
    assert first_lrs(mine, 4, scheduler) == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("anneal", ["linear", "cos"])
def test_one_cycle_ends_at_its_lowest_lr(anneal):
    mine = sgd(1.0)
    scheduler = drop_in.OneCycleLR(mine, 1.0, 10, anneal_strategy=anneal, cycle_momentum=False)
    lrs = [*first_lrs(mine, 10, scheduler), mine.param_groups[0]["lr"]]
    assert min(lrs) > 0
    assert lrs[9] == lrs[10] == pytest.approx(1 / 25 / 1e4)
    with pytest.raises(ValueError, match="Tried to step 11 times"):
        scheduler.step()


def test_one_cycle_with_a_warmup_of_one_step():
    mine = sgd(1.0)
    scheduler = drop_in.OneCycleLR(mine, 1.0, 10, pct_start=0.1, cycle_momentum=False)
    assert first_lrs(mine, 1, scheduler)[0] == pytest.approx(1.0)


def test_cyclic_lr_state_can_be_loaded_twice():
    mine = optimizer()
    cyclic = drop_in.CyclicLR(mine, 0.01, 0.1)
    state = cyclic.state_dict()
    cyclic.load_state_dict(state)
    cyclic.load_state_dict(state)


# Signatures, verbose, states ----------------------------------------------------------------------


def test_every_torch_class_exists_with_its_signature():
    for name in lr_scheduler.__all__:
        theirs, ours = getattr(lr_scheduler, name), getattr(drop_in, name)
        assert issubclass(ours, theirs)
        mine = list(inspect.signature(ours).parameters.values())
        its = list(inspect.signature(theirs).parameters.values())
        for our_parameter, parameter in zip(mine, its, strict=False):
            annotation = parameter.annotation
            if isinstance(annotation, str):
                annotation = annotation.replace("Optional[Optimizer]", "Optimizer | None")
            else:  # torch 2.8 and older have types, or none
                annotation = our_parameter.annotation
            assert our_parameter == parameter.replace(annotation=annotation), name
        assert len(mine) >= len(its), name


def test_verbose_logs_every_change(caplog):
    mine = sgd(0.1)
    with caplog.at_level(logging.INFO, "ratecraft.torch"):
        scheduler = drop_in.StepLR(mine, 1, 0.5, -1, True)
        scheduler.step()
    assert "StepLR: step 1: lr [0.05]" in caplog.text
    assert not drop_in.StepLR(mine, 1, verbose="deprecated").verbose
    with pytest.raises(TypeError, match=r"StepLR\(\): missing a required argument"):
        drop_in.StepLR(mine)


def test_state_of_the_torch_class_loads():
    its = sgd(0.1)
    theirs = lr_scheduler.CosineAnnealingLR(its, 30)
    lrs_of(its, 11, theirs)
    mine = sgd(0.1)
    ours = drop_in.CosineAnnealingLR(mine, 30)
    ours.load_state_dict(theirs.state_dict())
    assert_close([first_lrs(mine, 15, ours)], [first_lrs(its, 15, theirs)])


@pytest.mark.parametrize("loaded", [False, True])
def test_last_epoch_resumes_as_torch_documents(loaded):
    whole = sgd(0.1)
    scheduler = drop_in.ExponentialLR(whole, 0.9)
    lrs_of(whole, 8, scheduler)
    mine = sgd(0.1)
    if loaded:
        mine.load_state_dict(whole.state_dict())
    else:  # without the optimizer's state only initial_lr is needed
        mine.param_groups[0]["initial_lr"] = 0.1
    again = drop_in.ExponentialLR(mine, 0.9, last_epoch=7)
    assert again.last_epoch == 8
    assert_close([first_lrs(mine, 5, again)], [first_lrs(whole, 5, scheduler)])


def test_stops_when_the_last_reference_is_dropped():
    mine = sgd(0.1)
    scheduler = drop_in.StepLR(mine, 1, 0.5)
    scheduler.step()
    del scheduler
    assert first_lrs(mine, 3) == [0.05] * 3


def test_warmup_multi_factor_scheduler():
    mine = sgd(0.01)
    scheduler = drop_in.WarmupMultiFactorScheduler(mine, [75, 50], 0.1, 0.001, 10)
    lrs = first_lrs(mine, 80, scheduler)
    expected = {0: 1e-5, 5: 0.005005, 10: 0.01, 49: 0.01, 50: 0.001, 75: 0.0001}
    assert {k: lrs[k] for k in expected} == pytest.approx(expected)


@pytest.mark.parametrize("module", [drop_in, lr_scheduler])
def test_curve_as_lambda_lr_function_has_a_plain_state(module):
    mine = sgd(0.1)
    scheduler = module.LambdaLR(mine, warmup(10).then(cosine(1, 0)).resolve(total_steps=40))
    lrs_of(mine, 7, scheduler)
    other = sgd(0.1)
    again = module.LambdaLR(other, warmup(10).then(cosine(1, 0)).resolve(total_steps=40))
    again.load_state_dict(saved(scheduler.state_dict()))
    other.load_state_dict(mine.state_dict())
    assert lrs_of(other, 20, again) == lrs_of(mine, 20, scheduler)


# Plateau ------------------------------------------------------------------------------------------

losses = st.floats(-5, 5) | st.sampled_from([0.0, math.nan, math.inf, 1.0, 1.0])


@given(
    metrics=st.lists(losses, max_size=60),
    mode=st.sampled_from(["min", "max"]),
    factor=st.sampled_from([0.1, 0.5, 0.9]),
    patience=st.integers(-1, 3),
    threshold=st.sampled_from([1e-4, 0.1, 0.0]),
    threshold_mode=st.sampled_from(["rel", "abs"]),
    cooldown=st.integers(0, 3),
    min_lr=st.sampled_from([0, 0.01, [0.01, 0.1]]),
    eps=st.sampled_from([1e-8, 0.02]),
)
def test_plateau_decides_as_torch(metrics, **options):
    mine, its = optimizer(), optimizer()
    ours = drop_in.ReduceLROnPlateau(mine, **options)
    theirs = lr_scheduler.ReduceLROnPlateau(its, **options)
    for metric in metrics:
        ours.step(metric)
        theirs.step(metric)
        assert_close(hyperparams(mine), hyperparams(its))
        assert ours.get_last_lr() == [group["lr"] for group in mine.param_groups]
        for name in ("num_bad_epochs", "cooldown_counter", "best", "last_epoch", "in_cooldown"):
            assert getattr(ours, name) == getattr(theirs, name), name


def test_plateau_warns_of_an_epoch_where_it_is_called():
    scheduler = drop_in.ReduceLROnPlateau(optimizer())
    with pytest.warns(UserWarning, match="epoch") as records:
        scheduler.step(1.0, 7)
    assert records[0].filename == __file__
    assert scheduler.last_epoch == 7


@pytest.mark.parametrize("total_steps", [1, 7, 12])
def test_warm_restarts_give_the_lrs_of_torch_to_the_last_bit(total_steps):
    mine, its = optimizer(), optimizer()
    ours = drop_in.CosineAnnealingWarmRestarts(mine, total_steps, T_mult=2)
    theirs = lr_scheduler.CosineAnnealingWarmRestarts(its, total_steps, T_mult=2)
    for _ in range(200):
        assert hyperparams(mine) == hyperparams(its)
        ours.step()
        theirs.step()


def plateau_with_warmup():
    mine = sgd(0.1)
    return (
        mine,
        ScheduleLR(mine, factor=warmup(10).then(linear(1, 0.5)), total_steps=40),
        drop_in.ReduceLROnPlateau(mine, patience=2, factor=0.5),
    )


def test_68978_plateau_with_a_warmup_and_its_resume():
    mine, ours, plateau = plateau_with_warmup()
    curve = ours.curve
    lrs = []
    for k in range(40):
        if k == 17:
            states = [saved(part.state_dict()) for part in (mine, ours, plateau)]
        lrs.append(mine.param_groups[0]["lr"])
        mine.step()
        plateau.step(1.0)
    falls = [0.5 ** max((k - 1) // 3, 0) for k in range(40)]
    assert lrs[:16] == pytest.approx([0.1 * curve(k) * falls[k] for k in range(16)])
    again, resumed, level = plateau_with_warmup()
    for part, state in zip((level, resumed, again), states[::-1], strict=True):
        part.load_state_dict(state)
    for k in range(17, 40):
        assert again.param_groups[0]["lr"] == lrs[k]
        again.step()
        level.step(1.0)


def test_no_warnings_where_torch_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = sgd(0.1)
        scheduler = drop_in.StepLR(mine, 3)
        for _ in range(5):
            mine.step()
            scheduler.step()


@pytest.mark.parametrize("done", range(8))
def test_sequence_is_previewed_as_it_continues_also_before_a_milestone(done):
    mine = sgd(0.1)
    parts = [drop_in.LinearLR(mine, 0.1, total_iters=5), drop_in.CosineAnnealingLR(mine, 15)]
    scheduler = drop_in.SequentialLR(mine, parts, [5])
    first_lrs(mine, done, scheduler)
    ahead = preview(scheduler, 6)["0"]
    assert ahead == pytest.approx(first_lrs(mine, 6, scheduler), rel=1e-12)


def pickled(scheduler):
    return pickle.loads(pickle.dumps(scheduler))  # noqa: S301 - our own


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_copy_drives_the_copy_of_its_optimizer(duplicate):
    mine = optimizer()
    scheduler = drop_in.CosineAnnealingLR(mine, 30, eta_min=0.01)
    other = drop_in.StepLR(mine, 100, 0.5)
    lrs_of(mine, 7, scheduler, other)
    for group in mine.param_groups:
        group["lr"] /= 2  # by hand
    twin = duplicate(scheduler)
    expected = lrs_of(mine, 9, scheduler)
    assert_close(lrs_of(twin.optimizer, 9, twin), expected, rel=1e-12)
    assert preview(scheduler, 3)["0"][0] == mine.param_groups[0]["lr"]


def test_late_group_decays_from_its_lr():
    mine = sgd(0.1)
    scheduler = drop_in.StepLR(mine, 2, 0.5)
    mine.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0})
    assert lrs_of(mine, 3, scheduler)[2] == [0.05, 0.5]


def test_signatures_of_warmup_multi_factor_scheduler_and_of_a_subclass():
    ours = inspect.signature(drop_in.WarmupMultiFactorScheduler)
    assert list(ours.parameters)[1:4] == ["milestones", "gamma", "warmup_factor"]

    class Mine(drop_in.StepLR):
        def __init__(self, optimizer, size=2):
            super().__init__(optimizer, size, gamma=0.5)

    assert list(inspect.signature(Mine).parameters) == ["optimizer", "size"]
    mine = sgd(1.0)
    assert first_lrs(mine, 5, Mine(mine)) == [1.0, 1.0, 0.5, 0.5, 0.25]


# Format 1 -----------------------------------------------------------------------------------------


def as_format_1(state):
    """Return a state as of format 1, whose external factors have the name ``carried``."""
    return state | {"carried": [0.5, 1.0]}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("StepLR", lambda o: drop_in.StepLR(o, 3)),
        ("MultiplicativeLR", lambda o: drop_in.MultiplicativeLR(o, lambda k: 0.9)),
        ("ReduceLROnPlateau", drop_in.ReduceLROnPlateau),
    ],
)
def test_state_of_format_1_raises_and_changes_nothing(name, make):
    mine = optimizer()
    scheduler = make(mine)
    before = copy.deepcopy(scheduler.state_dict())
    with pytest.raises(BindingError) as refusal:
        scheduler.load_state_dict(as_format_1(make(optimizer()).state_dict() | {"last_epoch": 7}))
    assert str(refusal.value) == (
        f"the state of this {name} has format 1, and this version of ratecraft reads format 2 "
        f"only; it cannot be converted: start from the model weights with a new {name}"
    )
    assert scheduler.state_dict() == before
    assert [group["lr"] for group in mine.param_groups] == [0.1, 0.3]


@pytest.mark.parametrize("make", [sequence, chain])
def test_composite_state_of_format_1_raises_and_changes_nothing(make):
    mine = optimizer()
    scheduler = make(drop_in, mine)
    before = copy.deepcopy(scheduler.state_dict())
    lrs = [group["lr"] for group in mine.param_groups]
    state = copy.deepcopy(before)
    state["last_epoch"] = 7
    state["_schedulers"][1] = as_format_1(state["_schedulers"][1])
    with pytest.raises(BindingError, match="has format 1, and this version of ratecraft reads"):
        scheduler.load_state_dict(state)
    assert scheduler.state_dict() == before
    assert [group["lr"] for group in mine.param_groups] == lrs


def test_external_factor_is_saved_and_loaded():
    mine = optimizer()
    scheduler = drop_in.StepLR(mine, 2, 0.5)
    mine.param_groups[0]["lr"] /= 2
    lrs_of(mine, 1, scheduler)
    state = saved(scheduler.state_dict())
    assert state["external_factor"] == [0.5, 1.0]
    other = optimizer()
    resumed = drop_in.StepLR(other, 2, 0.5)
    resumed.load_state_dict(state)
    assert lrs_of(other, 5, resumed) == lrs_of(mine, 5, scheduler)


def test_state_of_another_number_of_groups_raises_and_changes_nothing():
    mine = optimizer()
    scheduler = drop_in.StepLR(mine, 3)
    before, lrs = (
        copy.deepcopy(scheduler.state_dict()),
        [group["lr"] for group in mine.param_groups],
    )
    other = drop_in.StepLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), 3)
    other.step()
    with pytest.raises(BindingError, match="has 1 param groups, and this optimizer has 2"):
        scheduler.load_state_dict(other.state_dict())
    assert scheduler.state_dict() == before
    assert [group["lr"] for group in mine.param_groups] == lrs


def test_an_added_group_follows_a_factor_that_differs_by_group():
    optimizer = sgd(0.1, 0.2)
    scheduler = drop_in.CosineAnnealingLR(optimizer, 10, eta_min=0.01)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.3})
    lrs = lrs_of(optimizer, 9, scheduler)
    cosines = [(1 + math.cos(math.pi * k / 10)) / 2 for k in range(1, 9)]
    expected = [[0.01 + (base - 0.01) * c for base in (0.1, 0.2, 0.3)] for c in cosines]
    assert lrs[1:] == [pytest.approx(row) for row in expected]
    assert scheduler.state_dict()["last_epoch"] == 9


@pytest.mark.parametrize("package", [drop_in, lr_scheduler])
def test_an_added_group_without_a_function_raises_as_in_torch(package):
    if package is lr_scheduler and "strict=True" not in inspect.getsource(lr_scheduler):
        pytest.skip("torch 2.9 and older ignore the new group")
    optimizer = sgd(0.1, 0.2)
    scheduler = package.LambdaLR(optimizer, [lambda k: 0.5, lambda k: 0.1])
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.3})
    optimizer.step()
    with pytest.raises(ValueError, match="zip"):
        scheduler.step()
