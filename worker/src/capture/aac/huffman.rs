//! Decodes Huffman words. Words of up to nine bits, nearly all, are looked up; longer ones are found by their length. All
//! tables are made when this is compiled, so that processes share them.

use super::{
    bits::Bits,
    codebooks::{
        BOOK_1, BOOK_2, BOOK_3, BOOK_4, BOOK_5, BOOK_6, BOOK_7, BOOK_8, BOOK_9, BOOK_10, BOOK_11, LENGTHS_1,
        LENGTHS_2, LENGTHS_3, LENGTHS_4, LENGTHS_5, LENGTHS_6, LENGTHS_7, LENGTHS_8, LENGTHS_9, LENGTHS_10,
        LENGTHS_11, Lengths, SCALE_FACTOR_LENGTHS, SCALE_FACTORS,
    },
};

/// Bits of words that are looked up.
const FAST: u32 = 9;
/// Bits of the longest word.
const LONGEST: u32 = 19;

/// Larger escapes than any encoder may write.
const MOST_ESCAPE: u32 = 8;

/// A code.
struct Code {
    /// Number and length of the word that these bits begin with; 0 where it is longer.
    fast: [u16; 1 << FAST],
    /// Numbers of the words in the order of the words.
    order: &'static [u16],
    lengths: Lengths,
}

impl Code {
    /// The number of the next word.
    #[inline]
    fn next(&self, bits: &mut Bits<'_>) -> usize {
        let entry = self.fast[bits.peek(FAST) as usize];
        if entry == 0 {
            return self.long(bits);
        }
        bits.skip(u32::from(entry & 15));
        usize::from(entry >> 4)
    }

    #[cold]
    fn long(&self, bits: &mut Bits<'_>) -> usize {
        let (word, mut shorter) = (bits.peek(LONGEST), 0);
        for (n, (length, first)) in self.lengths.iter().enumerate() {
            let (word, count) = (word >> (LONGEST - length), count(self.lengths, n));
            if word - first < count {
                bits.skip(*length);
                return usize::from(self.order[(shorter + word - first) as usize]);
            }
            shorter += count;
        }
        // Every code is complete: there is a word for whatever comes.
        0
    }
}

/// Words of the `n`th length.
const fn count(lengths: Lengths, n: usize) -> u32 {
    let (length, first) = lengths[n];
    // Words of the next length begin where those of this one end.
    let end =
        if n + 1 < lengths.len() { lengths[n + 1].1 >> (lengths[n + 1].0 - length) } else { 1 << length };
    end - first
}

/// Which of the lengths a word has, and the number of shorter words.
const fn place(lengths: Lengths, word: u32) -> (usize, u32) {
    let (mut n, mut shorter) = (0, 0);
    while n + 1 < lengths.len() && lengths[n + 1].1 <= word {
        shorter += count(lengths, n);
        n += 1;
    }
    (n, shorter)
}

const fn order<const N: usize>(words: &[u32; N], lengths: Lengths) -> [u16; N] {
    let mut order = [0; N];
    let mut number = 0;
    while number < N {
        let (n, shorter) = place(lengths, words[number]);
        order[(shorter + words[number] - lengths[n].1) as usize] = number as u16;
        number += 1;
    }
    order
}

const fn fast<const N: usize>(words: &[u32; N], lengths: Lengths) -> [u16; 1 << FAST] {
    let mut table = [0; 1 << FAST];
    let mut number = 0;
    while number < N {
        let length = lengths[place(lengths, words[number]).0].0;
        if length <= FAST {
            let (first, mut rest) = (words[number] << (FAST - length), 0);
            while rest < 1 << (FAST - length) {
                table[(first + rest) as usize] = (number as u16) << 4 | length as u16;
                rest += 1;
            }
        }
        number += 1;
    }
    table
}

macro_rules! code {
    ($words:ident, $lengths:ident) => {
        Code { fast: fast(&$words, $lengths), order: &const { order(&$words, $lengths) }, lengths: $lengths }
    };
}

static SCALE_FACTOR: Code = code!(SCALE_FACTORS, SCALE_FACTOR_LENGTHS);
static SPECTRUM: [Code; 11] = [
    code!(BOOK_1, LENGTHS_1),
    code!(BOOK_2, LENGTHS_2),
    code!(BOOK_3, LENGTHS_3),
    code!(BOOK_4, LENGTHS_4),
    code!(BOOK_5, LENGTHS_5),
    code!(BOOK_6, LENGTHS_6),
    code!(BOOK_7, LENGTHS_7),
    code!(BOOK_8, LENGTHS_8),
    code!(BOOK_9, LENGTHS_9),
    code!(BOOK_10, LENGTHS_10),
    code!(BOOK_11, LENGTHS_11),
];

/// What the words of a book stand for: the digits of their number in base `base`, less `zero`.
const fn digits<const DIGITS: usize, const N: usize>(base: usize, zero: i8) -> [[i8; DIGITS]; N] {
    let mut all = [[0; DIGITS]; N];
    let mut number = 0;
    while number < N {
        let (mut rest, mut digit) = (number, DIGITS);
        while digit > 0 {
            digit -= 1;
            all[number][digit] = (rest % base) as i8 - zero;
            rest /= base;
        }
        number += 1;
    }
    all
}

static QUADS: [[i8; 4]; 81] = digits(3, 1);
static QUADS_UNSIGNED: [[i8; 4]; 81] = digits(3, 0);
static PAIRS: [[i8; 2]; 81] = digits(9, 4);
static PAIRS_7: [[i8; 2]; 64] = digits(8, 0);
static PAIRS_12: [[i8; 2]; 169] = digits(13, 0);
static PAIRS_16: [[i8; 2]; 289] = digits(17, 0);

/// The next difference of scale factors, -60 to 60.
pub fn scale_factor(bits: &mut Bits<'_>) -> i32 {
    SCALE_FACTOR.next(bits) as i32 - 60
}

/// Reads as many values of the spectrum as there is room, four at a time, by a book from 1 to 11. False where one of them
/// is none that an encoder may write.
pub fn spectrum(bits: &mut Bits<'_>, book: u8, out: &mut [i16]) -> bool {
    let Some(code) = SPECTRUM.get(usize::from(book).wrapping_sub(1)) else { return false };
    match book {
        1 | 2 => groups(bits, code, &QUADS, out, |_, value| value),
        3 | 4 => groups(bits, code, &QUADS_UNSIGNED, out, sign),
        5 | 6 => groups(bits, code, &PAIRS, out, |_, value| value),
        7 | 8 => groups(bits, code, &PAIRS_7, out, sign),
        9 | 10 => groups(bits, code, &PAIRS_12, out, sign),
        _ => return pairs_with_escapes(bits, code, out),
    }
    true
}

#[inline]
fn sign(bits: &mut Bits<'_>, value: i16) -> i16 {
    if value != 0 && bits.flag() { -value } else { value }
}

#[inline]
fn groups<const DIGITS: usize>(
    bits: &mut Bits<'_>,
    code: &Code,
    values: &[[i8; DIGITS]],
    out: &mut [i16],
    signed: impl Fn(&mut Bits<'_>, i16) -> i16,
) {
    for group in out.chunks_exact_mut(DIGITS) {
        for (place, value) in group.iter_mut().zip(values[code.next(bits)]) {
            *place = signed(bits, i16::from(value));
        }
    }
}

fn pairs_with_escapes(bits: &mut Bits<'_>, code: &Code, out: &mut [i16]) -> bool {
    for pair in out.chunks_exact_mut(2) {
        for (place, value) in pair.iter_mut().zip(PAIRS_16[code.next(bits)]) {
            *place = sign(bits, i16::from(value));
        }
        for place in pair.iter_mut().filter(|value| value.unsigned_abs() == 16) {
            let mut more = 0;
            while bits.flag() {
                more += 1;
                if more > MOST_ESCAPE {
                    return false;
                }
            }
            // At most 8191.
            let value = (1 << (more + 4)) + bits.read(more + 4) as i16;
            *place = if *place < 0 { -value } else { value };
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code has exactly one word for whatever comes, and every number one word.
    #[test]
    fn codes_are_complete_and_every_word_is_found_again() {
        fn check(code: &Code, words: &[u32]) {
            let mut room = 0u64;
            for (number, word) in words.iter().enumerate() {
                let (n, _) = place(code.lengths, *word);
                let length = code.lengths[n].0;
                room += 1 << (LONGEST - length);
                let bytes = (u64::from(*word) << (64 - length)).to_be_bytes();
                let mut bits = Bits::new(&bytes);
                assert_eq!((code.next(&mut bits), bits.position()), (number, length as usize), "{word:#x}");
            }
            assert_eq!(room, 1 << LONGEST);
        }
        check(&SCALE_FACTOR, &SCALE_FACTORS);
        let books: [&[u32]; 11] = [
            &BOOK_1, &BOOK_2, &BOOK_3, &BOOK_4, &BOOK_5, &BOOK_6, &BOOK_7, &BOOK_8, &BOOK_9, &BOOK_10,
            &BOOK_11,
        ];
        for (code, words) in SPECTRUM.iter().zip(books) {
            check(code, words);
        }
    }

    #[test]
    fn values_come_with_their_signs_and_escapes() {
        // Book 11: (0, 16) with a minus and an escape of 5 + 4 bits; then book 4's word for all zeros.
        let (n, _) = place(LENGTHS_11, BOOK_11[16]);
        let mut text = format!("{:0length$b}", BOOK_11[16], length = LENGTHS_11[n].0 as usize);
        text += "1111110000000011";
        text += "00000000";
        let bytes: Vec<u8> = text
            .as_bytes()
            .chunks(8)
            .map(|bits| bits.iter().enumerate().fold(0, |byte, (n, bit)| byte | (bit - b'0') << (7 - n)))
            .collect();
        let (mut bits, mut out) = (Bits::new(&bytes), [7; 2]);
        assert!(spectrum(&mut bits, 11, &mut out));
        assert_eq!(out, [0, -(512 + 3)]);
    }
}
