//! Makes new inputs out of old ones. Random bytes alone never pass the first check of a format, so every input begins
//! as a valid one (or one that was worth keeping) and is changed in a few places, with its structure where that pays.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// How the inputs of a target are changed.
#[derive(Clone, Copy)]
pub enum Mutator {
    /// Anywhere.
    Bytes,
    /// By lines, words and numbers, now and then by bytes.
    Text,
    /// By values and keys, now and then as text.
    Json,
    /// By a function of the target: random numbers, input, another input, words.
    Own(Change),
}

/// Random numbers, input, another input, words; returns the changed input.
pub type Change = fn(&mut Rng, &[u8], &[u8], &[&str]) -> Vec<u8>;

impl Mutator {
    /// A changed copy of `input`; `other` is there to take parts from.
    /// At most `longest` bytes, after every change: several that repeat something would multiply.
    pub fn apply(
        self,
        random: &mut Rng,
        input: &[u8],
        other: &[u8],
        words: &[&str],
        longest: usize,
    ) -> Vec<u8> {
        let mut out = input.to_vec();
        for _ in 0..rounds(random) {
            out = match self {
                Mutator::Bytes => bytes(random, out, other, words),
                Mutator::Text => text(random, out, other, words),
                Mutator::Json => json(random, out, other, words),
                Mutator::Own(own) => own(random, &out, other, words),
            };
            out.truncate(longest);
        }
        out
    }
}

/// Mostly one change, sometimes several.
fn rounds(random: &mut Rng) -> usize {
    1 + (random.u64(1..256).trailing_zeros() as usize).min(5)
}

const NUMBERS: [&str; 24] = [
    "0",
    "1",
    "-1",
    "2",
    "7",
    "8",
    "255",
    "256",
    "-32768",
    "65535",
    "65536",
    "16000",
    "8000",
    "2147483647",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "0.5",
    "1e308",
    "-0.0",
    "1e-320",
    "99999999999999999999999",
];

const ODD_CHARACTERS: [&str; 12] =
    ["\0", "\n", "\r\n", "\t", "\u{1b}[31m", "\u{7f}", "\u{85}", "\u{202e}", "é", "😀", "\u{feff}", "%"];

/// A change of some bytes.
pub fn bytes(random: &mut Rng, mut out: Vec<u8>, other: &[u8], words: &[&str]) -> Vec<u8> {
    let at = random.usize(0..=out.len());
    let left = out.len() - at;
    match random.u8(0..12) {
        0 | 1 if left > 0 => out[at] ^= 1 << random.u8(0..8),
        2 if left > 0 => out[at] = random.u8(..),
        3 if left > 0 => out[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(0..5)],
        4 | 5 if left > 0 => {
            let width = [1, 2, 4, 8][random.usize(0..4)].min(left);
            let value: u64 = match random.u8(0..5) {
                0 => u64::MAX,
                1 => u64::MAX / 2,
                2 => 1 << random.u8(0..64),
                3 => u64::from(random.u16(0..300)),
                _ => (left as u64).wrapping_add(random.u64(0..9)).wrapping_sub(4),
            };
            let (little, big) = (value.to_le_bytes(), value.to_be_bytes());
            let value = if random.bool() { &little[..width] } else { &big[8 - width..] };
            out[at..at + width].copy_from_slice(value);
        }
        6 => {
            let count = short(random, 64);
            let filler = random.u8(..);
            let new: Vec<u8> =
                (0..count).map(|_| if random.bool() { filler } else { random.u8(..) }).collect();
            out.splice(at..at, new);
        }
        7 if left > 0 => {
            let count = short(random, left);
            out.drain(at..at + count);
        }
        8 if left > 0 => {
            let count = short(random, left);
            let part = out[at..at + count].to_vec();
            let times = if random.u8(0..8) == 0 { random.usize(1..64) } else { 1 };
            let to = random.usize(0..=out.len());
            out.splice(to..to, part.repeat(times));
        }
        9 if !other.is_empty() => {
            let from = random.usize(0..other.len());
            let count = short(random, other.len() - from);
            let gone = if random.bool() { count.min(left) } else { 0 };
            out.splice(at..at + gone, other[from..from + count].iter().copied());
        }
        10 if !words.is_empty() => {
            let word = words[random.usize(0..words.len())].as_bytes();
            let gone = if random.bool() { word.len().min(left) } else { 0 };
            out.splice(at..at + gone, word.iter().copied());
        }
        11 if random.bool() => out.truncate(at),
        _ => {
            if left > 0 {
                out[at] = out[at].wrapping_add(1);
            }
        }
    }
    out
}

/// A length: mostly short, sometimes up to `most`.
fn short(random: &mut Rng, most: usize) -> usize {
    let most = most.max(1);
    if random.u8(0..4) == 0 { random.usize(1..=most) } else { random.usize(1..=most.min(8)) }
}

/// A change of a line, a word or a number.
pub fn text(random: &mut Rng, input: Vec<u8>, other: &[u8], words: &[&str]) -> Vec<u8> {
    if random.u8(0..8) == 0 {
        return bytes(random, input, other, words);
    }
    if random.bool() {
        return lines(random, &input, other);
    }
    // Words and numbers: runs of letters and digits.
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let starts: Vec<usize> =
        (0..input.len()).filter(|&i| is_word(&input[i]) && (i == 0 || !is_word(&input[i - 1]))).collect();
    if starts.is_empty() {
        return bytes(random, input, other, words);
    }
    let start = starts[random.usize(0..starts.len())];
    let end = start + input[start..].iter().take_while(|b| is_word(b)).count();
    let word = &input[start..end];
    let number = word.iter().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    let new: Vec<u8> = match random.u8(0..6) {
        0 if !words.is_empty() => words[random.usize(0..words.len())].into(),
        1 => ODD_CHARACTERS[random.usize(0..ODD_CHARACTERS.len())].into(),
        2 => word.repeat(random.usize(0..40)),
        3 => [word, ODD_CHARACTERS[random.usize(0..ODD_CHARACTERS.len())].as_bytes()].concat(),
        _ if number || random.u8(0..4) == 0 => NUMBERS[random.usize(0..NUMBERS.len())].into(),
        4 if !words.is_empty() => words[random.usize(0..words.len())].into(),
        _ => bytes(random, word.to_vec(), other, words),
    };
    [&input[..start], &new, &input[end..]].concat()
}

fn lines(random: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = input.split_inclusive(|b| *b == b'\n').collect();
    if lines.is_empty() {
        return other.to_vec();
    }
    let (a, b) = (random.usize(0..lines.len()), random.usize(0..lines.len()));
    match random.u8(0..5) {
        0 => drop(lines.remove(a)),
        1 => lines.insert(b, lines[a]),
        2 => lines.swap(a, b),
        3 => {
            let theirs: Vec<&[u8]> = other.split_inclusive(|b| *b == b'\n').collect();
            if !theirs.is_empty() {
                lines.insert(a, theirs[random.usize(0..theirs.len())]);
            }
        }
        _ => {
            let times = random.usize(1..30);
            let line = lines[a];
            lines.splice(b..b, std::iter::repeat_n(line, times));
        }
    }
    lines.concat()
}

/// A change of one value or key of a JSON document; text that is none is changed as text.
pub fn json(random: &mut Rng, input: Vec<u8>, other: &[u8], words: &[&str]) -> Vec<u8> {
    if random.u8(0..8) == 0 {
        return text(random, input, other, words);
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(&input) else {
        return text(random, input, other, words);
    };
    let theirs = serde_json::from_slice::<Value>(other).ok();
    change(random, &mut value, theirs.as_ref(), words);
    // Values of ours are plain data; where it ever failed, the input stays as it is.
    serde_json::to_vec(&value).unwrap_or(input)
}

/// Changes one place of a value.
pub fn change(random: &mut Rng, value: &mut Value, theirs: Option<&Value>, words: &[&str]) {
    let mut count = 0;
    walk(value, &mut |_| {
        count += 1;
        false
    });
    let chosen = random.usize(0..count.max(1));
    let part = theirs.map(|theirs| part_of(random, theirs));
    let mut n = 0;
    walk(value, &mut |place| {
        n += 1;
        if n - 1 != chosen {
            return false;
        }
        change_here(random, place, part.as_ref(), words);
        true
    });
}

/// Calls `at` for every value inside, outermost first, until it returns true.
fn walk(value: &mut Value, at: &mut impl FnMut(&mut Value) -> bool) -> bool {
    if at(value) {
        return true;
    }
    match value {
        Value::Array(items) => items.iter_mut().any(|item| walk(item, at)),
        Value::Object(map) => map.values_mut().any(|item| walk(item, at)),
        _ => false,
    }
}

/// A random value inside of another.
fn part_of(random: &mut Rng, value: &Value) -> Value {
    let inner: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    };
    if inner.is_empty() || random.u8(0..4) == 0 {
        return value.clone();
    }
    let chosen = inner[random.usize(0..inner.len())];
    part_of(random, chosen)
}

fn change_here(random: &mut Rng, place: &mut Value, part: Option<&Value>, words: &[&str]) {
    match (random.u8(0..10), &mut *place) {
        (0, _) => *place = odd_value(random),
        (1, _) if part.is_some() => *place = part.cloned().unwrap_or_default(),
        (2, Value::Object(map)) => {
            let word = words.get(random.usize(0..words.len().max(1))).map_or("x", |w| w).to_owned();
            map.insert(word, part.cloned().unwrap_or_else(|| odd_value(random)));
        }
        (3 | 4, Value::Object(map)) if !map.is_empty() => {
            let key = map.keys().nth(random.usize(0..map.len())).cloned().unwrap_or_default();
            let old = map.remove(&key);
            if random.bool() {
                let new = bytes(random, key.into_bytes(), b"", words);
                map.insert(String::from_utf8_lossy(&new).into_owned(), old.unwrap_or_default());
            }
        }
        (2, Value::Array(items)) if !items.is_empty() => {
            let (from, to) = (random.usize(0..items.len()), random.usize(0..=items.len()));
            let item = items[from].clone();
            let times = if random.u8(0..8) == 0 { 100 } else { 1 };
            items.splice(to..to, std::iter::repeat_n(item, times));
        }
        (3 | 4, Value::Array(items)) if !items.is_empty() => drop(items.remove(random.usize(0..items.len()))),
        (5, _) => {
            let depth = if random.u8(0..8) == 0 { 200 } else { 1 };
            for _ in 0..depth {
                *place = if random.bool() { json!([place.take()]) } else { json!({ "x": place.take() }) };
            }
        }
        (_, Value::Number(_)) => *place = odd_number(random),
        (_, Value::String(old)) => {
            let new = text(random, std::mem::take(old).into_bytes(), b"", words);
            *place = Value::String(String::from_utf8_lossy(&new).into_owned());
        }
        (_, Value::Bool(b)) => *b = !*b,
        _ => *place = odd_value(random),
    }
}

fn odd_number(random: &mut Rng) -> Value {
    if random.u8(0..3) == 0 {
        return json!(random.f64() * 10f64.powi(random.i32(-6..12)));
    }
    let text = NUMBERS[random.usize(0..NUMBERS.len())];
    serde_json::from_str(text).unwrap_or(Value::Null)
}

fn odd_value(random: &mut Rng) -> Value {
    match random.u8(0..8) {
        0 => Value::Null,
        1 => json!(random.bool()),
        2 => json!([]),
        3 => Value::Object(Map::new()),
        4 => json!(""),
        5 => json!(ODD_CHARACTERS[random.usize(0..ODD_CHARACTERS.len())]),
        6 => json!("a".repeat(random.usize(0..300))),
        _ => odd_number(random),
    }
}
