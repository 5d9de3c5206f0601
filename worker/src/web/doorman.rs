//! Who may look: passwords, tokens and the cookies that stand for them, and how often somebody may guess.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use argon2::{Argon2, PasswordVerifier};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nursery_shared::config::WebConfig;
use ring::hmac;
use tokio::sync::Semaphore;

/// Name of the cookie.
const COOKIE: &str = "nursery";
/// How long a login lasts.
const SESSION: Duration = Duration::from_secs(30 * 86_400);
/// Longest password that anybody is asked to try.
const MAX_TRIED: usize = 1024;
/// Logins that are looked at or wait to be.
const WAITING: usize = 8;
/// Wrong ones in a row from one address, and how long it takes until one more is allowed.
const BURST: f64 = 5.0;
const REFILL: Duration = Duration::from_secs(15);
/// The same from everybody together.
const BURST_OF_ALL: f64 = 50.0;
const REFILL_OF_ALL: Duration = Duration::from_secs(2);
/// Wrong tokens of an address that are remembered.
const TRIED: usize = 4;
/// Addresses that are remembered.
const ADDRESSES: usize = 1024;

/// What came of a login.
#[derive(Debug, PartialEq, Eq)]
pub enum Login {
    /// The value of a `Set-Cookie` header, without `Secure`.
    Welcome(String),
    Wrong,
    /// Too many were wrong, or too many wait: try again after so long.
    Later(Duration),
}

/// Keeps the door.
pub struct Doorman {
    password: Option<String>,
    token: Option<String>,
    /// What cookies are signed with. Made of the password, so that a login outlives this process and the service, and
    /// ends where the password changes; slowly, so that a cookie helps nobody to guess it.
    key: hmac::Key,
    /// Guesses at passwords and at tokens, each for itself: a script with an old token locks nobody out who logs in.
    passwords: Mutex<Failures>,
    tokens: Mutex<Failures>,
    queue: Arc<Semaphore>,
    trying: Arc<Semaphore>,
}

impl Doorman {
    /// For this configuration.
    ///
    /// # Errors
    /// One line: the key cannot be made.
    pub fn new(config: &WebConfig) -> Result<Self, String> {
        let text =
            |secret: &Option<nursery_shared::secret::Secret>| secret.as_ref().map(|s| s.expose().to_owned());
        let (password, token) = (text(&config.password), text(&config.token));
        let both = [password.as_deref().unwrap_or_default(), "\0", token.as_deref().unwrap_or_default()];
        let mut key = [0; 32];
        if config.needs_login() {
            Argon2::default()
                .hash_password_into(both.concat().as_bytes(), b"nursery web session", &mut key)
                .map_err(|e| format!("web.password: the key of cookies cannot be made: {e}"))?;
        }
        Ok(Self {
            password,
            token,
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            passwords: Mutex::new(Failures::new(Instant::now())),
            tokens: Mutex::new(Failures::new(Instant::now())),
            queue: Arc::new(Semaphore::new(WAITING)),
            trying: Arc::new(Semaphore::new(1)),
        })
    }

    /// Nobody is let in without a word.
    pub fn is_strict(&self) -> bool {
        self.password.is_some() || self.token.is_some()
    }

    /// Looks at a password from this address. Slow ones are tried one at a time, beside everything else.
    pub async fn log_in(self: &Arc<Self>, from: IpAddr, given: String) -> Login {
        if !self.is_strict() || given.is_empty() || given.len() > MAX_TRIED {
            return Login::Wrong;
        }
        let Ok(_place) = self.queue.try_acquire() else { return Login::Later(Duration::from_secs(2)) };
        // Taken before it is tried and given back where it is right, so that nobody guesses in parallel.
        if let Err(wait) = locked(&self.passwords).take(from, Instant::now()) {
            return Login::Later(wait);
        }
        let Ok(_turn) = self.trying.acquire().await else { return Login::Wrong };
        let doorman = Arc::clone(self);
        let right = tokio::task::spawn_blocking(move || doorman.is_right(&given)).await.unwrap_or(false);
        if right {
            locked(&self.passwords).give_back(from);
            Login::Welcome(self.cookie())
        } else {
            tracing::warn!("login from {from} failed: wrong password");
            Login::Wrong
        }
    }

    fn is_right(&self, given: &str) -> bool {
        let password = self.password.as_deref().is_some_and(|known| {
            if known.starts_with("$argon2") {
                Argon2::default().verify_password(given.as_bytes(), known).is_ok()
            } else {
                self.same(known, given)
            }
        });
        password | self.token.as_deref().is_some_and(|known| self.same(known, given))
    }

    /// Takes the same time whatever the difference.
    fn same(&self, known: &str, given: &str) -> bool {
        let tag = hmac::sign(&self.key, known.as_bytes());
        hmac::verify(&self.key, given.as_bytes(), tag.as_ref()).is_ok()
    }

    /// Whether a token lets in; wrong ones count like wrong passwords. Whoever has guessed too often is told nothing, not
    /// even that he is right. The same wrong one again is no further guess: a script with an old token goes on as it did.
    pub fn knows_token(&self, from: IpAddr, given: &str) -> Result<(), Login> {
        let now = Instant::now();
        let mut failures = locked(&self.tokens);
        let tag = Tag::of(&self.key, given);
        if failures.has_tried(from, tag) {
            return Err(Login::Wrong);
        }
        if let Some(wait) = failures.must_wait(from, now) {
            return Err(Login::Later(wait));
        }
        if self.token.as_deref().is_some_and(|known| self.same(known, given)) {
            return Ok(());
        }
        failures.take(from, now).map_err(Login::Later)?;
        failures.note(from, tag);
        tracing::warn!("login from {from} failed: wrong token");
        Err(Login::Wrong)
    }

    fn cookie(&self) -> String {
        let until = (now() + SESSION).as_secs();
        let age = SESSION.as_secs();
        format!("{COOKIE}={}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict", self.sign(until))
    }

    /// What makes a browser forget.
    pub fn farewell() -> String {
        format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict")
    }

    fn sign(&self, until: u64) -> String {
        let tag = hmac::sign(&self.key, format!("session until {until}").as_bytes());
        format!("{until}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
    }

    /// Whether a `Cookie` header holds a login that is still good.
    pub fn knows_cookie(&self, header: &str) -> bool {
        header.split(';').filter_map(|part| part.trim().split_once('=')).any(|(name, value)| {
            let Some((until, tag)) = value.split_once('.').filter(|_| name == COOKIE) else { return false };
            let (Ok(seconds), Ok(tag)) = (until.parse::<u64>(), BASE64_URL_SAFE_NO_PAD.decode(tag)) else {
                return false;
            };
            let signed = format!("session until {seconds}");
            seconds > now().as_secs() && hmac::verify(&self.key, signed.as_bytes(), &tag).is_ok()
        })
    }
}

fn locked(failures: &Mutex<Failures>) -> std::sync::MutexGuard<'_, Failures> {
    failures.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stands for something wrong that was given, and tells nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag(u64);

impl Tag {
    fn of(key: &hmac::Key, given: &str) -> Self {
        let tag = hmac::sign(key, format!("wrong token {given}").as_bytes());
        Self(tag.as_ref().iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte)))
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// How many wrong ones are left to somebody: a bucket that fills again.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
    /// What was tried last and is known to be wrong.
    tried: [Option<Tag>; TRIED],
}

impl Bucket {
    fn new(left: f64, at: Instant) -> Self {
        Self { left, at, tried: [None; TRIED] }
    }

    fn refill(&mut self, now: Instant, most: f64, each: Duration) {
        let grown = now.saturating_duration_since(self.at).as_secs_f64() / each.as_secs_f64();
        self.left = (self.left + grown).min(most);
        self.at = now;
    }

    fn wait(self, each: Duration) -> Duration {
        each.mul_f64((1.0 - self.left).max(0.0))
    }
}

struct Failures {
    of: HashMap<IpAddr, Bucket>,
    all: Bucket,
}

impl Failures {
    fn new(now: Instant) -> Self {
        Self { of: HashMap::new(), all: Bucket::new(BURST_OF_ALL, now) }
    }

    fn take(&mut self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        self.all.refill(now, BURST_OF_ALL, REFILL_OF_ALL);
        let from = network(from);
        if self.of.len() >= ADDRESSES && !self.of.contains_key(&from) {
            // Whoever has been good for longest is forgotten.
            self.of.values_mut().for_each(|b| b.refill(now, BURST, REFILL));
            let fullest = self.of.iter().max_by(|a, b| a.1.left.total_cmp(&b.1.left)).map(|(ip, _)| *ip);
            fullest.and_then(|ip| self.of.remove(&ip));
        }
        let bucket = self.of.entry(from).or_insert(Bucket::new(BURST, now));
        bucket.refill(now, BURST, REFILL);
        if bucket.left < 1.0 {
            return Err(bucket.wait(REFILL));
        }
        if self.all.left < 1.0 {
            return Err(self.all.wait(REFILL_OF_ALL));
        }
        bucket.left -= 1.0;
        self.all.left -= 1.0;
        Ok(())
    }

    /// How long somebody has to wait until he may guess again; `None`: not at all, as whoever has not guessed wrong so far.
    fn must_wait(&mut self, from: IpAddr, now: Instant) -> Option<Duration> {
        let bucket = self.of.get_mut(&network(from))?;
        bucket.refill(now, BURST, REFILL);
        (bucket.left < 1.0).then(|| bucket.wait(REFILL))
    }

    /// This was wrong a moment ago.
    fn has_tried(&self, from: IpAddr, tag: Tag) -> bool {
        self.of.get(&network(from)).is_some_and(|bucket| bucket.tried.contains(&Some(tag)))
    }

    fn note(&mut self, from: IpAddr, tag: Tag) {
        if let Some(bucket) = self.of.get_mut(&network(from)) {
            bucket.tried.rotate_right(1);
            bucket.tried[0] = Some(tag);
        }
    }

    fn give_back(&mut self, from: IpAddr) {
        self.all.left = (self.all.left + 1.0).min(BURST_OF_ALL);
        if let Some(bucket) = self.of.get_mut(&network(from)) {
            bucket.left = (bucket.left + 1.0).min(BURST);
        }
    }
}

/// One household has as many addresses of version 6 as it likes, all in one network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use nursery_shared::secret::Secret;

    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn doorman(password: &str) -> Arc<Doorman> {
        let config = WebConfig { password: Some(Secret::new(password)), ..WebConfig::default() };
        Arc::new(Doorman::new(&config).unwrap())
    }

    fn cookie(login: Login) -> String {
        let Login::Welcome(header) = login else { panic!("{login:?}") };
        header.split(';').next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_right_password_gives_a_cookie_that_outlives_the_process_and_ends_with_the_password() {
        let first = doorman("open sesame");
        let cookie = cookie(first.log_in(HOME, "open sesame".into()).await);
        assert_eq!(first.log_in(HOME, "open sesam".into()).await, Login::Wrong);
        assert!(first.knows_cookie(&format!("other=1; {cookie}")));
        assert!(doorman("open sesame").knows_cookie(&cookie), "another process");
        assert!(!doorman("open barley").knows_cookie(&cookie), "another password");
        for (from, to) in [("=1", "=2"), (".", "."), ("=", "=9")] {
            let forged = cookie.replacen(from, to, 1);
            assert!(forged == cookie || !first.knows_cookie(&forged), "{forged}");
        }
        assert!(!first.knows_cookie(&format!("nursery={}", first.sign(now().as_secs() - 1))), "over");
        assert!(!first.knows_cookie("nursery=; nursery=a.b; nursery"));
    }

    #[tokio::test]
    async fn a_hash_serves_as_well_as_the_password() {
        // argon2id of "correct horse", by the reference implementation's defaults of this crate.
        let mut out = [0; 32];
        Argon2::default().hash_password_into(b"correct horse", b"somesaltsomesalt", &mut out).unwrap();
        let base64 = |bytes: &[u8]| base64::prelude::BASE64_STANDARD_NO_PAD.encode(bytes);
        let hash = format!("$argon2id$v=19$m=19456,t=2,p=1${}${}", base64(b"somesaltsomesalt"), base64(&out));
        let doorman = doorman(&hash);
        cookie(doorman.log_in(HOME, "correct horse".into()).await);
        assert_eq!(doorman.log_in(HOME, hash).await, Login::Wrong, "the hash itself is no password");
    }

    #[tokio::test]
    async fn whoever_guesses_waits_and_nobody_else_does() {
        let doorman = doorman("open sesame");
        for _ in 0..BURST as usize {
            assert_eq!(doorman.log_in(HOME, "guess".into()).await, Login::Wrong);
        }
        let refused = doorman.log_in(HOME, "open sesame".into()).await;
        assert!(matches!(refused, Login::Later(wait) if wait > Duration::from_secs(10)), "{refused:?}");
        cookie(doorman.log_in("192.0.2.7".parse().unwrap(), "open sesame".into()).await);
    }

    #[test]
    fn whoever_guesses_tokens_waits_and_an_old_one_locks_nobody_out() {
        const TOKEN: &str = "a token of some length";
        let elsewhere: IpAddr = "192.0.2.7".parse().unwrap();
        let config = WebConfig {
            password: Some(Secret::new("open sesame")),
            token: Some(Secret::new(TOKEN)),
            ..WebConfig::default()
        };
        let doorman = Arc::new(Doorman::new(&config).unwrap());
        // A script that was forgotten when the token changed.
        for _ in 0..1000 {
            assert_eq!(doorman.knows_token(HOME, "the token before this one"), Err(Login::Wrong));
            assert_eq!(doorman.knows_token(HOME, TOKEN), Ok(()));
        }
        for n in 1..BURST as usize {
            assert_eq!(doorman.knows_token(HOME, &format!("guess {n}")), Err(Login::Wrong));
        }
        // The right one among guesses is not told from the others.
        for guess in ["one more", TOKEN] {
            let refused = doorman.knows_token(HOME, guess);
            assert!(
                matches!(refused, Err(Login::Later(wait)) if wait > Duration::from_secs(10)),
                "{refused:?}"
            );
        }
        assert_eq!(doorman.knows_token(elsewhere, TOKEN), Ok(()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        cookie(runtime.block_on(doorman.log_in(HOME, "open sesame".into())));
    }

    #[test]
    fn a_network_shares_its_guesses_and_the_memory_of_guessers_is_bounded() {
        let start = Instant::now();
        let mut failures = Failures::new(start);
        for n in 0..BURST as u32 {
            let ip = format!("2001:db8::{n:x}").parse().unwrap();
            assert!(failures.take(ip, start).is_ok());
        }
        assert!(failures.take("2001:db8::ffff".parse().unwrap(), start).is_err());
        assert!(failures.take("2001:db8::1".parse().unwrap(), start + REFILL).is_ok(), "after a while");
        for n in 0..5_000_u32 {
            let later = start + REFILL_OF_ALL * (n + 10);
            let _ = failures.take(IpAddr::V4(std::net::Ipv4Addr::from_bits(n)), later);
        }
        assert!(failures.of.len() <= ADDRESSES);
    }
}
