"""A step counts once, whatever classes and inner optimizers it passes through."""

import gc
import logging
import warnings
import weakref
from collections import OrderedDict

import pytest
import torch
from optimizers import sgd

from ratecraft import PlateauLR, ScheduleLR, cosine, linear, warmup
from ratecraft.diagnostics import Probe, doctor
from ratecraft.errors import BindingError
from ratecraft.torch import drop_in

KINDS = [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adam, torch.optim.RMSprop]


def subclass(variant):
    class Clipped(variant):
        def step(self, closure=None):
            for group in self.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
            return super().step(closure)

    return Clipped


def ones(*groups):
    return [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in groups]


def train(optimizer, steps):
    for _ in range(steps):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()


@pytest.mark.parametrize("groups", [(0.1,), (0.1, 0.2)])
@pytest.mark.parametrize("variant", KINDS)
@pytest.mark.parametrize("depth", [1, 2])
def test_step_of_a_subclass_that_calls_super_counts_once(variant, groups, depth):
    derived = variant
    for _ in range(depth):
        derived = subclass(derived)
        derived(ones(0.1))  # torch now wraps the step of this class, too
    variant(ones(0.1))
    optimizer = derived(ones(*groups))
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    train(optimizer, 5)
    assert scheduler.last_epoch == 5
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([lr / 2 for lr in groups])


def test_step_that_raises_does_not_disturb_the_count():
    class Failing(torch.optim.SGD):
        fails = False

        def step(self, closure=None):
            super().step(closure)
            if self.fails:
                raise RuntimeError("out of memory")

    torch.optim.SGD(ones(0.1))
    optimizer = Failing(ones(0.1), lr=0.1)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    train(optimizer, 2)
    optimizer.fails = True
    with pytest.raises(RuntimeError):
        train(optimizer, 1)
    optimizer.fails = False
    train(optimizer, 2)
    assert scheduler.last_epoch == 4


def test_probe_measures_a_step_of_a_subclass_once():
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    rows = []
    for variant in (torch.optim.SGD, subclass(torch.optim.SGD)):
        optimizer = variant(model.parameters(), lr=0.0)
        with Probe(optimizer, model, every=2) as probe:
            for _ in range(6):
                optimizer.zero_grad()
                model(torch.ones(4, 2)).pow(2).mean().backward()
                optimizer.step()
        rows.append([(row.step, row.layer) for row in probe.rows()])
    assert rows[0] == rows[1]


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimization, as its users write it."""

    def __init__(self, params, base, **options):
        super().__init__(params, {"rho": 0.05, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["e"] = p.grad * group["rho"]
                p.add_(self.state[p]["e"])

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(self.state[p]["e"])
        self.base_optimizer.step()

    def step(self, closure=None):
        self.first_step()
        closure()
        self.second_step()


@pytest.mark.parametrize("scheduled", ["sam", "base"])
@pytest.mark.parametrize("style", ["closure", "two steps"])
@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
def test_sam_counts_one_step(scheduled, style, base):
    torch.manual_seed(0)
    model, x = torch.nn.Linear(3, 1), torch.randn(8, 3)
    sam = SAM(model.parameters(), base, lr=0.1)
    target = sam if scheduled == "sam" else sam.base_optimizer
    scheduler = ScheduleLR(target, factor=warmup(2).then(cosine()), total_steps=10)

    def loss():
        model(x).pow(2).mean().backward()

    lrs = []
    for _ in range(6):
        lrs.append(sam.param_groups[0]["lr"])
        loss()
        if style == "closure":
            sam.step(loss)
        else:
            sam.first_step()
            loss()
            sam.second_step()
    assert scheduler.last_epoch == 6
    assert lrs == pytest.approx([0.1 * scheduler.curve(k) for k in range(6)])
    assert [f.level for f in doctor(model, sam, scheduler, total_steps=10)] == ["note"]


def test_steps_that_no_hook_sees_are_reported(caplog):
    class Outside(torch.optim.SGD):
        def train_step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data -= group["lr"]

    optimizer = Outside(ones(0.1), lr=0.1)
    scheduler = ScheduleLR(optimizer, factor=warmup(5), total_steps=100)
    with caplog.at_level(logging.WARNING, "ratecraft.torch"):
        for _ in range(50):
            optimizer.train_step()
            scheduler.step()
    assert caplog.text.count("has made no step that could be counted") == 1
    assert 'pass clock="step"' in caplog.text


def test_wrapper_that_is_no_optimizer_raises_and_names_the_one_inside():
    class LARC:
        def __init__(self, optim):
            self.optim = optim

    with pytest.raises(TypeError, match=r"not LARC; pass the optimizer inside it, \.optim"):
        ScheduleLR(LARC(sgd(0.1)), factor=cosine(), total_steps=10)


def wrapped(inner, attribute, defines_hooks):
    """Return a wrapper that does not call Optimizer.__init__, so torch adds no hooks to it."""

    class Wrapper(torch.optim.Optimizer):
        def __init__(self):
            if defines_hooks:  # as pytorch_optimizer's wrappers, without those of load_state_dict
                self._patch_step_function()
                self._optimizer_step_pre_hooks = OrderedDict()
                self._optimizer_step_post_hooks = OrderedDict()
            setattr(self, attribute, inner)
            self.defaults, self.state = inner.defaults, inner.state

        @property
        def param_groups(self):
            return inner.param_groups

        def step(self, closure=None):
            return inner.step(closure)

    return Wrapper()


@pytest.mark.parametrize("attribute", ["optimizer", "_optimizer", "base"])
@pytest.mark.parametrize("defines_hooks", [True, False])
@pytest.mark.parametrize("lrs", [(0.1,), (0.1, 0.2)])
def test_steps_of_a_wrapper_without_hooks_are_counted_inside(lrs, defines_hooks, attribute):
    optimizer = wrapped(sgd(*lrs), attribute, defines_hooks)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    train(optimizer, 5)
    assert scheduler.last_epoch == 5
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([lr / 2 for lr in lrs])


def test_optimizer_without_hooks_raises_and_works_with_counted_calls():
    class Bare(torch.optim.Optimizer):
        def __init__(self, groups):
            self.param_groups, self.state, self.defaults = groups, {}, {}
            self._optimizer_step_post_hooks = OrderedDict()

        def step(self, closure=None):
            pass

    with pytest.raises(BindingError, match=r'steps cannot be counted; pass clock="step"'):
        ScheduleLR(Bare(ones(0.1)), factor=linear(1, 0), total_steps=10)
    bare = Bare(ones(0.1))
    scheduler = ScheduleLR(bare, factor=linear(1, 0), total_steps=10, clock="step")
    for _ in range(5):
        bare.step()
        scheduler.step()
    assert bare.param_groups[0]["lr"] == pytest.approx(0.05)


def test_metric_passed_to_step_raises_and_names_plateau_lr():
    scheduler = ScheduleLR(sgd(0.1), factor=cosine(), total_steps=10)
    with pytest.raises(TypeError, match=r"step\(0\.3\) takes no epoch.* use PlateauLR"):
        scheduler.step(0.3)


def build(i, optimizer):
    """Build one of several kinds of schedulers, step it, and load its own state."""
    variant = i % 6
    if variant == 0:
        scheduler = ScheduleLR(optimizer, factor=cosine(), total_steps=10)
    elif variant == 1:
        scheduler = ScheduleLR(
            optimizer, factor={"0": cosine(), "1": linear(1, 0)}, total_steps=10, eta_min=0.01
        )
    elif variant == 2:
        scheduler = PlateauLR(ScheduleLR(optimizer, factor=warmup(3), total_steps=10), patience=0)
    elif variant == 3:
        scheduler = drop_in.CosineAnnealingLR(optimizer, 10)
    elif variant == 4:
        parts = [drop_in.LinearLR(optimizer), drop_in.ExponentialLR(optimizer, 0.9)]
        scheduler = drop_in.SequentialLR(optimizer, parts, [3])
    else:
        scheduler = ScheduleLR(
            optimizer, lr={"0": cosine(), "1": cosine()}, total_steps=10, clock="step"
        )
    train(optimizer, 3)
    scheduler.step(*[1.0] * (variant == 2))
    scheduler.load_state_dict(scheduler.state_dict())
    optimizer.load_state_dict(optimizer.state_dict())


def test_nothing_waits_for_the_garbage_collector():
    kinds = [torch.optim.SGD, torch.optim.AdamW, subclass(torch.optim.AdamW)]
    torch.optim.SGD(ones(0.1))  # the first optimizer of a process imports much of torch
    alive = []
    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i in range(240):
                optimizer = kinds[i % 3](ones(0.1, 0.2), lr=0.1)
                build(i, optimizer)
                alive.append(weakref.ref(optimizer))
        del optimizer
        assert sum(ref() is not None for ref in alive) == 0
    finally:
        gc.enable()


def test_schedule_goes_on_without_a_reference_to_the_scheduler():
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    gc.collect()
    train(optimizer, 5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_scheduler_keeps_its_optimizer():
    scheduler = ScheduleLR(sgd(0.1), factor=linear(1, 0), total_steps=10)
    gc.collect()
    assert scheduler.preview(2)["0"] == pytest.approx([0.1, 0.09])


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_group_added_under_a_cycle_raises_and_says_what_to_do(name):
    optimizer = sgd(0.1)
    arguments = {"max_lr": 0.1, "total_steps": 10} if name == "OneCycleLR" else {
        "base_lr": 0.01, "max_lr": 0.1
    }  # fmt: skip
    scheduler = getattr(drop_in, name)(optimizer, cycle_momentum=False, **arguments)
    optimizer.add_param_group(ones(0.1)[0])
    optimizer.step()
    with pytest.raises(BindingError, match="cannot schedule a param group that is added later"):
        scheduler.step()
