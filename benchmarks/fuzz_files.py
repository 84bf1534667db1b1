"""Fuzz the readers of files: damaged files in, a value or an error of ratecraft out.

    python benchmarks/fuzz_files.py [results] [logs] [stores] [seed]

By default 7,000 results and layer statistics, 1,500 logs and 150 stores, each with a few random
edits of its bytes, its JSON values or its rows. What can be read is also drawn: as a report, in
the terminal and in a notebook. Prints how many ended how, and the slowest one; exits 1 on any
other exception, on a file that took longer than 20 seconds, and on a change to an SQLite file of
another program.
"""

import json
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ratecraft import constant, cosine
from ratecraft.errors import RatecraftError
from ratecraft.experiments import merge, read_comparison
from ratecraft.experiments._store import Store
from ratecraft.experiments._trials import Trial
from ratecraft.forecasting import forecast, read_logs
from ratecraft.report import terminal_chart, write_report
from ratecraft.results import (
    Comparison,
    Evaluation,
    Forecast,
    ForecastEntry,
    LayerStats,
    LRFinderResult,
    LRRangeTestResult,
    Run,
    RunConfig,
    ShortRun,
    load,
    load_layer_stats,
)

MAX_SECONDS = 20.0  # for a file; more is a hang
ODD_VALUES = [
    *(None, True, False, 0, 1, -1, 0.5, -0.5, 1e308, 2**31, 10**9, 2 * 10**7, 10**400),
    *("", "x", "0", "nan", "inf", "-inf", "1e400", "<script>", "\ud800", "\0", "é" * 300),
    *([], {}, [[]], [0], {"a": 1}, {"loss": "x"}, [None], ["x"] * 3, float("nan"), float("inf")),
    *("cosine(1, 0)", "constant(", "constant(1).repeat(1000000)", "warmup(1e300)"),
]
ODD_TEXTS = [
    *("[" * 50_000, "{" * 10, '"', "\n", "\0", ",", "1e400", "9" * 5000, "NaN", "-", "null"),
    *("\ufeff", "99999999", "\r", ";", "\t", "é", "\u2028", '{"a":' * 30_000),
]
SCHEDULES = {"flat": "constant(1)", "wave": "cosine(1, 0)"}


def example_run(schedule: str = "cosine(1, 0)", seed: int = 0, lr: float = 0.1) -> Run:
    losses = tuple(2 / (k + 1) + 0.1 * seed for k in range(20))
    evaluations = tuple(
        Evaluation(k, {"loss": losses[k - 1], "accuracy": k / 20}, {"loss": 0.5}, {"0": 0.1})
        for k in range(2, 21, 2)
    )
    return Run(schedule, lr, seed, 20, 5, losses, evaluations, None, 1.5, "adamw")


def example_results() -> list[Any]:
    runs = tuple(example_run(text, seed) for text in SCHEDULES.values() for seed in (0, 1, 2))
    runs += (replace(example_run("wsd(2)"), diverged=7, losses=(2.0, float("inf"))),)
    schedules = SCHEDULES | {"wsd": "wsd(2)"}
    configs = dict.fromkeys(schedules, RunConfig(0.1, "adamw", 20))
    lrs = (0.001, 0.01, 0.1)
    entry = ForecastEntry("wave", "0.1 * cosine(1, 0)", 2.0, 1.9, 2.1, (10, 20), (2.5, 2.0), ("n",))
    flat = replace(entry, name="flat", schedule="0.1 * constant(1)", loss=2.2)
    logs = {"run": ((10, 20), (2.4, 2.1))}
    return [
        Comparison("task", schedules, runs, {"python": "3"}, configs, {"flat, seed 9": "trace"}),
        LRFinderResult(
            0.1, 0.05, 0.2, "why", 2.0,
            tuple(ShortRun(lr, (2.0, 1.5), 0.5, 0.1) for lr in lrs), 2, 100, 50, 6, 3, 9, "t", "o",
        ),
        LRRangeTestResult(lrs, (2.0, 1.0, 9.0), (2.0, 1.5, 4.0), "stopped", 0.01, "why"),
        Forecast((entry, flat), (("wave", "flat"),), 20, 5.0, 0.1, logs, {"floor": 1.0}, 0.01),
    ]  # fmt: skip


def layer_stats_text() -> str:
    names = list(LayerStats.__annotations__)
    rows = [[str(step), "0", "layer", *["0.25"] * (len(names) - 3)] for step in range(4)]
    return "\n".join(map(",".join, [names, *rows])) + "\n"


def log_texts() -> dict[str, str]:
    rows = [{"step": k, "lr": 0.1 - k / 3e3, "loss": 2 + 3 / k} for k in range(10, 210, 10)]
    text = "\n".join(",".join(map(str, row.values())) for row in rows)
    return {
        "a.csv": f"step,lr,loss\n{text}\n",
        "b.json": json.dumps(rows),
        "c.jsonl": "\n".join(map(json.dumps, rows)),
        "trainer_state.json": json.dumps({"log_history": rows}),
        "d.json": json.dumps({name: [row[name] for row in rows] for name in rows[0]}),
        "history.json": json.dumps({"run": {"history": {"train": rows, "val": rows}}}),
        "e.log": "".join(f"step {r['step']}: loss {r['loss']}, lr {r['lr']}\n" for r in rows),
        "f.out": "".join(f"{row}\n" for row in rows),
    }


def edited_value(data: Any, rng: random.Random) -> Any:
    """Return JSON data with one value, at any depth, replaced, removed or repeated."""
    if type(data) in (int, float) and abs(data) < 1e300 and rng.random() < 0.7:
        # Often still a good value.
        return rng.choice([0, 1, 7, -data, data * 10, data / 7, data + 1, "nan", "inf"])
    if not isinstance(data, dict | list) or not data or rng.random() < 0.05:
        return rng.choice(ODD_VALUES)
    keys = list(data) if isinstance(data, dict) else range(len(data))
    key, edit = rng.choice(keys), rng.random()
    copy: Any = data.copy()
    if edit < 0.05:
        del copy[key]
    elif edit < 0.1 and isinstance(copy, list):
        copy.append(copy[key])
    elif edit < 0.1:
        copy[f"{key}x"] = copy[key]
    else:
        copy[key] = edited_value(copy[key], rng)
    return copy


def edited_text(text: str, rng: random.Random) -> str:
    position = rng.randrange(len(text) + 1)
    end = position + rng.choice([0, 0, 1, 1, 5, 50, len(text)])
    return text[:position] + rng.choice(["", *ODD_TEXTS]) + text[end:]


def edited_file(text: str, rng: random.Random) -> bytes:
    """Return a file with a few edits of its JSON values, its text or its bytes."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if rng.random() < 0.7:
            with suppress(ValueError, RecursionError):  # CSV, or an edit before
                text = json.dumps(edited_value(json.loads(text), rng))
                continue
        text = edited_text(text, rng)
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if data and rng.random() < 0.1:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def use_result(path: Path) -> None:
    page = path.with_suffix(".html")
    if path.suffix == ".csv":
        comparison = Comparison("t", SCHEDULES, ())
        write_report(page, comparison=comparison, layer_stats=load_layer_stats(path), title="t")
        return
    result = load(path)
    repr(result), result.verdict(), result._repr_html_()
    terminal_chart(result.chart(), color=False)
    if isinstance(result, Comparison):
        write_report(page, comparison=result, title="t")
    elif isinstance(result, Forecast):
        write_report(page, forecast=result, title="t")
    else:
        comparison = Comparison("t", SCHEDULES, (example_run(),))
        write_report(page, comparison=comparison, lr_search=result, title="t")
    assert "<script>" not in page.read_text().partition("<main>")[2].partition("</main>")[0]


def use_log(path: Path, rng: random.Random) -> None:
    schedule = rng.choice([None, None, 0.1 * constant(1), 0.1 * cosine(1, 0)])
    total_steps = rng.choice([None, 200])
    logs = read_logs(path, schedule=schedule, total_steps=total_steps)
    if rng.random() < 0.1:  # a fit takes most of a second
        forecast(logs, [cosine(1, 0)], 200)


def damage_store(path: Path, rng: random.Random) -> bool:
    """Damage a store in one way; return whether it is now a file of another program."""
    way = rng.random()
    if way < 0.6:
        column = rng.choice(["trial", "run", "losses", "key"])
        with sqlite3.connect(path) as db:
            query = f"SELECT rowid, {column} FROM trials ORDER BY RANDOM() LIMIT 1"  # noqa: S608
            row, cell = db.execute(query).fetchone()
            value: Any = rng.choice([b"", b"\xff", 0, 1.5, "", "{}", "[]", "[" * 50_000, "1e400"])
            if isinstance(cell, str) and rng.random() < 0.6:
                value = edited_file(cell, rng).decode(errors="replace")
            elif isinstance(cell, bytes) and rng.random() < 0.6:
                value = cell[: rng.randrange(len(cell))] + rng.randbytes(rng.randrange(3))
            db.execute(f"UPDATE trials SET {column} = ? WHERE rowid = ?", (value, row))  # noqa: S608
        db.close()
    elif way < 0.9:
        data = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 10, 1000])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
    else:
        path.unlink()
        db = sqlite3.connect(path)
        db.execute(rng.choice(["PRAGMA journal_mode=WAL", "PRAGMA user_version=7"]))
        db.execute("CREATE TABLE notes (text)")
        db.commit()
        db.close()
        return True
    return False


def use_store(path: Path, is_foreign: bool) -> None:
    before = path.read_bytes()
    try:
        with Store(path) as store:
            store.runs([store_trial(seed) for seed in range(3)])
        comparison = read_comparison(path)
        comparison.verdict()
        merge(path.with_name("merged.db"), path)
    finally:
        if is_foreign:
            assert path.read_bytes() == before
            assert [file.name for file in path.parent.iterdir()] == [path.name]


def store_trial(seed: int) -> Trial:
    return Trial("digits", "hash", "cosine(1, 0)", 0.1, "adamw", seed, "20")


def subclasses(error: type[Exception]) -> list[type[Exception]]:
    return [error, *(one for below in error.__subclasses__() for one in subclasses(below))]


class TooSlow(BaseException):
    """Raised by the alarm."""


def stop(*_: Any) -> None:
    raise TooSlow


def ending(function: Callable[[], None]) -> tuple[str, float]:
    """Return how a call ended, and its seconds."""
    started = time.perf_counter()
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        function()
        end = "read"
    except RatecraftError as error:
        end = type(error).__name__
    except BaseException as error:
        end = f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return end, time.perf_counter() - started


def fuzz_results(count: int, seed: int) -> Counter[str]:
    """Return how many damaged results ended how, in the order of their number."""
    rng, ends = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        texts = [("r.csv", layer_stats_text())]
        texts += [("r.json", r.save(path / "r.json").read_text()) for r in example_results()]
        for _ in range(count):
            name, text = rng.choice(texts)
            (path / name).write_bytes(edited_file(text, rng))
            record(ends, lambda name=name: use_result(path / name), (path / name).read_bytes())
    return ends


def fuzz_logs(count: int, seed: int) -> Counter[str]:
    """Return how many damaged logs ended how."""
    rng, ends = random.Random(seed), Counter[str]()
    texts = list(log_texts().items())
    with tempfile.TemporaryDirectory() as folder:
        texts += [("e.json", example_results()[0].save(f"{folder}/e.json").read_text())]
        for _ in range(count):
            name, text = rng.choice(texts)
            path = Path(folder, name)
            path.write_bytes(edited_file(text, rng))
            record(ends, lambda path=path: use_log(path, rng), path.read_bytes())
    return ends


def fuzz_stores(count: int, seed: int) -> Counter[str]:
    """Return how many damaged stores, and SQLite files of other programs, ended how."""
    rng, ends = random.Random(seed), Counter[str]()
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "runs.db")
            with Store(path) as store:
                for seed_of_run in range(3):
                    store.save(store_trial(seed_of_run), example_run(seed=seed_of_run))
            Path(f"{path}.lock").unlink()
            is_foreign = damage_store(path, rng)
            record(ends, lambda p=path, f=is_foreign: use_store(p, f), path.read_bytes())
    return ends


def record(ends: Counter[str], function: Callable[[], None], data: bytes) -> None:
    end, seconds = ending(function)
    ends[end] += 1
    SLOWEST[0] = max(SLOWEST[0], seconds)
    if end not in GOOD_ENDS:
        print(f"{end}: {data[:2000]!r}", file=sys.stderr)


SLOWEST = [0.0]  # seconds
GOOD_ENDS = {"read", *(error.__name__ for error in subclasses(RatecraftError))}


def main() -> None:
    counts = [7000, 1500, 150, 0]
    counts[: len(sys.argv) - 1] = map(int, sys.argv[1:])
    *sizes, seed = counts
    bad = 0
    for function, count in zip((fuzz_results, fuzz_logs, fuzz_stores), sizes, strict=True):
        SLOWEST[0] = 0.0
        ends = function(count, seed)
        bad += sum(number for end, number in ends.items() if end not in GOOD_ENDS)
        name = function.__name__.removeprefix("fuzz_")
        print(f"{count:,} {name}: {dict(ends.most_common())}; slowest {SLOWEST[0]:.2f} s")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
