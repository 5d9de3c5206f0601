"""One process: an ffmpeg and a reading thread per camera, and one thread that runs the network on what they read.

The windows of all cameras wait in one bounded queue. The inference thread takes what waits, at most one window of each
camera and 16 together, and scores it as one batch. When the queue is full, the oldest window is dropped.
"""

import queue
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.batches import Batches  # noqa: E402
from common.cameras import windows  # noqa: E402
from common.model import Model  # noqa: E402
from common.service import Service  # noqa: E402

WAITING_PER_CAMERA = 2


def main():
    service = Service()
    batches = Batches(Model(service.arguments.model), len(service.cameras))
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

    def infer():
        while True:
            for window, probabilities in batches.score_next(waiting):
                service.scored(window.camera, window.received, probabilities)

    threading.Thread(target=infer, daemon=True).start()
    with service, windows(service.cameras, take):
        service.run()


if __name__ == "__main__":
    main()
