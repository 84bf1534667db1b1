"""The probe: what it measures is what happened, and nothing happens because it measures."""

import csv
import gc
import json
import math
from contextlib import nullcontext
from dataclasses import asdict, replace

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


def trained(kind, probed: bool, steps: int = 25, **settings):
    model = net()
    optimizer = kind(model.parameters(), lr=0.01, **settings)
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


KINDS = [
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.AdamW, {}),
    (torch.optim.Adadelta, {}),
    (torch.optim.RMSprop, {}),
]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_training_is_the_same_to_the_last_bit(kind, settings) -> None:
    plain, probed = trained(kind, False, **settings), trained(kind, True, **settings)
    assert plain[2].rows() == []
    assert all(map(torch.equal, plain[0].parameters(), probed[0].parameters()))
    assert all(map(torch.equal, plain[0].buffers(), probed[0].buffers()))
    hooks = [len(one[1]._optimizer_step_pre_hooks) for one in (plain, probed)]
    assert hooks[0] == hooks[1]
    assert not any(p._post_accumulate_grad_hooks for p in probed[0].parameters())


def test_a_row_is_what_the_step_did() -> None:
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
        assert row.step == pytest.approx(steps.norm().item(), rel=1e-5)
        assert row.weight == pytest.approx(weight.norm().item(), rel=1e-5)
        assert row.gradient == pytest.approx(gradient.norm().item(), rel=1e-5)
        assert row.gradient_l1 == pytest.approx(gradient.abs().sum().item(), rel=1e-5)
        unclipped = torch.cat([raw[n].flatten() for n in names]).norm().item()
        assert row.unclipped == pytest.approx(unclipped, rel=1e-5)
        assert row.unclipped > 2 * row.gradient
        assert row.effective == pytest.approx(row.step / row.gradient)
        assert row.relative == pytest.approx(row.step / row.weight)
        group = next(g for g in optimizer.param_groups if g["name"] == row.group)
        lrs = torch.cat([coordinate_lrs(optimizer, now[n], group).flatten() for n in names])
        expected = torch.quantile(lrs, torch.tensor([0.05, 0.5, 0.95])).tolist()
        assert [row.low, row.median, row.high] == pytest.approx(expected, rel=1e-5)


def test_the_lr_is_the_steps_own_though_a_scheduler_has_set_the_next() -> None:
    _, _, probe = trained(torch.optim.SGD, True)
    lrs = {row.step: row.lr for row in probe.rows()}
    assert lrs == {k: pytest.approx(0.01 * (1 - k / 25)) for k in (0, 10, 20)}
    for row in probe.rows():  # plain SGD has one lr for all, and its step is lr x gradient
        assert row.low == row.median == row.high == row.lr
        assert row.effective == pytest.approx(row.lr, rel=1e-3)


def test_adadeltas_steps_are_those_before_the_step() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    with Probe(optimizer, model, every=1) as probe:
        for _ in range(3):
            optimizer.zero_grad()
            (5 * model(torch.ones(1, 2))).sum().backward()
            optimizer.step()
    for row in probe.rows():  # all coordinates have one gradient, and so one lr
        assert row.effective == pytest.approx(row.median, rel=1e-3)


def test_a_grad_scaler_does_not_scale_what_is_told() -> None:
    model = nn.Sequential(nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with Probe(optimizer, model, every=1, scaler=scaler) as probe:
        scaler.scale(model(torch.ones(1, 2)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    (row,) = probe.rows()
    assert row.unclipped == pytest.approx(math.sqrt(3))
    assert row.gradient == pytest.approx(math.sqrt(3))


def test_rows_are_written_and_handed_to_a_logger(tmp_path) -> None:
    _, _, probe = trained(torch.optim.AdamW, True)
    rows = probe.rows()
    with probe.save(tmp_path / "p.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [float(row["effective"]) for row in read] == [row.effective for row in rows]
    lines = probe.save(tmp_path / "sub" / "p.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [asdict(row) for row in rows]
    told: list[tuple[str, float, int]] = []
    probe.log(lambda name, value, step: told.append((name, value, step)))
    assert ("effective/3", rows[-1].effective, 20) in told

    class Board:
        def __init__(self) -> None:
            self.seen: list[tuple[str, float, int]] = []

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.seen.append((name, value, step))

    board = Board()
    probe.log(board)
    assert board.seen == told
    with pytest.raises(SettingError, match="has no add_scalar and is no function"):
        probe.log(3)
    with pytest.raises(SettingError, match=r"expected a name ending in \.csv or \.jsonl"):
        probe.save(tmp_path / "p.txt")


def test_frozen_and_unused_parameters_have_no_row() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(optimizer, model, every=1) as probe:
        model[2](torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert [row.layer for row in probe.rows()] == ["2"]


def test_mistakes_are_told() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(SettingError, match="every=0"):
        Probe(optimizer, model, every=0)
    with pytest.raises(BindingError, match="none of the optimizer's parameters are this model's"):
        Probe(optimizer, nn.Linear(2, 1))
    with Probe(optimizer, model) as probe, pytest.raises(BindingError, match="already measuring"):
        probe.__enter__()


def test_saved_rows_are_read_again(tmp_path) -> None:
    rows = trained(torch.optim.AdamW, True)[2].rows()
    for name in ("p.csv", "p.jsonl"):
        probe = trained(torch.optim.AdamW, True)[2]
        assert load_layer_stats(probe.save(tmp_path / name)) == rows
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("step,lr\n0,0.1\n")
    with pytest.raises(ResultError, match=r"row 1 is no row of a Probe .*expected the columns"):
        load_layer_stats(wrong)
    wrong.write_text("step,group\nx,0\n")
    with pytest.raises(ResultError, match="row 1 is no row of a Probe"):
        load_layer_stats(wrong)
    (tmp_path / "wrong.jsonl").write_text("{")
    with pytest.raises(ResultError, match=r"wrong\.jsonl"):
        load_layer_stats(tmp_path / "wrong.jsonl")
    with pytest.raises(ResultError, match="No such file"):
        load_layer_stats(tmp_path / "none.csv")


def test_gradients_of_several_passes_and_of_what_was_left_out_are_seen() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.ones(1, 2)
    with Probe(optimizer, model, every=1) as probe:
        for k in range(4):
            optimizer.zero_grad()
            if k % 2:  # only the last layer takes part
                model[2](x).sum().backward()
            else:
                model(x).sum().backward()
                model(x).sum().backward()
            optimizer.step()
    assert len(probe.rows()) == 3 + 1 + 3 + 1
    for row in probe.rows():
        assert row.unclipped == pytest.approx(row.gradient, rel=1e-6), row


def test_gradients_that_come_to_other_layers_each_time_are_seen_from_the_second_time_on() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Probe(optimizer, model, every=1) as probe:
        for k in range(6):
            optimizer.zero_grad()
            model[k % 2](torch.ones(1, 2)).sum().backward()
            optimizer.step()
    assert [row.layer for row in probe.rows()] == ["0", "1"] * 3
    assert [row.step for row in probe.rows() if row.unclipped == 0] == [1]


def test_a_measured_model_takes_no_memory_with_it() -> None:
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


def test_weights_may_lie_in_memory_in_any_order() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with Probe(optimizer, model, every=1) as probe:
        model(torch.randn(2, 3, 8, 8)).pow(2).sum().backward()
        optimizer.step()
    (row,) = probe.rows()
    lrs = [coordinate_lrs(optimizer, p, optimizer.param_groups[0]) for p in model.parameters()]
    everything = torch.cat([one.flatten() for one in lrs])
    assert row.median == pytest.approx(everything.quantile(0.5).item(), rel=1e-6)


def test_what_was_measured_is_drawn() -> None:
    rows = trained(torch.optim.AdamW, True)[2].rows()
    figure = plot_layer_stats({"a": rows, "b": rows}, "relative")
    above = [axes for axes in figure.axes if axes.get_yscale() == "log"]
    below = [axes for axes in figure.axes if axes.get_yscale() != "log"]
    assert [axes.get_title() for axes in above] == ["a", "b"]
    lines = {line.get_label(): line for line in above[0].get_lines()}
    assert len(lines) == len({row.layer for row in rows})
    first = [row.relative for row in rows if row.layer == rows[0].layer]
    assert list(above[0].get_lines()[0].get_ydata()) == first
    assert list(below[0].get_lines()[0].get_ydata()) == [row.lr for row in rows if row.layer == "0"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "1", "3"]
    with pytest.raises(RatecraftError, match="no rows to draw"):
        plot_layer_stats([])
    with pytest.raises(RatecraftError, match="no column 'speed'; there is weight"):
        plot_layer_stats(rows, "speed")


def settled(steps: int, kind=torch.optim.SGD, **settings):
    model = nn.Linear(1, 1, bias=False)
    return model, kind(model.parameters(), **{"lr": 0.1, **settings}), range(steps)


@pytest.mark.parametrize("way", ["position", "name", "empty"])
def test_gradients_of_a_closure_are_those_of_its_step(way) -> None:
    model, optimizer, steps = settled(3)
    with Probe(optimizer, model, every=1) as probe:
        for k in steps:

            def closure(k=k):
                optimizer.zero_grad()
                loss = model(torch.full((1, 1), 10.0**k)).sum()
                loss.backward()
                return loss

            if way == "empty":
                optimizer.zero_grad()
            loss = optimizer.step(closure=closure) if way == "name" else optimizer.step(closure)
            assert loss is not None
    assert [row.gradient for row in probe.rows()] == [1, 10, 100]
    assert [row.unclipped for row in probe.rows()] == [1, 10, 100]
    assert [row.effective for row in probe.rows()] == pytest.approx([0.1] * 3, rel=1e-4)


def test_of_several_calls_of_a_closure_the_first_counts() -> None:
    model, optimizer, _ = settled(1, torch.optim.LBFGS, max_iter=3)
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
    assert row.gradient == calls[0]
    assert row.step == pytest.approx(abs(model.weight.item() - before), rel=1e-5)


def test_a_growing_scale_of_a_scaler_is_that_of_the_step() -> None:
    model, optimizer, steps = settled(4)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    with Probe(optimizer, model, every=1, scaler=scaler) as probe:
        for _ in steps:
            optimizer.zero_grad()
            scaler.scale(model(torch.ones(1, 1)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    assert [row.unclipped for row in probe.rows()] == [1] * 4


def test_a_fused_optimizers_scale_and_skipped_steps_are_known() -> None:
    model, optimizer, steps = settled(4, torch.optim.Adam, fused=True)
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
    assert [row.gradient for row in rows] == [1] * 3
    assert [row.unclipped for row in rows] == [1] * 3
    assert rows[0].effective == pytest.approx(0.1, rel=1e-4)


def test_coordinates_are_taken_from_all_columns() -> None:
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
    assert row.median == pytest.approx(lrs.quantile(0.5).item(), rel=0.5)
    assert row.low == pytest.approx(lrs.quantile(0.05).item(), rel=0.5)


def test_scheduled_fields_are_those_of_the_step() -> None:
    model, optimizer, steps = settled(4, torch.optim.AdamW, weight_decay=1.0)
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


def test_a_layer_in_two_groups_has_two_names(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(param_groups(model, lr=0.01, no_decay=True, weight_decay=1.0))
    with Probe(optimizer, model, every=1) as probe:
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    rows = probe.rows()
    found = layer_averaging(rows, 1000)
    assert list(found) == ["0 (all)", "1 (all)", "0 (all, no decay)", "1 (all, no decay)"]
    assert found["0 (all)"].initial < 1e-4
    assert found["0 (all, no decay)"].initial == 1
    told = []
    probe.log(lambda name, value, step: told.append((name, step)))
    assert len(told) == len(set(told))
    (above, _) = plot_layer_stats(rows).axes
    assert len(above.get_lines()) == 4
    assert plot_layer_stats(rows, "decay").axes[0].get_yscale() == "log"
    none = [replace(row, decay=0.0) for row in rows]
    assert plot_layer_stats(none, "decay").axes[0].get_yscale() == "linear"


def test_what_has_no_dense_gradient_does_not_stop_training() -> None:
    model = nn.Embedding(10, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    with Probe(optimizer, model, every=1) as probe:
        model(torch.tensor([1, 2])).sum().backward()
        optimizer.step()
    assert probe.rows() == []


def test_odd_parameters_lrs_and_states_are_measured() -> None:
    class Own(torch.optim.Adam):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data -= group["lr"] * p.grad
                    self.state[p]["seen"] = True

    def rows(model, optimizer, x):
        with Probe(optimizer, model, every=1) as probe:
            model(x).abs().sum().backward()
            optimizer.step()
        return probe.rows()

    model = nn.Sequential(nn.Linear(3, 2))
    (row,) = rows(model, Own(model.parameters(), lr=0.5), torch.ones(1, 3))
    assert row.median == 0.5
    model = nn.Sequential(nn.Linear(3, 2))
    one = torch.optim.AdamW(model.parameters(), lr=torch.tensor([0.01]), foreach=False)
    (row,) = rows(model, one, torch.ones(1, 3))
    assert row.decay == pytest.approx(1e-4)
    with pytest.warns(UserWarning, match="zero-element"):
        model = nn.Sequential(nn.Linear(0, 3, bias=False), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    first, second = rows(model, optimizer, torch.ones(1, 0))
    assert first.median == 0.01
    assert second.layer == "1"
    model = nn.Sequential(nn.Linear(1000, 1000, bias=False)).half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(optimizer, model, every=1) as probe:
        model[0].weight.grad = torch.full_like(model[0].weight, 0.5)
        optimizer.step()
    assert probe.rows()[0].gradient_l1 == pytest.approx(500_000)


def test_a_complex_weight_has_two_coordinates() -> None:
    model = nn.Module()
    model.w = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with Probe(optimizer, model, every=1) as probe:
        (model.w * torch.tensor(1 + 2j)).abs().sum().backward()
        optimizer.step()
    gradient = torch.view_as_real(model.w.grad).abs()
    lrs = coordinate_lrs(optimizer, model.w, optimizer.param_groups[0])
    assert torch.allclose(lrs, 0.1 / (gradient + 1e-8))
    assert probe.rows()[0].high == pytest.approx(lrs.quantile(0.95).item())


def test_a_backward_pass_that_fails_and_is_repeated_is_seen() -> None:
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
    assert all(row.unclipped == row.gradient > 0 for row in probe.rows())


def test_several_passes_are_all_seen() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with Probe(optimizer, model, every=1) as probe:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            (100 * model[1](torch.ones(2, 3)).pow(2).sum()).backward()
            optimizer.step()
    assert all(row.unclipped == row.gradient for row in probe.rows())


def test_a_model_that_grows_or_is_wrapped_keeps_its_layers_names() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    other = nn.Linear(2, 2)
    with Probe(optimizer, model, every=1) as probe:
        model.append(nn.Linear(2, 1))
        optimizer.add_param_group({"params": model[1].parameters()})
        optimizer.add_param_group({"params": other.parameters()})
        other(model[0](torch.ones(1, 2))).sum().backward()
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


def test_what_an_exception_leaves_is_let_go() -> None:
    model, optimizer, _ = settled(1)

    class Breaks(torch.optim.SGD):
        def step(self, closure=None):
            raise RuntimeError("broken")

    optimizer = Breaks(model.parameters(), lr=0.1)
    model(torch.ones(1, 1)).sum().backward()
    probe = Probe(optimizer, model, every=1)
    with pytest.raises(RuntimeError, match="broken"), probe:
        optimizer.step()
    assert probe._before == []
    assert probe.rows() == []


class Reads(TorchDispatchMode):
    """Counts what waits for a device: every number that is read from a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.count += name in ("_local_scalar_dense", "equal", "nonzero")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [*KINDS, (torch.optim.AdamW, {"foreach": False}), (torch.optim.Adam, {"fused": True})],
)
def test_nothing_is_read_from_a_device_while_it_trains(kind, settings) -> None:
    counts = []
    for probed in (False, True):
        model = net()
        optimizer = kind(model.parameters(), lr=torch.tensor(0.01), **settings)
        probe = Probe(optimizer, model, every=1)
        with probe if probed else nullcontext(), Reads() as reads:
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.ones(4, 4)).pow(2).mean().backward()
                optimizer.step()
        counts.append(reads.count)
    assert probe.rows()
    assert counts[1] == counts[0]
