"""Checks that the rivals hear what nursery hears: their front end against tests/golden/front_end.py, their scores
against the reference network in double precision over the same audio. Fails where they differ by more than 1e-4.

    /tmp/onnx/bin/python tests/rivals/check.py models/weights/nursery.safetensors /tmp/nursery.onnx [RECORDING.wav]

(in the environment of export.py). Besides the golden signal it takes a recording of 16-bit mono at 16 kHz.
"""

import argparse
import queue
import sys
import wave
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "golden")]
from common import PIECE, RATE, WINDOW  # noqa: E402
from common.batches import Batches  # noqa: E402
from common.cameras import Window  # noqa: E402
from common.crying import COOLDOWN_S, SMOOTHED, Crying  # noqa: E402
from common.model import Model  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from export import read, served  # noqa: E402
from front_end import features as reference_features  # noqa: E402
from signal_generator import golden_signal  # noqa: E402

TOLERANCE = 1e-4
TOLERANCE_OF_LOG_ODDS = 1e-2


def recording(path):
    with wave.open(path) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE):
            sys.exit(f"{path}: must be 16-bit mono at 16 kHz")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def streams(path):
    """Some streams of one length: [streams, samples]."""
    golden = np.clip(golden_signal() * 32768.0, -32768, 32767).astype(np.int16)
    out = [golden, np.roll(golden, 50_000) // 3, np.roll(golden, 100_000) // 100]
    if path:
        heard = recording(path)
        out += [heard[start:start + len(golden)] for start in range(0, len(heard) - len(golden) + 1, len(golden))]
    return np.stack(out)[:, :len(golden) // WINDOW * WINDOW]


def log_odds(probabilities):
    """What is close to 0 or 1 differs here, too."""
    p = np.clip(np.asarray(probabilities, np.float64), 1e-6, 1.0 - 1e-6)
    return np.log(p / (1.0 - p))


def features_in_windows(model, signals):
    """All streams at once."""
    states = np.zeros((len(signals), model.front_end.state_len), np.float32)
    return np.concatenate([model.front_end.features(states, signals[:, n:n + WINDOW])
                           for n in range(0, signals.shape[1], WINDOW)], 1)


def in_windows(model, signals):
    states = model.fresh(len(signals))
    return np.concatenate([model.score(states, signals[:, n:n + WINDOW])
                           for n in range(0, signals.shape[1], WINDOW)], 1)


def in_odd_pieces(model, signals):
    """One stream alone, in pieces of changing length, with a state that went through bytes."""
    state, out, n = model.fresh(1), [], 0
    for pieces in [1, 41, 7, 38, 20] * 10:
        part = signals[-1:, n:n + pieces * PIECE]
        if not part.shape[1]:
            break
        out.append(model.score(state, part))
        state = np.frombuffer(state.tobytes(), np.float32).reshape(1, -1).copy()
        n += part.shape[1]
    return np.concatenate(out, 1)


def through_a_queue(model, signals):
    """As pipes and queues do it: windows of all streams, some of them several ahead of others."""
    batches, waiting, out = Batches(model, len(signals)), queue.Queue(), [[] for _ in signals]
    # What an earlier connection has left.
    batches.states[:] = 1.0
    ahead = [(n // WINDOW + 2 * (camera % 3), camera, n) for camera in range(len(signals))
             for n in range(0, signals.shape[1], WINDOW)]
    for _, camera, n in sorted(ahead):
        waiting.put(Window(camera, 0.0, n == 0, signals[camera, n:n + WINDOW].tobytes()))
    while batches.held or not waiting.empty():
        for window, scores in batches.score_next(waiting):
            out[window.camera].append(scores)
    return np.stack([np.concatenate(scores) for scores in out])


def check_decision():
    """Alerts begin when the average does, and not again before the cooldown is over."""
    crying, quiet, loud = Crying(0.5), np.zeros(20, np.float32), np.ones(20, np.float32)
    short = quiet.copy()
    short[:2] = 1.0
    steps = [(quiet, 0.0, False), (short, 1.0, False), (loud, 2.0, True), (loud, 3.0, False),
             (quiet, 4.0, False), (loud, 2.0 + COOLDOWN_S, True)]
    for number, (scores, now, wanted) in enumerate(steps):
        if crying.begins(scores, now) != wanted:
            sys.exit(f"the decision is wrong at step {number}")
    # What begins at the end of one window and goes on in the next is one cry.
    crying, half = Crying(0.9), quiet.copy()
    half[-SMOOTHED // 2:] = 1.0
    if crying.begins(half, 0.0) or not crying.begins(np.flip(half), 1.0):
        sys.exit("the decision does not remember the end of a window")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("onnx")
    parser.add_argument("recording", nargs="?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    description, tensors = read(options.weights)
    model, signals = Model(options.onnx), streams(options.recording)
    wanted = np.stack([reference_features(description["front_end"], s / 32768.0)[0] for s in signals])
    reference = served(description, tensors).double()
    with torch.no_grad():
        memories = torch.zeros(len(signals), sum(reference.sizes), dtype=torch.float64)
        probabilities = reference(torch.as_tensor(wanted), memories)[0].numpy()
    print(f"{len(signals)} streams of {wanted.shape[1]} frames; highest probability {probabilities.max():.3f}")
    difference = np.abs(features_in_windows(model, signals) - wanted).max()
    print(f"features: largest difference {difference:.1e}")
    # Not a number is no small difference either.
    equal = difference <= TOLERANCE
    for name, got, want in [
        ("windows, all streams in one batch", in_windows(model, signals), probabilities),
        ("windows that waited in a queue", through_a_queue(model, signals), probabilities),
        ("odd pieces of one stream", in_odd_pieces(model, signals), probabilities[-1:]),
    ]:
        difference, odds = np.abs(got - want).max(), np.abs(log_odds(got) - log_odds(want)).max()
        print(f"{name}: largest difference of a probability {difference:.1e}, of its log-odds {odds:.1e}")
        equal = equal and difference <= TOLERANCE and odds <= TOLERANCE_OF_LOG_ODDS
    check_decision()
    if not equal:
        sys.exit(f"they differ by more than {TOLERANCE}, or {TOLERANCE_OF_LOG_ODDS} of log-odds")


if __name__ == "__main__":
    main()
