"""The commands on terminals of any size and encoding, into pipes, and with foreign text."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from ratecraft.results import load

SHOW = ("show", "warmup(10).then(cosine(1, 0))", "wsd(10)", "--total-steps", "100")
HOSTILE = "\x1b]0;PWNED\x07\x1b[31mred\x9b31m\u202e"
SHOWN = r"\x1b]0;PWNED\x07\x1b[31mred\x9b31m\u202e"
SETUPS = f"""
import argparse
import sys
import torch


def main():
    print("building")
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    lr = parser.parse_args().lr
    assert sys.argv == ["setups.py"], sys.argv
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)


def task():
    print("building")
    assert argparse.ArgumentParser().parse_args() is not None
    from my_task import make
    return make()


def hostile():
    raise ValueError({HOSTILE!r})
"""


def start(folder: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    environment = {"COLUMNS": "100"} | options.pop("environment", {})  # type: ignore[operator]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "ratecraft", *arguments],
        cwd=folder,
        env={name: value for name, value in (os.environ | environment).items() if value},
        encoding="utf-8",
        errors="replace",
        **streams,
    )


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    with start(folder, *arguments, environment=environment) as process:
        output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def plot_size(text: str) -> tuple[int, int]:
    """Return the width of a plot and the height of its area."""
    rows = [line for line in text.splitlines() if re.search("[┤│]", line)]
    ruler = next(line for line in text.splitlines() if "└" in line)
    return len(ruler), len(rows)


@pytest.fixture(scope="module")
def setups(folder: Path) -> Path:
    """A folder with setups.py, my_task.py and comparison.json."""
    (folder / "setups.py").write_text(SETUPS)
    short = ("--lr", "0.1", "--total-steps", "8", "--save", "comparison.json")
    done = run(folder, "train", "my_task.py:task", "constant(1)", *short)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("columns", "lines", "size"),
    [
        (120, 40, (120, 30)),
        (60, 24, (60, 16)),
        (500, 500, (160, 30)),  # a longer plot has more columns than details
        (10, 5, (40, 8)),
    ],
)
def test_a_plot_has_the_size_of_the_terminal(
    tmp_path: Path, columns: int, lines: int, size: tuple[int, int]
) -> None:
    done = run(tmp_path, *SHOW, COLUMNS=str(columns), LINES=str(lines))
    assert plot_size(done.stdout) == size


def test_a_plot_in_a_pipe_fits_80_columns_and_24_lines(tmp_path: Path) -> None:
    done = run(tmp_path, *SHOW, COLUMNS="", LINES="")
    assert plot_size(done.stdout) == (80, 16)


FIND = ("find", "my_task.py:task", "-n", "50", "--json")


@pytest.mark.parametrize(("arguments", "stream"), [(SHOW, "stdout"), (FIND, "stderr")])
def test_a_plot_fills_a_real_terminal(
    setups: Path, arguments: tuple[str, ...], stream: str
) -> None:
    driver, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    environment = {"COLUMNS": "", "LINES": "", "NO_COLOR": "1", "TERM": "xterm"}
    with start(setups, *arguments, environment=environment, **{stream: terminal}):
        os.close(terminal)
        output = b""
        try:
            while part := os.read(driver, 65536):
                output += part
        except OSError:  # Linux reports the end so
            pass
    os.close(driver)
    assert plot_size(output.decode()) == (100, 22)


ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "arguments",
    [SHOW, ("compare", "--help"), ("report", "comparison.json"), ("check", "cosine(µ)")],
    ids=["plot", "help", "table", "error"],
)
def test_output_is_ascii_where_the_encoding_has_no_more(
    setups: Path, encoding: str, arguments: tuple[str, ...]
) -> None:
    done = run(setups, *arguments, **ENCODINGS[encoding])
    assert done.returncode == (2 if "check" in arguments else 0), done.stderr
    # ± and µ are in latin-1 and cp1252; the replacement character stands for such a byte here.
    text = re.sub("[\ufffd]", "", done.stdout + done.stderr)
    assert text.isascii()
    assert "Traceback" not in text
    assert "??" not in text
    if arguments[0] != "check":
        assert not re.search(r"\\u[0-9a-f]{4}", text)
    if arguments == SHOW:
        assert "0 +----" not in text
        assert re.search(r"\n0\.8 \+ .*\n    \| ", text)
        assert "o warmup(10).then(cosine(1, 0))   ^ wsd(10)" in text
    if arguments[0] == "report":
        assert re.search(r"^\+-+(\+|-)", text, re.M)
        assert encoding in ("latin-1", "cp1252") or "+/- sd" in text


COMPARE_OPTIONS = ("--lr=1", "-n", "8", "--json", "--workers=0")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        SHOW,
        ("show", "cosine("),
        (*SHOW, "--json"),
        *(
            pytest.param(arguments, marks=pytest.mark.slow)
            for arguments in (
                ("report", "comparison.json"),
                ("train", "my_task.py:task", "constant(1)", "--lr", "0.1", "-n", "8"),
                ("train", "my_task.py:talks", "constant(1)", "--lr", "0.1", "-n", "8"),
                ("compare", "my_task.py:task", "constant(1)", *COMPARE_OPTIONS),
            )
        ),
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_a_reader_that_goes_away_ends_the_command_silently(
    setups: Path, arguments: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with start(setups, *arguments, stdout=writer) as process:
        os.close(writer)
        _, errors = process.communicate(timeout=120)
    wrong = "cosine(" in arguments
    progress = "training: " if "compare" in arguments else ""
    assert process.returncode == (2 if wrong else 141)
    assert wrong or errors == progress or not errors
    reader, writer = os.pipe()
    os.close(reader)
    with start(setups, *arguments, stdout=writer, stderr=writer) as process:  # 2>&1 | true
        os.close(writer)
    assert process.returncode == 141


def test_a_full_disk_gives_one_message(tmp_path: Path) -> None:
    with (
        open("/dev/full", "w") as full,
        start(tmp_path, *SHOW, stdout=full) as process,
    ):
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("error: OSError: [Errno 28] No space left on device")
    assert "Exception ignored" not in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "module",
    ["ratecraft.cli", "rich.console", "ratecraft.schedule._parser", "cyclopts", "ratecraft.report"],
)
def test_ctrl_c_during_the_imports_gives_no_traceback(tmp_path: Path, module: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "ratecraft", *SHOW]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores Ctrl-C, and so would its child processes.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        assert process.stderr is not None
        # Python writes a line when it has imported a module: no need to guess how long that takes.
        for line in process.stderr:
            if line.endswith(f" {module}\n"):
                process.send_signal(signal.SIGINT)
                break
        errors = process.stderr.read()
    assert process.returncode in (130, -signal.SIGINT)  # 130 in a shell
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


def hostile_files(folder: Path) -> None:
    (folder / "log.csv").write_text(f"step,{HOSTILE}\n1,2\n")
    text = (folder / "comparison.json").read_text()
    name = json.dumps(HOSTILE)[1:-1]
    (folder / "hostile.json").write_text(text.replace("constant(1)", name, 1))


@pytest.mark.parametrize(
    "arguments",
    [
        ("forecast", "log.csv", "--total-steps", "9"),
        ("forecast", "log.csv", "--loss", HOSTILE[1:]),
        ("doctor", "setups.py:hostile"),
        ("find", "setups.py:hostile"),
        ("report", f"{HOSTILE}.json"),
        ("show", HOSTILE),
        ("show", "cosine(1, 0)", "-n", "9", "-o", f"{HOSTILE}.gif"),
        (HOSTILE,),
    ],
    ids=["log", "column", "doctor", "task", "file", "schedule", "output", "command"],
)
def test_escape_codes_in_messages_are_shown(setups: Path, arguments: tuple[str, ...]) -> None:
    hostile_files(setups)
    done = run(setups, *arguments, FORCE_COLOR="1", NO_COLOR="")
    assert done.returncode in (1, 2)
    text = done.stdout + done.stderr
    styles = re.sub(r"\x1b\[[0-9;]*m", "", text.replace("\x1b[31mred", "SENT"))
    assert styles.replace("\n", "").replace("\t", "").isprintable()
    assert r"\x1b[31mred\x9b31m\u202e" in text
    assert "SENT" not in styles


def test_escape_codes_in_results_are_shown(setups: Path) -> None:
    hostile_files(setups)
    assert HOSTILE in "".join(load(setups / "hostile.json").schedules)
    done = run(setups, "report", "hostile.json", COLUMNS="150")
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace("\n", "").isprintable()
    assert SHOWN in done.stdout
    table = [line for line in done.stdout.splitlines() if line.startswith(("│", "├", "┃", "┏"))]
    assert len(set(map(len, table))) == 1  # the columns stand below each other


def test_escape_codes_in_the_progress_are_shown(setups: Path) -> None:
    (setups / "names.toml").write_text(
        'task = "my_task.py:task"\nlrs = 0.1\nseeds = 1\ntotal_steps = 8\nworkers = 0\n'
        f"[schedules]\n{json.dumps(HOSTILE)} = 'constant(1)'\n"
    )
    done = run(setups, "compare", "names.toml", COLUMNS="150")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).replace("\n", "").isprintable()
    assert SHOWN in done.stderr
    assert SHOWN in done.stdout


def document(done: subprocess.CompletedProcess[str]) -> object:
    """Return the one JSON document on standard output."""
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout, parse_constant=pytest.fail)


def test_show_prints_json(tmp_path: Path) -> None:
    done = run(tmp_path, "show", "linear(1, 0)", "wsd(1)", "-n", "5", "--json", "-o", "s.svg")
    assert done.stderr == "figure: s.svg\n"
    first, second = document(done)
    assert first == {
        "schedule": "linear(1, 0)",
        "unit": "step",
        "length": 5,
        "positions": [0, 1, 2, 3, 4],
        "lrs": [1.0, 0.8, 0.6, 0.4, 0.2],
    }
    assert second["schedule"] == "wsd(1)"
    (long,) = document(run(tmp_path, "show", "cosine(1, 0)", "-n", "123456", "--json"))
    assert (len(long["lrs"]), long["positions"][-1]) == (1000, 123455)
    (tokens,) = document(run(tmp_path, "show", "linear(1, 0)", "-n", "tokens(3e9)", "--json"))
    assert (tokens["unit"], tokens["length"], tokens["lrs"][-1]) == ("token", 3e9, 0.0)


def test_check_and_doctor_print_json_and_still_fail_on_errors(setups: Path) -> None:
    done = run(setups, "check", "cosine(1, 0.1)", "warmup(9).over(4)", "-n", "100", "--json")
    good, bad = document(done)
    assert good == {"schedule": "cosine(1, 0.1)", "findings": []}
    assert {finding["level"] for finding in bad["findings"]} >= {"note"}
    done = run(setups, "doctor", "setups.py:main", "--total-steps", "300", "--json")
    content = document(done)
    assert content["setup"] == "setups.py:main"
    (finding,) = content["findings"]
    assert finding["level"] == "error"
    assert finding["message"].startswith("CosineAnnealingLR ends after 100 of the run's 300 steps")
    assert done.returncode == 1
    assert done.stderr == "building\nerror: 1 of the findings is an error\n"


def test_info_prints_json(tmp_path: Path) -> None:
    content = document(run(tmp_path, "info", "--json"))
    assert content["versions"]["python"] == sys.version.split()[0]
    assert content["devices"][0].startswith("cpu")


@pytest.mark.parametrize("options", [(), ("--range-test",)], ids=["find", "range test"])
def test_find_prints_json_without_the_output_of_the_task(
    setups: Path, options: tuple[str, ...]
) -> None:
    done = run(setups, "find", "setups.py:task", *options, "--json", "--save", "found.json")
    assert done.returncode == 0, done.stderr
    content = document(done)
    result = load(setups / "found.json")
    lr = result.suggestion if options else result.lr
    assert content["suggestion" if options else "lr"] == lr
    assert content["reason"] == result.reason
    assert done.stderr.startswith("building\n")
    assert result.reason in done.stderr


def test_errors_of_commands_with_json_leave_standard_output_empty(setups: Path) -> None:
    for arguments in (("show", "cosine("), ("find", "my_task.py:crash"), ("doctor", "x.py:f")):
        done = run(setups, *arguments, "--json")
        assert done.returncode in (1, 2)
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor", "setups.py:main", "--total-steps", "100"),
        pytest.param(
            ("train", "setups.py:task", "constant(1)", "--lr", "0.1", "-n", "8"),
            marks=pytest.mark.slow,
        ),
        ("compare", "setups.py:task", "constant(1)", "--lrs=0.1", "-n", "8", "--workers", "1"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_script_that_parses_its_arguments_does_not_see_those_of_the_command(
    setups: Path, arguments: tuple[str, ...]
) -> None:
    done = run(setups, *arguments)
    assert done.returncode == 0, done.stderr


def test_the_arguments_of_the_process_are_put_back(
    setups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ratecraft.cli._app import run as run_command

    monkeypatch.chdir(setups)
    monkeypatch.setattr(sys, "argv", ["program", "--option"])
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert run_command(["doctor", "setups.py:main", "--total-steps", "100"]) == 0
    finally:
        signal.signal(signal.SIGINT, handler)
    assert sys.argv == ["program", "--option"]
