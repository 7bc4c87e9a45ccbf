//! A histogram whose buckets are quarters of powers of two: what openraft counts its batches and latencies with.
//!
//! It has the name and the part of the interface of the published crate that openraft calls, and no tables: those of the
//! published crate are built for sixteen resolutions at once and hold 25 MiB for as long as the process lives. Must never
//! grow with what is recorded.

use std::fmt;
use std::marker::PhantomData;

/// Below this each value has a bucket of its own; above, each power of two has this many.
const GROUP: u64 = 4;
/// Bits that tell the buckets of one power of two apart.
const GROUP_BITS: u32 = 2;
/// Buckets up to `u64::MAX`.
const BUCKETS: usize = 252;

/// Counts of values. `T` is the label of a period, of which this histogram keeps one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    total: u64,
    of: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self { counts: Vec::new(), total: 0, of: PhantomData }
    }
}

impl<T> Histogram<T> {
    /// With nothing in it: its buckets are made with the first value.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts the same value `times`.
    pub fn record_n(&mut self, value: u64, times: u64) {
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        if let Some(n) = self.counts.get_mut(bucket(value)) {
            *n = n.saturating_add(times);
            self.total = self.total.saturating_add(times);
        }
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The smallest value of the bucket that `permille` of all values do not exceed; 0 if nothing was counted.
    fn permille(&self, permille: u64) -> u64 {
        let rank = self.total.saturating_mul(permille).div_ceil(1000).max(1);
        let mut seen = 0_u64;
        for (i, n) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*n);
            if seen >= rank {
                return smallest(i);
            }
        }
        0
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.permille(1),
            p1: self.permille(10),
            p5: self.permille(50),
            p10: self.permille(100),
            p50: self.permille(500),
            p90: self.permille(900),
            p99: self.permille(990),
            p99_9: self.permille(999),
        }
    }
}

/// The bucket of a value: itself below [`GROUP`], then its highest bit and the two that follow.
fn bucket(value: u64) -> usize {
    if value < GROUP {
        return usize::try_from(value).unwrap_or(0);
    }
    let shift = value.ilog2() - GROUP_BITS;
    let within = (value >> shift) & (GROUP - 1);
    usize::try_from(GROUP + u64::from(shift) * GROUP + within).unwrap_or(BUCKETS)
}

/// The smallest value of a bucket; the other way round from [`bucket`].
fn smallest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    match bucket.checked_sub(GROUP) {
        None => bucket,
        Some(above) => (GROUP | (above % GROUP)) << (above / GROUP),
    }
}

/// Percentiles of a histogram, each rounded down to its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values were counted.
    pub samples: u64,
    /// The 0.1th percentile.
    pub p0_1: u64,
    /// The 1st percentile.
    pub p1: u64,
    /// The 5th percentile.
    pub p5: u64,
    /// The 10th percentile.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, p99_9, .. } = self;
        write!(f, "n={samples} p50={p50} p90={p90} p99={p99} p99.9={p99_9}")
    }
}

/// Histograms side by side, as text: a line of percentiles each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart<T = ()>(Vec<(String, PercentileStats)>, PhantomData<T>);

impl<T> AsciiChart<T> {
    /// With none in it.
    pub fn new() -> Self {
        Self(Vec::new(), PhantomData)
    }
    /// With one more.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the interface that openraft calls")]
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.0.push((name.to_owned(), histogram.percentile_stats()));
        self
    }
}

impl<T> fmt::Display for AsciiChart<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_begins_where_the_one_before_it_ends() {
        assert_eq!((bucket(0), bucket(3), bucket(4), bucket(7), bucket(8), bucket(9)), (0, 3, 4, 7, 8, 8));
        for b in 0..BUCKETS {
            assert_eq!(bucket(smallest(b)), b);
            assert!(b == 0 || bucket(smallest(b) - 1) == b - 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_values_within_a_quarter_of_a_power_of_two() {
        let mut h = Histogram::<()>::new();
        assert_eq!(h.percentile_stats().p50, 0);
        (1..=1000).for_each(|v| h.record(v));
        let stats = h.percentile_stats();
        assert_eq!((stats.samples, h.total()), (1000, 1000));
        for (p, exact) in [(stats.p1, 10), (stats.p50, 500), (stats.p99, 990), (stats.p99_9, 999)] {
            assert!(p <= exact && exact < p + p.div_ceil(4).max(1), "{p} for {exact}");
        }
    }
}
