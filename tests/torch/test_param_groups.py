"""param_groups: every parameter in exactly one group, with the right lr."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.parallel import DistributedDataParallel as Ddp
from torch.optim.swa_utils import AveragedModel

from ratecraft import constant, cosine
from ratecraft.diagnostics import describe
from ratecraft.errors import BindingError
from ratecraft.torch import ScheduleLR, param_groups


class Block(nn.Module):
    """Two convolutions and a skip connection."""

    def __init__(self, fan_in: int, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(fan_in, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.skip = nn.Sequential(nn.Conv2d(fan_in, width, 1), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inner + self.skip(x))


class ResNet(nn.Module):
    """A small residual network: a stem, two stages of two blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(Block(4, 4), Block(4, 4))
        self.layer2 = nn.Sequential(Block(4, 8), Block(8, 8))
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


def by_name(model: nn.Module, groups) -> dict[str, str]:
    """Return each parameter's group; assert that it is in exactly one."""
    names = {id(p): name for name, p in model.named_parameters()}
    pairs = [(names[id(p)], group["name"]) for group in groups for p in group["params"]]
    assert sorted(name for name, _ in pairs) == sorted(names.values())
    return dict(pairs)


def table(groups, *keys: str) -> dict[str, tuple]:
    assert len({group["name"] for group in groups}) == len(groups)
    return {g["name"]: tuple(g.get(key) for key in keys) for g in groups}


def test_rule_for_the_head_with_no_decay_and_momentum() -> None:
    model = ResNet()
    groups = param_groups(
        model, lr=1e-4, rules={"fc": 1e-2}, no_decay=["norm", "bias"], weight_decay=0.1,
        momentum=0.9,
    )  # fmt: skip
    assert table(groups, "lr", "weight_decay", "momentum") == {
        "rest": (1e-4, 0.1, 0.9),
        "rest, no decay": (1e-4, 0.0, 0.9),
        "fc": (1e-2, 0.1, 0.9),
        "fc, no decay": (1e-2, 0.0, 0.9),
    }
    for name, group in by_name(model, groups).items():
        undecayed = name.endswith("bias") or "bn" in name or "skip.1" in name
        assert group == ("fc" if name.startswith("fc") else "rest") + ", no decay" * undecayed, name


def test_layer_decay_on_a_residual_network() -> None:
    model = ResNet()
    groups = param_groups(model, lr=1e-2, layer_decay=0.75)
    layers = ["conv1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "fc"]
    lrs = table(groups, "lr")
    assert list(lrs) == layers
    for i, layer in enumerate(layers):
        assert lrs[layer][0] == pytest.approx(1e-2 * 0.75 ** (5 - i))
    group_of = by_name(model, groups)
    assert group_of["bn1.weight"] == "conv1"
    assert group_of["layer1.1.skip.1.bias"] == "layer1.1"


def test_all_options_together_with_schedules_by_group() -> None:
    model = ResNet()
    groups = param_groups(
        model, lr=1e-4, rules={"fc": 1e-2}, layer_decay=0.75, no_decay=True, momentum=0.9,
        weight_decay=0.05,
    )  # fmt: skip
    by_name(model, groups)
    optimizer = torch.optim.SGD(groups)
    heads = [g["name"] for g in groups if g["name"].startswith("fc")]
    assert heads == ["fc", "fc, no decay"]
    factor = {g["name"]: cosine(1, 0) if g["name"] in heads else constant(1) for g in groups}
    ScheduleLR(optimizer, factor=factor, total_steps=10)
    for _ in range(5):
        model(torch.rand(2, 1, 8, 8)).sum().backward()
        optimizer.step()
    for group, made in zip(optimizer.param_groups, groups, strict=True):
        base = made["initial_lr"]
        assert group["lr"] == pytest.approx(base / 2 if group["name"] in heads else base)
    text = str(describe(optimizer, model))
    assert "fc.weight" in text
    assert "factor cosine(1, 0)" in text
    for group in groups:
        assert group["name"] in text


def test_pair_of_lrs_is_spaced_geometrically() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(5)])
    lrs = [g["lr"] for g in param_groups(model, lr=(1e-5, 1e-1))]
    assert lrs == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
    assert [g["lr"] for g in param_groups(nn.Linear(2, 2), lr=(1e-5, 1e-1))] == [0.1]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("fc", {"fc.weight", "fc.bias"}),
        ("fc.bias", {"fc.bias"}),
        ("layer?.0.conv1.*", {f"layer{i}.0.conv1.{n}" for i in (1, 2) for n in ("weight", "bias")}),
        ("!layer*", {"conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias", "fc.weight",
                     "fc.bias"}),
        (nn.Linear, {"fc.weight", "fc.bias"}),
        (lambda name, p: p.ndim == 2, {"fc.weight"}),
    ],
    ids=["path", "name", "pattern", "negation", "class", "function"],
)  # fmt: skip
def test_rule_matches_by(selector, expected: set[str]) -> None:
    model = ResNet()
    rules = {selector: {"lr": 0.5, "name": "chosen"}}
    group_of = by_name(model, param_groups(model, lr=0.1, rules=rules))
    assert {name for name, group in group_of.items() if group == "chosen"} == expected


def test_first_matching_rule_is_used_and_factor_multiplies() -> None:
    model = ResNet()
    rules = {"layer1.0": {"factor": 0.5, "nesterov": True}, "layer1": {"factor": 0.1}}
    groups = param_groups(model, lr=0.2, rules=rules)
    assert table(groups, "lr", "nesterov") == {
        "rest": (0.2, None),
        "layer1.0": (0.1, True),
        "layer1": (pytest.approx(0.02), None),
    }
    decayed = param_groups(model, lr=1.0, rules={"fc": {"factor": 10}}, layer_decay=0.5)
    assert table(decayed, "lr")["fc"] == (10.0,)


def test_weight_decay_of_a_rule_overrides_no_decay() -> None:
    model = nn.Linear(2, 2)
    groups = param_groups(
        model, lr=0.1, rules={"bias": {"factor": 2, "weight_decay": 0.3}}, no_decay=True
    )
    assert table(groups, "weight_decay") == {"rest": (None,), "bias": (0.3,)}


def test_tied_parameters_count_once_and_match_by_each_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.output = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.output.weight = self.embedding.weight

    groups = param_groups(Tied(), lr=0.1, rules={"output": 0.3}, no_decay=["embedding"])
    (group,) = groups
    assert (group["lr"], group["name"], len(group["params"])) == (0.3, "output, no decay", 1)


def test_frozen_parameters_are_left_out_or_included() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    (group,) = param_groups(model, lr=0.1)
    assert len(group["params"]) == 2
    groups = param_groups(model, lr=0.1, rules={"0": {"factor": 0.1}}, frozen="include")
    assert [len(group["params"]) for group in groups] == [2, 2]
    assert not model[0].weight.requires_grad  # param_groups does not unfreeze it
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(groups)
    frozen = constant(0, over=3).then(constant(1))
    ScheduleLR(optimizer, factor={"0": frozen, "rest": constant(1)}, total_steps=6)
    before = [p.clone() for p in model.parameters()]
    for k in range(4):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
        assert moved == [k == 3, k == 3, True, True]


class Deep(nn.Module):
    """An encoder inside a model, as in transformers: stages, blocks, experts."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(3))
        self.encoder = nn.Module()
        self.encoder.embed = nn.Embedding(4, 3)
        self.encoder.blocks = nn.ModuleList([self.block() for _ in range(2)])
        self.encoder.final = nn.LayerNorm(3)
        self.head = nn.Linear(3, 2)

    @staticmethod
    def block() -> nn.Module:
        block, mixture = nn.Module(), nn.Module()
        block.attention = nn.Linear(3, 3)
        mixture.experts = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        block.mixture = mixture
        return block


def test_layers_inside_modules_are_detected_but_not_experts() -> None:
    model = Deep()
    groups = param_groups(model, lr=1.0, layer_decay=0.5)
    layers = ["encoder.embed", "encoder.blocks.0", "encoder.blocks.1", "head"]
    assert table(groups, "lr") == {n: (0.5 ** (3 - i),) for i, n in enumerate(layers)}
    group_of = by_name(model, groups)
    assert group_of["start"] == "encoder.embed"  # outside all layers: counts to the first
    assert group_of["encoder.final.weight"] == "encoder.blocks.1"
    assert group_of["encoder.blocks.0.mixture.experts.1.bias"] == "encoder.blocks.0"


def test_given_layers() -> None:
    model = Deep()
    groups = param_groups(model, lr=1.0, layer_decay=0.1, layers=["encoder", "head"])
    assert table(groups, "lr") == {"encoder": (pytest.approx(0.1),), "head": (1.0,)}
    assert by_name(model, groups)["start"] == "encoder"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, "lr= -1.0: expected a finite number >= 0"),
        ({"lr": "fast"}, "lr= 'fast': expected a finite number >= 0"),
        ({"lr": True}, "lr= True: expected a finite number >= 0"),
        ({"lr": (0.1, 0.2, 0.3)}, "expected one lr, or two without layer_decay="),
        ({"lr": (0.0, 0.2)}, "geometric spacing needs two lrs above 0"),
        ({"lr": (0.1, 0.2), "layer_decay": 0.5}, "expected one lr, or two without layer_decay="),
        ({"layer_decay": 1.5}, "layer_decay=1.5"),
        ({"layers": ["fc"]}, "layers= has no effect without layer_decay="),
        ({"layer_decay": 0.5, "layers": ["fx"]}, "the layer 'fx' has no parameters; did you mean"),
        ({"rules": {"fd": 0.1}}, "the rule 'fd' matches no parameter; did you mean fc"),
        (
            {"rules": {nn.Embedding: 0.1}},
            "the rule 'Embedding' matches no parameter; the model has conv1",
        ),
        (
            {"rules": {"fc": 0.1, "fc.weight": 0.2}},
            "matches only parameters that earlier rules match",
        ),
        ({"rules": {"fc": {"lr": 1, "factor": 2}}}, "has both lr and factor"),
        ({"rules": {"fc": {"params": [], "lr": 1}}}, "the group 'fc' has params=, but the model"),
        ({"params": []}, "the group 'all' has params=, but the model"),
        ({"rules": {"fc": -3}}, "the rule 'fc': lr= -3: expected a finite number"),
        ({"no_decay": ["biases"]}, "no_decay='biases': expected any of bias, norm, embedding"),
        ({"frozen": "thaw"}, "frozen='thaw'"),
        (
            {"rules": {"fc.weight": {"lr": 1, "name": "a"}, "fc.bias": {"lr": 2, "name": "a"}}},
            "two different groups would have the name 'a'",
        ),
    ],
)
def test_invalid_arguments_raise(arguments, message: str) -> None:
    with pytest.raises(BindingError, match=message.replace("(", r"\(")):
        param_groups(ResNet(), **{"lr": 0.1} | arguments)


def test_rule_for_frozen_parameters_and_fully_frozen_model_raise() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    with pytest.raises(BindingError, match="the rule '0' matches only frozen parameters"):
        param_groups(model, lr=0.1, rules={"0": 1.0})
    with pytest.raises(BindingError, match="no parameters that require gradients"):
        param_groups(model.requires_grad_(False), lr=0.1)


@given(
    widths=st.lists(st.integers(1, 4), min_size=2, max_size=6),
    decay=st.one_of(st.none(), st.floats(0.1, 1)),
    no_decay=st.booleans(),
    pattern=st.sampled_from(["0", "*.weight", "!0", "*"]),
)
def test_every_parameter_is_in_exactly_one_group(widths, decay, no_decay, pattern) -> None:
    pairs = pairwise(widths)
    model = nn.Sequential(*[nn.Linear(a, b) for a, b in pairs], nn.LayerNorm(widths[-1]))
    groups = param_groups(
        model, lr=0.1, rules={pattern: {"factor": 3}}, layer_decay=decay, no_decay=no_decay
    )
    by_name(model, groups)
    assert all(group["params"] for group in groups)
    assert len({group["name"] for group in groups}) == len(groups)
    torch.optim.AdamW(groups)


def test_biases_are_recognized_by_every_usual_name() -> None:
    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(8, 2),
            "recurrent": nn.LSTM(8, 4),
            "wrapped": nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        }
    )
    decayed, biases = param_groups(model, lr=0.1, no_decay="bias", weight_decay=0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in biases["params"]} == {
        "attention.in_proj_bias", "attention.out_proj.bias", "recurrent.bias_ih_l0",
        "recurrent.bias_hh_l0", "wrapped.bias",
    }  # fmt: skip
    assert decayed["weight_decay"] == 0.1


class ConvNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)


def test_block_with_norm_in_its_class_name_is_a_layer() -> None:
    model = nn.Sequential(ConvNorm(), ConvNorm(), ConvNorm(), nn.Linear(4, 2))
    lrs = [group["lr"] for group in param_groups(model, lr=1.0, layer_decay=0.5)]
    assert lrs == [0.125, 0.25, 0.5, 1.0]


@pytest.mark.parametrize(("first", "last"), [("embedding", "head"), ("embed", "lm_head")])
def test_tied_output_belongs_to_the_first_layer(first: str, last: str) -> None:
    model = nn.Module()
    model.add_module(first, nn.Embedding(5, 3))
    model.blocks = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
    model.add_module(last, nn.Linear(3, 5, bias=False))
    getattr(model, last).weight = getattr(model, first).weight
    groups = param_groups(model, lr=1.0, layer_decay=0.5)
    assert [group["lr"] for group in groups] == [0.25, 0.5, 1.0]


def test_numpy_and_torch_lrs_are_accepted() -> None:
    for lr in (np.float32(0.5), np.int64(1), torch.tensor(0.5)):
        assert param_groups(nn.Linear(1, 1), lr=lr)[0]["lr"] == float(lr)


# Wrappers ------------------------------------------------------------------------------------


class Net(nn.Module):
    """Three layers that are no container, so that only the module itself names them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mid, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


class Wrapper(nn.Module):
    """A module that holds a model, and whatever else is given."""

    def __init__(self, model: nn.Module, **others: nn.Module) -> None:
        super().__init__()
        self.model = model
        for name, other in others.items():
            self.add_module(name, other)


@pytest.fixture(scope="module")
def process_group() -> Iterator[None]:
    """Let DDP work in this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


TRANSPARENT = {
    "DataParallel": nn.DataParallel,
    "DDP": Ddp,
    "compile": compiled,
    "compiled DDP": lambda model: compiled(Ddp(model)),
    "DDP of a compiled model": lambda model: Ddp(compiled(model)),
    "checkpointing": checkpoint_wrapper,
    "averaged": AveragedModel,
}
NET_LRS = {"embed": (0.25,), "mid": (0.5,), "head": (1.0,)}


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrap", TRANSPARENT.values(), ids=TRANSPARENT)
@pytest.mark.parametrize("make", [Net, ResNet, Deep])
def test_wrapped_model_has_the_groups_of_the_model(wrap, make) -> None:
    model = make()
    options = {"lr": 1.0, "layer_decay": 0.5, "no_decay": True}
    groups, plain = param_groups(wrap(model), **options), param_groups(make(), **options)
    assert table(groups, "lr", "weight_decay") == table(plain, "lr", "weight_decay")
    assert [len(g["params"]) for g in groups] == [len(g["params"]) for g in plain]


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    "selector", ["head", "module._orig_mod.head", "hea*", lambda n, p: n[:4] == "head"]
)
def test_rules_match_with_and_without_the_names_of_wrappers(selector) -> None:
    rules = {selector: {"lr": 0.3, "name": "chosen"}}
    groups = param_groups(Ddp(compiled(Net())), lr=0.1, rules=rules)
    assert [len(g["params"]) for g in groups if g["name"] == "chosen"] == [2]


@pytest.mark.usefixtures("process_group")
def test_rules_and_layers_of_a_wrapper_inside_the_model() -> None:
    model = Net()
    model.mid = compiled(model.mid)
    for rule in ("mid.weight", "mid._orig_mod.weight"):
        groups = param_groups(model, lr=1.0, rules={rule: 0.3}, layer_decay=0.5)
        assert table(groups, "lr") == NET_LRS | {rule: (0.3,)}
    given = ["module.embed", "mid", "module.head"]
    assert table(param_groups(Ddp(Net()), lr=1.0, layer_decay=0.5, layers=given), "lr") == NET_LRS


def test_child_called_module_of_another_class_keeps_its_name() -> None:
    model = nn.Module()
    model.module = Net()
    groups = param_groups(model, lr=1.0, rules={"module.head": 0.3}, layer_decay=0.5)
    assert list(table(groups, "lr")) == ["module.embed", "module.mid", "module.head"]
    with pytest.raises(BindingError, match=r"did you mean module\.head"):
        param_groups(model, lr=1.0, rules={"head": 0.3})


@pytest.mark.parametrize(
    "wrap",
    [
        nn.Sequential,
        Wrapper,
        lambda model: Wrapper(Wrapper(model)),
        lambda model: Wrapper(model, criterion=nn.CrossEntropyLoss()),
        lambda model: nn.Sequential(nn.Identity(), model),
        lambda model: Wrapper(nn.DataParallel(model)),
        lambda model: Wrapper(model, teacher=deepcopy(model).requires_grad_(False)),
        lambda model: nn.ModuleDict({"net": model}),
        lambda model: nn.ModuleList([model]),
    ],
)
def test_layers_are_found_inside_a_module_with_one_child(wrap) -> None:
    lrs = table(param_groups(wrap(Net()), lr=1.0, layer_decay=0.5), "lr")
    assert {name.rpartition(".")[2]: lr for name, lr in lrs.items()} == NET_LRS


def test_norm_after_the_only_layer_joins_the_last_layer_inside_it() -> None:
    model = nn.Sequential(Net(), nn.LayerNorm(2))
    groups = param_groups(model, lr=1.0, layer_decay=0.5)
    assert by_name(model, groups)["1.weight"] == "0.head"
    assert [g["lr"] for g in groups] == [0.25, 0.5, 1.0]


def test_module_without_layers_inside_is_one_layer() -> None:
    for model in (nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.MultiheadAttention(4, 2))):
        assert table(param_groups(model, lr=1.0, layer_decay=0.5), "lr") == {"0": (1.0,)}
    (group,) = param_groups(nn.DataParallel(nn.Linear(2, 2)), lr=1.0, layer_decay=0.5)
    assert group["name"] == "all"


# Frozen layers and copies -----------------------------------------------------------------------


def stack() -> nn.Module:
    model = nn.Module()
    model.embed = nn.Linear(4, 4)
    model.blocks = nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)])
    model.head = nn.Linear(4, 4)
    return model


@pytest.mark.parametrize("make", [stack, Net, ResNet, Deep])
@pytest.mark.parametrize("lr", [{"lr": 1.0, "layer_decay": 0.5}, {"lr": (0.01, 1.0)}])
def test_freezing_layers_changes_no_lr_of_the_others(make, lr) -> None:
    whole = table(param_groups(make(), **lr), "lr")
    for count in range(1, len(whole)):
        for frozen in (list(whole)[:count], list(whole)[-count:]):
            model = make()
            for name in frozen:
                model.get_submodule(name).requires_grad_(False)
            some = table(param_groups(model, **lr), "lr")
            assert some.items() <= whole.items()
            assert set(whole) - set(some) <= set(frozen)
            included = param_groups(model, **lr, frozen="include")
            assert table(included, "lr") == whole


@pytest.mark.parametrize(
    "name",
    ["ema", "model_ema", "EMA", "ema2", "teacher", "target_encoder", "momentum_encoder",
     "swa_model", "averaged", "avg_model", "shadow", "encoder_k", "reference", "blocks_copy"],
)  # fmt: skip
@pytest.mark.parametrize("part", ["blocks", ""])
@pytest.mark.parametrize("is_first", [False, True])
def test_frozen_copy_is_no_layer(name: str, part: str, is_first: bool) -> None:
    model = stack()
    copy = deepcopy(model.get_submodule(part)).requires_grad_(False)
    if is_first:
        children = dict(model.named_children())
        model = nn.Module()
        model.add_module(name, copy)
        for child_name, child in children.items():
            model.add_module(child_name, child)
    else:
        model.add_module(name, copy)
    for lr in ({"lr": 1.0, "layer_decay": 0.5}, {"lr": (0.01, 1.0)}):
        assert param_groups(model, **lr) == param_groups_of_the_stack(model, **lr)
        included = param_groups(model, **lr, frozen="include")
        assert table(included, "lr") == table(param_groups(stack(), **lr), "lr")


def param_groups_of_the_stack(model: nn.Module, **lr) -> list:
    plain = stack()
    for name in ("embed", "blocks", "head"):
        plain.add_module(name, model.get_submodule(name))
    return param_groups(plain, **lr)


def test_averaged_model_is_no_layer_although_it_requires_gradients() -> None:
    model = stack()
    model.anything = AveragedModel(model.blocks)
    lrs = table(param_groups(model, lr=1.0, layer_decay=0.5), "lr")
    assert lrs == table(param_groups(stack(), lr=1.0, layer_decay=0.5), "lr")


def test_module_that_trains_is_a_layer_whatever_its_name() -> None:
    model = nn.ModuleDict({"embed": nn.Linear(2, 2), "target": nn.Linear(2, 2)})
    lrs = table(param_groups(model, lr=1.0, layer_decay=0.5), "lr")
    assert lrs == {"embed": (0.5,), "target": (1.0,)}
    model = nn.ModuleDict({"embed": nn.Linear(2, 2), "semantic": nn.Linear(2, 2)})
    model["semantic"].requires_grad_(False)
    lrs = table(param_groups(model, lr=1.0, layer_decay=0.5), "lr")
    assert lrs == {"embed": (0.5,)}


# Patterns of modules ----------------------------------------------------------------------------


class Adapter(nn.Module):
    """A layer with low-rank matrices as parameters, modules or dicts of them, as peft has them."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.base_layer = nn.Linear(4, 4).requires_grad_(False)
        for name in ("lora_A", "lora_B"):
            linear = nn.Linear(4, 4, bias=False)
            if form == "parametrized":
                nn.utils.parametrizations.weight_norm(linear)
            options = {
                "parameter": nn.Parameter(torch.zeros(4, 4)),
                "module": linear,
                "parametrized": linear,
                "module dict": nn.ModuleDict({"default": linear}),
                "parameter dict": nn.ParameterDict({"default": torch.zeros(4, 4)}),
            }
            setattr(self, name, options[form])


@pytest.mark.parametrize(
    "form", ["parameter", "module", "module dict", "parameter dict", "parametrized"]
)
@pytest.mark.parametrize(
    "pattern", ["*.lora_B", "*lora_B*", "layers.?.lora_B", "layers.*_B", "!*.lora_A"]
)
def test_pattern_matches_paths_of_parameters_and_modules(form: str, pattern: str) -> None:
    model = nn.ModuleDict({"layers": nn.ModuleList([Adapter(form) for _ in range(3)])})
    rules = {pattern: {"factor": 16.0, "name": "B"}}
    groups = param_groups(model, lr=1e-4, rules=rules)
    names = {id(p): name for name, p in model.named_parameters()}
    assert table(groups, "lr") == {"rest": (1e-4,), "B": (16e-4,)}
    for group in groups:
        letter = "B" if group["name"] == "B" else "A"
        assert all(f"lora_{letter}" in names[id(p)] for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == (12 if form == "parametrized" else 6)


def test_pattern_matches_whole_names_only() -> None:
    model = nn.ModuleDict({"layers": nn.ModuleList([Adapter("module")])})
    for pattern in ("*.lora", "lora_B", "layers.?.lora_", "*.base_layer.w"):
        with pytest.raises(BindingError, match="matches no parameter"):
            param_groups(model, lr=0.1, rules={pattern: 0.2}, frozen="include")
