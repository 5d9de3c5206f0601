//! Texts that hold what somebody else wrote, brought to one line without control characters: what is told to people
//! must not move their cursor, and a log line must stay one.

use std::{borrow::Cow, fmt::Write};

/// `text` with its control characters written as escapes (`\n`, `\u{1b}`).
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// `text` with its midst left out where it is longer than `most` characters: what it is about stands at its beginning, and
/// what to do at its end.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    let length = text.chars().count();
    if length <= most {
        return Cow::Borrowed(text);
    }
    let half = most / 2;
    let begin = text.chars().take(half);
    Cow::Owned(begin.chain(" … ".chars()).chain(text.chars().skip(length - half)).collect())
}

#[cfg(test)]
mod tests {
    use super::{one_line, shortened};

    #[test]
    fn of_what_is_too_long_beginning_and_end_are_left() {
        assert_eq!(shortened("name: \u{e9}\u{e9}", 8), "name: \u{e9}\u{e9}");
        let long = format!("name: {}: give another", "\u{e9}".repeat(100_000));
        let short = shortened(&long, 40);
        assert!(short.starts_with("name: ") && short.ends_with(": give another"), "{short}");
        assert!(short.chars().count() <= 43);
    }

    #[test]
    fn control_characters_are_written_as_escapes_and_all_else_as_it_is() {
        assert_eq!(one_line("a b\u{e9}\"'\\"), "a b\u{e9}\"'\\");
        assert_eq!(one_line("a\nb\r\u{1b}[2J\u{85}\0"), "a\\nb\\r\\u{1b}[2J\\u{85}\\u{0}");
    }
}
