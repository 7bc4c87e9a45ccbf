//! Times and durations: milliseconds since the Unix epoch, passed in, never read from a clock here.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a {what}: {rule}")]
pub struct TimeError {
    given: String,
    what: &'static str,
    rule: &'static str,
}

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Millis(pub i64);
impl Millis {
    /// `self + d`, saturating.
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
    /// `self - d`, saturating.
    pub fn minus(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
    /// Whole seconds since the epoch.
    pub fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }
    /// RFC 3339 with milliseconds, UTC.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0).map_or_else(|_| "invalid-time".to_owned(), |t| format!("{t:.3}"))
    }
}
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}
impl fmt::Debug for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// A duration for people, in its largest unit, rounded down: `90s`, `5m`, `3h`, `12d`.
pub fn rough(d: Duration) -> String {
    match d.as_secs() {
        s if s < 120 => format!("{s}s"),
        s if s < 7200 => format!("{}m", s / 60),
        s if s < 172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

fn split_number(s: &str) -> Option<(u64, &str)> {
    let end = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (n, unit) = s.split_at(end);
    Some((n.parse().ok()?, unit))
}

/// Parses `500ms`, `30s`, `5m`, `72h`, `90d`.
pub fn parse_duration(s: &str) -> Result<Duration, TimeError> {
    let bad = || TimeError {
        given: s.chars().take(40).collect(),
        what: "duration",
        rule: "write 500ms, 30s, 5m, 72h or 90d",
    };
    let (n, unit) = split_number(s).ok_or_else(bad)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    n.checked_mul(ms).map(Duration::from_millis).ok_or_else(bad)
}

/// Parses a size in bytes: `1024`, `64Ki`, `128Mi`, `2Gi`, `10K`, `10M`, `1G`.
pub fn parse_size(s: &str) -> Result<u64, TimeError> {
    let bad =
        || TimeError { given: s.chars().take(40).collect(), what: "size", rule: "write 1024, 64Ki, 128Mi or 2Gi" };
    let (n, unit) = split_number(s).ok_or_else(bad)?;
    let f: u64 = match unit {
        "" => 1,
        "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(bad()),
    };
    n.checked_mul(f).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_a_known_unit() {
        assert_eq!(parse_duration("72h").unwrap(), Duration::from_secs(72 * 3600));
        assert_eq!(parse_size("128Mi").unwrap(), 128 << 20);
        for bad in ["", "5", "s", "5 s", "-5s", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        assert!(parse_size("1X").is_err());
    }

    #[test]
    fn times_print_as_rfc_3339() {
        assert_eq!(Millis(0).rfc3339(), "1970-01-01T00:00:00.000Z");
    }
}
