"""Writes front_end.json: features of a fixed signal, by librosa and plain NumPy, for models/tests/golden.rs.

Run again when the front end's definition changes, from the repository's root:

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r tests/golden/requirements.txt
    /tmp/golden/bin/python tests/golden/front_end.py

The definition, in double precision throughout (E: power of a mel band in a frame):

- Samples beyond full scale are clipped. A frame is the last `frame` samples of each full `step`; zeros stand before
  the first sample. Periodic Hann window; power spectrum scaled so that the sum over its bins is the mean square.
- Mel bands: triangles of height 1 whose corners are equally spaced on the HTK mel scale between low_hz and high_hz;
  a side narrower than one FFT bin is widened to one bin.
- An average with time constant s moves by the share 1 - exp(-step / (s * rate)) of the difference; in the n-th frame
  of a stream by at least 1 / n, so that it begins as a plain mean (but for F below).
- Plane 0: M = average of E with smoothing_s; ((E / (M + floor), at most 400) + offset) ** power, less its value at
  E = 0, halved.
- Plane 1: L = ln(E + floor); F = average of L, with fall_s where L < F, else rise_s; 0.35 * (L - F), within +-4. F
  begins as the mean of the first frame's L over all bands, less start_below, and moves in the n-th frame by at least
  1 / (n + start_s * rate / step), of which start_rise where it rises. Where these three are not given: 0, 0 and 1.
"""

import json
from pathlib import Path

import librosa
import numpy as np

from signal_generator import RATE, golden_signal

# As in the Rust struct FrontEndConfig: what is served, and another with narrow bands and another root, which says
# nothing of the start.
USUAL = {
    "sample_rate": RATE, "frame": 640, "step": 400, "mels": 96, "low_hz": 60.0, "high_hz": 7800.0, "floor": 1e-11,
    "smoothing_s": 0.5, "offset": 2.0, "power": 0.5, "rise_s": 8.0, "fall_s": 1.0,
}
SERVED = USUAL | {"start_below": 2.0, "start_s": 0.25, "start_rise": 0.5}
NARROW = USUAL | {
    "frame": 512, "step": 320, "mels": 128, "low_hz": 50.0, "high_hz": 8000.0, "floor": 1e-9,
    "smoothing_s": 0.2, "offset": 1.0, "power": 0.3, "rise_s": 3.0, "fall_s": 0.3,
}


def mel_filters(c):
    """librosa's filters, but for those with a side of less than a bin."""
    filters = librosa.filters.mel(
        sr=c["sample_rate"], n_fft=c["frame"], n_mels=c["mels"], fmin=c["low_hz"], fmax=c["high_hz"], htk=True,
        norm=None, dtype=np.float64)
    corners = librosa.mel_frequencies(c["mels"] + 2, fmin=c["low_hz"], fmax=c["high_hz"], htk=True)
    corners = corners / c["sample_rate"] * c["frame"]
    bins = np.arange(c["frame"] // 2 + 1)
    widened = 0
    for band in range(c["mels"]):
        left, centre, right = corners[band:band + 3]
        if centre - left >= 1.0 and right - centre >= 1.0:
            continue
        widened += 1
        xs = [min(left, centre - 1.0), centre, max(right, centre + 1.0)]
        filters[band] = np.interp(bins, xs, [0.0, 1.0, 0.0], left=0.0, right=0.0)
    return filters, widened


def band_powers(c, samples):
    """[frames, mels]"""
    clipped = np.clip(samples, -1.0, 1.0)
    padded = np.concatenate([np.zeros(c["frame"] - c["step"]), clipped])
    spectrum = librosa.stft(padded, n_fft=c["frame"], hop_length=c["step"], window="hann", center=False)
    window = librosa.filters.get_window("hann", c["frame"], fftbins=True)
    # Parseval: a one-sided spectrum holds half of the energy.
    power = np.abs(spectrum) ** 2 * 2.0 / (c["frame"] * np.sum(window**2))
    filters, widened = mel_filters(c)
    return (filters @ power).T, widened


def planes(c, energy):
    """[frames, mels, 2]"""
    share = {
        name: 1.0 - np.exp(-c["step"] / (c[name] * c["sample_rate"]))
        for name in ("smoothing_s", "rise_s", "fall_s")
    }
    frames, mels = energy.shape
    out = np.zeros((frames, mels, 2))
    first = np.mean(np.log(energy[0] + c["floor"])) - c.get("start_below", 0.0)
    before = c.get("start_s", 0.0) * c["sample_rate"] / c["step"]
    for band in range(mels):
        mean, floor = 0.0, first
        for n in range(frames):
            e = energy[n, band]
            at_least = 1.0 / (n + 1)
            mean += max(share["smoothing_s"], at_least) * (e - mean)
            ratio = min(e / (mean + c["floor"]), 400.0)
            out[n, band, 0] = ((ratio + c["offset"]) ** c["power"] - c["offset"] ** c["power"]) / 2.0
            log = np.log(e + c["floor"])
            at_least = 1.0 / (n + 1 + before)
            if log < floor:
                floor += max(share["fall_s"], at_least) * (log - floor)
            else:
                floor += max(share["rise_s"], c.get("start_rise", 1.0) * at_least) * (log - floor)
            out[n, band, 1] = np.clip(0.35 * (log - floor), -4.0, 4.0)
    return out


def features(c, samples):
    energy, widened = band_powers(c, samples)
    return planes(c, energy), widened


def main():
    cases = []
    for name, config, every in (("served", SERVED, 12), ("narrow", NARROW, 40)):
        out, widened = features(config, golden_signal())
        print(f"{name}: {len(out)} frames, {widened} bands widened")
        # The first frames, where averages begin, and then some of each part of the signal.
        chosen = sorted({*range(4), *range(3, len(out), every), len(out) - 1})
        cases.append({
            "name": name, "config": config, "frames_of_signal": len(out), "frames": chosen,
            "features": [[float(f"{x:.6f}") for x in out[n].ravel()] for n in chosen],
        })
    to = Path(__file__).with_name("front_end.json")
    rows = json.dumps(cases, separators=(",", ":")).replace("],[", "],\n[").replace("},{", "},\n{")
    to.write_text(rows + "\n")
    print(f"{to.name}: {to.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
