"""Unknown and surplus arguments raise a TypeError that says what to write instead."""

import inspect

import pytest
import torch

from ratecraft import (
    ScheduleLR,
    check,
    compare,
    constant,
    cosine,
    find_lr,
    forecast,
    range_test,
    train,
)
from ratecraft._keywords import explain_arguments
from ratecraft.forecasting import recommend

OPTIMIZER = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
# Each function with its positional arguments; only the names are checked, so any value will do.
FUNCTIONS = {
    "resolve": (cosine(1, 0).resolve, ()),
    "ScheduleLR": (ScheduleLR, (OPTIMIZER,)),
    "find_lr": (find_lr, (None, OPTIMIZER, [], None)),
    "range_test": (range_test, (None, OPTIMIZER, [], None)),
    "compare": (compare, ("task", [cosine(1, 0)])),
    "train": (train, ("task", cosine(1, 0))),
    "forecast": (forecast, ([], [cosine(1, 0)], 1000)),
    "recommend": (recommend, ([], 1000)),
    "check": (check, (cosine(1, 0), 1000)),
}

TOTAL_STEPS = "write total_steps="
EPOCH = "write steps_per_epoch="
LR = "the learning rate is part of the schedule or of the optimizer"
WARMUP = "a warmup is part of the schedule: write warmup(500).then(cosine(1, 0))"
MINIMUM = "the end value is part of the schedule: write cosine(1, 0.1)"
FIRST_STEP = "the first step is 0; to start later write ScheduleLR(..., initial_step=)"

# For each function: an argument that it does not have, and the advice in the message.
UNKNOWN = {
    "resolve": {
        "total": TOTAL_STEPS,
        "epoch": EPOCH,
        "samples": "write samples_per_step=",
        "tokens": "write tokens_per_step=",
        "rate": LR,
        "T_max": TOTAL_STEPS,
        "last_epoch": FIRST_STEP,
        "eta_min": MINIMUM,
        "num_training_steps": TOTAL_STEPS,
        "num_warmup_steps": WARMUP,
    },
    "ScheduleLR": {
        "rate": "write lr=",
        "schedule": "write lr=",
        "max_lr": "write lr=",
        "total": TOTAL_STEPS,
        "epoch": EPOCH,
        "fields": "write hyperparam_factors=",
        "floor": "write eta_min=",
        "min_lr": "write eta_min=",
        "sample": "write midpoint=",
        "start": "write initial_step=",
        "on_plan_change": "write on_change=",
        "T_max": TOTAL_STEPS,
        "last_epoch": "write initial_step=",
        "num_training_steps": TOTAL_STEPS,
        "num_warmup_steps": WARMUP,
    },
    "find_lr": {
        "total": TOTAL_STEPS,
        "updates": "write budget_steps=",
        "num_iter": "write budget_steps=",
        "rate": LR,
        "T_max": TOTAL_STEPS,
        "last_epoch": FIRST_STEP,
        "eta_min": MINIMUM,
        "num_training_steps": TOTAL_STEPS,
        "num_warmup_steps": WARMUP,
    },
    "range_test": {
        "total": "write steps=",
        "updates": "write steps=",
        "num_iter": "write steps=",
        "start_lr": "write low=",
        "end_lr": "write high=",
        "min_lr": "write low=",
        "max_lr": "write high=",
        "rate": LR,
        "T_max": "write steps=",
        "last_epoch": FIRST_STEP,
        "eta_min": MINIMUM,
        "num_training_steps": "write steps=",
        "num_warmup_steps": WARMUP,
    },
    "compare": {
        "rates": "write lrs=",
        "rate": "write lrs=",
        "lr": "write lrs=",
        "schedule": "write schedules=",
        "optimizer": "write optimizers=",
        "seed": "write seeds=",
        "total": TOTAL_STEPS,
        "updates": TOTAL_STEPS,
        "T_max": TOTAL_STEPS,
        "last_epoch": FIRST_STEP,
        "eta_min": MINIMUM,
        "num_training_steps": TOTAL_STEPS,
        "num_warmup_steps": WARMUP,
    },
    "train": {
        "rate": "write lr=",
        "lrs": "write lr=",
        "total": TOTAL_STEPS,
        "T_max": TOTAL_STEPS,
        "last_epoch": FIRST_STEP,
        "eta_min": MINIMUM,
        "num_training_steps": TOTAL_STEPS,
        "num_warmup_steps": WARMUP,
    },
    "forecast": {
        "total": TOTAL_STEPS,
        "epoch": EPOCH,
        "schedule": "write schedules=",
        "rate": LR,
        "T_max": TOTAL_STEPS,
        "last_epoch": FIRST_STEP,
        "eta_min": MINIMUM,
        "num_training_steps": TOTAL_STEPS,
        "num_warmup_steps": WARMUP,
    },
    "recommend": {
        "warm": "write warmup_steps=",
        "total": TOTAL_STEPS,
        "epoch": EPOCH,
        "rate": LR,
        "T_max": TOTAL_STEPS,
        "last_epoch": FIRST_STEP,
        "eta_min": MINIMUM,
        "num_training_steps": TOTAL_STEPS,
        "num_warmup_steps": "write warmup_steps=",
    },
    "check": {
        "total": TOTAL_STEPS,
        "epoch": EPOCH,
        "rate": LR,
        "T_max": TOTAL_STEPS,
        "last_epoch": FIRST_STEP,
        "eta_min": MINIMUM,
        "num_training_steps": TOTAL_STEPS,
        "num_warmup_steps": WARMUP,
    },
}

# The start of the message for a schedule as one more positional argument.
POSITIONAL = {
    "resolve": "resolve() takes the length by name: write resolve(total_steps=1000)",
    "ScheduleLR": "ScheduleLR(optimizer, ...) takes its schedule by keyword: pass lr=",
    "find_lr": "find_lr() takes model, optimizer, loader and loss by position",
    "range_test": "range_test() takes model, optimizer, loader and loss by position",
    "compare": "compare() takes a task and its schedules, as a list or a dict of names; write",
    "train": "train() takes a task and one schedule; write the rest by name: train(task, cosine(",
    "forecast": "forecast() takes logs, schedules (a list or a dict of names) and total_steps",
    "recommend": "recommend() takes logs and total_steps, and no schedule",
    "check": "check() takes a schedule and the length of the run: write check(schedule, 1000)",
}


@pytest.mark.parametrize(
    ("name", "argument", "advice"),
    [
        (name, argument, advice)
        for name, rows in UNKNOWN.items()
        for argument, advice in rows.items()
    ],
)
def test_an_unknown_argument_raises_with_what_to_write(name, argument, advice):
    function, positional = FUNCTIONS[name]
    with pytest.raises(TypeError) as error_info:
        function(*positional, **{argument: 1})
    assert str(error_info.value).startswith(f"{name}() has no argument {argument!r}; {advice}")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_positional_schedule_raises_with_what_to_write(name):
    function, positional = FUNCTIONS[name]
    with pytest.raises(TypeError) as error_info:
        function(*positional, constant(1))
    assert str(error_info.value).startswith(POSITIONAL[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_misspelled_argument_raises_with_the_right_one(name):
    function, positional = FUNCTIONS[name]
    right = "steps" if name == "range_test" else "total_steps"
    with pytest.raises(TypeError) as error_info:
        function(*positional, **{right.replace("steps", "stesp"): 1})
    assert str(error_info.value).endswith(f"; did you mean {right!r}?")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_argument_with_no_similar_name_raises_with_the_list_of_arguments(name):
    function, positional = FUNCTIONS[name]
    with pytest.raises(TypeError) as error_info:
        function(*positional, qqqqqq=1)
    listed = str(error_info.value).partition("; it has ")[2].split(", ")
    parameters = inspect.signature(function).parameters.values()
    named = {p.name for p in parameters if not str(p).startswith("**")}
    assert named <= set(listed)
    assert "self" not in listed


def test_every_function_with_advice_is_decorated():
    for function, _ in FUNCTIONS.values():
        implementation = function.__init__ if inspect.isclass(function) else function
        assert hasattr(implementation, "__wrapped__"), function


def test_the_decorator_passes_valid_arguments_and_options():
    @explain_arguments("hint", options=("c",))
    def add(a, *, b=0, **more):
        return a + b + more.get("c", 0)

    assert add(1, b=2, c=3) == 6
    assert add.__name__ == "add"
    with pytest.raises(TypeError, match=r"^hint$"):
        add(1, 2)
    with pytest.raises(TypeError, match=r"^add\(\) has no argument 'd'; it has a, b, c$"):
        add(1, d=4)


def test_without_a_hint_surplus_positional_arguments_raise_pythons_error():
    @explain_arguments()
    def double(a):
        return 2 * a

    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        double(1, 2)
