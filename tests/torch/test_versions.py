"""ratecraft.torch._versions: torch before 2.6, or none, is refused; newer ones behave alike."""

import logging
import subprocess
import sys
import warnings

import pytest
import torch
from optimizers import first_lrs, sgd
from torch.optim.lr_scheduler import LRScheduler

from ratecraft.torch import drop_in

NO_TORCH = "sys.modules['torch'] = None"
OLD_TORCH = "import torch; torch.__version__ = '2.5.1+cpu'"
PACKAGES = ["torch", "diagnostics", "finder", "experiments", "integrations"]


def python(code):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("torch_is", "version"), [(NO_TORCH, "none"), (OLD_TORCH, r"2.5.1+cpu")])
def test_each_package_that_needs_torch_refuses_an_older_one_in_one_sentence(torch_is, version):
    imports = "".join(
        f"try:\n    import ratecraft.{name}\nexcept ImportError as error:\n    print(error)\n"
        for name in PACKAGES
    )
    message = (
        f"this needs torch 2.6 or newer, and {version} is installed: pip install 'torch>=2.6'\n"
    )
    assert python(f"{torch_is}\n{imports}") == (0, message * len(PACKAGES), "")


@pytest.mark.parametrize("torch_is", [NO_TORCH, OLD_TORCH])
def test_the_command_refuses_an_older_torch_without_a_traceback(torch_is):
    code = f"{torch_is}\nfrom ratecraft.cli import main\nmain(['find', 'digits'])"
    exit_code, output, message = python(code)
    assert (exit_code, output) == (2, "")
    assert message.startswith("error: this needs torch 2.6 or newer")
    assert len(message.splitlines()) <= 2  # wrapped


def test_schedules_need_no_torch():
    code = "from ratecraft import cosine; print(cosine(1, 0).resolve(total_steps=10)(5))"
    assert python(f"{NO_TORCH}\n{code}")[1:] == ("0.4999999999999999\n", "")


def test_no_warning_unless_the_arguments_give_one():
    mine = sgd(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = [drop_in.StepLR(mine, 1, 0.5, verbose=True), drop_in.ExponentialLR(mine, 0.9)]
        sequence = drop_in.SequentialLR(mine, parts, [2])
        drop_in.ReduceLROnPlateau(mine, verbose="deprecated")
        assert first_lrs(mine, 4, sequence) == pytest.approx([0.1, 0.05, 0.1, 0.09])


def test_a_sequence_is_verbose_through_its_parts(caplog):
    mine = sgd(0.1)
    parts = [drop_in.StepLR(mine, 1, 0.5), drop_in.ExponentialLR(mine, 0.9)]
    chain = drop_in.ChainedScheduler([drop_in.ConstantLR(mine, 0.5, 9)])
    with caplog.at_level(logging.INFO, "ratecraft.torch"):
        sequence = drop_in.SequentialLR(mine, [*parts, chain], [1, 2], verbose=True)
        first_lrs(mine, 3, sequence)
    assert "StepLR: step 0: lr [0.1]" in caplog.text
    assert "ExponentialLR: step 0: lr [0.1]" in caplog.text
    assert "ConstantLR: step 0: lr [0.05]" in caplog.text


def test_a_step_before_the_optimizer_and_an_epoch_warn_as_in_torch():
    scheduler = drop_in.StepLR(sgd(0.1), 1, 0.5)
    with pytest.warns(UserWarning, match=r"before `optimizer\.step\(\)`"):
        scheduler.step()
    with pytest.warns(UserWarning, match="epoch parameter"):
        scheduler.step(5)
    assert scheduler.get_last_lr() == [0.1 * 0.5**5]


@pytest.mark.parametrize("parts", ["drop_in", "torch"])
def test_a_sequence_keeps_the_tensors_of_lr_and_their_initial_lrs(parts):
    module = drop_in if parts == "drop_in" else torch.optim.lr_scheduler
    lr = torch.tensor(0.5)
    mine = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=lr)
    both = [module.ConstantLR(mine, 0.5, 2), module.ExponentialLR(mine, 0.5)]
    sequence = drop_in.SequentialLR(mine, both, [2])
    lrs = first_lrs(mine, 4, sequence)
    group = mine.param_groups[0]
    assert group["lr"] is lr
    assert [float(value) for value in lrs] == [0.25, 0.25, 0.5, 0.25]
    assert float(group["initial_lr"]) == 0.5
    assert parts == "torch" or sequence.get_last_lr()[0] is not lr


def test_schedulers_of_torch_restart_in_a_sequence_without_a_warning():
    mine = sgd(1.0)
    chain = drop_in.ChainedScheduler([torch.optim.lr_scheduler.ExponentialLR(mine, 0.5)])
    first = torch.optim.lr_scheduler.ConstantLR(mine, 0.1, 100)
    sequence = drop_in.SequentialLR(mine, [first, chain], [2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert first_lrs(mine, 5, sequence) == pytest.approx([0.1, 0.1, 1.0, 0.5, 0.25])
    assert isinstance(sequence, LRScheduler)
