"""The frame of every rival: arguments, what is printed, alerts to the webhook, and the end by a signal."""

import argparse
import json
import queue
import signal
import sys
import threading
import time
import urllib.request
from datetime import datetime, timezone

from . import PIECE, RATE
from .crying import Crying
from .description import description

STATS_S = 2.0
# Windows whose scores come later than this after their last sample are counted as late.
LATE_S = 0.5
ALERTS_WAITING = 1000
ATTEMPTS = 5


class Service:
    def __init__(self):
        parser = argparse.ArgumentParser()
        parser.add_argument("--cameras", required=True, help='JSON: [{"name": …, "url": "rtsp://…"}, …]')
        parser.add_argument("--model", required=True, help="what export.py wrote")
        parser.add_argument("--webhook", required=True)
        parser.add_argument("--threshold", type=float, help="instead of the model's own")
        self.arguments = parser.parse_args()
        with open(self.arguments.cameras) as file:
            self.cameras = json.load(file)
        threshold = self.arguments.threshold
        if threshold is None:
            threshold = description(self.arguments.model)["threshold"]
        self.crying = [Crying(threshold) for _ in self.cameras]
        self.lock = threading.Lock()
        self.counts = {"windows": 0, "dropped": 0, "late": 0, "scored_s": 0.0}
        self.live = set()
        self.alerts = queue.Queue(ALERTS_WAITING)
        threading.Thread(target=self.deliver, daemon=True).start()

    def scored(self, camera, received, probabilities):
        """Takes the probabilities of a camera's next window; from one thread at a time for each camera."""
        late = time.time() - received > LATE_S
        with self.lock:
            self.counts["windows"] += 1
            self.counts["late"] += late
            self.counts["scored_s"] += len(probabilities) * PIECE / RATE
            new = camera not in self.live
            self.live.add(camera)
        name = self.cameras[camera]["name"]
        if new:
            say(event="live", camera=name)
        if self.crying[camera].begins(probabilities, received):
            moment = datetime.fromtimestamp(received, timezone.utc).isoformat(timespec="microseconds")
            alert = {"type": "cry.started", "camera": name, "time": moment.replace("+00:00", "Z")}
            try:
                self.alerts.put_nowait(alert)
            except queue.Full:
                print(f"the webhook does not answer; an alert of {name} is lost", file=sys.stderr)

    def dropped(self, count=1):
        """Windows were given up because there was no time for them."""
        with self.lock:
            self.counts["dropped"] += count

    def deliver(self):
        while True:
            alert = self.alerts.get()
            for attempt in range(ATTEMPTS):
                try:
                    request = urllib.request.Request(self.arguments.webhook, json.dumps(alert).encode(),
                                                     {"Content-Type": "application/json"})
                    urllib.request.urlopen(request, timeout=5).close()
                    break
                except OSError as error:
                    print(f"webhook: {error}", file=sys.stderr)
                    time.sleep(2**attempt)

    def say_stats(self):
        with self.lock:
            counts = dict(self.counts)
        say(event="stats", **counts | {"scored_s": round(counts["scored_s"], 3)})

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        return self

    def __exit__(self, kind, *_):
        self.say_stats()
        return kind is KeyboardInterrupt

    def run(self, look_after=lambda: None):
        """Prints the totals, and calls `look_after`, every two seconds; SIGTERM or SIGINT leave the `with` around
        it."""
        while True:
            time.sleep(STATS_S)
            self.say_stats()
            look_after()


def end(*_):
    # Whoever asks twice must not interrupt what the first signal has begun.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def say(**event):
    # One write for each line, so that threads do not mix theirs.
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
