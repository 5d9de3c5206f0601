//! Texts that repeat what a file holds.

/// `text` with its control characters written as escapes, so that an error stays one line and moves no cursor.
pub(crate) fn one_line(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_are_written_as_escapes() {
        assert_eq!(super::one_line("a\n\u{1b}é"), "a\\n\\u{1b}é");
    }
}
