"""What all rivals share: front end, network, cameras, decision, reports. Each main.py shows only its own design."""

import os

# One window keeps one core busy for a millisecond: threads inside NumPy's matrix product only cost.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Hz.
RATE = 16_000
# Samples of one score: two frames of 25 ms.
PIECE = 800
# Samples of one window: a second. (The NVR that pipes takes after has 0.975 s, which would be 39 frames; this network
# takes them in pairs.)
WINDOW = 20 * PIECE
