//! What a camera's `source` may be.

use std::path::PathBuf;

/// A parsed source.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// `rtsp://` or `rtsps://`, user information included.
    Rtsp(url::Url),
    File(PathBuf),
    /// Program and arguments as written; split like a shell does by whoever runs it.
    Exec(String),
    Synthetic(Synthetic),
}

/// What a synthetic camera plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synthetic {
    /// A cry of some seconds now and then, over faint room noise.
    Cry,
    /// A noise machine with a faint cry now and then.
    NoiseCry,
    /// Speech-like babble without any crying.
    Babble,
    /// Room noise only.
    Noise,
    /// Digital silence.
    Silence,
}

impl Synthetic {
    /// All kinds with their words.
    pub const ALL: [(&'static str, Synthetic); 5] = [
        ("cry", Synthetic::Cry),
        ("noise-cry", Synthetic::NoiseCry),
        ("babble", Synthetic::Babble),
        ("noise", Synthetic::Noise),
        ("silence", Synthetic::Silence),
    ];
}

/// Why a source cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error(
        "expected rtsp://HOST/PATH, rtsps://HOST/PATH, file:PATH, exec:COMMAND or synthetic:KIND{}",
        suggestion(.0)
    )]
    UnknownScheme(String),
    #[error("not a usable URL: {0}")]
    BadUrl(String),
    #[error("nothing stands after `{0}`")]
    Empty(&'static str),
    #[error("unknown kind of synthetic camera, expected one of: cry, noise-cry, babble, noise, silence")]
    UnknownSynthetic,
}

fn suggestion(scheme: &str) -> String {
    match crate::suggest::nearest(scheme, ["rtsp", "rtsps", "file", "exec", "synthetic"]) {
        Some(s) => format!(" (did you mean {s:?}?)"),
        None if scheme == "http" || scheme == "https" => " (for http use exec: with ffmpeg)".into(),
        None => String::new(),
    }
}

impl Source {
    /// Parses the text of a source; messages hold no part of it that may be secret.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(SourceError::UnknownScheme(String::new()));
        };
        match scheme {
            "rtsp" | "rtsps" => {
                let url = url::Url::parse(text).map_err(|e| SourceError::BadUrl(e.to_string()))?;
                if url.host_str().is_none_or(str::is_empty) {
                    return Err(SourceError::BadUrl("no host".into()));
                }
                Ok(Source::Rtsp(url))
            }
            "file" if rest.is_empty() => Err(SourceError::Empty("file:")),
            "file" => Ok(Source::File(PathBuf::from(rest.strip_prefix("//").unwrap_or(rest)))),
            "exec" if rest.trim().is_empty() => Err(SourceError::Empty("exec:")),
            "exec" => Ok(Source::Exec(rest.to_owned())),
            "synthetic" => Synthetic::ALL
                .into_iter()
                .find(|(word, _)| *word == rest)
                .map(|(_, kind)| Source::Synthetic(kind))
                .ok_or(SourceError::UnknownSynthetic),
            _ => Err(SourceError::UnknownScheme(scheme.to_owned())),
        }
    }
}
