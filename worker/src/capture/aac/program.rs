//! A program configuration (`program_config_element`, 4.4.1.1 of ISO/IEC 14496-3) says which elements there are and where
//! they are heard. Who knows that from elsewhere passes over it.

use super::bits::Bits;

/// Goes on behind it. Its kind was read already; bytes are counted from the first bit.
pub fn skip(bits: &mut Bits<'_>) {
    // Its number, the kind of AAC, the sampling frequency.
    bits.read(4 + 2 + 4);
    let (front, side, back) = (bits.read(4), bits.read(4), bits.read(4));
    let (low, data, coupling) = (bits.read(2), bits.read(3), bits.read(4));
    // How it is mixed down to one channel and to two, each by an element's number, and by which matrix.
    for width in [4, 4, 2 + 1] {
        if bits.flag() {
            bits.read(width);
        }
    }
    // Each element's number, for most kinds with a bit more.
    for _ in 0..front + side + back + coupling {
        bits.read(1 + 4);
    }
    for _ in 0..low + data {
        bits.read(4);
    }
    bits.align();
    let comment = bits.read(8) as usize;
    bits.skip_bytes(comment);
}
