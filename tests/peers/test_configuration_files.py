"""Schedules in the settings of PyYAML, argparse, OmegaConf, Hydra and LightningCLI."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from optimizers import named

from ratecraft import Schedule, ScheduleLR, cosine, parse, warmup

pytestmark = pytest.mark.peers

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "configuration-files.md"
LIBRARIES = {  # that the scripts of a section import
    "YAML": ("yaml",),
    "argparse": (),
    "Hydra and OmegaConf": ("hydra",),
    "Hydra's instantiate": ("hydra",),
    "jsonargparse and LightningCLI": ("lightning", "jsonargparse"),
}
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.S | re.M))


def test_every_section_of_the_page_runs() -> None:
    assert list(SECTIONS) == list(LIBRARIES)


@pytest.mark.parametrize("section", LIBRARIES)
def test_the_commands_of_the_page_print_what_it_shows(section: str, tmp_path: Path) -> None:
    for library in LIBRARIES[section]:
        pytest.importorskip(library)
    blocks = re.findall(r"```(\w+)\n(.*?)```", SECTIONS[section], re.S)
    files = {language: text for language, text in blocks if language in ("yaml", "py")}
    (tmp_path / "config.yaml").write_text(files.get("yaml", ""))
    (tmp_path / "train.py").write_text(files["py"])
    folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "COLUMNS": "100", "PATH": f"{folder}:{os.environ['PATH']}"}
    shown = [text for language, text in blocks if language in ("sh", "text")]
    assert shown
    for command, expected in zip(shown[::2], shown[1::2], strict=True):
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        printed = done.stderr if "error:" in expected else done.stdout
        # Hydra and Lightning print lines of their own.
        lines = [line for line in printed.splitlines() if "[HYDRA]" not in line]
        assert "\n".join(lines).endswith(expected.rstrip()), printed


def test_omegaconf_keeps_texts_by_group(tmp_path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    path = tmp_path / "config.yaml"
    path.write_text(
        "factor:\n  backbone: constant(0.1)\n  head: cosine(1, 0)\n"
        "hyperparam_factors:\n  momentum: linear(1, 0.5)\n"
        "eta_min:\n  backbone: 1e-6\n  head: 1e-5\n"
        "total_steps: epochs(10)\nsteps_per_epoch: 100\n"
    )
    config = omegaconf.OmegaConf.load(path)
    scheduler = ScheduleLR(named(backbone=0.1, head=0.2), **config)
    assert scheduler.config.run_length() == 1000
    torch.save(scheduler.state_dict(), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)["config"]
    assert saved["factor"] == {"backbone": "constant(0.1)", "head": "cosine(1, 0)"}
    assert saved["eta_min"] == {"backbone": 1e-6, "head": 1e-5}


@dataclass
class Settings:
    lr: str = "3e-4 * cosine()"


def test_omegaconf_takes_a_schedule_for_a_value_not_for_a_group_of_settings() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    assert parse(omegaconf.OmegaConf.structured(Settings).lr) == 3e-4 * cosine()
    schedule = 3e-4 * warmup(5).then(cosine())
    with pytest.raises(omegaconf.UnsupportedValueType, match="'Scale' is not a supported"):
        omegaconf.OmegaConf.create({"lr": schedule})
    config = omegaconf.OmegaConf.create({"lr": schedule}, flags={"allow_objects": True})
    assert config.lr == schedule


def test_hydra_instantiates_schedules_inside_a_scheduler() -> None:
    instantiate = pytest.importorskip("hydra.utils").instantiate
    config = {
        "_target_": "ratecraft.ScheduleLR",
        "factor": {
            "backbone": {"_target_": "ratecraft.cosine", "start": 1, "end": 0.1},
            "head": {"_target_": "ratecraft.parse", "text": "wsd(5)"},
        },
        "total_steps": {"_target_": "ratecraft.epochs", "n": 2},
        "steps_per_epoch": 50,
    }
    scheduler = instantiate(config, optimizer=named(backbone=0.1, head=0.2))
    assert scheduler.describe("backbone") == "factor cosine(1, 0.1)"
    assert scheduler.describe("head") == "factor wsd(5)"
    assert scheduler.end_step == 100


@pytest.mark.parametrize("annotation", [Schedule, Schedule | None, dict[str, Schedule]])
def test_jsonargparse_reads_and_writes_an_annotated_schedule(annotation) -> None:
    jsonargparse = pytest.importorskip("jsonargparse")
    typing = pytest.importorskip("jsonargparse.typing")
    typing.register_type(Schedule, str, parse, type_check=isinstance)

    class Model:
        def __init__(self, lr: annotation) -> None:
            self.lr = lr

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Model, "model")
    by_group = annotation == dict[str, Schedule]
    text = '{"head": "1e-3 * wsd(5)"}' if by_group else "1e-3 * wsd(5)"
    arguments = parser.parse_args([f"--model.lr={text}"])
    model = parser.instantiate(arguments).model
    schedule = model.lr["head"] if by_group else model.lr
    assert schedule == parse("1e-3 * wsd(5)")
    assert "0.001 * wsd(5)" in parser.dump(arguments)


def test_yaml_writes_the_text_of_a_schedule(tmp_path) -> None:
    yaml = pytest.importorskip("yaml")
    schedule = 3e-4 * warmup(5).then(cosine(1, 0.1))
    text = yaml.safe_dump({"lr": str(schedule), "head": {"lr": "constant(1)"}})
    assert parse(yaml.safe_load(text)["lr"]) == schedule
    with pytest.raises(yaml.YAMLError):
        yaml.safe_dump({"lr": schedule})
