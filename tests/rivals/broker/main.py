"""A prefork pool fed by a broker: Celery on Redis, one task per window.

The main process reads the cameras (an ffmpeg and a reading thread each), puts each window into Redis and sends a task
that names it; a pool of as many processes as there are cores scores it (tasks.py) and puts what it finds on a list in
Redis, which the main process reads. A camera has one task at a time, since its windows must stay in order; the next
window waits here, and is dropped when a newer one comes. Redis is a server of its own, on a socket in a temporary
directory, and keeps nothing on disk.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from common.cameras import windows  # noqa: E402
from common.service import Service  # noqa: E402

import numpy as np  # noqa: E402
import redis  # noqa: E402
from kombu.exceptions import OperationalError  # noqa: E402

# A task that has not come back after this time was lost with the process that had it.
LOST_S = 10.0


class Dispatcher:
    """Windows to tasks, at most one of each camera at a time."""

    def __init__(self, service, tasks):
        self.service, self.tasks = service, tasks
        self.store = tasks.connect()
        self.lock = threading.Lock()
        count = len(service.cameras)
        # Of each camera, the window whose task is under way, its number, and the newest that waits.
        self.running, self.numbers, self.waiting = [None] * count, [0] * count, [None] * count

    def take(self, window):
        camera, given_up = window.camera, 0
        with self.lock:
            running, older = self.running[camera], self.waiting[camera]
            self.waiting[camera] = None
            if older:
                given_up += 1
                # What was remembered before a new connection must not be continued.
                window.first |= older.first
            lost = running and time.time() - running.received > LOST_S
            given_up += bool(lost)
            send = not running or lost
            if send:
                self.begin(window)
            else:
                self.waiting[camera] = window
        if given_up:
            self.service.dropped(given_up)
        if send:
            self.send(window)

    def begin(self, window):
        self.running[window.camera] = window
        self.numbers[window.camera] += 1

    def send(self, window):
        arguments = (window.camera, self.numbers[window.camera], window.first)
        try:
            self.store.set(self.tasks.window_key(window.camera), window.pcm)
            self.tasks.score.apply_async(arguments, expires=LOST_S)
        except (redis.RedisError, OperationalError) as error:
            # It counts as lost in a while.
            print(f"no task could be sent: {error}", file=sys.stderr)

    def collect(self):
        while True:
            try:
                _, result = self.store.blpop(self.tasks.RESULTS)
            except redis.ConnectionError:
                time.sleep(1)
                continue
            camera, number = (int(n) for n in np.frombuffer(result, np.int64, 2))
            with self.lock:
                if number != self.numbers[camera] or self.running[camera] is None:
                    continue
                window, self.running[camera] = self.running[camera], None
                following, self.waiting[camera] = self.waiting[camera], None
                if following:
                    self.begin(following)
            self.service.scored(camera, window.received, np.frombuffer(result, np.float32, offset=16))
            if following:
                self.send(following)


def end(process, patience_s):
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Redis:
    """A server that keeps nothing on disk and listens on a socket in `folder` only."""

    def __init__(self, folder):
        self.folder, self.socket = folder, f"{folder}/redis.sock"

    def begin(self):
        command = ["redis-server", "--port", "0", "--unixsocket", self.socket, "--dir", self.folder, "--save", "",
                   "--appendonly", "no", "--loglevel", "warning"]
        self.process = subprocess.Popen(command, stdout=sys.stderr)

    def replace_dead(self):
        if self.process.poll() is not None:
            print(f"redis-server has ended ({self.process.returncode}), once more", file=sys.stderr)
            self.begin()

    def __enter__(self):
        self.begin()
        client = redis.Redis(unix_socket_path=self.socket)
        while True:
            try:
                client.ping()
                return self
            except redis.ConnectionError:
                if self.process.poll() is not None:
                    sys.exit("redis-server does not start, see above")
                time.sleep(0.05)

    def __exit__(self, *_):
        end(self.process, 2)


class Pool:
    """Celery with its processes, as many as there are cores."""

    def __init__(self, tasks):
        self.tasks = tasks

    def __enter__(self):
        self.begin()
        while not self.tasks.app.control.ping(timeout=0.5):
            self.replace_dead()
        return self

    def begin(self):
        command = [sys.executable, "-m", "celery", "--app", "tasks", "--quiet", "worker", "--pool", "prefork",
                   "--concurrency", str(len(os.sched_getaffinity(0))), "--optimization", "fair", "--loglevel",
                   "warning", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        self.process = subprocess.Popen(command, cwd=HERE, stdout=sys.stderr)

    def replace_dead(self):
        if self.process.poll() is not None:
            print(f"celery has ended ({self.process.returncode}), once more", file=sys.stderr)
            self.begin()

    def __exit__(self, *_):
        # It ends its processes when their tasks are done.
        end(self.process, 4)


def main():
    service = Service()
    with service, tempfile.TemporaryDirectory(prefix="broker-") as folder, Redis(folder) as server:
        os.environ |= {"RIVAL_REDIS": server.socket, "RIVAL_MODEL": os.path.abspath(service.arguments.model)}
        sys.path.insert(0, str(HERE))
        import tasks

        dispatcher = Dispatcher(service, tasks)
        threading.Thread(target=dispatcher.collect, daemon=True).start()
        with Pool(tasks) as pool, windows(service.cameras, dispatcher.take):
            service.run(lambda: (server.replace_dead(), pool.replace_dead()))


if __name__ == "__main__":
    main()
