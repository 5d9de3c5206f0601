//! The terminal's size, and text that fits it: a line that wraps, or one too many, would spoil what is redrawn in
//! place.

use std::io::{self, IsTerminal};

use super::table;

/// Columns and rows of the terminal on standard output; `None` where there is none.
pub fn size() -> Option<(usize, usize)> {
    if !io::stdout().is_terminal() {
        return None;
    }
    // A terminal that does not know its size says 0.
    let size = terminal_size::terminal_size_of(io::stdout())
        .map(|(columns, rows)| (usize::from(columns.0), usize::from(rows.0)));
    Some(size.filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or((table::WIDTH, 24)))
}

/// `text` in one column less than there are, since some terminals wrap as soon as the last one is filled, and one
/// row less, which the cursor needs.
pub fn fit(text: &str, (columns, rows): (usize, usize)) -> String {
    let columns = columns.saturating_sub(1);
    let most = rows.saturating_sub(1).max(1);
    let all: Vec<&str> = text.lines().collect();
    let shown = if all.len() > most { most - 1 } else { all.len() };
    let mut lines: Vec<String> = all[..shown].iter().map(|line| table::cut(line, columns)).collect();
    if shown < all.len() {
        lines.push(table::cut(&format!("… {} more lines", all.len() - shown), columns));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_and_counted() {
        let text = "one\ntwo\nthree and more\nfour\nfive";
        assert_eq!(fit(text, (100, 24)), text);
        assert_eq!(fit(text, (6, 6)), "one\ntwo\nthre…\nfour\nfive");
        assert_eq!(fit(text, (100, 4)), "one\ntwo\n… 3 more lines");
        for size in [(0, 0), (1, 1), (3, 2)] {
            assert!(fit(text, size).lines().count() <= 1, "{size:?}");
        }
    }
}
