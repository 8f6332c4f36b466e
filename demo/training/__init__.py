"""What the demo checkpoints were trained on and how; `demo/train.py` is the entry."""
