"""Cameras as streams of windows: one ffmpeg and one reading thread for each, started again when it ends."""

import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from . import RATE, WINDOW

RETRY_S = 1.0


@dataclass
class Window:
    camera: int
    # Wall-clock time at which the last sample arrived.
    received: float
    # What came before it is not known: the connection is new.
    first: bool
    # 16-bit samples, native byte order.
    pcm: bytes


def ffmpeg(url, *output):
    """Sound only, over TCP; ends by itself where the camera says nothing for ten seconds."""
    return ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-rtsp_transport", "tcp",
            "-allowed_media_types", "audio", "-timeout", "10000000", "-i", url, "-vn", *output]


# ffmpeg hands over whole windows: one write and one read for each instead of one for every packet of the camera.
PCM = ["-af", f"aformat=sample_fmts=s16:sample_rates={RATE}:channel_layouts=mono,asetnsamples=n={WINDOW}",
       "-f", "s16le", "pipe:1"]


class Cameras:
    """Runs `attend(number, process)` in a thread for each camera, with an ffmpeg of that camera, again and again."""

    def __init__(self, cameras, output, attend):
        self.cameras, self.output, self.attend = cameras, output, attend
        self.ending = threading.Event()
        self.lock = threading.Lock()
        self.processes = {}

    def __enter__(self):
        for number in range(len(self.cameras)):
            threading.Thread(target=self.keep, args=[number], daemon=True).start()
        return self

    def keep(self, number):
        camera = self.cameras[number]
        while process := self.spawn(number, ffmpeg(camera["url"], *self.output(number))):
            self.attend(number, process)
            process.stdout.close()
            process.kill()
            process.wait()
            if not self.ending.is_set():
                print(f"{camera['name']}: ffmpeg has ended, once more in {RETRY_S} s", file=sys.stderr)
            self.ending.wait(RETRY_S)

    def spawn(self, number, command):
        with self.lock:
            if self.ending.is_set():
                return None
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            self.processes[number] = process
            return process

    def __exit__(self, *_):
        with self.lock:
            self.ending.set()
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()


def windows(cameras, take):
    """Cameras whose windows are handed to `take`, each camera's in order, from threads of their own."""
    def attend(number, process):
        first = True
        while len(pcm := process.stdout.read(2 * WINDOW)) == 2 * WINDOW:
            take(Window(number, time.time(), first, pcm))
            first = False

    return Cameras(cameras, lambda _: PCM, attend)
