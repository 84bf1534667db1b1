"""Fuzz the parser: random texts in, a schedule or a ScheduleError out, and nothing else.

    python benchmarks/fuzz_parser.py [inputs] [seed]

Half the inputs are random tokens of the notation, two fifths are good texts with a few random
edits, the rest is random Unicode. Prints how many ended how, the slowest one, and the memory of
the whole process above what it had after importing ratecraft; exits 1 on any other exception.
"""

import random
import resource
import sys
import time
from collections import Counter

from ratecraft import ScheduleError, parse
from ratecraft.schedule._parser import VERBS, WORDS

TOKENS = [
    *WORDS,
    *(f".{verb}" for verb in VERBS),
    *"()[]{},,**+-=#\\@:>|/ \n\t\0é",
    *("1", "0", "0.5", "500", "1e-4", "1e400", "9" * 400, "1_000", "0x1f", "1j", "1if", "..."),
    *("over=", "start=", "at=", "every=", "shape=", "'linear'", '"1-sqrt"', "f''", "b''", "'\\x'"),
    *("lambda", "None", "True", "x", ">>", "//", "for", "in", "if", "custom(<a.b>)", "__import__"),
]
TEXTS = [
    "3e-4 * warmup(500).then(cosine(1, 0.1))",
    "staircase([1, 0.1], at=[30])",
    "linear(1, 0, over=4).repeat(3, grow=2, decay=0.5)",
    "(3 * warmup(4)).clip(high=2)",
    "warmup(epochs(1) + 100).then(constant(1)).then(cooldown(percent(30) - 1))",
    'wsd(500, percent(20), shape="linear") * decay(0.5, every=10).rescale(0.1, 1)',
    "staircase([0.1, 0.01], lengths=[epochs(1), epochs(2)]).reversed().over(percent(50))",
]


def random_text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        return "".join(rng.choice(TOKENS) for _ in range(rng.randint(1, 25)))
    if kind < 0.9:
        text = list(rng.choice(TEXTS))
        for _ in range(rng.randint(1, 4)):
            place, edit = rng.randrange(len(text) + 1), rng.random()
            if edit < 0.4:
                del text[place : place + 1]
            elif edit < 0.8:
                text.insert(place, rng.choice(TOKENS))
            else:
                text[place:place] = text[: rng.randint(0, 10)]
        return "".join(text)
    limits = 128, 0x3000, 0x110000
    return "".join(chr(rng.randrange(rng.choice(limits))) for _ in range(rng.randint(0, 40)))


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    ends: Counter[str] = Counter()
    slowest, before, bad = 0.0, memory(), 0
    for i in range(inputs):
        text = random_text(rng)
        started = time.perf_counter()
        try:
            schedule = parse(text)
            ends["read"] += 1
            assert parse(repr(schedule)) == schedule
        except ScheduleError:
            ends["ScheduleError"] += 1
        except BaseException as error:
            bad += 1
            ends[type(error).__name__] += 1
            print(f"{type(error).__name__}: {error}: {text!r}")
        slowest = max(slowest, time.perf_counter() - started)
        if i % 100_000 == 99_999:
            print(f"{i + 1:,} of {inputs:,}", file=sys.stderr)
    print(f"{inputs:,} inputs: {dict(ends)}")
    print(f"slowest {slowest * 1e3:.1f} ms; {memory() - before:.1f} MiB more than before")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
