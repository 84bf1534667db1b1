"""Some processes that train together over gloo, for tests, with an end to waiting."""

import json
import os
import time
from functools import partial

import torch
from torch import distributed
from torch.multiprocessing import start_processes

ENOUGH = 120  # seconds; they need ten


def answers_of(work, folder, count=2, seconds=ENOUGH):
    """Run ``work(rank)`` in each of ``count`` processes; return their answers, which are JSON."""
    run = partial(_run, work=work, folder=folder, count=count)
    processes = start_processes(run, nprocs=count, join=False, start_method="spawn")
    end = time.monotonic() + seconds
    try:
        while not processes.join(timeout=1):  # which raises what one of them raised
            if time.monotonic() > end:
                raise TimeoutError(f"{count} processes did not end within {seconds} s")
    finally:
        for process in processes.processes:
            process.kill()
            process.join()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def _run(rank, work, folder, count):
    torch.set_num_threads(1)
    # Accelerate reads these, and MASTER_ADDR too, though it joins the group that is there.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    # They meet in a file, since another test could have taken a port.
    distributed.init_process_group(
        "gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=count
    )
    try:
        answer = work(rank)
        (folder / f"{rank}.json").write_text(json.dumps(answer))
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
