//! Wall-clock times as nursery carries them (microseconds since 1970, UTC) and shows them (RFC 3339 UTC).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01T00:00:00Z by the host's clock, which may jump.
pub fn now_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(d) => i64::try_from(d.as_micros()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

/// Microseconds of CLOCK_MONOTONIC, the same for all processes of this host since its boot.
pub fn monotonic_us() -> u64 {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
        Ok(t) => t.tv_sec() as u64 * 1_000_000 + t.tv_nsec() as u64 / 1000,
        Err(_) => 0,
    }
}

/// `2026-01-31T02:03:04.500Z`; times outside 1970–9999 are brought to the nearest end.
pub fn rfc3339(us: i64) -> String {
    const LAST: u64 = 253_402_300_799_000_000;
    let us = u64::try_from(us).unwrap_or(0).min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_micros(us)).to_string()
}

/// Reads an RFC 3339 time, or an age such as `10m` or `2h 30m` counted back from now.
pub fn parse_since(text: &str) -> Result<i64, String> {
    if let Ok(age) = humantime::parse_duration(text) {
        return Ok(now_us().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)));
    }
    parse(text).ok_or_else(|| {
        format!("{text:?} is neither a time such as 2026-01-31T02:03:04Z nor an age such as 10m or 2h")
    })
}

/// Reads an RFC 3339 time; those before 1970 are 1970.
pub fn parse(text: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339_utc_with_milliseconds() {
        assert_eq!(rfc3339(1_769_824_984_500_000), "2026-01-31T02:03:04.500Z");
        assert_eq!(rfc3339(-5), "1970-01-01T00:00:00.000Z");
        assert!(rfc3339(i64::MAX).starts_with("9999-12-31"));
        assert_eq!(parse_since("2026-01-31T02:03:04.5Z"), Ok(1_769_824_984_500_000));
        assert!(parse_since("yesterday-ish").is_err());
        assert!((now_us() - parse_since("10m").unwrap() - 600_000_000).abs() < 5_000_000);
    }
}
