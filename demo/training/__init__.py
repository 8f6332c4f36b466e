"""Data and training of the demo checkpoints. `demo/train.py` runs it."""
