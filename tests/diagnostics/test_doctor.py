"""doctor reports each mistake in a training setup, and nothing in a correct one."""

import functools

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel

from ratecraft import constant, cosine, custom, tokens, warmup
from ratecraft.diagnostics import doctor
from ratecraft.errors import BindingError
from ratecraft.torch import PlateauLR, ScheduleLR, drop_in

# torch warns where a scheduler steps before its optimizer, as some of these do.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")

FALL = cosine(1, 0.1)


def model_and(optimizer=torch.optim.SGD, **options):
    model = torch.nn.Linear(3, 2)
    return model, optimizer(model.parameters(), **({"lr": 0.1} | options))


def texts(*objects, **options):
    """Return the findings as "level: message"."""
    return [f"{finding.level}: {finding.message}" for finding in doctor(*objects, **options)]


def trained(model, optimizer, steps, *, every=1, step=lambda: None):
    """Make optimizer steps, and call ``step`` after every ``every`` of them."""
    for k in range(steps):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        if (k + 1) % every == 0:
            step()


def correct_setups():
    """Yield setups without mistakes."""
    model, optimizer = model_and()
    yield model, optimizer, ScheduleLR(optimizer, factor=FALL, total_steps=100)
    model, optimizer = model_and(torch.optim.Adam)
    yield model, optimizer, lr_scheduler.OneCycleLR(optimizer, 0.1, 100)
    model, optimizer = model_and(momentum=0.9)
    yield model, optimizer, drop_in.OneCycleLR(optimizer, 0.1, 100)
    model, optimizer = model_and()
    yield model, optimizer, drop_in.CosineAnnealingLR(optimizer, 100)
    model, optimizer = model_and()
    warm = lr_scheduler.LinearLR(optimizer, 0.1, 1, 10)
    parts = [warm, lr_scheduler.CosineAnnealingLR(optimizer, 90)]
    yield model, optimizer, lr_scheduler.SequentialLR(optimizer, parts, [10])
    model, optimizer = model_and()
    parts = [drop_in.StepLR(optimizer, 30), drop_in.ExponentialLR(optimizer, 0.99)]
    yield model, optimizer, drop_in.ChainedScheduler(parts)
    model, optimizer = model_and()
    yield model, optimizer, lr_scheduler.ReduceLROnPlateau(optimizer)
    model, optimizer = model_and()
    yield model, optimizer, PlateauLR(ScheduleLR(optimizer, lr=0.1 * FALL, total_steps=100))
    model, optimizer = model_and()
    yield model, optimizer, lr_scheduler.LambdaLR(optimizer, lambda k: 0.9**k)
    model, optimizer = model_and()
    yield model, optimizer, lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, cycle_momentum=False)
    model, optimizer = model_and(lr=torch.tensor(0.1))
    yield model, optimizer, lr_scheduler.CosineAnnealingLR(optimizer, 100)


@pytest.mark.parametrize("setup", list(correct_setups()), ids=lambda setup: type(setup[2]).__name__)
def test_correct_setup_has_no_findings_and_is_not_changed(setup):
    _, optimizer, scheduler = setup
    before = repr((optimizer.state_dict(), scheduler.state_dict()))
    assert texts(*setup, total_steps=100, done=0) == []
    assert repr((optimizer.state_dict(), scheduler.state_dict())) == before


# Optimizers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler_class", [ScheduleLR, lr_scheduler.CosineAnnealingLR])
def test_scheduler_of_another_optimizer(scheduler_class):
    model, old = model_and()
    own_options = {"factor": FALL, "total_steps": 100}
    options = own_options if scheduler_class is ScheduleLR else {"T_max": 100}
    scheduler = scheduler_class(old, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)  # built again
    assert texts(model, optimizer, scheduler, total_steps=100) == [
        f"error: {scheduler_class.__name__} is not attached to the optimizer that steps, "
        "which stays at lr 0.3 while the log shows the schedule",
        "warning: no scheduler is attached to SGD, which stays at lr 0.3",
    ]


def test_second_optimizer_without_scheduler_is_a_note():
    model, optimizer = model_and()
    other, second = model_and(torch.optim.Adam, lr=1e-3)
    scheduler = ScheduleLR(optimizer, factor=FALL, total_steps=100)
    assert texts(model, other, optimizer, second, scheduler) == [
        "note: no scheduler is attached to Adam (number 2), which stays at lr 0.001"
    ]


def test_removed_schedule_lr():
    model, optimizer = model_and()
    scheduler = ScheduleLR(optimizer, factor=FALL, total_steps=100)
    scheduler.remove()
    assert texts(model, optimizer, scheduler) == [
        "error: this ScheduleLR was removed and is attached to no optimizer"
    ]


# Calls --------------------------------------------------------------------------------------------


def test_several_calls_per_step_are_counted_from_the_state_of_adam():
    model, optimizer = model_and(torch.optim.Adam)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 100)

    def twice():
        scheduler.step()
        scheduler.step()

    trained(model, optimizer, 10, step=twice)
    assert texts(model, optimizer, scheduler, total_steps=100) == [
        "error: CosineAnnealingLR is stepped 2 times per step: 20 calls of step() in 10 steps"
    ]


def test_several_calls_per_step_are_harmless_with_the_optimizer_clock():
    model, optimizer = model_and(torch.optim.Adam)
    scheduler = ScheduleLR(optimizer, factor=FALL, total_steps=100)
    trained(model, optimizer, 10, step=lambda: [scheduler.step() for _ in range(3)])
    assert texts(model, optimizer, scheduler, total_steps=100) == []
    called = ScheduleLR(model_and()[1], factor=FALL, total_steps=100, clock="step")
    for _ in range(30):
        called.step()
    assert texts(called, total_steps=100, done=10) == [
        "error: ScheduleLR is stepped 3 times per step: 30 calls of step() in 10 steps"
    ]


def test_schedule_in_steps_that_is_stepped_once_an_epoch():
    model, optimizer = model_and(torch.optim.Adam)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, 100)
    trained(model, optimizer, 20, every=10, step=scheduler.step)
    assert texts(model, optimizer, scheduler, total_steps=100) == [
        "error: OneCycleLR counts 100 steps, but is stepped 10 to 15 times in this run (2 "
        "calls of step() in 20 steps): it will hardly move"
    ]
    # A length that is neither the run's steps nor its epochs is just too long.
    model, optimizer = model_and(torch.optim.Adam)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, 300)
    trained(model, optimizer, 20, every=10, step=scheduler.step)
    assert texts(model, optimizer, scheduler, total_steps=100) == []  # too few calls to judge
    trained(model, optimizer, 20, every=10, step=scheduler.step)
    assert texts(model, optimizer, scheduler, total_steps=100) == [
        "error: OneCycleLR reaches its end after 300 calls of step(), and the run has 10 to 12 (4 "
        "calls of step() in 40 steps): the rest of the schedule is never reached"
    ]
    # A length in epochs is correct.
    model, optimizer = model_and(torch.optim.Adam)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, 10)
    trained(model, optimizer, 20, every=10, step=scheduler.step)
    assert texts(model, optimizer, scheduler, total_steps=100) == []


def test_difference_of_one_call_is_tolerated():
    model, optimizer = model_and(torch.optim.Adam)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 100)
    trained(model, optimizer, 1, step=scheduler.step)
    assert texts(model, optimizer, scheduler, total_steps=100) == []
    assert texts(model, optimizer, scheduler, total_steps=100, done=2) == []
    scheduler.step()
    assert texts(model, optimizer, scheduler, total_steps=100) == []


def test_schedule_in_epochs_is_at_most_a_note():
    model, optimizer = model_and(torch.optim.Adam)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 9)
    (note,) = texts(model, optimizer, scheduler, total_steps=360)
    assert note == (
        "note: CosineAnnealingLR ends after 9 calls of step(), and rises again; the run has 360 "
        "steps"
    )
    for _ in range(9):
        for _ in range(2):
            trained(model, optimizer, 20)
            assert all(text.startswith("note") for text in texts(
                model, optimizer, scheduler, total_steps=360
            ))  # fmt: skip
        scheduler.step()
    assert texts(model, optimizer, scheduler, total_steps=360) == []


def test_scheduler_that_is_never_stepped():
    model, optimizer = model_and(torch.optim.Adam)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, 100)
    trained(model, optimizer, 20)
    assert texts(model, optimizer, scheduler, total_steps=100) == [
        "error: OneCycleLR counts 100 steps, but is stepped 0 to 5 times in this run (0 calls of "
        "step() in 20 steps): it will hardly move"
    ]


@pytest.mark.parametrize(("done", "calls"), [(6, 10), (1996, 2000), (20, 30)])
def test_calls_for_steps_that_amp_skipped_are_tolerated(done, calls):
    model, optimizer = model_and()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.999)
    for _ in range(calls):
        scheduler.step()
    assert texts(model, optimizer, scheduler, done=done) == []


def test_steps_are_counted_for_each_optimizer():
    (model, first), (second_model, second) = (
        model_and(torch.optim.Adam),
        model_and(torch.optim.Adam),
    )
    schedulers = [lr_scheduler.CosineAnnealingLR(o, n) for o, n in ((first, 20), (second, 100))]
    trained(model, first, 20, step=schedulers[0].step)
    trained(second_model, second, 100, step=schedulers[1].step)
    assert texts(model, second_model, first, second, schedulers, total_steps=100) == []
    for _ in range(80):
        schedulers[0].step()
    (text,) = texts({"G": model, "D": second_model}, [first, second], schedulers, total_steps=100)
    assert text.startswith("error: CosineAnnealingLR is stepped 5 times per step: 100 calls")


# Schedule lengths ---------------------------------------------------------------------------------


def partial_lambda(optimizer, steps):
    def fall(k, *, num_training_steps):
        return 1 - k / num_training_steps

    return lr_scheduler.LambdaLR(optimizer, functools.partial(fall, num_training_steps=steps))


def sequence(optimizer, steps):
    parts = [lr_scheduler.LinearLR(optimizer, 0.1, 1, 10)]
    parts.append(lr_scheduler.CosineAnnealingLR(optimizer, steps - 10))
    return lr_scheduler.SequentialLR(optimizer, parts, [10])


def chain(optimizer, steps):
    parts = [lr_scheduler.ExponentialLR(optimizer, 0.99)]
    return lr_scheduler.ChainedScheduler([*parts, lr_scheduler.PolynomialLR(optimizer, steps)])


FULL_RUN_SCHEDULERS = {
    "OneCycleLR": (lambda o, n: lr_scheduler.OneCycleLR(o, 0.1, n), "and raises an error there"),
    "CosineAnnealingLR": (lr_scheduler.CosineAnnealingLR, "and rises again"),
    "PolynomialLR": (lr_scheduler.PolynomialLR, "and stays at lr 0"),
    "LambdaLR": (partial_lambda, "and stays where it is"),
    "SequentialLR": (sequence, "and rises again"),
    "ChainedScheduler": (chain, "and stays at lr 0"),
    "ScheduleLR": (
        lambda o, n: ScheduleLR(o, factor=FALL, total_steps=n), "and stays at a factor of 0.1",
    ),
    "PlateauLR": (
        lambda o, n: PlateauLR(ScheduleLR(o, lr=FALL, total_steps=n)), "and stays at an lr of 0.1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("class_name", FULL_RUN_SCHEDULERS)
def test_schedule_shorter_or_longer_than_the_run(class_name):
    make, past = FULL_RUN_SCHEDULERS[class_name]
    name = "PolynomialLR" if class_name == "ChainedScheduler" else class_name
    model, optimizer = model_and()
    assert texts(model, optimizer, make(optimizer, 60), total_steps=100) == [
        f"error: {name} ends after 60 of the run's 100 steps, {past}"
    ]
    model, optimizer = model_and()
    assert texts(model, optimizer, make(optimizer, 200), total_steps=100) == [
        f"error: {name} reaches its end after 200 steps, and the run has 100: the rest of the "
        "schedule is never reached"
    ]
    model, optimizer = model_and()
    assert texts(model, optimizer, make(optimizer, 101), total_steps=100) == []
    model, optimizer = model_and()
    # A difference of one step is tolerated.
    assert texts(model, optimizer, make(optimizer, 21), total_steps=20) == []


def test_one_cycle_lr_must_not_end_early_at_all():
    model, optimizer = model_and()
    short = lr_scheduler.OneCycleLR(optimizer, 0.1, 999)
    assert texts(model, optimizer, short, total_steps=1000)[0].startswith(
        "error: OneCycleLR ends after"
    )
    model, optimizer = model_and()
    assert (
        texts(model, optimizer, lr_scheduler.OneCycleLR(optimizer, 0.1, 1000), total_steps=1000)
        == []
    )


def test_linear_lr_decay_that_ends_early():
    model, optimizer = model_and()
    scheduler = lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 60)
    assert texts(model, optimizer, scheduler, total_steps=100) == [
        "error: LinearLR ends after 60 of the run's 100 steps, and stays at a factor of 0.1"
    ]


def test_phases_of_transformers_schedules_are_summed():
    def wsd(k, *, num_warmup_steps, num_stable_steps, num_decay_steps):
        return 1.0

    model, optimizer = model_and()
    lengths = {"num_warmup_steps": 10, "num_stable_steps": 30, "num_decay_steps": 20}
    scheduler = lr_scheduler.LambdaLR(optimizer, functools.partial(wsd, **lengths))
    (text,) = texts(model, optimizer, scheduler, total_steps=100)
    assert text.startswith("error: LambdaLR ends after 60 of the run's 100 steps")


def test_no_length_findings_with_swa():
    model, optimizer = model_and()
    schedulers = lr_scheduler.CosineAnnealingLR(optimizer, 75), SWALR(optimizer, 0.05)
    findings = texts(model, optimizer, *schedulers, total_steps=100)
    # The state of torch 2.6's SWALR has a function, which is a finding of its own.
    assert [text for text in findings if "anneal_func" not in text] == []


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.StepLR(o, 300),
        lambda o: lr_scheduler.MultiStepLR(o, [30, 300]),
        lambda o: lr_scheduler.LinearLR(o, total_iters=300),
        lambda o: lr_scheduler.ConstantLR(o, total_iters=300),
    ],
)
def test_last_change_after_the_end_of_the_run(make):
    model, optimizer = model_and()
    scheduler = make(optimizer)
    assert texts(model, optimizer, scheduler, total_steps=100) == [
        f"warning: {type(scheduler).__name__} makes its last change after 300 steps, and the "
        "run has 100: the rest of the schedule is never reached"
    ]


def test_no_length_findings_for_endless_schedules_and_lengths_in_tokens():
    model, optimizer = model_and()
    assert texts(model, optimizer, ScheduleLR(optimizer, factor=constant(1)), total_steps=100) == []
    model, optimizer = model_and()
    scheduler = ScheduleLR(optimizer, factor=FALL, total_steps=tokens(5000))
    assert texts(model, optimizer, scheduler, total_steps=100) == []
    model, optimizer = model_and()
    scheduler = lr_scheduler.MultiStepLR(optimizer, [])
    assert texts(model, optimizer, scheduler, total_steps=100) == []


def test_findings_of_check_are_included():
    model, optimizer = model_and()
    scheduler = ScheduleLR(
        optimizer, factor=warmup(50).then(cosine(1, 0, over=20)), total_steps=100
    )
    findings = doctor(model, optimizer, scheduler, total_steps=100)
    assert [finding.level for finding in findings] == ["error", "note"]
    assert "the last 30 steps train nothing" in findings[0].message
    assert "warmup(50)" in str(findings[0])


# Parameters ---------------------------------------------------------------------------------------


def test_parameters_in_no_optimizer():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
    model[1].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    scheduler = ScheduleLR(optimizer, factor=FALL, total_steps=100)
    assert texts(model, optimizer, scheduler) == [
        "error: no optimizer holds 3 of 5 trainable parameters: 0.weight, 0.bias, 1.bias"
    ]
    model[1].weight.requires_grad_(True)
    assert texts(model, optimizer, scheduler)[0].endswith("0.weight, 0.bias, 1.weight, ...")


def test_averaged_model_inside_the_model_needs_no_optimizer():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.average = AveragedModel(torch.nn.Linear(3, 2))
    scheduler = ScheduleLR(optimizer, factor=FALL, total_steps=100)
    assert texts(model, optimizer, scheduler) == []


def test_optimizer_of_another_model():
    model, _ = model_and()
    _, optimizer = model_and()
    scheduler = ScheduleLR(optimizer, factor=FALL, total_steps=100)
    assert texts(model, optimizer, scheduler) == [
        "error: no optimizer holds any of the model's parameters: it was built for another model"
    ]


def test_layer_replaced_after_the_optimizer_was_built():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = ScheduleLR(optimizer, factor=FALL, total_steps=100)
    model[1] = torch.nn.Linear(4, 2)
    assert texts(model, optimizer, scheduler) == [
        "error: no optimizer holds 2 of 4 trainable parameters: 1.weight, 1.bias",
        "warning: the optimizer holds 2 tensors that the model does not have",
    ]


def test_parameters_in_two_optimizers():
    model, optimizer = model_and()
    second = torch.optim.SGD([model.bias], lr=0.1)
    schedulers = [ScheduleLR(o, factor=FALL, total_steps=100) for o in (optimizer, second)]
    assert texts(model, optimizer, second, *schedulers) == [
        "warning: 1 parameters are in more than one optimizer, and each optimizer updates them"
    ]


# States -------------------------------------------------------------------------------------------


class IncompleteState(lr_scheduler.LRScheduler):
    """Leaves its counter out of its state."""

    def __init__(self, optimizer):
        self.count = [0]
        super().__init__(optimizer)

    def get_lr(self):
        self.count[0] += 1
        return [base / self.count[0] for base in self.base_lrs]

    def state_dict(self):
        return {name: x for name, x in super().state_dict().items() if name != "count"}


def test_state_that_does_not_restore_the_scheduler():
    model, optimizer = model_and()
    scheduler = IncompleteState(optimizer)
    (finding,) = doctor(model, optimizer, scheduler)
    assert finding.level == "error"
    assert finding.message == (
        "the state of IncompleteState does not restore it: 1 steps after loading, the lr is "
        "0.00833333 instead of 0.05"
    )
    assert scheduler.count == [1]


class PowerWithSet:
    """A callable with a set as attribute."""

    def __init__(self):
        self.values = {1, 2}

    def __call__(self, k):
        return 0.9**k


class ObjectInState(lr_scheduler.LRScheduler):
    """Has an object in its state."""

    def __init__(self, optimizer):
        self.power = PowerWithSet()
        super().__init__(optimizer)

    def get_lr(self):
        return [base * self.power(self.last_epoch) for base in self.base_lrs]


def test_state_with_objects():
    model, optimizer = model_and()
    (finding,) = doctor(model, optimizer, ObjectInState(optimizer))
    assert finding.level == "warning"
    assert finding.message == (
        "the state of ObjectInState is not plain data, and loads only with weights_only=False: "
        "power is <class 'test_doctor.PowerWithSet'>"
    )


class NotCopyable(lr_scheduler.LRScheduler):
    """Cannot be copied."""

    def get_lr(self):
        return list(self.base_lrs)

    def __deepcopy__(self, memo):
        raise RuntimeError("no copies")


def test_state_that_cannot_be_checked():
    model, optimizer = model_and()
    assert texts(model, optimizer, NotCopyable(optimizer)) == [
        "warning: the state of NotCopyable could not be checked: RuntimeError: no copies"
    ]


def test_states_of_several_schedulers_on_one_optimizer_are_checked_separately():
    model, optimizer = model_and()
    warm = drop_in.LinearLR(optimizer, 0.1, 1.0, 20)
    schedulers = [warm, drop_in.ReduceLROnPlateau(optimizer), drop_in.ExponentialLR(optimizer, 0.9)]
    assert texts(model, optimizer, *schedulers, total_steps=100) == []
    assert texts(model, optimizer, drop_in.MultiplicativeLR(optimizer, lambda k: 0.9)) == []


class CountsCopies(torch.nn.Linear):
    """Counts its copies."""

    copies = 0

    def __deepcopy__(self, memo):
        CountsCopies.copies += 1
        return self


def test_models_in_lambdas_are_not_copied():
    model = CountsCopies(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fall = functools.partial(lambda k, model: 0.9**k, model=model)
    assert texts(model, optimizer, lr_scheduler.LambdaLR(optimizer, fall)) == []
    assert CountsCopies.copies == 0


def square(t):
    return 1 / (1 + t) ** 2


def test_lambda_in_a_schedule_cannot_be_compared_on_resume():
    model, optimizer = model_and()
    scheduler = ScheduleLR(optimizer, factor=custom(lambda t: 1 / (1 + t)), total_steps=100)
    assert texts(model, optimizer, scheduler) == [
        "warning: a run that resumes from the state of this ScheduleLR will report a change of "
        "factor: lambdas cannot be compared"
    ]
    model, optimizer = model_and()
    plateau = PlateauLR(ScheduleLR(optimizer, factor=custom(square), total_steps=100))
    assert texts(model, optimizer, plateau) == []


# The call itself ----------------------------------------------------------------------------------


def test_invalid_arguments_raise():
    with pytest.raises(TypeError, match="models, optimizers, schedulers and trainers, not int"):
        doctor(3)
    assert doctor() == []
    with pytest.raises(TypeError, match=r"doctor\(total_steps='x'\): expected an int"):
        doctor(total_steps="x")
    with pytest.raises(BindingError, match=r"doctor\(total_steps=0\): expected 1 or more"):
        doctor(total_steps=0)


def test_str_of_a_finding_has_message_and_fix():
    model, optimizer = model_and()
    (finding,) = doctor(
        model, optimizer, lr_scheduler.OneCycleLR(optimizer, 0.1, 60), total_steps=100
    )
    assert str(finding) == (
        "error: OneCycleLR ends after 60 of the run's 100 steps, and raises an error there\n"
        "  set its length to the run's, 100"
    )
