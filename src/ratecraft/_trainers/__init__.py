"""Facts about a run, read from its trainer; no trainer package is imported.

A file for each trainer: ``is_*`` recognizes it by its attributes, ``read_*`` returns its facts.

_facts.py         TrainerFacts, SteppedScheduler: what is read
_lightning.py     a Lightning Trainer
_hugging_face.py  a Hugging Face Trainer
_accelerate.py    an Accelerator, and a scheduler that it prepared
"""
