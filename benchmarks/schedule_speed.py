"""Speed of reading a schedule, beside the bare formula, in one interleaved run.

    python benchmarks/schedule_speed.py

Prints the time of one reading and of a million, ours and the peer's, and their ratio: the median
over rounds in which the two take turns. Only the ratios mean anything on another machine.
"""

import math
import statistics
import timeit

import numpy as np

from ratecraft import cosine, warmup

TOTAL, WARM, PEAK, FLOOR = 1_000_000, 500, 3e-4, 0.1
CURVE = (PEAK * warmup(WARM).then(cosine(1, FLOOR))).resolve(total_steps=TOTAL)
ROUNDS = 25


def by_hand(k: int) -> float:
    if k < WARM:
        return PEAK * k / WARM
    if k >= TOTAL:
        return PEAK * FLOOR
    x = (k - WARM) / (TOTAL - WARM)
    return PEAK * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * x)))


def bare_numpy() -> np.ndarray:
    k = np.arange(TOTAL, dtype=np.float64)
    x = (k - WARM) / (TOTAL - WARM)
    fall = FLOOR + (1 - FLOOR) * 0.5 * (1 + np.cos(np.pi * x))
    return PEAK * np.where(k < WARM, k / WARM, fall)


def compare(
    title: str, ours: str, peer: str, number: int, unit: float, name: str, **of: object
) -> None:
    names = globals() | of
    times: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        pair = (timeit.timeit(code, globals=names, number=number) / number for code in (ours, peer))
        times.append((next(pair), next(pair)))
    mine, theirs = (statistics.median(t) / unit for t in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    print(f"{title:34} {mine:9.3f} {name}  {theirs:9.3f} {name}  {ratio:6.2f}")


def main() -> None:
    assert np.allclose(CURVE.values(), bare_numpy(), rtol=0, atol=1e-15)
    print(f"{'':34} {'ratecraft':>12}  {'peer':>12}  ratio")
    compare("a million steps: numpy formula", "CURVE.values()", "bare_numpy()", 1, 1e-3, "ms")
    for k in (100, 500_000):
        title = f"step {k:,}: Python function"
        compare(title, "CURVE(k)", "by_hand(k)", 20_000, 1e-6, "us", k=k)
    endless = warmup(WARM).then(cosine(1, FLOOR, over=1000)).repeat().resolve()
    far = {"endless": endless, "far": 10**9 + 700, "near": 700}
    compare("step 10^9: step 0's cycle", "endless(far)", "endless(near)", 20_000, 1e-6, "us", **far)


if __name__ == "__main__":
    main()
