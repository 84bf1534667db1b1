"""USE: a schedule driving a torch optimizer.

scheduler.py   ScheduleLR: a torch LRScheduler that reads a curve at the update count
"""

from ratecraft.torch.scheduler import ScheduleLR

__all__ = ["ScheduleLR"]
