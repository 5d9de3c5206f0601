"""The network's front end in NumPy, for windows of several streams at once; defined in tests/golden/front_end.py.

What it remembers of a stream is a row of 32-bit floats: the samples that the next frame still needs, the two moving
averages of each band, and how many frames there have been.
"""

import numpy as np


class FrontEnd:
    def __init__(self, config):
        self.step, self.frame, self.mels = config["step"], config["frame"], config["mels"]
        self.past = self.frame - self.step
        self.state_len = self.past + 2 * self.mels + 1
        self.floor, self.offset, self.power = (np.float32(config[k]) for k in ("floor", "offset", "power"))
        window = np.sin(np.pi * np.arange(self.frame) / self.frame) ** 2
        # The scale of 16-bit samples, and that which makes the sum over a frame's bins its mean square.
        scale = np.sqrt(2.0 / (self.frame * np.sum(window**2))) / 32768.0
        self.window = (window * scale).astype(np.float32)
        self.filters = mel_filters(config).astype(np.float32)

        def share(name):
            return 1.0 - np.exp(-self.step / (config[name] * config["sample_rate"]))

        # The means of the bands, then their floors. A floor's pace depends on the direction; a mean's does not.
        mean, rise, fall = (np.full(self.mels, share(k)) for k in ("smoothing_s", "rise_s", "fall_s"))
        self.up = np.concatenate([mean, rise]).astype(np.float32)
        self.down = np.concatenate([mean, fall]).astype(np.float32)
        # How each of them starts: the past that its first value stands for, and its pace upwards then.
        before = config.get("start_s", 0.0) * config["sample_rate"] / self.step
        self.before = np.repeat([0.0, before], self.mels).astype(np.float32)
        self.start_up = np.repeat([1.0, config.get("start_rise", 1.0)], self.mels).astype(np.float32)
        self.start_below = np.float32(config.get("start_below", 0.0))
        if np.any(self.up > self.down):
            raise ValueError("a floor that rises faster than it falls is not supported")

    def features(self, states, samples):
        """Of int16 samples [streams, n], n a multiple of the step, the features [streams, frames, mels, 2]. The rows
        of `states` [streams, state_len] are carried on."""
        energy = self.band_powers(states, samples)
        out = np.empty((*energy.shape, 2), np.float32)
        levels = np.concatenate([energy, np.log(energy + self.floor)], axis=2)
        averages = self.averages(states, levels)
        ratio = np.minimum(energy / (averages[..., :self.mels] + self.floor), 400.0) + self.offset
        root = np.sqrt if self.power == 0.5 else lambda x: x**self.power
        out[..., 0] = 0.5 * (root(ratio) - root(self.offset))
        out[..., 1] = np.clip(0.35 * (levels[..., self.mels:] - averages[..., self.mels:]), -4.0, 4.0)
        return out

    def band_powers(self, states, samples):
        extended = np.concatenate([states[:, :self.past], samples], axis=1, dtype=np.float32)
        states[:, :self.past] = extended[:, samples.shape[1]:]
        frames = np.lib.stride_tricks.sliding_window_view(extended, self.frame, axis=1)[:, ::self.step]
        out = np.empty((*frames.shape[:2], self.mels), np.float32)
        # One stream after the other: what a spectrogram needs stays in the processor's cache.
        for part, powers in zip(frames, out):
            spectrum = np.fft.rfft(part * self.window)
            np.dot(np.square(spectrum.real) + np.square(spectrum.imag), self.filters, out=powers)
        return out

    def averages(self, states, levels):
        """Each level's moving average after each frame, which moves it by at least 1 / n at the start of a stream."""
        count, average = states[:, -1:], states[:, self.past:-1]
        frames = levels.shape[1]
        new = count[:, 0] == 0.0
        first = np.mean(levels[new, 0, self.mels:], axis=1, keepdims=True)
        average[new, self.mels:] = first - self.start_below
        n = count + np.arange(1, frames + 1, dtype=np.float32)
        at_least = 1.0 / (n[..., None] + self.before)
        up, down = np.maximum(at_least * self.start_up, self.up), np.maximum(at_least, self.down)
        out = np.empty_like(levels)
        for t in range(frames):
            difference = levels[:, t] - average
            # The faster pace is the one downwards, so the lesser step is always the right one.
            average = average + np.minimum(difference * up[:, t], difference * down[:, t])
            out[:, t] = average
        states[:, self.past:-1] = average
        # From some count on it changes nothing; it must not grow beyond what 32 bits can count.
        states[:, -1:] = np.minimum(count + frames, 100_000)
        return out


def mel_filters(config):
    """[bins, mels]: triangles of height 1, corners equally spaced on O'Shaughnessy's mel scale, no side narrower than
    a bin."""
    def mel(hz):
        return 2595.0 * np.log10(1.0 + hz / 700.0)

    corners = np.linspace(mel(config["low_hz"]), mel(config["high_hz"]), config["mels"] + 2)
    corners = 700.0 * (10.0 ** (corners / 2595.0) - 1.0) / config["sample_rate"] * config["frame"]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    left, right = np.minimum(left, centre - 1.0), np.maximum(right, centre + 1.0)
    bins = np.arange(config["frame"] // 2 + 1)[:, None]
    return np.maximum(np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)), 0.0)
