"""Probe measures what a step changes, and does not change training."""

import csv
import gc
import math
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ratecraft import constant, linear
from ratecraft.diagnostics import Probe
from ratecraft.diagnostics._coordinate import coordinate_lrs
from ratecraft.errors import BindingError, RatecraftError, ResultError, SettingError
from ratecraft.forecasting import layer_averaging
from ratecraft.report import plot_layer_stats
from ratecraft.results import load_layer_stats
from ratecraft.torch import ScheduleLR, param_groups


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def trained(optimizer_class, probed: bool, steps: int = 25, **settings):
    model = net()
    optimizer = optimizer_class(model.parameters(), lr=0.01, **settings)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=steps)
    probe = Probe(optimizer, model, every=10)
    if probed:
        probe.__enter__()
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(16, 4, generator=generator)
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).pow(2).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    probe.close()
    return model, optimizer, probe


OPTIMIZERS = [
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.AdamW, {}),
    (torch.optim.Adadelta, {}),
    (torch.optim.RMSprop, {}),
]


@pytest.mark.parametrize(("optimizer_class", "settings"), OPTIMIZERS)
def test_training_is_bit_for_bit_unchanged(optimizer_class, settings) -> None:
    plain = trained(optimizer_class, False, **settings)
    probed = trained(optimizer_class, True, **settings)
    assert plain[2].rows() == []
    assert all(map(torch.equal, plain[0].parameters(), probed[0].parameters()))
    assert all(map(torch.equal, plain[0].buffers(), probed[0].buffers()))
    hooks = [len(optimizer._optimizer_step_pre_hooks) for _, optimizer, _ in (plain, probed)]
    assert hooks[0] == hooks[1]
    assert not any(p._post_accumulate_grad_hooks for p in probed[0].parameters())


def test_row_matches_the_step() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(
        [
            {"params": model[0].parameters(), "name": "body", "lr": 0.01},
            {"params": model[1].parameters(), "name": "head", "lr": 0.1, "weight_decay": 0.5},
        ]
    )
    with Probe(optimizer, model, every=2) as probe:
        for k in range(3):
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
            optimizer.zero_grad()
            model(torch.ones(4, 3) * (k + 1)).pow(2).mean().backward()
            raw = {name: p.grad.clone() for name, p in model.named_parameters()}
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    rows = probe.rows()
    assert [(r.step, r.group, r.layer) for r in rows] == [
        (0, "body", "0"), (0, "head", "1"), (2, "body", "0"), (2, "head", "1"),
    ]  # fmt: skip
    for row, lr, decay in zip(rows[2:], (0.01, 0.1), (0.01 * 0.01, 0.1 * 0.5), strict=True):
        names = [f"{row.layer}.weight", f"{row.layer}.bias"]
        now = dict(model.named_parameters())
        flat = {n: before[n] for n in names}
        steps = torch.cat([(now[n] - flat[n] * (1 - decay)).detach().flatten() for n in names])
        gradient = torch.cat([now[n].grad.flatten() for n in names])
        weight = torch.cat([flat[n].flatten() for n in names])
        assert row.lr == lr
        assert row.decay == pytest.approx(decay)
        assert row.step_norm == pytest.approx(steps.norm().item(), rel=1e-5)
        assert row.weight_norm == pytest.approx(weight.norm().item(), rel=1e-5)
        assert row.gradient_norm == pytest.approx(gradient.norm().item(), rel=1e-5)
        assert row.gradient_l1 == pytest.approx(gradient.abs().sum().item(), rel=1e-5)
        unclipped = torch.cat([raw[n].flatten() for n in names]).norm().item()
        assert row.unclipped_norm == pytest.approx(unclipped, rel=1e-5)
        assert row.unclipped_norm > 2 * row.gradient_norm
        assert row.effective_lr == pytest.approx(row.step_norm / row.gradient_norm)
        assert row.relative_step == pytest.approx(row.step_norm / row.weight_norm)
        group = next(g for g in optimizer.param_groups if g["name"] == row.group)
        lrs = torch.cat([coordinate_lrs(optimizer, now[n], group).flatten() for n in names])
        expected = torch.quantile(lrs, torch.tensor([0.05, 0.5, 0.95])).tolist()
        assert [row.lr_low, row.lr_median, row.lr_high] == pytest.approx(expected, rel=1e-5)


def test_lr_is_that_of_the_step_although_a_scheduler_has_set_the_next() -> None:
    _, _, probe = trained(torch.optim.SGD, True)
    lrs = {row.step: row.lr for row in probe.rows()}
    assert lrs == {k: pytest.approx(0.01 * (1 - k / 25)) for k in (0, 10, 20)}
    for row in probe.rows():  # SGD has one lr, and its step is lr x gradient
        assert row.lr_low == row.lr_median == row.lr_high == row.lr
        assert row.effective_lr == pytest.approx(row.lr, rel=1e-3)


def test_adadelta_uses_the_averaged_steps_before_the_step() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    with Probe(optimizer, model, every=1) as probe:
        for _ in range(3):
            optimizer.zero_grad()
            (5 * model(torch.ones(1, 2))).sum().backward()
            optimizer.step()
    for row in probe.rows():  # all coordinates have equal gradients, and so equal lrs
        assert row.effective_lr == pytest.approx(row.lr_median, rel=1e-3)


def test_norms_do_not_contain_the_scale_of_a_grad_scaler() -> None:
    model = nn.Sequential(nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with Probe(optimizer, model, every=1, scaler=scaler) as probe:
        scaler.scale(model(torch.ones(1, 2)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    (row,) = probe.rows()
    assert row.unclipped_norm == pytest.approx(math.sqrt(3))
    assert row.gradient_norm == pytest.approx(math.sqrt(3))


def test_rows_are_saved_and_logged(tmp_path) -> None:
    _, _, probe = trained(torch.optim.AdamW, True)
    rows = probe.rows()
    with probe.save(tmp_path / "sub" / "p.csv").open() as file:
        records = list(csv.DictReader(file))
    assert [float(row["effective_lr"]) for row in records] == [row.effective_lr for row in rows]
    logged: list[tuple[str, float, int]] = []
    probe.log(lambda name, value, step: logged.append((name, value, step)))
    assert ("effective_lr/3", rows[-1].effective_lr, 20) in logged

    class Writer:
        def __init__(self) -> None:
            self.scalars: list[tuple[str, float, int]] = []

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.scalars.append((name, value, step))

    writer = Writer()
    probe.log(writer)
    assert writer.scalars == logged
    with pytest.raises(SettingError, match=r"has no add_scalar.* and is not a function"):
        probe.log(3)
    with pytest.raises(SettingError, match=r"expected a name ending in \.csv"):
        probe.save(tmp_path / "p.txt")


def test_frozen_and_unused_parameters_have_no_rows() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(optimizer, model, every=1) as probe:
        model[2](torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert [row.layer for row in probe.rows()] == ["2"]


def test_invalid_arguments_raise() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(SettingError, match="every=0"):
        Probe(optimizer, model, every=0)
    with pytest.raises(BindingError, match="none of the optimizer's parameters are this model's"):
        Probe(optimizer, nn.Linear(2, 1))
    with Probe(optimizer, model) as probe, pytest.raises(BindingError, match="already measuring"):
        probe.__enter__()


def test_saved_rows_are_loaded(tmp_path) -> None:
    rows = trained(torch.optim.AdamW, True)[2].rows()
    probe = trained(torch.optim.AdamW, True)[2]
    assert load_layer_stats(probe.save(tmp_path / "p.csv")) == rows
    wrong = tmp_path / "wrong.csv"
    header, first, *rest = (tmp_path / "p.csv").read_text().splitlines()
    for text in ("", "step,lr\n0,0.1\n", f"step,{header}\n"):
        wrong.write_text(text)
        with pytest.raises(ResultError, match=r"has the columns .*expected each column of a Probe"):
            load_layer_stats(wrong)
    for row in (
        f"x{first}",
        f"-1{first}",
        f"99999999{first}",
        f"{first},1",
        first[: first.rindex(",")],
    ):
        wrong.write_text("\n".join([header, first, row, *rest]))
        with pytest.raises(ResultError, match="row 2 is not a row of a Probe"):
            load_layer_stats(wrong)
    wrong.write_bytes(b"\xff")
    with pytest.raises(ResultError, match=r"wrong\.csv: .*decode"):
        load_layer_stats(wrong)
    with pytest.raises(ResultError, match="No such file"):
        load_layer_stats(tmp_path / "none.csv")


def test_unclipped_norm_with_unused_layers_and_several_backward_passes() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.ones(1, 2)
    with Probe(optimizer, model, every=1) as probe:
        for k in range(4):
            optimizer.zero_grad()
            if k % 2:  # only the last layer is used
                model[2](x).sum().backward()
            else:
                model(x).sum().backward()
                model(x).sum().backward()
            optimizer.step()
    assert len(probe.rows()) == 3 + 1 + 3 + 1
    for row in probe.rows():
        assert row.unclipped_norm == pytest.approx(row.gradient_norm, rel=1e-6), row


def test_unclipped_norm_when_each_step_uses_another_layer() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Probe(optimizer, model, every=1) as probe:
        for k in range(6):
            optimizer.zero_grad()
            model[k % 2](torch.ones(1, 2)).sum().backward()
            optimizer.step()
    assert [row.layer for row in probe.rows()] == ["0", "1"] * 3
    assert [row.step for row in probe.rows() if row.unclipped_norm == 0] == [1]


def test_measurements_hold_no_copies_of_the_model() -> None:
    model = nn.Linear(1000, 100)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with Probe(optimizer, model, every=1) as probe:
        for _ in range(3):
            model(torch.ones(1, 1000)).sum().backward()
            optimizer.step()
    gc.collect()
    tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
    large = [t for t in tensors if t.numel() == 100_000]
    assert len(large) == 1 + 1 + 2  # weight, gradient, Adam's two moments
    assert len(probe.rows()) == 3 * 2


def test_weights_in_channels_last_memory_format() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with Probe(optimizer, model, every=1) as probe:
        model(torch.randn(2, 3, 8, 8)).pow(2).sum().backward()
        optimizer.step()
    (row,) = probe.rows()
    lrs = [coordinate_lrs(optimizer, p, optimizer.param_groups[0]) for p in model.parameters()]
    all_lrs = torch.cat([values.flatten() for values in lrs])
    assert row.lr_median == pytest.approx(all_lrs.quantile(0.5).item(), rel=1e-6)


def test_plot_layer_stats() -> None:
    rows = trained(torch.optim.AdamW, True)[2].rows()
    figure = plot_layer_stats({"a": rows, "b": rows}, "relative_step")
    above = [axes for axes in figure.axes if axes.get_yscale() == "log"]
    below = [axes for axes in figure.axes if axes.get_yscale() != "log"]
    assert [axes.get_title() for axes in above] == ["a", "b"]
    lines = {line.get_label(): line for line in above[0].get_lines()}
    assert len(lines) == len({row.layer for row in rows})
    first = [row.relative_step for row in rows if row.layer == rows[0].layer]
    assert list(above[0].get_lines()[0].get_ydata()) == first
    assert list(below[0].get_lines()[0].get_ydata()) == [row.lr for row in rows if row.layer == "0"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "1", "3"]
    with pytest.raises(RatecraftError, match="no rows to plot"):
        plot_layer_stats([])
    with pytest.raises(RatecraftError, match="unknown column 'speed'; expected one of weight"):
        plot_layer_stats(rows, "speed")


def one_weight(steps: int, optimizer_class=torch.optim.SGD, **settings):
    model = nn.Linear(1, 1, bias=False)
    return model, optimizer_class(model.parameters(), **{"lr": 0.1, **settings}), range(steps)


@pytest.mark.parametrize("closure_as", ["position", "keyword", "gradients in advance"])
def test_gradients_of_a_closure_are_those_of_its_step(closure_as) -> None:
    model, optimizer, steps = one_weight(3)
    with Probe(optimizer, model, every=1) as probe:
        for k in steps:

            def closure(k=k):
                optimizer.zero_grad()
                loss = model(torch.full((1, 1), 10.0**k)).sum()
                loss.backward()
                return loss

            if closure_as == "gradients in advance":
                optimizer.zero_grad()
            loss = (
                optimizer.step(closure=closure)
                if closure_as == "keyword"
                else optimizer.step(closure)
            )
            assert loss is not None
    assert [row.gradient_norm for row in probe.rows()] == [1, 10, 100]
    assert [row.unclipped_norm for row in probe.rows()] == [1, 10, 100]
    assert [row.effective_lr for row in probe.rows()] == pytest.approx([0.1] * 3, rel=1e-4)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")  # LBFGS, 2.8
def test_first_of_several_closure_calls_is_measured() -> None:
    model, optimizer, _ = one_weight(1, torch.optim.LBFGS, max_iter=3)
    calls = []
    with Probe(optimizer, model, every=1) as probe:

        def closure():
            optimizer.zero_grad()
            loss = (model(torch.ones(1, 1)) - 5).pow(2).sum()
            loss.backward()
            calls.append(model.weight.grad.abs().item())
            return loss

        before = model.weight.item()
        optimizer.step(closure)
    (row,) = probe.rows()
    assert len(calls) > 1
    assert row.gradient_norm == calls[0]
    assert row.step_norm == pytest.approx(abs(model.weight.item() - before), rel=1e-5)


def test_growing_scale_of_a_grad_scaler() -> None:
    model, optimizer, steps = one_weight(4)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    with Probe(optimizer, model, every=1, scaler=scaler) as probe:
        for _ in steps:
            optimizer.zero_grad()
            scaler.scale(model(torch.ones(1, 1)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    assert [row.unclipped_norm for row in probe.rows()] == [1] * 4


def test_scale_and_skipped_steps_of_a_fused_optimizer() -> None:
    model, optimizer, steps = one_weight(4, torch.optim.Adam, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with Probe(optimizer, model, every=1, scaler=scaler) as probe:
        for k in steps:
            optimizer.zero_grad()
            loss = model(torch.ones(1, 1)).sum() * (math.inf if k == 1 else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    rows = probe.rows()
    assert [row.step for row in rows] == [0, 1, 2]  # as ScheduleLR counts
    assert [row.gradient_norm for row in rows] == [1] * 3
    assert [row.unclipped_norm for row in rows] == [1] * 3
    assert rows[0].effective_lr == pytest.approx(0.1, rel=1e-4)


def test_coordinates_are_sampled_from_all_columns() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 512, bias=False), nn.Linear(512, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.rand(16, 784)
    x[:, 0] = 0  # a pixel that is always black gives no gradient
    with Probe(optimizer, model, every=1) as probe:
        model(x).pow(2).mean().backward()
        optimizer.step()
    lrs = coordinate_lrs(optimizer, model[0].weight, optimizer.param_groups[0]).flatten()
    row = probe.rows()[0]
    assert row.lr_median == pytest.approx(lrs.quantile(0.5).item(), rel=0.5)
    assert row.lr_low == pytest.approx(lrs.quantile(0.05).item(), rel=0.5)


def test_scheduled_weight_decay_is_that_of_the_step() -> None:
    model, optimizer, steps = one_weight(4, torch.optim.AdamW, weight_decay=1.0)
    ScheduleLR(
        optimizer,
        factor=constant(1),
        hyperparam_factors={"weight_decay": linear(1, 0)},
        total_steps=4,
    )
    with Probe(optimizer, model, every=1) as probe:
        for _ in steps:
            optimizer.zero_grad()
            model(torch.ones(1, 1)).sum().backward()
            optimizer.step()
    assert [row.decay for row in probe.rows()] == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_layer_in_two_groups_has_two_names(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(param_groups(model, lr=0.01, no_decay=True, weight_decay=1.0))
    with Probe(optimizer, model, every=1) as probe:
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    rows = probe.rows()
    averages = layer_averaging(rows, 1000)
    assert list(averages) == ["0 (all)", "1 (all)", "0 (all, no decay)", "1 (all, no decay)"]
    assert averages["0 (all)"].initial_fraction < 1e-4
    assert averages["0 (all, no decay)"].initial_fraction == 1
    logged = []
    probe.log(lambda name, value, step: logged.append((name, step)))
    assert len(logged) == len(set(logged))
    (above, _) = plot_layer_stats(rows).axes
    assert len(above.get_lines()) == 4
    assert plot_layer_stats(rows, "decay").axes[0].get_yscale() == "log"
    without_decay = [replace(row, decay=0.0) for row in rows]
    assert plot_layer_stats(without_decay, "decay").axes[0].get_yscale() == "linear"


def test_sparse_gradients_are_skipped() -> None:
    model = nn.Embedding(10, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    with Probe(optimizer, model, every=1) as probe:
        model(torch.tensor([1, 2])).sum().backward()
        optimizer.step()
    assert probe.rows() == []


def test_unusual_parameters_lrs_and_states_are_measured() -> None:
    class Custom(torch.optim.Adam):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data -= group["lr"] * p.grad
                    self.state[p]["stepped"] = True

    def rows(model, optimizer, x):
        with Probe(optimizer, model, every=1) as probe:
            model(x).abs().sum().backward()
            optimizer.step()
        return probe.rows()

    model = nn.Sequential(nn.Linear(3, 2))
    (row,) = rows(model, Custom(model.parameters(), lr=0.5), torch.ones(1, 3))
    assert row.lr_median == 0.5
    # Torch 2.6 itself makes no step with this lr.
    if hasattr(import_module("torch.optim.optimizer"), "_to_scalar"):
        model = nn.Sequential(nn.Linear(3, 2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor([0.01]), foreach=False)
        (row,) = rows(model, optimizer, torch.ones(1, 3))
        assert row.decay == pytest.approx(1e-4)
    with pytest.warns(UserWarning, match="zero-element"):
        model = nn.Sequential(nn.Linear(0, 3, bias=False), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    first, second = rows(model, optimizer, torch.ones(1, 0))
    assert first.lr_median == 0.01
    assert second.layer == "1"
    model = nn.Sequential(nn.Linear(1000, 1000, bias=False)).half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(optimizer, model, every=1) as probe:
        model[0].weight.grad = torch.full_like(model[0].weight, 0.5)
        optimizer.step()
    assert probe.rows()[0].gradient_l1 == pytest.approx(500_000)


def test_complex_weight_has_two_coordinates() -> None:
    model = nn.Module()
    model.w = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with Probe(optimizer, model, every=1) as probe:
        (model.w * torch.tensor(1 + 2j)).abs().sum().backward()
        optimizer.step()
    gradient = torch.view_as_real(model.w.grad).abs()
    lrs = coordinate_lrs(optimizer, model.w, optimizer.param_groups[0])
    assert torch.allclose(lrs, 0.1 / (gradient + 1e-8))
    assert probe.rows()[0].lr_high == pytest.approx(lrs.quantile(0.95).item())


def test_unclipped_norm_after_a_backward_pass_that_raised() -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("out of memory")

    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(optimizer, model, every=1) as probe:
        for _ in range(2):
            optimizer.zero_grad()
            with pytest.raises(RuntimeError, match="out of memory"):
                model[1](Fails.apply(model[0](torch.ones(1, 2)))).sum().backward()
            optimizer.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    assert all(row.unclipped_norm == row.gradient_norm > 0 for row in probe.rows())


def test_unclipped_norm_sums_several_backward_passes() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with Probe(optimizer, model, every=1) as probe:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            (100 * model[1](torch.ones(2, 3)).pow(2).sum()).backward()
            optimizer.step()
    assert all(row.unclipped_norm == row.gradient_norm for row in probe.rows())


def test_layer_names_of_growing_and_wrapped_models() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    other_model = nn.Linear(2, 2)
    with Probe(optimizer, model, every=1) as probe:
        model.append(nn.Linear(2, 1))
        optimizer.add_param_group({"params": model[1].parameters()})
        optimizer.add_param_group({"params": other_model.parameters()})
        other_model(model[0](torch.ones(1, 2))).sum().backward()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert [row.layer for row in probe.rows()] == ["0", "1"]
    parallel = nn.DataParallel(nn.Sequential(nn.Linear(2, 1)))
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    with Probe(optimizer, parallel, every=1) as probe:
        parallel(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert [row.layer for row in probe.rows()] == ["0"]
    with pytest.raises(BindingError, match="run a batch through the model first"):
        Probe(optimizer, nn.LazyLinear(3))


def test_snapshots_are_dropped_after_an_exception() -> None:
    model, optimizer, _ = one_weight(1)

    class Breaks(torch.optim.SGD):
        def step(self, closure=None):
            raise RuntimeError("broken")

    optimizer = Breaks(model.parameters(), lr=0.1)
    model(torch.ones(1, 1)).sum().backward()
    probe = Probe(optimizer, model, every=1)
    with pytest.raises(RuntimeError, match="broken"), probe:
        optimizer.step()
    assert probe._started == []
    assert probe.rows() == []


class CountReads(TorchDispatchMode):
    """Counts operations that wait for a device: reading a number from a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.count += name in ("_local_scalar_dense", "equal", "nonzero")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("optimizer_class", "settings"),
    [*OPTIMIZERS, (torch.optim.AdamW, {"foreach": False}), (torch.optim.Adam, {"fused": True})],
)
def test_training_does_not_wait_for_the_device(optimizer_class, settings) -> None:
    counts = []
    for probed in (False, True):
        model = net()
        optimizer = optimizer_class(model.parameters(), lr=torch.tensor(0.01), **settings)
        probe = Probe(optimizer, model, every=1)
        with probe if probed else nullcontext(), CountReads() as reads:
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.ones(4, 4)).pow(2).mean().backward()
                optimizer.step()
        counts.append(reads.count)
    assert probe.rows()
    assert counts[1] == counts[0]
