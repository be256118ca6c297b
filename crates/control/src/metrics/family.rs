//! One metric family, built up from plain values.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use relais_core::stats::{self, BUCKETS};

/// A family under construction.
pub(super) struct Family(MetricFamily);

/// Label names and values of one sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Family {
    pub(super) fn counter(name: &str, help: &str) -> Family {
        Family::new(name, help, MetricType::COUNTER)
    }

    pub(super) fn gauge(name: &str, help: &str) -> Family {
        Family::new(name, help, MetricType::GAUGE)
    }

    pub(super) fn histogram(name: &str, help: &str) -> Family {
        Family::new(name, help, MetricType::HISTOGRAM)
    }

    fn new(name: &str, help: &str, kind: MetricType) -> Family {
        let mut family = MetricFamily::default();
        family.set_name(name.to_string());
        family.set_help(help.to_string());
        family.set_field_type(kind);
        Family(family)
    }

    /// Adds a sample of a counter.
    pub(super) fn count(&mut self, labels: Labels<'_>, value: u64) {
        let mut counter = Counter::default();
        counter.set_value(float(value));
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_counter(counter);
        self.0.mut_metric().push(metric);
    }

    /// Adds a sample of a gauge.
    pub(super) fn set(&mut self, labels: Labels<'_>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_gauge(gauge);
        self.0.mut_metric().push(metric);
    }

    /// Adds a sample of a gauge per word: 1 for the one that holds.
    pub(super) fn one_of(&mut self, labels: Labels<'_>, words: &[&str], holds: &str) {
        for word in words {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("state", *word)]).collect();
            self.set(&labels, f64::from(u8::from(*word == holds)));
        }
    }

    /// Adds a histogram of seconds from one of microseconds.
    pub(super) fn observe(&mut self, labels: Labels<'_>, from: &stats::Histogram) {
        let (counts, sum) = from.read();
        let mut total = 0;
        let mut buckets = Vec::with_capacity(BUCKETS.len());
        for (bound, count) in BUCKETS.iter().zip(counts) {
            total += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(float(*bound) / 1e6);
            bucket.set_cumulative_count(total);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(total + counts[BUCKETS.len()]);
        histogram.set_sample_sum(float(sum) / 1e6);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.0.mut_metric().push(metric);
    }

    pub(super) fn done(self) -> MetricFamily {
        self.0
    }
}

/// Prometheus values are floats; beyond 2^53 a counter loses its last digits, which nobody can see in a rate.
pub(super) fn float(value: u64) -> f64 {
    value as f64
}

/// A point in time in seconds since the Unix epoch.
pub(super) fn seconds(at: relais_core::Instant) -> f64 {
    float(at.0) / 1e6
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_string());
        pair.set_value((*value).to_string());
        pair
    };
    labels.iter().map(pair).collect()
}
