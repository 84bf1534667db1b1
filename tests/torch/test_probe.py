"""The probe: what it measures is what happened, and nothing happens because it measures."""

import csv
import gc
import json
import math
from dataclasses import asdict

import pytest
import torch
from torch import nn

from ratecraft import linear
from ratecraft.errors import BindingError, RatecraftError, RecordError, SettingError
from ratecraft.records import load_measured
from ratecraft.torch import Probe, ScheduleLR
from ratecraft.torch.coordinate import coordinate_rates
from ratecraft.view import plot_measured


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def trained(kind, probed: bool, updates: int = 25, **settings):
    model = net()
    optimizer = kind(model.parameters(), lr=0.01, **settings)
    ScheduleLR(optimizer, factor=linear(1, 0), total=updates)
    probe = Probe(optimizer, model, every=10)
    if probed:
        probe.__enter__()
    generator = torch.Generator().manual_seed(1)
    for _ in range(updates):
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


def test_a_row_is_what_the_update_did() -> None:
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
    assert [(r.update, r.group, r.layer) for r in rows] == [
        (0, "body", "0"), (0, "head", "1"), (2, "body", "0"), (2, "head", "1"),
    ]  # fmt: skip
    for row, lr, decay in zip(rows[2:], (0.01, 0.1), (0.01 * 0.01, 0.1 * 0.5), strict=True):
        names = [f"{row.layer}.weight", f"{row.layer}.bias"]
        now = dict(model.named_parameters())
        flat = {n: before[n] for n in names}
        steps = torch.cat([(now[n] - flat[n] * (1 - decay)).detach().flatten() for n in names])
        gradient = torch.cat([now[n].grad.flatten() for n in names])
        weight = torch.cat([flat[n].flatten() for n in names])
        assert row.rate == lr
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
        rates = torch.cat([coordinate_rates(optimizer, now[n], group).flatten() for n in names])
        expected = torch.quantile(rates, torch.tensor([0.05, 0.5, 0.95])).tolist()
        assert [row.low, row.median, row.high] == pytest.approx(expected, rel=1e-5)


def test_the_rate_is_the_updates_own_though_a_scheduler_has_set_the_next() -> None:
    _, _, probe = trained(torch.optim.SGD, True)
    rates = {row.update: row.rate for row in probe.rows()}
    assert rates == {k: pytest.approx(0.01 * (1 - k / 25)) for k in (0, 10, 20)}
    for row in probe.rows():  # plain SGD has one rate for all, and its step is rate x gradient
        assert row.low == row.median == row.high == row.rate
        assert row.effective == pytest.approx(row.rate, rel=1e-3)


def test_adadeltas_steps_are_those_before_the_update() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    with Probe(optimizer, model, every=1) as probe:
        for _ in range(3):
            optimizer.zero_grad()
            (5 * model(torch.ones(1, 2))).sum().backward()
            optimizer.step()
    for row in probe.rows():  # all coordinates have one gradient, and so one rate
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
    probe.log(lambda name, value, update: told.append((name, value, update)))
    assert ("effective/3", rows[-1].effective, 20) in told

    class Board:
        def __init__(self) -> None:
            self.seen: list[tuple[str, float, int]] = []

        def add_scalar(self, name: str, value: float, update: int) -> None:
            self.seen.append((name, value, update))

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
        assert load_measured(probe.save(tmp_path / name)) == rows
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("update,rate\n0,0.1\n")
    with pytest.raises(RecordError, match=r"row 1 is no row of a Probe .*expected the columns"):
        load_measured(wrong)
    wrong.write_text("update,group\nx,0\n")
    with pytest.raises(RecordError, match="row 1 is no row of a Probe"):
        load_measured(wrong)
    (tmp_path / "wrong.jsonl").write_text("{")
    with pytest.raises(RecordError, match=r"wrong\.jsonl"):
        load_measured(tmp_path / "wrong.jsonl")
    with pytest.raises(RecordError, match="No such file"):
        load_measured(tmp_path / "none.csv")


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
    assert [row.update for row in probe.rows() if row.unclipped == 0] == [1]


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
    rates = [coordinate_rates(optimizer, p, optimizer.param_groups[0]) for p in model.parameters()]
    everything = torch.cat([one.flatten() for one in rates])
    assert row.median == pytest.approx(everything.quantile(0.5).item(), rel=1e-6)


def test_what_was_measured_is_drawn() -> None:
    rows = trained(torch.optim.AdamW, True)[2].rows()
    figure = plot_measured({"a": rows, "b": rows}, "relative")
    above = [axes for axes in figure.axes if axes.get_yscale() == "log"]
    below = [axes for axes in figure.axes if axes.get_yscale() != "log"]
    assert [axes.get_title() for axes in above] == ["a", "b"]
    lines = {line.get_label(): line for line in above[0].get_lines()}
    assert len(lines) == len({row.layer for row in rows})
    first = [row.relative for row in rows if row.layer == rows[0].layer]
    assert list(above[0].get_lines()[0].get_ydata()) == first
    assert list(below[0].get_lines()[0].get_ydata()) == [
        row.rate for row in rows if row.layer == "0"
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "1", "3"]
    with pytest.raises(RatecraftError, match="no rows to draw"):
        plot_measured([])
    with pytest.raises(RatecraftError, match="no column 'speed'; there is weight"):
        plot_measured(rows, "speed")
