//! Where the page and the API listen, and what it takes to be let in.

use std::{net::SocketAddr, os::unix::fs::MetadataExt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Port of the page unless told otherwise.
const LISTEN: &str = "127.0.0.1:8790";
/// Fewest characters of a password and of a token: whoever guesses is slowed down, but has all night.
const MIN_PASSWORD: usize = 8;
const MIN_TOKEN: usize = 16;
/// Longest of either.
const MAX_SECRET: usize = 1024;
/// What a password's hash may cost: memory in KiB, passes, lanes.
const MAX_MEMORY: u32 = 256 << 10;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 4;

/// The page and the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebConfig {
    /// Address and port. Beyond this host only with `password` or `token`.
    pub listen: String,
    /// For people: the password itself (8 characters or more), or its argon2id hash (`$argon2id$v=19$…`).
    pub password: Option<Secret>,
    /// For scripts (`Authorization: Bearer …`): 16 characters or more.
    pub token: Option<Secret>,
    /// Speak HTTPS, with this certificate. Without, where it is not this host alone that looks, a reverse proxy should.
    pub tls: Option<TlsConfig>,
}

/// The page's certificate. Files that were renewed are taken up at a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// A PEM file: the certificate and those that lead from it to an authority.
    pub certificate: String,
    /// A PEM file with its private key, which has no password.
    pub key: String,
    /// Tells whether the files are others than before.
    #[serde(skip)]
    #[schemars(skip)]
    pub stamp: Vec<(u64, i64, i64, u64)>,
}

impl TlsConfig {
    /// Of these two files.
    pub fn new(certificate: impl Into<String>, key: impl Into<String>) -> Self {
        Self { certificate: certificate.into(), key: key.into(), stamp: Vec::new() }
    }

    /// Finds the files; `find` makes a path that leads there from anywhere.
    pub(super) fn validate(
        &mut self,
        find: impl Fn(&str) -> Result<String, String>,
    ) -> Result<(), (&'static str, String)> {
        for (key, path) in [("tls.certificate", &mut self.certificate), ("tls.key", &mut self.key)] {
            *path = find(path).map_err(|e| (key, e))?;
            let found = std::fs::metadata(&*path).map_err(|e| (key, format!("{path}: {e}")))?;
            self.stamp.push((found.ino(), found.mtime(), found.mtime_nsec(), found.len()));
        }
        Ok(())
    }
}

impl Default for WebConfig {
    fn default() -> Self {
        Self { listen: LISTEN.to_owned(), password: None, token: None, tls: None }
    }
}

impl WebConfig {
    /// Where to listen; `None` for what validation refuses.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    /// Somebody must say who he is.
    pub fn needs_login(&self) -> bool {
        self.password.is_some() || self.token.is_some()
    }

    /// Looks at every key; `resolve` replaces a secret that stands elsewhere by its value.
    pub(super) fn validate(
        &mut self,
        resolve: impl Fn(&mut Secret) -> Result<(), String>,
    ) -> Result<(), (&'static str, String)> {
        let listen = &self.listen;
        let address = self
            .address()
            .filter(|a| a.port() != 0)
            .ok_or_else(|| ("listen", format!("{listen:?}, expected ADDRESS:PORT such as \"{LISTEN}\"")))?;
        for (key, secret, least) in
            [("password", &mut self.password, MIN_PASSWORD), ("token", &mut self.token, MIN_TOKEN)]
        {
            let Some(secret) = secret else { continue };
            resolve(secret).map_err(|e| (key, e))?;
            let length = secret.expose().chars().count();
            if !(least..=MAX_SECRET).contains(&length) {
                return Err((key, format!("expected {least} to {MAX_SECRET} characters")));
            }
        }
        if let Some(password) = &self.password
            && password.expose().starts_with("$argon2")
        {
            check_hash(password.expose()).map_err(|what| ("password", what))?;
        }
        if !address.ip().is_loopback() && !self.needs_login() {
            return Err((
                "listen",
                format!("{listen} lets others than this host look, which takes a `password` (or a `token`)"),
            ));
        }
        Ok(())
    }
}

/// `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`: of the right kind, and of a cost that one login may have. The message
/// repeats nothing of it.
fn check_hash(text: &str) -> Result<(), String> {
    let expected = || "expected an argon2id hash like $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH".to_owned();
    let ["", "argon2id", "v=19", costs, salt, hash] = text.split('$').collect::<Vec<_>>()[..] else {
        return Err(expected());
    };
    let mut numbers = costs.split(',').zip(["m=", "t=", "p="]).map(|(part, key)| {
        part.strip_prefix(key).and_then(|number| number.parse::<u32>().ok()).ok_or_else(expected)
    });
    let mut next = || numbers.next().unwrap_or_else(|| Err(expected()));
    let (memory, passes, lanes) = (next()?, next()?, next()?);
    let base64 = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || c == '+' || c == '/');
    let whole = salt.len() >= 11 && hash.len() >= 22 && base64(salt) && base64(hash);
    if costs.split(',').count() != 3 || !whole {
        return Err(expected());
    }
    let affordable = (8 * lanes.max(1)..=MAX_MEMORY).contains(&memory)
        && (1..=MAX_PASSES).contains(&passes)
        && (1..=MAX_LANES).contains(&lanes);
    if !affordable {
        return Err(format!(
            "its hash costs too much or too little: at most m={MAX_MEMORY}, t={MAX_PASSES}, p={MAX_LANES}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const HASH: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzYWx0$R7tXyrSVe9cKMPRRlOIsTRJLPBbPmaRBpTWBjo5NzXk";

    fn validate(web: &str) -> Result<WebConfig, String> {
        let mut web: WebConfig = serde_json::from_str(web).map_err(|e| e.to_string())?;
        web.validate(|_| Ok(())).map_err(|(key, what)| format!("{key}: {what}")).map(|()| web)
    }

    #[test]
    fn this_host_may_look_without_a_password_and_nobody_else() {
        assert_eq!(validate("{}").unwrap().address().unwrap().to_string(), "127.0.0.1:8790");
        assert!(validate(r#"{"listen": "[::1]:80"}"#).is_ok());
        for listen in ["0.0.0.0:8790", "[::]:8790", "192.168.1.2:80"] {
            let e = validate(&format!(r#"{{"listen": "{listen}"}}"#)).unwrap_err();
            assert!(e.starts_with("listen: ") && e.contains("takes a `password`"), "{e}");
            for login in [r#""password": "8 or more""#, r#""token": "sixteen or longer""#] {
                assert!(validate(&format!(r#"{{"listen": "{listen}", {login}}}"#)).unwrap().needs_login());
            }
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_and_not_repeated() {
        for (web, expected) in [
            (r#"{"listen": "localhost:8790"}"#, "listen: \"localhost:8790\", expected ADDRESS:PORT"),
            (r#"{"listen": "127.0.0.1:0"}"#, "expected ADDRESS:PORT"),
            (r#"{"listen": ":8790"}"#, "expected ADDRESS:PORT"),
            (r#"{"password": "hunter2"}"#, "password: expected 8 to 1024 characters"),
            (r#"{"token": "hunter2"}"#, "token: expected 16"),
            (r#"{"password": "$argon2id$hunter2"}"#, "password: expected an argon2id hash"),
            (r#"{"password": "$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$hunter2"}"#, "expected an argon2id"),
            (r#"{"passwrod": "hunter22"}"#, "unknown field"),
        ] {
            let e = validate(web).unwrap_err();
            assert!(e.contains(expected), "{web}: {e}");
            assert!(!e.contains("hunter2"), "{e}");
        }
    }

    #[test]
    fn a_hash_that_one_login_cannot_afford_is_refused() {
        assert!(check_hash(HASH).is_ok());
        for (from, to) in [("m=19456", "m=99999999"), ("t=2", "t=900"), ("p=1", "p=64"), ("m=19456", "m=1")] {
            assert!(check_hash(&HASH.replace(from, to)).unwrap_err().contains("costs too"), "{to}");
        }
        for bad in [HASH.replace("p=1", "p=1,x=2"), HASH.replace("t=2,", ""), HASH.replace("v=19$", "")] {
            assert!(check_hash(&bad).unwrap_err().contains("expected an argon2id hash"), "{bad}");
        }
    }
}
