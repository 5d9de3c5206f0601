//! G.711 companding (ITU-T G.711): bytes of PCMU (µ-law) and PCMA (A-law) to linear samples.

/// One µ-law byte as a 16-bit sample; the 14-bit values of the recommendation, times four.
pub fn ulaw(byte: u8) -> i16 {
    let inverted = !byte;
    let segment = (inverted >> 4) & 7;
    let magnitude = (((i16::from(inverted & 0x0f) << 3) + 0x84) << segment) - 0x84;
    if inverted & 0x80 != 0 { -magnitude } else { magnitude }
}

/// One A-law byte as a 16-bit sample; the 13-bit values of the recommendation, times eight.
pub fn alaw(byte: u8) -> i16 {
    let toggled = byte ^ 0x55;
    let segment = (toggled >> 4) & 7;
    let step = (i16::from(toggled & 0x0f) << 4) + 8;
    let magnitude = if segment == 0 { step } else { (step + 0x100) << (segment - 1) };
    if toggled & 0x80 != 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulaw_gives_the_values_of_the_recommendation() {
        // Decoder outputs of table 2 of G.711, times four.
        for (byte, value) in [
            (0x80, 32_124),
            (0x8f, 16_764),
            (0x9f, 8_316),
            (0xaf, 4_092),
            (0xbf, 1_980),
            (0xcf, 924),
            (0xdf, 396),
            (0xef, 132),
            (0xfe, 8),
            (0xff, 0),
        ] {
            assert_eq!(ulaw(byte), value, "{byte:#x}");
            assert_eq!(ulaw(byte & 0x7f), -value, "{:#x}", byte & 0x7f);
        }
    }

    #[test]
    fn alaw_gives_the_values_of_the_recommendation() {
        // Decoder outputs of table 1 of G.711, times eight.
        for (byte, value) in [
            (0xaa, 32_256),
            (0xa5, 16_896),
            (0xb5, 8_448),
            (0x85, 4_224),
            (0x95, 2_112),
            (0xe5, 1_056),
            (0xf5, 528),
            (0xc5, 264),
            (0xd5, 8),
        ] {
            assert_eq!(alaw(byte), value, "{byte:#x}");
            assert_eq!(alaw(byte & 0x7f), -value, "{:#x}", byte & 0x7f);
        }
    }

    #[test]
    fn both_laws_are_monotonic_over_their_codes() {
        let u: Vec<i16> = (0x80..=0xff).map(ulaw).collect();
        assert!(u.is_sorted_by(|a, b| a >= b));
        let a: Vec<i16> = (0x80..=0xffu8).map(|b| alaw((b & 0x80) | ((b & 0x7f) ^ 0x55))).collect();
        assert!(a.is_sorted_by(|a, b| a < b));
    }
}
