//! The dead man's switch: a URL that is called every minute while everything listens. Whoever waits for the calls
//! gives the alarm when they stop, whatever it was that failed here.

use std::time::Duration;

use nursery_shared::secret::Secret;
use reqwest::Client;

use super::webhook;

/// One call; the next comes in a minute.
const LIMIT: Duration = Duration::from_secs(20);

/// Whom to call.
#[derive(Clone)]
pub struct Heartbeat {
    url: reqwest::Url,
    client: Client,
}

impl Heartbeat {
    /// Checks the URL.
    pub fn new(url: &Secret) -> Result<Self, String> {
        let url = reqwest::Url::parse(url.expose()).map_err(|e| e.to_string())?;
        Ok(Self { url, client: webhook::client()? })
    }

    /// Scheme, host and port: the rest of a URL may be secret.
    pub fn place(&self) -> String {
        webhook::place(&self.url)
    }

    /// One GET; any 2xx status within the limit is an answer. Its body is not read.
    ///
    /// # Errors
    /// One line without the secret parts of the URL.
    pub async fn call(&self) -> Result<(), String> {
        let sent = self.client.get(self.url.clone()).timeout(LIMIT).send().await;
        match sent {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("answered {}", answer.status())),
            Err(e) => Err(webhook::chain(&e.without_url())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_call_that_fails_says_why_and_not_with_which_token() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // A port that was just given back.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let heartbeat = Heartbeat::new(&Secret::new(format!("http://127.0.0.1:{port}/ping/token"))).unwrap();
        assert_eq!(heartbeat.place(), format!("http://127.0.0.1:{port}"));
        let error = runtime.block_on(heartbeat.call()).unwrap_err();
        assert!(error.contains("refused") && !error.contains("token"), "{error}");
    }
}
