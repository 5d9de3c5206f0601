"""Windows that wait in a queue, scored in batches by one thread that keeps what is remembered of each stream."""

import queue

import numpy as np

MAX_BATCH = 16


class Batches:
    def __init__(self, model, cameras):
        self.model = model
        self.states = model.fresh(cameras)
        # The window that had to wait because one of the same camera was before it.
        self.held = None

    def take(self, waiting):
        """Windows of different cameras: the next one, and those that wait as well."""
        batch = {}
        window = self.held or waiting.get()
        self.held = None
        while window.camera not in batch:
            batch[window.camera] = window
            if len(batch) == MAX_BATCH:
                return batch
            try:
                window = waiting.get_nowait()
            except queue.Empty:
                return batch
        self.held = window
        return batch

    def score_next(self, waiting):
        """Pairs of a window and its probabilities."""
        batch = self.take(waiting)
        for window in batch.values():
            if window.first:
                self.states[window.camera] = 0.0
        cameras = list(batch)
        states = self.states[cameras]
        samples = np.stack([np.frombuffer(window.pcm, np.int16) for window in batch.values()])
        scores = self.model.score(states, samples)
        self.states[cameras] = states
        return list(zip(batch.values(), scores))
