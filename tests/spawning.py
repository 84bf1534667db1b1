"""Run a function in several processes of a gloo group, with a time limit."""

import json
import os
import time
from functools import partial

import torch
from torch import distributed
from torch.multiprocessing import start_processes

TIMEOUT_SECONDS = 120  # the tests need about 10


def run_in_processes(function, folder, count=2, seconds=TIMEOUT_SECONDS):
    """Run ``function(rank)`` in ``count`` processes; return the results, which must be JSON."""
    run = partial(_run, function=function, folder=folder, count=count)
    processes = start_processes(run, nprocs=count, join=False, start_method="spawn")
    end = time.monotonic() + seconds
    try:
        while not processes.join(timeout=1):  # raises the error of a process
            if time.monotonic() > end:
                raise TimeoutError(f"{count} processes did not end within {seconds} s")
    finally:
        for process in processes.processes:
            process.kill()
            process.join()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def _run(rank, function, folder, count):
    torch.set_num_threads(1)
    # Accelerate reads these and MASTER_ADDR, although it joins the existing group.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    # The rendezvous is a file, because another test could use the same port.
    distributed.init_process_group(
        "gloo", f"file://{folder / 'rendezvous'}", rank=rank, world_size=count
    )
    try:
        result = function(rank)
        (folder / f"{rank}.json").write_text(json.dumps(result))
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
