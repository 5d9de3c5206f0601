//! PCM as it travels between processes: 16 kHz mono s16le in one shared byte buffer, serialised as bytes and
//! never element by element.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Samples per second of all audio inside nursery.
pub const SAMPLE_RATE: u32 = 16_000;

/// s16le samples; cloning shares the buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Pcm(Arc<[u8]>);

impl Pcm {
    /// Rounds samples in [-1, 1] to 16 bits; what lies outside is clipped, NaN becomes 0.
    pub fn from_f32(samples: &[f32]) -> Self {
        let mut bytes = vec![0; samples.len() * 2];
        for (two, s) in bytes.chunks_exact_mut(2).zip(samples) {
            two.copy_from_slice(&to_i16(*s).to_le_bytes());
        }
        Self(bytes.into())
    }

    /// Samples in [-1, 1).
    pub fn to_f32(&self) -> Vec<f32> {
        self.0.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0).collect()
    }

    /// Number of whole samples.
    pub fn len(&self) -> usize {
        self.0.len() / 2
    }

    /// True where there is not one whole sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes as they travel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// As `(s * 32768.0).round()`, whose call per sample costs more than everything else here where the processor that is
/// compiled for has no instruction for it.
fn to_i16(s: f32) -> i16 {
    let scaled = (s * 32768.0).clamp(-32768.0, 32767.0);
    let whole = scaled as i32;
    let rest = scaled - whole as f32;
    (whole + i32::from(rest >= 0.5) - i32::from(rest <= -0.5)) as i16
}

impl From<&[u8]> for Pcm {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl std::fmt::Debug for Pcm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pcm({} samples)", self.len())
    }
}

impl Serialize for Pcm {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pcm {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Pcm;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("bytes of s16le samples")
            }
            fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<Pcm, E> {
                if !v.len().is_multiple_of(2) {
                    return Err(E::custom("odd number of PCM bytes"));
                }
                Ok(Pcm(v.into()))
            }
        }
        d.deserialize_bytes(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_rounded_as_round_does_whatever_they_are() {
        let plainly = |s: f32| (s * 32768.0).round().clamp(-32768.0, 32767.0) as i16;
        // Every half, its neighbours, and patterns of bits from all over, infinities and NaN among them.
        let halves = (-65_600..65_600).map(|n| n as f32 / 65536.0);
        let near = halves.flat_map(|s| [s.next_down(), s, s.next_up()]);
        let anything = (0..=u32::MAX).step_by(4_001).map(f32::from_bits);
        for s in near.chain(anything) {
            assert_eq!(to_i16(s), plainly(s), "{s:?}");
        }
        assert_eq!(Pcm::from_f32(&[0.0, 1.0, -1.0, f32::NAN]).as_bytes(), [0, 0, 0xff, 0x7f, 0, 0x80, 0, 0]);
    }
}
