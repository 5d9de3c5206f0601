"""One process: an ffmpeg and a reading thread per camera, and one thread that runs the network on what they read.

The windows of all cameras wait in one bounded queue. The inference thread takes all that wait, at most one of each
camera and 16 together, and scores them as one batch; when the queue is full, the oldest window is dropped.
"""

import queue
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.cameras import windows  # noqa: E402
from common.model import Model  # noqa: E402
from common.service import Service  # noqa: E402

import numpy as np  # noqa: E402

MAX_BATCH = 16
WAITING_PER_CAMERA = 2


def infer(service, model, waiting):
    states = model.fresh(len(service.cameras))
    following = None
    while True:
        batch = {}
        window = following or waiting.get()
        following = None
        while True:
            if window.camera in batch:
                following = window
                break
            batch[window.camera] = window
            if len(batch) == MAX_BATCH:
                break
            try:
                window = waiting.get_nowait()
            except queue.Empty:
                break
        for window in batch.values():
            if window.first:
                states[window.camera] = 0.0
        cameras = list(batch)
        rows = states[cameras]
        samples = np.stack([np.frombuffer(window.pcm, np.int16) for window in batch.values()])
        scores = model.score(rows, samples)
        states[cameras] = rows
        for window, probabilities in zip(batch.values(), scores):
            service.scored(window.camera, window.received, probabilities)


def main():
    service = Service()
    model = Model(service.arguments.model)
    service.listen_for_crying(model.threshold)
    waiting = queue.Queue(WAITING_PER_CAMERA * len(service.cameras))

    def take(window):
        while True:
            try:
                return waiting.put_nowait(window)
            except queue.Full:
                pass
            try:
                waiting.get_nowait()
                service.dropped()
            except queue.Empty:
                pass

    cameras = windows(service.cameras, take)

    def start():
        threading.Thread(target=infer, args=[service, model, waiting], daemon=True).start()
        cameras.start()

    service.run(start, cameras.stop)


if __name__ == "__main__":
    main()
