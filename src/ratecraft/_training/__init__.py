"""What short runs and trials share.

_snapshot.py      restore model, optimizer, loader and random numbers, bit for bit
_short_runner.py  training steps from one starting point, as often as a test needs them
"""
