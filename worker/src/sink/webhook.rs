//! Webhooks after the Standard Webhooks convention (standardwebhooks.com): the headers `webhook-id`,
//! `webhook-timestamp` and `webhook-signature` let a receiver check who sent a body and drop repeats.

use std::{error::Error, sync::OnceLock, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use nursery_shared::{VERSION, secret::Secret, timestamp};
use reqwest::{Client, redirect::Policy};
use ring::hmac;

use super::receiver::Attempt;

/// A target with its key.
pub struct Webhook {
    url: reqwest::Url,
    key: Option<hmac::Key>,
    client: Client,
}

/// A secret of the form `whsec_BASE64` is decoded, as the convention has it; any other is the key itself.
fn key(secret: &Secret) -> Result<hmac::Key, String> {
    let bytes = match secret.expose().strip_prefix("whsec_") {
        Some(text) => BASE64_STANDARD
            .decode(text)
            .map_err(|_| "webhook secret: what follows `whsec_` is not base64".to_owned())?,
        None => secret.expose().as_bytes().to_vec(),
    };
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
fn signature(key: &hmac::Key, id: &str, timestamp: i64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(tag.as_ref()))
}

/// One client for all webhooks: connections are kept, redirects not followed (a body with a signature is for
/// one receiver alone).
pub(super) fn client() -> Result<Client, String> {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client.clone());
    }
    // Already installed by whoever came first: just as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .user_agent(format!("nursery/{VERSION}"))
        .redirect(Policy::none())
        .pool_max_idle_per_host(4)
        .build()
        .map_err(|e| format!("HTTP client: {}", chain(&e)))?;
    Ok(CLIENT.get_or_init(|| client).clone())
}

impl Webhook {
    /// Checks URL and secret.
    pub fn new(url: &str, secret: Option<&Secret>) -> Result<Self, String> {
        let url = reqwest::Url::parse(url).map_err(|e| format!("webhook url: {e}"))?;
        Ok(Self { url, key: secret.map(key).transpose()?, client: client()? })
    }

    /// See [`place`].
    pub fn place(&self) -> String {
        place(&self.url)
    }

    /// One POST; any 2xx status within the limit is a delivery. The answer's body is not read.
    pub async fn post(&self, id: &str, body: &str, limit: Duration) -> Attempt {
        let now = timestamp::now_us() / 1_000_000;
        let mut request = self
            .client
            .post(self.url.clone())
            .timeout(limit)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now.to_string())
            .body(body.to_owned());
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", signature(key, id, now, body));
        }
        match request.send().await {
            Ok(response) if response.status().is_success() => Attempt::Delivered,
            Ok(response) => Attempt::Failed(format!("{}: answered {}", self.place(), response.status())),
            Err(e) if e.is_timeout() => {
                Attempt::Failed(format!("{}: no answer within {} s", self.place(), limit.as_secs_f64()))
            }
            Err(e) => Attempt::Failed(format!("{}: {}", self.place(), chain(&e.without_url()))),
        }
    }
}

/// Scheme, host and port: the rest of a URL may be secret.
pub(super) fn place(url: &reqwest::Url) -> String {
    let port = url.port().map_or_else(String::new, |p| format!(":{p}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// An error with its causes on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text += &format!(": {e}");
        cause = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_published_example() {
        // The example of the Standard Webhooks specification and its reference libraries.
        let key = key(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let signature =
            signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_without_prefix_is_the_key_itself_and_bad_base64_is_refused() {
        let plain = key(&Secret::new("sesame")).unwrap();
        let same = key(&Secret::new("whsec_c2VzYW1l")).unwrap();
        assert_eq!(signature(&plain, "a", 1, "b"), signature(&same, "a", 1, "b"));
        let error = key(&Secret::new("whsec_!!")).err().unwrap();
        assert!(error.contains("base64") && !error.contains("!!"));
    }

    #[test]
    fn only_the_place_of_a_url_is_shown() {
        let webhook = Webhook::new("https://u:p@example.test:8443/hook/TOKEN?key=k", None).unwrap();
        assert_eq!(webhook.place(), "https://example.test:8443");
    }
}
