"""CPU time of imports and of the first output: whole processes, in one interleaved run.

    python benchmarks/import_cost.py

Prints the median and the smallest CPU time of each, with the start of Python, and the median of
the ratios to the line that it is compared with. The first round, which compiles, does not count.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 15
CODE = {
    "python": "pass",
    "cosine": "from ratecraft import cosine; cosine().resolve(total_steps=10)(3)",
    "dataclasses": "import dataclasses, typing",
    "help": "import sys; sys.argv[1:] = ['--help']; from ratecraft.cli import main; main()",
    "cyclopts": "import cyclopts",
    "torch": "import torch",
    "ratecraft.torch": "import ratecraft.torch",
}
PEERS = {"cosine": "dataclasses", "help": "cyclopts", "ratecraft.torch": "torch"}


def cpu_seconds(code: str, environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", code]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        # Users have compiled files, whatever this environment says.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        rounds = [
            {name: cpu_seconds(code, environment) for name, code in CODE.items()}
            for _ in range(1 + ROUNDS)
        ][1:]
    print(f"{'':16} {'median':>8} {'smallest':>8}")
    for name in CODE:
        times = [times[name] for times in rounds]
        line = f"{name:16} {statistics.median(times):6.3f} s {min(times):6.3f} s"
        if name in PEERS:
            peer = PEERS[name]
            ratio = statistics.median(times[name] / times[peer] for times in rounds)
            line += f"   {ratio:.2f} times {peer}"
        print(line)


if __name__ == "__main__":
    main()
