"""From the probabilities of one camera to an alert: smoothed, compared, and then quiet for a while."""

import numpy as np

# Scores of 50 ms in the moving average: 0.3 s have to sound like crying.
SMOOTHED = 6
COOLDOWN_S = 60.0


class Crying:
    def __init__(self, threshold):
        self.threshold = threshold
        self.recent = np.zeros(SMOOTHED - 1, np.float32)
        self.quiet_until = 0.0

    def begins(self, probabilities, now):
        """Whether an alert is due after these probabilities, the newest of which belongs to the time `now`."""
        scores = np.concatenate([self.recent, probabilities])
        self.recent = scores[len(scores) - SMOOTHED + 1:]
        averages = np.convolve(scores, np.full(SMOOTHED, 1.0 / SMOOTHED), "valid")
        if now < self.quiet_until or not len(averages) or averages.max() < self.threshold:
            return False
        self.quiet_until = now + COOLDOWN_S
        return True
