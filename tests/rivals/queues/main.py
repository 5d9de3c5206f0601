"""Processes of multiprocessing: the main one reads the cameras, workers, as many as there are cores, run the network.

An ffmpeg and a reading thread per camera put windows into bounded queues; what has been scored comes back through
another one. Each worker has a queue of its own and always the same cameras, so that what the network remembers of a
stream stays where it is, and windows of one camera stay in order. A worker scores what waits, at most one window of
each camera and 16 together, as one batch. When a queue is full, the newest window is dropped.
"""

import multiprocessing
import os
import queue
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.cameras import windows  # noqa: E402
from common.service import Service  # noqa: E402

WAITING_PER_CAMERA = 2


def work(path, cameras, waiting, results):
    # Only workers need ONNX Runtime.
    from common.batches import Batches
    from common.model import Model

    # Ctrl-C reaches all processes; the main one ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    batches = Batches(Model(path), cameras)
    # Nothing scored, but ready.
    results.put([])
    while True:
        results.put([(window.camera, window.received, scores) for window, scores in batches.score_next(waiting)])


class Workers:
    """The worker processes with their queues."""

    def __init__(self, model, cameras):
        # Not fork: the main process has threads, and those of its locks that are taken would stay so in the child.
        self.context = multiprocessing.get_context("spawn")
        self.model, self.cameras = model, cameras
        self.count = len(os.sched_getaffinity(0))
        self.results = self.context.Queue(WAITING_PER_CAMERA * max(cameras, 1))
        self.workers = []

    def __enter__(self):
        for _ in range(self.count):
            self.workers.append(self.begin())
        for _ in self.workers:
            self.results.get()
        return self

    def begin(self):
        waiting = self.context.Queue(WAITING_PER_CAMERA * -(-self.cameras // self.count))
        # At the end nobody takes what still waits, and nobody is to wait for that.
        waiting.cancel_join_thread()
        arguments = (self.model, self.cameras, waiting, self.results)
        process = self.context.Process(target=work, args=arguments, daemon=True)
        process.start()
        return process, waiting

    def put(self, window):
        self.workers[window.camera % self.count][1].put_nowait(window)

    def replace_dead(self):
        """With a new queue: a process may have died while it held the old one's lock."""
        for number, (process, _) in enumerate(self.workers):
            if not process.is_alive():
                print(f"worker {number} has ended ({process.exitcode}), a new one begins", file=sys.stderr)
                self.workers[number] = self.begin()

    def __exit__(self, *_):
        for process, _ in self.workers:
            process.kill()
            process.join()


def main():
    service = Service()
    workers = Workers(service.arguments.model, len(service.cameras))

    def take(window):
        try:
            workers.put(window)
        except queue.Full:
            service.dropped()

    def collect():
        while True:
            for scored in workers.results.get():
                service.scored(*scored)

    with service, workers, windows(service.cameras, take):
        threading.Thread(target=collect, daemon=True).start()
        service.run(workers.replace_dead)


if __name__ == "__main__":
    main()
