"""Code that short runs and trials share.

_state.py         capture tensors, containers and plain objects, and restore them in place
_snapshot.py      capture and restore a model, optimizer, loader and random state, bit for bit
_processes.py     settings, errors and mean losses of the processes of a distributed search
_steps.py         gradients of accumulated batches, clipping, GradScaler, optimizer step
_short_runner.py  run training steps and evaluations, then restore the initial state
"""
