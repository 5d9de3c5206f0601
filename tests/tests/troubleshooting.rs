//! The troubleshooting page cannot rot: each message on it is in the sources, and each warning and error that the
//! supervisor or a worker logs is on it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The sources of some crates without their unit tests.
fn sources(crates: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = crates.iter().map(|name| root().join(name).join("src")).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let end = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub mod tests {"]
                    .map(|head| text.find(head));
                found.push(text[..end.into_iter().flatten().min().unwrap_or(text.len())].to_owned());
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// What stands between quotes in a source, with `…` for what is filled in; each with the place where it begins.
fn literals(source: &str) -> Vec<(usize, String)> {
    let bytes = source.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &source[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("'\"'") || rest.starts_with("b'\"'") {
            at += 4;
        } else if rest.starts_with("r#\"") {
            let end = rest.find("\"#").map_or(rest.len(), |end| end + 2);
            found.push((at, filled(&rest[3..end.max(5) - 2])));
            at += end;
        } else if bytes[at] == b'"' {
            let mut end = at + 1;
            while bytes.get(end).is_some_and(|b| *b != b'"') {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            found.push((at, filled(&joined(&source[at + 1..end.min(bytes.len())]))));
            at = end + 1;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    found
}

/// Without escapes: a line that goes on, and quotes.
fn joined(literal: &str) -> String {
    let mut out = String::new();
    let mut rest = literal;
    while let Some((before, after)) = rest.split_once('\\') {
        out += before;
        rest = match after.chars().next() {
            Some('\n') => after.trim_start(),
            Some(c) => {
                out.push(if c == 'n' { '\n' } else { c });
                &after[c.len_utf8()..]
            }
            None => after,
        };
    }
    out + rest
}

/// With `…` for `{…}`.
fn filled(literal: &str) -> String {
    let mut out = String::new();
    let mut rest = literal;
    while let Some((before, after)) = rest.split_once('{') {
        out += before;
        if let Some(brace) = after.strip_prefix('{') {
            out.push('{');
            rest = brace;
        } else {
            out.push('…');
            rest = after.split_once('}').map_or("", |(_, rest)| rest);
        }
    }
    out + rest
}

/// What stands in backticks first in each row of the tables whose first column has this name.
fn messages(column: &str) -> Vec<String> {
    let page = fs::read_to_string(root().join("supervisor/TROUBLESHOOTING.md")).unwrap();
    let (mut inside, mut found) = (false, Vec::new());
    for line in page.lines() {
        let Some(row) = line.strip_prefix("| ") else {
            inside &= line.starts_with("|--");
            continue;
        };
        if let Some(message) = row.split('`').nth(1).filter(|_| inside && row.starts_with('`')) {
            found.push(message.to_owned());
        } else {
            inside = row.starts_with(&format!("{column} |"));
        }
    }
    found
}

#[test]
fn every_message_on_the_page_is_in_the_sources() {
    let all = sources(&["supervisor", "worker", "shared", "models"]);
    let texts: Vec<String> = all.iter().flat_map(|s| literals(s)).map(|(_, text)| text).collect();
    let mut named = messages("Message");
    assert!(named.len() > 120, "{}", named.len());
    named.extend(messages("Event"));
    let gone: Vec<&String> = named.iter().filter(|m| !texts.iter().any(|t| t.contains(m.as_str()))).collect();
    assert!(gone.is_empty(), "on the page, but in no source: {gone:#?}");
}

#[test]
fn every_warning_and_error_that_is_logged_is_on_the_page() {
    let named = messages("Message");
    let mut missing = Vec::new();
    let mut count = 0;
    for source in sources(&["supervisor", "worker"]) {
        let literals = literals(&source);
        for call in ["tracing::warn!(", "tracing::error!("] {
            for (at, _) in source.match_indices(call) {
                let (_, text) = literals.iter().find(|(place, _)| *place > at).expect("a call without text");
                // What is made elsewhere and only handed on here.
                if text.chars().filter(|c| c.is_alphabetic()).count() < 4 {
                    continue;
                }
                count += 1;
                if !named.iter().any(|m| m.chars().count() > 8 && text.contains(m.as_str())) {
                    missing.push(text.clone());
                }
            }
        }
    }
    assert!(count > 10, "{count}");
    assert!(missing.is_empty(), "logged, but not in supervisor/TROUBLESHOOTING.md: {missing:#?}");
}

#[test]
fn literals_are_read_as_they_are_shown() {
    let source =
        "x(\"a {b} c{{ \\\"d\\\" \\\n    e\"); // \"not this\"\n y('\"', \"z{:.1}\"); r#\"raw \"{x}\"#;";
    let texts: Vec<String> = literals(source).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["a … c{ \"d\" e", "z…", "raw \"…"]);
}

#[test]
fn the_page_is_linked() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains("(supervisor/TROUBLESHOOTING.md)"));
}
