//! Takes the password out of a camera's source before anybody sees it.

/// `source` with the user information of a URL replaced by `***`; works on text that is no valid URL too.
/// An `exec:` source keeps only its program, since arguments may hold passwords.
pub fn source(source: &str) -> String {
    // Readers of URLs pass over these wherever they stand, in the middle of `://` too.
    let source = source.replace(['\t', '\n', '\r'], "");
    if let Some(command) = source.strip_prefix("exec:") {
        let program = command.split_whitespace().next().unwrap_or_default();
        return if command.trim() == program { source } else { format!("exec:{program} …") };
    }
    let mut shown = String::new();
    let mut left = source.as_str();
    // A URL may hold another one, in its query or pasted by mistake.
    while let Some((scheme, rest)) = left.split_once("://") {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        // A password may itself hold an '@' or a '/': hide up to the last '@' that a host can follow.
        let cut = rest[..end].rfind('@').or_else(|| rest.rfind('@'));
        shown += scheme;
        shown += "://";
        left = rest;
        if let Some(at) = cut {
            shown += "***@";
            left = &rest[at + 1..];
        }
    }
    shown + left
}

#[cfg(test)]
mod tests {
    #[test]
    fn passwords_never_survive() {
        let r = super::source;
        assert_eq!(r("rtsp://u:p@h:554/a"), "rtsp://***@h:554/a");
        assert_eq!(r("rtsp://u:p@x@h/a@b"), "rtsp://***@h/a@b");
        assert_eq!(r("rtsp://u:p/x@h/a"), "rtsp://***@h/a");
        assert_eq!(r("rtsp://u:p@h/artsp://u:p@h/b"), "rtsp://***@h/artsp://***@h/b");
        assert_eq!(r("rtsp:/\n/u:p@h/a"), "rtsp://***@h/a");
        assert_eq!(r("ex\nec:ffmpeg -i rtsp://u:p@h"), "exec:ffmpeg …");
        assert_eq!(r("rtsp://h/?x=http://u:p@h/b"), "rtsp://***@h/b");
        assert_eq!(r("rtsp://h/a"), "rtsp://h/a");
        assert_eq!(r("file:a.wav"), "file:a.wav");
        assert_eq!(r("exec:ffmpeg -i rtsp://u:p@h"), "exec:ffmpeg …");
    }
}
