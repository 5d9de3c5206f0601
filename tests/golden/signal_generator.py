"""Deterministic inputs that the Rust tests make again bit by bit (models/tests/common/mod.rs)."""

import numpy as np

RATE = 16_000


class Lcg:
    """Linear congruential generator of Numerical Recipes; values in [-1, 1) with 24 bits, exact in f32 and f64."""

    def __init__(self, seed):
        self.state = seed

    def draw(self, n):
        out = np.empty(n)
        state = self.state
        for i in range(n):
            state = (state * 1_664_525 + 1_013_904_223) & 0xFFFF_FFFF
            out[i] = (state >> 8) / float(1 << 23) - 1.0
        self.state = state
        return out


def golden_signal():
    """Twelve seconds: noise throughout, and in turn a tone, a chord that breathes, digital silence, an overdriven tone
    (beyond full scale), a faint tone over an offset. Values are those of 32-bit floats, held as float64."""
    n = 12 * RATE
    t = np.arange(n) / RATE
    x = 0.01 * Lcg(1).draw(n)

    def add(start, end, wave):
        part = (t >= start) & (t < end)
        x[part] += wave[part]

    def sine(hz):
        return np.sin(2.0 * np.pi * hz * t)

    add(1.0, 2.5, 0.1 * sine(440.0))
    breath = (np.arange(n) % 6_400 < 4_000).astype(float)
    add(2.5, 5.0, breath * (0.2 * sine(400.0) + 0.1 * sine(1_200.0) + 0.05 * sine(3_600.0)))
    x[(t >= 5.0) & (t < 6.0)] = 0.0
    add(7.0, 8.0, 1.5 * sine(200.0))
    add(9.0, 11.0, 0.3 + 0.003 * sine(5_000.0))
    return x.astype(np.float32).astype(np.float64)
