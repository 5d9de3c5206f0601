//! Cuts a continuous stream of 16 kHz mono samples into windows, the same way for the live capture process and for
//! recordings. Windows may overlap; those of the models of today do not.

/// One window cut from a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Stream position (in samples since the stream began) of the sample that follows the window's last one.
    pub end: u64,
    /// Exactly `window` samples in [-1, 1], oldest first; zeros stand before the start of the stream.
    pub samples: Vec<f32>,
}

/// Turns chunks of any size into windows of `window` samples, one every `hop` samples.
#[derive(Debug)]
pub struct WindowCutter {
    window: usize,
    hop: usize,
    /// The last `window` samples, then what has arrived since; never more than `window + hop` long.
    buffer: Vec<f32>,
    /// Stream position of the sample after the buffer's last one.
    position: u64,
    /// Samples that are in the buffer beyond the last window that was cut.
    pending: usize,
}

impl WindowCutter {
    /// `window` and `hop` in samples; a `hop` of zero or beyond `window` is brought into range.
    pub fn new(window: usize, hop: usize) -> Self {
        let window = window.max(1);
        Self { window, hop: hop.clamp(1, window), buffer: vec![0.0; window], position: 0, pending: 0 }
    }

    /// Samples taken in since the start (or the last [`reset`](Self::reset)).
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes `samples` in and hands every window that became complete to `emit`.
    pub fn push(&mut self, mut samples: &[f32], mut emit: impl FnMut(Window)) {
        while !samples.is_empty() {
            let take = samples.len().min(self.hop - self.pending);
            self.buffer.extend_from_slice(&samples[..take]);
            samples = &samples[take..];
            self.pending += take;
            self.position += take as u64;
            if self.pending == self.hop {
                self.buffer.drain(..self.hop);
                self.pending = 0;
                emit(Window { end: self.position, samples: self.buffer.clone() });
            }
        }
    }

    /// Pads the end of a recording with `tail` zeros (at least up to the next hop) so that its last samples
    /// are scored too.
    pub fn finish(&mut self, tail: usize, emit: impl FnMut(Window)) {
        let total = self.pending + tail;
        let padded = total.div_ceil(self.hop) * self.hop;
        self.push(&vec![0.0; padded - self.pending], emit);
    }

    /// Forgets everything: the stream was interrupted and the next sample does not follow the last.
    pub fn reset(&mut self) {
        self.buffer.clear();
        self.buffer.resize(self.window, 0.0);
        self.pending = 0;
        self.position = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[usize]) -> Vec<Window> {
        let mut cutter = WindowCutter::new(6, 2);
        let (mut out, mut next) = (Vec::new(), 1.0);
        for &n in chunks {
            let chunk: Vec<f32> = (0..n).map(|i| next + i as f32).collect();
            next += n as f32;
            cutter.push(&chunk, |w| out.push(w));
        }
        out
    }

    #[test]
    fn windows_do_not_depend_on_the_chunking() {
        let whole = cut(&[10]);
        assert_eq!(whole, cut(&[1; 10]));
        assert_eq!(whole, cut(&[3, 0, 4, 3]));
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[0], Window { end: 2, samples: vec![0.0, 0.0, 0.0, 0.0, 1.0, 2.0] });
        assert_eq!(whole[4], Window { end: 10, samples: vec![5.0, 6.0, 7.0, 8.0, 9.0, 10.0] });
    }

    #[test]
    fn finish_flushes_the_last_samples_with_zeros() {
        let mut cutter = WindowCutter::new(4, 2);
        let mut out = Vec::new();
        cutter.push(&[1.0, 2.0, 3.0], |w| out.push(w));
        cutter.finish(1, |w| out.push(w));
        assert_eq!(out.last(), Some(&Window { end: 4, samples: vec![1.0, 2.0, 3.0, 0.0] }));
    }

    #[test]
    fn reset_starts_a_new_stream() {
        let mut cutter = WindowCutter::new(4, 2);
        cutter.push(&[1.0, 2.0, 3.0], |_| ());
        cutter.reset();
        let mut out = Vec::new();
        cutter.push(&[7.0, 8.0], |w| out.push(w));
        assert_eq!(out, vec![Window { end: 2, samples: vec![0.0, 0.0, 7.0, 8.0] }]);
    }
}
