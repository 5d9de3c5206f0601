//! Bits of a packet, the most significant first. Beyond its end there are zeros, and [`Bits::is_over`] says so.

/// Reads a packet bit by bit.
pub struct Bits<'a> {
    data: &'a [u8],
    /// The next byte that is not in `cache` yet.
    next: usize,
    /// Bits that come next, from the top.
    cache: u64,
    /// How many of them there are.
    count: u32,
}

impl<'a> Bits<'a> {
    /// From the first bit on.
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, next: 0, cache: 0, count: 0 }
    }

    #[inline]
    fn refill(&mut self) {
        if let Some(bytes) = self.data.get(self.next..).and_then(|rest| rest.first_chunk::<4>()) {
            self.cache |= u64::from(u32::from_be_bytes(*bytes)) << (32 - self.count);
        } else {
            let rest = self.data.get(self.next..).unwrap_or_default();
            for (n, byte) in (0..).zip(rest) {
                self.cache |= u64::from(*byte) << (56 - self.count - 8 * n);
            }
        }
        self.next += 4;
        self.count += 32;
    }

    /// The next `n` bits (1 to 32), which stay where they are.
    #[inline]
    pub fn peek(&mut self, n: u32) -> u32 {
        debug_assert!((1..=32).contains(&n));
        if self.count < n {
            self.refill();
        }
        (self.cache >> (64 - n)) as u32
    }

    /// Goes on by `n` bits, which were looked at.
    #[inline]
    pub fn skip(&mut self, n: u32) {
        debug_assert!(n <= self.count);
        self.cache <<= n;
        self.count -= n;
    }

    /// The next `n` bits (0 to 32).
    #[inline]
    pub fn read(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        let bits = self.peek(n);
        self.skip(n);
        bits
    }

    /// The next bit.
    #[inline]
    pub fn flag(&mut self) -> bool {
        self.read(1) == 1
    }

    /// Bits that were read so far.
    pub fn position(&self) -> usize {
        self.next * 8 - self.count as usize
    }

    /// Goes to the beginning of the next byte, where this is none.
    pub fn align(&mut self) {
        let over = (self.position() % 8) as u32;
        if over > 0 {
            self.read(8 - over);
        }
    }

    /// Goes on by so many bytes.
    pub fn skip_bytes(&mut self, count: usize) {
        for _ in 0..count {
            self.read(8);
        }
    }

    /// More was read than there is.
    pub fn is_over(&self) -> bool {
        self.position() > self.data.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_in_order_whatever_the_lengths_and_zeros_after_them() {
        let data: Vec<u8> = (0..61u8).map(|n| n.wrapping_mul(151) ^ 0x5a).collect();
        let bit = |n: usize| data.get(n / 8).map_or(0, |byte| u32::from(byte >> (7 - n % 8)) & 1);
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let (mut bits, mut at) = (Bits::new(&data), 0);
            while at < data.len() * 8 + 100 {
                assert_eq!((bits.position(), bits.is_over()), (at, at > data.len() * 8));
                let n = random.usize(0..=32);
                let expected = (at..at + n).fold(0u32, |sum, n| sum << 1 | bit(n));
                assert_eq!(bits.read(n as u32), expected, "{n} bits at {at}");
                at += n;
            }
        }
    }
}
