"""Who learns how fast: a model's parameters in named param groups, each in exactly one."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import nn

from ratecraft.errors import BindingError

Which = str | type[nn.Module] | Callable[[str, nn.Parameter], bool]
"""A name or pattern of parameters and modules, a module's class, or a function of both."""

Kind = Literal["bias", "norm", "embedding"]
KINDS: Final[tuple[Kind, ...]] = ("bias", "norm", "embedding")
NORMS: Final = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
EMBEDDINGS: Final = (nn.Embedding, nn.EmbeddingBag)
CONTAINERS: Final = (nn.Sequential, nn.ModuleList)
SHOWN: Final = 12  # names that an error lists


class Named(NamedTuple):
    """A parameter, all names that it has in the model, and the modules it lies in, inner last."""

    parameter: nn.Parameter
    names: tuple[str, ...]
    owners: tuple[nn.Module, ...]


def param_groups(
    model: nn.Module,
    *,
    lr: float | tuple[float, float],
    rules: Mapping[Which, float | Mapping[str, Any]] | None = None,
    layer_decay: float | None = None,
    layers: Sequence[str] | None = None,
    no_decay: bool | Kind | Sequence[Kind] = False,
    frozen: Literal["leave out", "include"] = "leave out",
    **settings: Any,
) -> list[dict[str, Any]]:
    """Return a model's parameters as named param groups, each parameter in exactly one.

    The lr of a parameter in layer i of n is lr x factor x layer_decay^(n - 1 - i), where its
    rule says a factor, or the lr that its rule says, without any of that; for a pair (a, b) as
    ``lr`` it is factor x a (b / a)^(i / (n - 1)) instead. Groups are named after the rule, or the
    layer where layers differ, so that schedules can address them, and come in the model's order.

    Args:
        model: the model; tied parameters count once.
        lr: the lr of all that no rule speaks of; or the first and the last layer's lr,
            between which the others are spread geometrically.
        rules: what is different for some, the first that fits counts: by a name or path
            ("head", "blocks.3"), a pattern ("*.attn.*"), all but one ("!head"), a module's class,
            or a function of name and parameter; to an lr, or a dict of ``lr`` or ``factor`` and
            any other field of the optimizer, ``name`` among them.
        layer_decay: what each layer's lr is of the next one's, 0 < layer_decay <= 1.
        layers: paths from the input to the output; default what `model` is made of, in order,
            containers of layers opened. What lies in none of them counts as the first.
        no_decay: whether biases, norms and embeddings have no weight decay; or which of them.
        frozen: parameters that require no gradient are left out, or included, for a schedule
            that is to begin with ``constant(0, over=...)``.
        settings: fields of all groups, such as ``weight_decay=0.05``.

    Raises:
        BindingError: a rule, layer or pattern that fits nothing, or nothing that is left; an lr
            that is none; a model without parameters to train.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    >>> groups = param_groups(
    ...     model, lr=1e-3, rules={"2": 1e-2}, no_decay=True, weight_decay=0.1
    ... )
    >>> for group in groups:
    ...     print(group["name"], group["lr"], group["weight_decay"], len(group["params"]))
    rest 0.001 0.1 1
    rest, no decay 0.001 0.0 3
    2 0.01 0.1 1
    2, no decay 0.01 0.0 1

    Source: layer-wise decay: Howard & Ruder 2018, arXiv 1801.06146; Clark et al. 2020, arXiv
    2003.10555.
    """
    every = _named(model)
    if frozen not in ("leave out", "include"):
        raise BindingError(f'frozen={frozen!r}: expected "leave out" or "include"')
    named = [one for one in every if frozen == "include" or one.parameter.requires_grad]
    if not named:
        raise BindingError(
            "this model has no parameters that require gradients; unfreeze some, or say "
            'frozen="include"'
        )
    spread = lr if isinstance(lr, tuple) else None
    if spread is not None and (len(spread) != 2 or layer_decay is not None):
        raise BindingError(f"lr={lr}: expected an lr, or two of them and no layer_decay")
    base = _lr(spread[1] if spread is not None else lr, "lr=")
    if spread is not None and (_lr(spread[0], "lr=") == 0 or base == 0):
        raise BindingError(f"lr={lr}: between 0 and another lr nothing is spread geometrically")
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise BindingError(f"layer_decay={layer_decay}: expected a number above 0 and up to 1")
    ranked = spread is not None or layer_decay is not None
    if layers is not None and not ranked:
        raise BindingError("layers= says nothing without layer_decay= or a pair of lrs as lr=")
    places, count = _layers(model, every, layers) if ranked else ({}, 1)
    said = _said(rules or {}, named, every)
    labels = {label for label, _ in said.values()}
    bare: Sequence[str] = KINDS
    if not isinstance(no_decay, bool):
        bare = (no_decay,) if isinstance(no_decay, str) else no_decay
    elif not no_decay:
        bare = ()
    if wrong := [kind for kind in bare if kind not in KINDS]:
        raise BindingError(f"no_decay={wrong[0]!r}: expected some of {', '.join(KINDS)}")
    groups: dict[str, dict[str, Any]] = {}
    for one in named:
        name, own = said.get(id(one.parameter), ("rest" if rules else "all", {}))
        group_lr = own.get("lr")
        if group_lr is None:
            group_lr = base * own.get("factor", 1.0)
            if ranked:
                layer, place = places[id(one.parameter)]
                up = count - 1 - place
                if spread is not None:
                    group_lr *= (spread[0] / base) ** (up / max(count - 1, 1))
                else:
                    group_lr *= (layer_decay or 1.0) ** up
                plain = name == layer or (name in ("rest", "all") and layer not in labels)
                name = layer if plain else f"{name}: {layer}"
        fields = settings | {k: v for k, v in own.items() if k not in ("lr", "factor", "name")}
        if bare and "weight_decay" not in own and _is_one_of(one, bare):
            name, fields = f"{name}, no decay", fields | {"weight_decay": 0.0}
        fields = {"name": name, "lr": group_lr, **fields}
        group = groups.setdefault(name, {"params": [], **fields})
        if {field: value for field, value in group.items() if field != "params"} != fields:
            raise BindingError(
                f"two different groups would be called {name!r}; give one of the rules another "
                '"name"'
            )
        group["params"].append(one.parameter)
    return list(groups.values())


def _named(model: nn.Module) -> list[Named]:
    """Return every parameter once, in the model's order."""
    names: dict[int, list[str]] = {}
    owners: dict[int, list[nn.Module]] = {}
    found: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(recurse=True, remove_duplicate=False):
            owners.setdefault(id(parameter), []).append(module)
            if module is model and not path:
                found[id(parameter)] = parameter
                names.setdefault(id(parameter), []).append(name)
    return [Named(p, tuple(names[i]), tuple(owners[i])) for i, p in found.items()]


def _lr(value: object, what: str) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise BindingError(f"{what} {value!r} is no lr; expected a number >= 0")
    lr = float(value)
    if not 0 <= lr < math.inf:
        raise BindingError(f"{what} {value!r}: expected a finite number >= 0")
    return lr


def _said(
    rules: Mapping[Which, float | Mapping[str, Any]], named: list[Named], every: list[Named]
) -> dict[int, tuple[str, dict[str, Any]]]:
    """Return what the first rule that fits says of each parameter, and the rule's name."""
    said: dict[int, tuple[str, dict[str, Any]]] = {}
    for which, value in rules.items():
        label = _label(which)
        own = dict(value) if isinstance(value, Mapping) else {"lr": value}
        if "lr" in own and "factor" in own:
            raise BindingError(f"the rule {label!r} says both lr and factor; which of them counts?")
        for field in ("lr", "factor"):
            if field in own:
                own[field] = _lr(own[field], f"the rule {label!r}: {field}=")
        fitting = [one for one in named if _fits(which, one)]
        if not fitting:
            if any(_fits(which, one) for one in every):
                raise BindingError(
                    f"the rule {label!r} fits frozen parameters only, which are left out; leave "
                    'it out, too, or say frozen="include"'
                )
            raise BindingError(f"the rule {label!r} fits no parameter; {_there_is(which, every)}")
        free = [one for one in fitting if id(one.parameter) not in said]
        if not free:
            raise BindingError(
                f"the rule {label!r} fits only parameters that rules before it have taken; put "
                "it before them, or leave it out"
            )
        for one in free:
            said[id(one.parameter)] = str(own.get("name", label)), own
    return said


def _label(which: Which) -> str:
    if isinstance(which, str):
        return which
    return str(getattr(which, "__name__", which))


def _fits(which: Which, one: Named) -> bool:
    if isinstance(which, str):
        if which.startswith("!"):
            return not _fits(which[1:], one)
        return any(_in(which, name) for name in one.names)
    if isinstance(which, type):
        return any(isinstance(owner, which) for owner in one.owners)
    return bool(which(one.names[0], one.parameter))


def _in(path: str, name: str) -> bool:
    """Return whether a parameter's name is one, lies under one, or fits a pattern."""
    return name == path or name.startswith(f"{path}.") or fnmatchcase(name, path)


def _there_is(which: Which, every: list[Named]) -> str:
    """Return what a rule or a layer could have meant."""
    names = [name for one in every for name in one.names]
    if isinstance(which, str):
        parts = [name.split(".") for name in names]
        paths = dict.fromkeys(".".join(p[:i]) for p in parts for i in range(1, len(p) + 1))
        if near := difflib.get_close_matches(which.lstrip("!"), list(paths), 3, 0.5):
            return f"did you mean {' or '.join(near)}?"
    tops = list(dict.fromkeys(name.split(".")[0] for name in names))
    more = f" and {len(tops) - SHOWN} more" if len(tops) > SHOWN else ""
    return f"there are {', '.join(tops[:SHOWN])}{more}"


def _is_one_of(one: Named, kinds: Sequence[str]) -> bool:
    """Return whether a parameter is a bias, of a norm or of an embedding, as asked."""
    inner = [
        owner
        for owner in one.owners
        if any(one.parameter is p for p in owner.parameters(recurse=False))
    ]
    return (
        ("bias" in kinds and any(map(_names_bias, one.names)))
        or ("norm" in kinds and any(map(_is_norm, inner)))
        or ("embedding" in kinds and any(isinstance(m, EMBEDDINGS) for m in inner))
    )


def _names_bias(name: str) -> bool:
    """Return whether a parameter's name is a bias's: bias, bias_ih_l0, in_proj_bias."""
    last = name.rpartition(".")[2]
    if ".parametrizations.bias." in f".{name}":
        return True
    return last == "bias" or last.startswith("bias_") or last.endswith("_bias")


def _layers(
    model: nn.Module, named: list[Named], given: Sequence[str] | None
) -> tuple[dict[int, tuple[str, int]], int]:
    """Return each parameter's layer and its place from the input on, and how many there are."""
    if given is None:
        layers = _found(model)
    else:
        layers = [(path, [path]) for path in given]
        for path in given:
            if not any(_in(path, name) for one in named for name in one.names):
                raise BindingError(
                    f"the layer {path!r} has no parameters; {_there_is(path, named)}"
                )
    # A tied parameter is of the earliest of its layers; what is of none comes first, as inputs do.
    places = {id(one.parameter): min(_place(name, layers) for name in one.names) for one in named}
    # A layer whose parameters are all tied to earlier ones, as an output may be, is none.
    ranks = {place: rank for rank, place in enumerate(sorted(set(places.values())))}
    return {i: (layers[p][0], ranks[p]) for i, p in places.items()}, len(ranks)


def _place(name: str, layers: Sequence[tuple[str, list[str]]]) -> int:
    """Return the layer that a name lies in, by the longest path."""
    depth, place = max(
        (len(path) if _in(path, name) else -1, -i)
        for i, (_, paths) in enumerate(layers)
        for path in paths
    )
    return -place if depth >= 0 else 0


def _found(model: nn.Module) -> list[tuple[str, list[str]]]:
    """Return a model's layers in order, each with its paths; a norm belongs to the one before."""
    found: list[tuple[str, list[str]]] = []
    for path, module in _opened(model, "", alike=False):
        if not any(True for _ in module.parameters()):
            continue
        if found and _is_norm(module):
            found[-1][1].append(path)
        else:
            found.append((path, [path]))
    return found or [("all", [""])]


def _opened(module: nn.Module, path: str, *, alike: bool) -> Iterator[tuple[str, nn.Module]]:
    """Yield what a module is made of; containers and what holds layers are opened, too.

    One of several of a kind is opened only if its layers are its children: the blocks of a stage
    are layers, the experts inside a block are not.
    """
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        within = child.children()
        if isinstance(child, CONTAINERS):
            yield from _opened(child, inner, alike=_are_alike(child))
        elif any(map(_are_alike, within)) if alike else any(map(_holds_layers, within)):
            yield from _opened(child, inner, alike=False)
        else:
            yield inner, child


def _are_alike(module: nn.Module) -> bool:
    """Return whether a module is a container of several modules of one kind."""
    kinds = [type(child) for child in module.children()]
    return isinstance(module, CONTAINERS) and len(kinds) > 1 and len(set(kinds)) == 1


def _holds_layers(module: nn.Module) -> bool:
    return _are_alike(module) or any(map(_holds_layers, module.children()))


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm; by its name only if nothing else is in it."""
    named = type(module).__name__.endswith("Norm") and not any(True for _ in module.children())
    return isinstance(module, NORMS) or named
