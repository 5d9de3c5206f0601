"""What all rivals share: front end, network, cameras, decision, reports. Each main.py shows only its own design."""

import os

# One window keeps one core busy for a millisecond or two: threads inside NumPy's matrix product only cost.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
