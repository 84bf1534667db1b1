"""describe lists the param groups; preview returns the next lrs."""

import pytest
import torch
from optimizers import first_lrs, lrs_of, named, sgd
from torch.optim import lr_scheduler

from ratecraft import constant, cosine, linear, warmup, wsd
from ratecraft.diagnostics import describe, preview
from ratecraft.errors import BindingError
from ratecraft.torch import ScheduleLR


def test_groups_with_schedules_and_external_factor():
    optimizer = named(body=0.1, head=1.0)
    ScheduleLR(optimizer, factor={"body": warmup(5), "head": linear(1, 0)}, total_steps=10)
    ScheduleLR(
        optimizer,
        factor=constant(0.5),
        hyperparam_factors={"weight_decay": cosine()},
        total_steps=10,
    )
    optimizer.step()
    optimizer.param_groups[1]["lr"] *= 3
    optimizer.step()
    body, head = describe(optimizer).groups
    assert (body.name, body.num_tensors, body.numel, body.base_lr) == ("body", 1, 2, 0.1)
    assert body.lr == pytest.approx(0.1 * 0.4 * 0.5)
    assert head.external_factor == pytest.approx(3)
    assert body.schedules == {
        "lr": "factor warmup(5) and factor constant(0.5)",
        "weight_decay": "cosine(1, 0)",
    }
    lines = str(describe(optimizer)).splitlines()
    assert lines[0] == "group  tensors  weights  base    lr  decay  schedule"
    assert lines[2].startswith(
        "head         1        2     1   1.2      0  factor linear(1, 0) and factor"
    )
    assert lines[2].endswith("; weight_decay: cosine(1, 0); external factor 3")


def test_parameter_names_and_html_table():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    groups = [{"params": model.parameters(), "name": "<all>", "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    (group,) = describe(optimizer, model).groups
    assert group.parameter_names == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert group.weight_decay == 0.1
    assert str(describe(optimizer, model)).endswith("  none      0.weight, 0.bias, 1.weight, ...")
    assert "parameters" not in str(describe(optimizer))
    html = describe(optimizer, model)._repr_html_()
    assert ">group</th>" in html
    assert ">&lt;all&gt;</td><td>4</td><td>12</td>" in html
    with_names = torch.optim.AdamW(model.named_parameters(), lr=0.1)  # torch stores the names
    assert describe(with_names).groups[0].parameter_names == group.parameter_names


def test_schedules_are_shown_as_they_were_written():
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=0.5 * wsd(20), total_steps=100)
    assert describe(optimizer).groups[0].schedules == {"lr": "factor 0.5 * wsd(20)"}


def test_repr_is_short():
    many = named(**{f"g{i}": 0.1 for i in range(9)})
    assert repr(describe(many)) == "<Description: 9 param groups (g0, g1, g2, ...)>"
    assert repr(describe(sgd(0.1))) == "<Description: 1 param group (0)>"
    model = torch.nn.Linear(2, 2)
    (group,) = describe(torch.optim.SGD(model.parameters(), lr=0.1), model).groups
    assert group.parameter_names == ("weight", "bias")
    assert len(repr(group)) < 160


def test_optimizer_without_scheduler():
    (group,) = describe(sgd(0.1)).groups
    assert (group.base_lr, group.lr, group.schedules) == (0.1, 0.1, {})
    assert str(describe(sgd(0.1))).endswith("none")
    with pytest.raises(TypeError, match=r"describe\(\) takes a torch optimizer, not int"):
        describe(5)


def test_group_added_after_the_last_step():
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0})
    assert describe(optimizer).groups[1].lr == 1.0
    optimizer.step()
    assert describe(optimizer).groups[1].lr == pytest.approx(0.9)
    assert describe(optimizer).groups[1].schedules == {"lr": "factor linear(1, 0)"}


SCHEDULERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 3),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [3, 7]),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda k: 0.9**k),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda k: 0.9),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 9, eta_min=0.01),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, step_size_up=3),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=30),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 9),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1), lr_scheduler.CosineAnnealingLR(o, 9)], [5]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [0, 4])
# torch's SequentialLR calls step(0) on its second scheduler, which torch warns about.
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_preview_matches_what_a_torch_scheduler_does(name, steps):
    optimizer = sgd(0.1, 0.2, momentum=0.9)
    scheduler = SCHEDULERS[name](optimizer)
    lrs_of(optimizer, steps, scheduler)
    seen = preview(scheduler, 12)
    assert [list(lrs) for lrs in zip(*seen.values(), strict=True)] == lrs_of(
        optimizer, 12, scheduler
    )


def test_preview_of_a_plateau_requires_metrics():
    optimizer = sgd(0.1)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    with pytest.raises(BindingError, match="pass metrics="):
        preview(plateau, 5)
    assert preview(plateau, 5, metrics=[1.0] * 5)["0"] == pytest.approx([0.1] * 3 + [0.01] * 2)
    with pytest.raises(BindingError, match="2 metrics for 5 steps"):
        preview(plateau, 5, metrics=[1.0] * 2)
    with pytest.raises(TypeError, match=r"preview\(\) takes a torch scheduler, not int"):
        preview(5, 5)


def test_preview_numbers_groups_of_equal_names():
    optimizer = named(a=0.1, b=0.2)
    optimizer.param_groups[1]["name"] = "a"
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    assert preview(scheduler, 2) == {"a (0)": [0.1, 0.05], "a (1)": [0.2, 0.1]}
    for steps in (-1, 2.5, True):
        with pytest.raises(BindingError, match="must be an int >= 0"):
            preview(scheduler, steps)


def test_preview_of_schedule_lr_matches_what_it_does():
    optimizer = sgd(0.1, 0.2)
    scheduler = ScheduleLR(optimizer, factor=warmup(4).then(cosine()), total_steps=20)
    lrs_of(optimizer, 3)
    seen = preview(scheduler, 20)["0"]
    assert scheduler.last_epoch == 3
    assert first_lrs(optimizer, 20) == seen
