"""param_groups: a model's parameters in named param groups, each parameter in exactly one."""

import difflib
import math
import numbers
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ratecraft.errors import BindingError

Selector = str | type[nn.Module] | Callable[[str, nn.Parameter], bool]
"""A name or pattern, a module class, or a function of (name, parameter)."""

NoDecayKind = Literal["bias", "norm", "embedding"]
NO_DECAY_KINDS: Final[tuple[NoDecayKind, ...]] = ("bias", "norm", "embedding")
# _NormBase is the base class of batch and instance norms.
NORMS: Final = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
EMBEDDINGS: Final = (nn.Embedding, nn.EmbeddingBag)
CONTAINERS: Final = (nn.Sequential, nn.ModuleList)
# Such as bias, bias_ih_l0, in_proj_bias and parametrizations.bias.original0.
BIAS_NAME: Final = re.compile(r"(.*\.)?(bias(_[^.]*)?|[^.]*_bias|parametrizations\.bias\..*)")
WRAPPERS: Final = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
# What torch.compile, FSDP and activation checkpointing call the module that they wrap.
WRAPPED_NAMES: Final = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
COPY_NAME: Final = re.compile(  # of a copy that does not train, as model_ema and teacher2
    r"(?i)(^|_)(ema|swa|averaged?|avg|polyak|shadow|slow|old|copy|clone|momentum|ref|reference|"
    r"teacher|target|encoder_k|key_encoder)(_|\d|$)"
)
MAX_LISTED_MODULES: Final = 12  # in an error message


class ModelParameter(NamedTuple):
    """A parameter, all its names in the model, and its containing modules, outermost first."""

    parameter: nn.Parameter
    names: list[str]  # without what DDP and other wrappers add to them
    full_names: list[str]
    containing_modules: list[nn.Module]


def param_groups(
    model: nn.Module,
    *,
    lr: float | tuple[float, float],
    rules: Mapping[Selector, float | Mapping[str, Any]] | None = None,
    layer_decay: float | None = None,
    layers: Sequence[str] | None = None,
    no_decay: bool | NoDecayKind | Sequence[NoDecayKind] = False,
    frozen: Literal["leave out", "include"] = "leave out",
    **settings: Any,
) -> list[dict[str, Any]]:
    """Return a model's parameters as named param groups for the constructor of an optimizer.

    Each parameter is in exactly one group. The lr of a parameter in layer i of n is lr x factor x
    layer_decay^(n - 1 - i), where factor is from its rule; a rule's own ``lr`` is used unchanged.
    With a pair (a, b) as ``lr`` it is factor x a (b / a)^(i / (n - 1)).

    Groups are in the order of the model. A group's name is the ``name`` or the key of its rule,
    "rest" without a rule, and "all" if there are no rules. If the lr depends on the layer, it is
    the layer ("rule: layer" for a rule). ", no decay" follows where ``no_decay`` applies.

    Args:
        model: the model, also in DDP or torch.compile; tied parameters count once.
        lr: the lr of all parameters whose rule gives none; or a pair, the lrs of the first and the
            last layer, with geometric spacing between them.
        rules: exceptions; the first rule that matches is used. Keys: a name or path ("head",
            "blocks.3"), a pattern of these ("*.attn"), a negation ("!head"), a module class, or a
            function of (name, parameter). Values: an lr, or a dict with ``lr`` or ``factor``, any
            other hyperparameter of the optimizer, and ``name``.
        layer_decay: the lr of each layer as a fraction of the next one's, 0 < layer_decay <= 1.
        layers: module paths from input to output; by default the children of ``model`` in order,
            with containers and wrappers expanded, without frozen copies such as ``ema`` and
            ``teacher``. Parameters outside belong to the first layer.
        no_decay: whether biases, norms and embeddings have no weight decay; or which of them.
        frozen: "leave out" parameters that require no gradient, or "include" them, for a
            schedule that starts with ``constant(0, over=...)``.
        settings: hyperparameters of all groups, such as ``weight_decay=0.05``.

    Raises:
        BindingError: a rule or layer that matches no parameter; a rule that matches only frozen
            parameters, or only those of earlier rules; an invalid lr; two different groups with
            one name; a model without parameters to train.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    >>> rules = {"2": 1e-2}
    >>> for group in param_groups(model, lr=1e-3, rules=rules, no_decay=True, weight_decay=0.1):
    ...     print(group["name"], group["lr"], group["weight_decay"], len(group["params"]))
    rest 0.001 0.1 1
    rest, no decay 0.001 0.0 3
    2 0.01 0.1 1
    2, no decay 0.01 0.0 1

    Source: layer-wise decay: Howard & Ruder 2018, arXiv 1801.06146; Clark et al. 2020, arXiv
    2003.10555.
    """
    everything = _model_parameters(model)
    used = _used_parameters(everything, frozen)
    ends = lr if isinstance(lr, tuple) else None
    if ends is not None and (len(ends) != 2 or layer_decay is not None):
        raise BindingError(f"lr={lr}: expected one lr, or two without layer_decay=")
    base = _lr(ends[1] if ends is not None else lr, "lr=")
    if ends is not None and (_lr(ends[0], "lr=") == 0 or base == 0):
        raise BindingError(f"lr={lr}: geometric spacing needs two lrs above 0")
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise BindingError(f"layer_decay={layer_decay}: expected a number above 0 and up to 1")
    by_layer = ends is not None or layer_decay is not None
    if layers is not None and not by_layer:
        raise BindingError("layers= has no effect without layer_decay= or a pair of lrs as lr=")
    layer_of, count = _layers_of(model, everything, layers) if by_layer else ({}, 1)
    ratio, intervals = layer_decay or 1.0, 1  # the lr changes by this ratio in so many layers
    if ends is not None:
        ratio, intervals = ends[0] / base, max(count - 1, 1)
    rule_of = _match_rules(rules or {}, used, everything)
    labels = {label for label, _ in rule_of.values()}
    undecayed = _undecayed_kinds(no_decay)
    groups: dict[str, dict[str, Any]] = {}
    for p in used:
        name, rule = rule_of.get(id(p.parameter), ("rest" if rules else "all", {}))
        group_lr = rule.get("lr")
        if group_lr is None:
            group_lr = base * rule.get("factor", 1.0)
            if by_layer:
                layer, above = layer_of[id(p.parameter)]
                group_lr *= ratio ** (above / intervals)
                plain = name == layer or (name in ("rest", "all") and layer not in labels)
                name = layer if plain else f"{name}: {layer}"
        options = settings | {k: v for k, v in rule.items() if k not in ("lr", "factor", "name")}
        if "params" in options:
            raise BindingError(
                f"the group {name!r} has params=, but the model and the rules choose its parameters"
            )
        if undecayed and "weight_decay" not in rule and _is_any_of(p, undecayed):
            name, options = f"{name}, no decay", options | {"weight_decay": 0.0}
        options = {"name": name, "lr": group_lr, **options}
        group = groups.setdefault(name, {"params": [], **options})
        if group != {"params": group["params"], **options}:
            raise BindingError(
                f"two different groups would have the name {name!r}; give one of the rules another "
                '"name"'
            )
        group["params"].append(p.parameter)
    return list(groups.values())


def _used_parameters(everything: list[ModelParameter], frozen: str) -> list[ModelParameter]:
    if frozen not in ("leave out", "include"):
        raise BindingError(f'frozen={frozen!r}: expected "leave out" or "include"')
    used = [p for p in everything if frozen == "include" or p.parameter.requires_grad]
    if not used:
        raise BindingError(
            "this model has no parameters that require gradients; unfreeze some of them, or pass "
            'frozen="include"'
        )
    return used


def _undecayed_kinds(no_decay: bool | str | Sequence[str]) -> Sequence[str]:
    if isinstance(no_decay, bool):
        return NO_DECAY_KINDS if no_decay else ()
    kinds = (no_decay,) if isinstance(no_decay, str) else no_decay
    if wrong := [name for name in kinds if name not in NO_DECAY_KINDS]:
        raise BindingError(f"no_decay={wrong[0]!r}: expected any of {', '.join(NO_DECAY_KINDS)}")
    return kinds


def _model_parameters(model: nn.Module) -> list[ModelParameter]:
    # Parameters can be keys: one is equal to itself only.
    containing_modules: dict[nn.Parameter, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters():
            containing_modules.setdefault(parameter, []).append(module)
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return [
        ModelParameter(
            p, [_plain_path(model, path) for path in paths], paths, containing_modules[p]
        )
        for p, paths in names.items()
    ]


def _plain_path(module: nn.Module, path: str) -> str:
    """Return a path without what DDP, torch.compile and other wrappers add to it."""
    kept = []
    for name in path.split("."):
        if name not in WRAPPED_NAMES and not (name == "module" and isinstance(module, WRAPPERS)):
            kept.append(name)
        module = getattr(module, name, module)
    return ".".join(kept)


def _lr(value: Any, argument: str) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise BindingError(f"{argument} {value!r}: expected a finite number >= 0")
    return float(value)


def _match_rules(
    rules: Mapping[Selector, float | Mapping[str, Any]],
    used: list[ModelParameter],
    everything: list[ModelParameter],
) -> dict[int, tuple[str, dict[str, Any]]]:
    """Return, by parameter id, the name and content of the first rule that matches."""
    matched: dict[int, tuple[str, dict[str, Any]]] = {}
    for selector, value in rules.items():
        label = getattr(selector, "__name__", str(selector))
        rule = dict(value) if isinstance(value, Mapping) else {"lr": value}
        if "lr" in rule and "factor" in rule:
            raise BindingError(f"the rule {label!r} has both lr and factor; write one of them")
        for key in ("lr", "factor"):
            if key in rule:
                rule[key] = _lr(rule[key], f"the rule {label!r}: {key}=")
        fitting = [p for p in used if _matches(selector, p)]
        free = [p for p in fitting if id(p.parameter) not in matched]
        if not free:
            if fitting:
                problem = "only parameters that earlier rules match; move it up, or remove it"
            elif any(_matches(selector, p) for p in everything):
                problem = "only frozen parameters; remove the rule, or pass frozen='include'"
            else:
                problem = f"no parameter; {_suggest_paths(selector, everything)}"
            raise BindingError(f"the rule {label!r} matches {problem}")
        for p in free:
            matched[id(p.parameter)] = str(rule.get("name", label)), rule
    return matched


def _matches(selector: Selector, p: ModelParameter) -> bool:
    if isinstance(selector, str):
        if selector.startswith("!"):
            return not _matches(selector[1:], p)
        return any(_is_under(selector, name) for name in p.names + p.full_names)
    if isinstance(selector, type):
        return any(isinstance(module, selector) for module in p.containing_modules)
    return bool(selector(p.names[0], p.parameter))


def _is_under(path: str, name: str) -> bool:
    """Return whether a path, or a pattern of paths, is that of a parameter or of its modules."""
    return f"{name}.".startswith(f"{path}.") or fnmatchcase(f"{name}.", f"{path}.*")


def _suggest_paths(selector: Selector, everything: list[ModelParameter]) -> str:
    """Return paths that a rule or layer could have meant, as the end of an error message."""
    names = [name for p in everything for name in p.names]
    if isinstance(selector, str):
        parts = [name.split(".") for name in names]
        paths = dict.fromkeys(".".join(p[:i]) for p in parts for i in range(1, len(p) + 1))
        if near := difflib.get_close_matches(selector.lstrip("!"), list(paths), 3, 0.5):
            return f"did you mean {' or '.join(near)}?"
    tops = list(dict.fromkeys(name.split(".")[0] for name in names))
    more = f" and {len(tops) - MAX_LISTED_MODULES} more" if len(tops) > MAX_LISTED_MODULES else ""
    return f"the model has {', '.join(tops[:MAX_LISTED_MODULES])}{more}"


def _is_any_of(p: ModelParameter, kinds: Sequence[str]) -> bool:
    """Return whether a parameter is a bias, or belongs to a norm or embedding, as selected."""
    inner = [
        module
        for module in p.containing_modules
        if any(p.parameter is direct for direct in module.parameters(recurse=False))
    ]
    is_any = {
        "bias": any(map(BIAS_NAME.fullmatch, p.names)),
        "norm": any(map(_is_norm, inner)),
        "embedding": any(isinstance(module, EMBEDDINGS) for module in inner),
    }
    return any(is_any[name] for name in kinds)


def _layers_of(
    model: nn.Module, everything: list[ModelParameter], given: Sequence[str] | None
) -> tuple[dict[int, tuple[str, int]], int]:
    """Return each parameter's layer and the number of layers after it, and that of all layers."""
    paths_of = _model_layers(model) if given is None else [[path] for path in given]
    layers = [[_plain_path(model, path) for path in paths] for paths in paths_of]
    for path in given or ():
        if not any(_is_under(path, name) for p in everything for name in p.names + p.full_names):
            raise BindingError(
                f"the layer {path!r} has no parameters; {_suggest_paths(path, everything)}"
            )
    # A tied parameter belongs to the earliest of its layers; one outside all layers to the first.
    indices = {
        id(p.parameter): min(_layer_index(name, layers) for name in p.names) for p in everything
    }
    # A layer does not count if all its parameters are tied to earlier ones, as an output may be.
    counted = sorted(set(indices.values()), reverse=True)
    return {i: (layers[k][0] or "all", counted.index(k)) for i, k in indices.items()}, len(counted)


def _layer_index(name: str, layers: Sequence[list[str]]) -> int:
    """Return the index of the layer that contains a name, by the longest path; 0 if none does."""
    lengths = [max(len(path) if _is_under(path, name) else 0 for path in paths) for paths in layers]
    return lengths.index(max(lengths))


def _model_layers(model: nn.Module, within: str = "") -> list[list[str]]:
    """Return the paths of each layer in order; a norm joins the layer before it."""
    layers: list[list[str]] = []
    for path, module in _iter_layers(model.get_submodule(within), within, children_alike=False):
        if not any(True for _ in module.parameters()):
            continue
        if layers and _is_norm(module):
            layers[-1].append(path)
        else:
            layers.append([path])
    if len(layers) == 1:  # a wrapper, if there are layers inside it
        inside = _model_layers(model, layers[0][0])
        if len(inside) > 1:
            inside[-1] += layers[0][1:]
            return inside
    return layers or [[within]]


def _iter_layers(
    module: nn.Module, path: str, *, children_alike: bool
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of a module; containers, and modules that contain layers, are expanded."""
    # Of several children of one class, a child is expanded only if its layers are the children of
    # one of its own children: the blocks of a stage are layers, the experts in a block are not.
    expands = _has_alike_children if children_alike else _contains_layers
    for name, child in module.named_children():
        if _is_copy(name, child):
            continue
        inner = f"{path}.{name}" if path else name
        if isinstance(child, CONTAINERS):
            yield from _iter_layers(child, inner, children_alike=_has_alike_children(child))
        elif any(map(expands, child.children())):
            yield from _iter_layers(child, inner, children_alike=False)
        else:
            yield inner, child


def _is_copy(name: str, module: nn.Module) -> bool:
    """Return whether a module is a copy of another that does not train, such as an EMA."""
    frozen = not any(p.requires_grad for p in module.parameters())
    return isinstance(module, AveragedModel) or (frozen and COPY_NAME.search(name) is not None)


def _has_alike_children(module: nn.Module) -> bool:
    classes = [type(child) for child in module.children()]
    return isinstance(module, CONTAINERS) and len(classes) > 1 and len(set(classes)) == 1


def _contains_layers(module: nn.Module) -> bool:
    return _has_alike_children(module) or any(map(_contains_layers, module.children()))


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm; by its class name only if it has no children."""
    named = type(module).__name__.endswith("Norm") and not any(True for _ in module.children())
    return isinstance(module, NORMS) or named
