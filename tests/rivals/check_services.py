"""Runs rivals against two real cameras (GStreamer's RTSP server, PCMU at 8 kHz and stereo AAC at 48 kHz) that play a
recording with crying, and checks what the bench relies on. Says roughly what each one took.

    python3 tests/rivals/check_services.py --python /tmp/rivals/bin/python --model /tmp/nursery.onnx \\
        --recording WITH_CRYING.wav [segments pipes broker queues]

Each must report both cameras as live, count what it scores and drop nothing, start an ffmpeg again that was killed,
announce crying of both cameras once within the cooldown, and end with all of its processes within ten seconds of
SIGTERM. The cameras need what README.md says of tests with GStreamer's RTSP server. The recording should begin with
some seconds of quiet, then cry, and last for two minutes.
"""

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
STREAMS = ["pcmu-8k", "aac-48k-stereo"]
TICK = os.sysconf("SC_CLK_TCK")


def start_camera(stream, recording):
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else "python3"
    command = [python, HERE.parent / "cameras/gst_rtsp.py", "--stream", stream, "--wav", recording]
    # It ends when its standard input does.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if not line.startswith("port "):
        sys.exit(f"the camera said {line!r} instead of its port")
    return process, f"rtsp://127.0.0.1:{line.split()[1]}/live"


class Receiver(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Alert)
        self.alerts = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Alert(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.alerts.append((time.time(), json.loads(body)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def processes_of(session):
    """The processes of a session, each with the fields of /proc/PID/stat from its name on."""
    out = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, fields = (entry / "stat").read_text().split(" (", 1)[1].rsplit(") ", 1)
            except OSError:
                continue
            fields = fields.split()
            if int(fields[3]) == session and fields[0] != "Z":
                out[int(entry.name)] = [name, *fields]
    return out


def listening(session):
    """The ffmpeg processes that listen to cameras."""
    out = set()
    for pid, fields in processes_of(session).items():
        try:
            if fields[0] == "ffmpeg" and b"rtsp://" in Path(f"/proc/{pid}/cmdline").read_bytes():
                out.add(pid)
        except OSError:
            pass
    return out


def cpu_s(session):
    return sum(int(x) for fields in processes_of(session).values() for x in fields[12:16]) / TICK


def memory_mib(session):
    kib = 0
    for pid in processes_of(session):
        try:
            rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kib += sum(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return kib / 1024


class Rival:
    def __init__(self, name, python, model, cameras, webhook):
        command = [python, HERE / name / "main.py", "--cameras", cameras, "--model", model, "--webhook", webhook]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.lines = queue.Queue()
        self.events = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def until(self, wanted, what, within_s):
        deadline = time.monotonic() + within_s
        while not wanted():
            try:
                self.events.append(self.lines.get(timeout=max(0.0, min(0.5, deadline - time.monotonic()))))
            except queue.Empty:
                if time.monotonic() >= deadline:
                    raise Failed(f"not within {within_s} s: {what}") from None

    def stats(self):
        return next((event for event in reversed(self.events) if event["event"] == "stats"), None)

    def live(self):
        return sorted(event["camera"] for event in self.events if event["event"] == "live")


class Failed(Exception):
    pass


def require(condition, what):
    if not condition:
        raise Failed(what)


def exercise(rival, receiver, names):
    session = rival.process.pid
    began = time.monotonic()
    rival.until(lambda: rival.live() == names, "both cameras are live", 40)
    live_s = time.monotonic() - began
    rival.until(lambda: len(receiver.alerts) >= 2, "both cameras are heard crying", 60)
    for at, alert in receiver.alerts:
        late = at - datetime.fromisoformat(alert["time"]).timestamp()
        require(alert["type"] == "cry.started" and 0 <= late < 5, f"{alert} came {late:.3f} s late")
    latency = max(at - datetime.fromisoformat(a["time"]).timestamp() for at, a in receiver.alerts)
    require(sorted(a["camera"] for _, a in receiver.alerts) == names, f"alerts are {receiver.alerts}")

    # What it takes, while nothing happens to it.
    before, cpu = rival.stats(), cpu_s(session)
    rival.until(lambda: rival.stats()["scored_s"] >= before["scored_s"] + 24, "both cameras go on", 30)
    cost, heard = cpu_s(session) - cpu, rival.stats()["scored_s"] - before["scored_s"]
    memory = memory_mib(session)
    require(rival.stats()["dropped"] == 0, f"windows were dropped: {rival.stats()}")

    old = listening(session)
    require(len(old) == len(names), f"{len(old)} ffmpeg listen instead of {len(names)}")
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    rival.until(lambda: len(listening(session) - old) == len(names), "killed ffmpegs are replaced", 20)
    again = rival.stats()["windows"]
    rival.until(lambda: rival.stats()["windows"] >= again + 6, "the cameras are heard again", 40)
    require(len(receiver.alerts) == len(names), f"more alerts than one of each camera: {receiver.alerts}")
    return (f"live after {live_s:.1f} s; {100 * cost / heard:.1f} % of a core and {memory / len(names):.0f} MiB per "
            f"camera; alerts at most {1000 * latency:.0f} ms after the last sample; {rival.stats()}")


def check(name, options, cameras, names):
    receiver = Receiver()
    webhook = f"http://127.0.0.1:{receiver.server_port}/alert"
    rival = Rival(name, options.python, options.model, cameras, webhook)
    session = rival.process.pid
    try:
        print(f"{name}: {exercise(rival, receiver, names)}", flush=True)
        began = time.monotonic()
        rival.process.send_signal(signal.SIGTERM)
        rival.process.wait(10)
        require(rival.process.returncode == 0, f"ended with {rival.process.returncode}")
        while left := processes_of(session):
            require(time.monotonic() - began < 10, f"left behind: {left}")
            time.sleep(0.1)
        print(f"{name}: ended within {time.monotonic() - began:.1f} s", flush=True)
        return True
    except (Failed, subprocess.TimeoutExpired) as error:
        print(f"{name}: FAILED: {error}", flush=True)
        return False
    finally:
        for pid in processes_of(session):
            os.kill(pid, signal.SIGKILL)
        receiver.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--recording", required=True)
    parser.add_argument("rivals", nargs="*", default=["segments", "pipes", "broker", "queues"])
    options = parser.parse_args()
    started = [start_camera(stream, os.path.abspath(options.recording)) for stream in STREAMS]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([{"name": name, "url": url} for name, (_, url) in zip(STREAMS, started)], file)
        file.flush()
        passed = [check(name, options, file.name, sorted(STREAMS)) for name in options.rivals]
    for camera, _ in started:
        camera.stdin.close()
        camera.wait()
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
