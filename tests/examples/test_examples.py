"""Every script and the notebook in examples/ run and print the numbers they should."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ratecraft import cosine, epochs, percent, warmup, wsd
from ratecraft._training._snapshot import preserve_rng

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *options: object) -> str:
    """Run a script in a process of its own, in its default folder; return what it printed."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(output: str, start: str) -> list[str]:
    return [line for line in output.splitlines() if line.lstrip().startswith(start)]


def printed_lrs(output: str) -> list[str]:
    return re.findall(r"lr (\d\.\d+)", output)


def number_after(text: str, output: str) -> float:
    return float(re.findall(rf"{text} (\d+\.\d+)", output)[-1])


def test_plain_loop_resumes_with_the_numbers_of_an_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_here(*options: object) -> str:  # faster than a process, which imports torch again
        script = EXAMPLES / "plain_loop_with_resume.py"
        monkeypatch.setattr(sys, "argv", [str(script), "--epochs", "4", *map(str, options)])
        threads = torch.get_num_threads()
        with preserve_rng():
            runpy.run_path(str(script), run_name="__main__")
        torch.set_num_threads(threads)
        return capsys.readouterr().out

    whole = run_here("--folder", tmp_path / "whole")
    stopped = run_here("--folder", tmp_path / "resumed", "--stop-after", 60)
    resumed = run_here("--folder", tmp_path / "resumed")
    curve = (3e-3 * warmup(epochs(1)).then(cosine())).resolve(total_steps=92, steps_per_epoch=23)
    assert printed_lrs(whole) == [f"{curve(step):.8f}" for step in (22, 45, 68, 91)]
    assert stopped.splitlines() == [*whole.splitlines()[:2], "stopped at step 60, in epoch 3"]
    assert "at step 46" in resumed
    assert resumed.splitlines()[1:] == whole.splitlines()[2:]
    weights = [
        torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True)["model"]["0.weight"]
        for folder in ("whole", "resumed")
    ]
    assert torch.equal(*weights)
    assert number_after("accuracy", whole) > 0.85
    assert [path.name for path in (tmp_path / "whole").iterdir()] == ["checkpoint.pt"]


@pytest.mark.slow
def test_nanogpt_learns_under_a_wsd_schedule() -> None:
    output = run("nanogpt_wsd.py", "--steps", 60, "--eval-every", 20)
    curve = (5e-3 * wsd(percent(10), cooldown=percent(20))).resolve(total_steps=60)
    assert printed_lrs(output) == [f"{curve(step):.6f}" for step in (0, 20, 40, 60)]
    losses = [float(loss) for loss in re.findall(r"val loss (\S+)", output)]
    assert losses[0] > 4
    assert losses == sorted(losses, reverse=True)
    assert number_after("final validation loss", output) == losses[-1] < 3


@pytest.mark.slow
def test_fine_tuning_trains_each_layer_with_its_lr() -> None:
    output = run("layerwise_fine_tuning.py", "--steps", 100)
    pretraining, fine_tuning = output.split("fine-tuning", 1)
    curve = warmup(percent(10)).then(cosine()).resolve(total_steps=100)
    factors = [curve(step) for step in (19, 39, 59, 79, 99)]
    assert printed_lrs(pretraining) == [f"{3e-3 * factor:.6f}" for factor in factors]
    lowest_lr = 1e-3 * 0.7**4
    assert printed_lrs(fine_tuning) == [f"{lowest_lr * factor:.6f}" for factor in factors]
    for row in (
        r"embed  +1 +4,096 +0.0002401 .* 0.05 ",
        r"blocks.2, no decay +3 +192 +0.0007 .* 0 ",
        r"head  +1 +320 +0.01 .* 0.05 ",
    ):
        assert re.search(row, fine_tuning), row
    assert number_after("final accuracy", output) > 0.85


@pytest.mark.slow
@pytest.mark.peers
def test_lightning_resumes_with_the_lrs_of_an_uninterrupted_run(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    whole = run("lightning_digits.py", "--epochs", 4)
    stopped = run("lightning_digits.py", "--epochs", 4, "--folder", tmp_path, "--stop-after", 2)
    resumed = run("lightning_digits.py", "--epochs", 4, "--folder", tmp_path)
    assert len(lines(stopped, "epoch")) == len(lines(resumed, "epoch")) == 2
    assert printed_lrs(stopped + resumed) == printed_lrs(whole)
    curve = (3e-3 * warmup(epochs(1)).then(cosine())).resolve(total_steps=92, steps_per_epoch=23)
    assert printed_lrs(whole) == [f"{curve(step):.8f}" for step in (23, 46, 69, 92)]
    assert number_after("accuracy", whole) > 0.85


@pytest.mark.slow
@pytest.mark.peers
def test_hugging_face_trainer_resumes_with_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    whole = run("hugging_face_trainer.py", "--steps", 40, "--folder", tmp_path)
    shutil.rmtree(tmp_path / "checkpoint-40")
    resumed = run("hugging_face_trainer.py", "--steps", 40, "--folder", tmp_path)
    curve = (3e-3 * wsd(percent(10), cooldown=percent(20))).resolve(total_steps=40)
    assert printed_lrs(whole) == [f"{curve(step):.8f}" for step in (9, 19, 29, 39)]
    assert resumed.splitlines()[1:] == whole.splitlines()[2:]
    assert number_after("final validation loss", whole) < 3.5


@pytest.mark.slow
@pytest.mark.peers
def test_compare_on_ray_gives_the_numbers_of_local_processes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    options = ("--steps", 46, "--seeds", 2, "--lrs", 0.03)
    on_ray = run("compare_on_ray.py", *options, "--folder", tmp_path)
    assert on_ray.startswith("running the trials on Ray\n")
    assert "6/6 " in on_ray
    assert (tmp_path / "runs.db").exists()
    without_ray = run_without_ray(tmp_path, *options)
    assert without_ray.startswith("Ray is not installed")
    results = [output.splitlines()[-4:] for output in (on_ray, without_ray)]
    assert results[0] == results[1]
    assert "lowest validation loss" in results[0][-1]


def run_without_ray(folder: Path, *options: object) -> str:
    """Run the script in a process in which Ray is not installed."""
    hide = "import importlib.util as u, runpy, sys; find = u.find_spec; "
    hide += "u.find_spec = lambda name, *rest: None if name == 'ray' else find(name, *rest); "
    hide += "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", hide, EXAMPLES / "compare_on_ray.py", *map(str, options)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.peers
def test_notebook_runs_and_shows_its_results(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "schedules.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": tmp_path}}
    ).execute()
    outputs = {cell.id: cell.get("outputs", []) for cell in notebook.cells}
    for name, mime in {
        "schedule": "image/svg+xml",
        "curve": "image/svg+xml",
        "plot": "image/png",
        "data": "text/html",
        "log": "image/png",
        "runs": "text/html",
    }.items():
        assert any(mime in output.get("data", {}) for output in outputs[name]), name
    text = "".join(output.get("text", "") for cell in outputs.values() for output in cell)
    assert len(lines(text, "epoch")) == 5
    assert number_after("accuracy", text) > 0.9
    assert "lowest validation loss" in text
    assert list(tmp_path.iterdir()) == []


def test_every_example_is_in_the_readme_and_has_a_test() -> None:
    readme, tests = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    files = [path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")]
    assert len(files) == 7
    for path in files:
        assert f"[{path.name}]({path.name})" in readme
        assert f'"{path.name}"' in tests


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_docstring_shows_the_command(script: Path) -> None:
    docstring = script.read_text().split('"""')[1]
    assert f"\n    python examples/{script.name}\n" in docstring
    assert "It needs ratecraft" in docstring
