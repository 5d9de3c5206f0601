//! Asks for a password, by Basic or by Digest (RFC 2617 without `qop`, as most cameras do it).

use base64::{Engine, prelude::BASE64_STANDARD};
use md5::{Digest, Md5};

use super::request::Request;

const REALM: &str = "test camera";
const NONCE: &str = "8d1c2b0fdc4a4e5f";

/// How the password travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Basic,
    Digest,
}

/// Who may watch.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: String,
    pub password: String,
    pub scheme: Scheme,
}

impl Credentials {
    /// The value of `WWW-Authenticate`.
    pub fn challenge(&self) -> String {
        match self.scheme {
            Scheme::Basic => format!("Basic realm=\"{REALM}\""),
            Scheme::Digest => format!("Digest realm=\"{REALM}\", nonce=\"{NONCE}\""),
        }
    }

    /// True where the request carries the right password.
    pub fn admit(&self, request: &Request) -> bool {
        let Some((scheme, rest)) = request.header("authorization").and_then(|v| v.split_once(' ')) else {
            return false;
        };
        match self.scheme {
            Scheme::Basic => {
                let expected = BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password));
                scheme.eq_ignore_ascii_case("basic") && rest.trim() == expected
            }
            Scheme::Digest => {
                let uri = parameter(rest, "uri").unwrap_or_default();
                let a1 = md5(&format!("{}:{REALM}:{}", self.user, self.password));
                let a2 = md5(&format!("{}:{uri}", request.method));
                scheme.eq_ignore_ascii_case("digest")
                    && parameter(rest, "username") == Some(&self.user)
                    && parameter(rest, "nonce") == Some(NONCE)
                    && parameter(rest, "response") == Some(&md5(&format!("{a1}:{NONCE}:{a2}")))
            }
        }
    }
}

fn md5(text: &str) -> String {
    Md5::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let parameters = text.split(',').filter_map(|p| p.trim().split_once('='));
    parameters.into_iter().find(|(n, _)| *n == name).map(|(_, value)| value.trim_matches('"'))
}
