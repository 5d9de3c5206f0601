"""One process: an ffmpeg per camera that writes segments of its sound as files, and a detection thread per camera.

ffmpeg stores what the camera sends, unchanged, in segments of two seconds, and names each on its standard output when
it is complete. The camera's detection thread has it converted to a WAV file by another ffmpeg, loads that, scores it,
and removes both. One ONNX Runtime session serves all threads. Segments that wait for longer than the thread can follow
are dropped, the oldest first.
"""

import queue
import subprocess
import sys
import tempfile
import threading
import time
import wave
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import PIECE, RATE  # noqa: E402
from common.cameras import Cameras  # noqa: E402
from common.model import Model  # noqa: E402
from common.service import Service  # noqa: E402

import numpy as np  # noqa: E402

SEGMENT_S = 2
WAITING_PER_CAMERA = 2
# For the segments in hand.
ENDING_S = 5.0


class Detection:
    """The detection thread of one camera."""

    def __init__(self, service, model, camera):
        self.service, self.model, self.camera = service, model, camera
        self.waiting = queue.Queue(WAITING_PER_CAMERA)
        self.thread = threading.Thread(target=self.run, daemon=True)

    def take(self, segment, received, first):
        if self.waiting.full() and (older := self.give_up()):
            first |= older[2]
            self.service.dropped()
        self.waiting.put((segment, received, first))

    def give_up(self):
        """Removes the oldest segment that waits, if there is one."""
        try:
            older = self.waiting.get_nowait()
        except queue.Empty:
            return None
        older[0].unlink(missing_ok=True)
        return older

    def run(self):
        state, rest = self.model.fresh(1), np.zeros(0, np.int16)
        while item := self.waiting.get():
            segment, received, first = item
            if first:
                state[:] = 0.0
                rest = rest[:0]
            samples = np.concatenate([rest, load(segment)])
            whole = len(samples) // PIECE * PIECE
            rest = samples[whole:]
            if whole:
                self.service.scored(self.camera, received, self.model.score(state, samples[None, :whole])[0])

    def end(self):
        """After the segment in hand."""
        while self.give_up():
            pass
        self.waiting.put(None)


@contextmanager
def running(detections):
    for detection in detections:
        detection.thread.start()
    try:
        yield
    finally:
        for detection in detections:
            detection.end()
        deadline = time.monotonic() + ENDING_S
        for detection in detections:
            detection.thread.join(max(0.0, deadline - time.monotonic()))


def load(segment):
    """A segment's samples, none where it cannot be converted. The file is gone afterwards."""
    converted = segment.with_suffix(".wav")
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-i", segment, "-ac", "1", "-ar", str(RATE),
               "-c:a", "pcm_s16le", converted]
    try:
        subprocess.run(command, check=True)
        with wave.open(str(converted)) as file:
            return np.frombuffer(file.readframes(file.getnframes()), np.int16)
    except (subprocess.CalledProcessError, OSError, EOFError, wave.Error) as error:
        print(f"{segment}: {error}", file=sys.stderr)
        return np.zeros(0, np.int16)
    finally:
        segment.unlink(missing_ok=True)
        converted.unlink(missing_ok=True)


def main():
    service = Service()
    model = Model(service.arguments.model)
    detections = [Detection(service, model, number) for number in range(len(service.cameras))]

    # In memory where there is such a place, so that no disk is worn.
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    temporary = tempfile.TemporaryDirectory(prefix="segments-", dir=place, ignore_cleanup_errors=True)
    folders = [Path(temporary.name) / str(number) for number in range(len(detections))]
    for folder in folders:
        folder.mkdir()

    def output(number):
        return ["-c:a", "copy", "-f", "segment", "-segment_time", str(SEGMENT_S), "-segment_format", "matroska",
                "-segment_list", "pipe:1", "-segment_list_type", "flat", "-reset_timestamps", "1",
                str(folders[number] / f"{time.time_ns()}-%06d.mka")]

    def attend(number, process):
        first = True
        for line in process.stdout:
            detections[number].take(folders[number] / line.decode().strip(), time.time(), first)
            first = False

    with service, temporary, running(detections), Cameras(service.cameras, output, attend):
        service.run()


if __name__ == "__main__":
    main()
