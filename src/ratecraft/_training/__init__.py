"""Code that short runs and trials share.

_snapshot.py      capture and restore a model, optimizer, loader and random state, bit for bit
_short_runner.py  run training steps and evaluations, then restore the initial state
"""
