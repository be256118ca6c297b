//! What a load counted: answers, errors, times; and what CPU other processes took meanwhile.

use std::time::Duration;

use serde_json::{Value, json};

/// Values below are kept exactly, in microseconds; above, to 1/128.
const EXACT: usize = 256;
const STEPS: usize = 128;

/// Times, in microseconds, to within 1 %.
#[derive(Default, Clone)]
struct Times(Vec<u32>);

impl Times {
    fn place(micros: usize) -> usize {
        if micros < EXACT {
            return micros;
        }
        // Each power of two above has `STEPS` places.
        let power = micros.ilog2() as usize - STEPS.ilog2() as usize;
        EXACT + (power - 1) * STEPS + (micros >> power) - STEPS
    }

    fn value(place: usize) -> usize {
        if place < EXACT {
            return place;
        }
        let (power, step) = ((place - EXACT) / STEPS + 1, (place - EXACT) % STEPS);
        (STEPS + step) << power
    }

    fn add(&mut self, took: Duration) {
        let place = Self::place(usize::try_from(took.as_micros()).unwrap_or(usize::MAX));
        if self.0.len() <= place {
            self.0.resize(place + 1, 0);
        }
        self.0[place] += 1;
    }

    fn quantile(&self, part: f64) -> usize {
        let all: u64 = self.0.iter().map(|&n| u64::from(n)).sum();
        let wanted = ((all as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.0.iter().position(|&n| {
            seen += u64::from(n);
            seen >= wanted
        });
        Self::value(found.unwrap_or(0))
    }
}

/// What one connection, or all together, counted.
#[derive(Default, Clone)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) resumed: u64,
    errors: u64,
    not_200: u64,
    first_error: String,
    times: Times,
}

impl Tally {
    pub(crate) fn answered(&mut self, status: u16, took: Duration) {
        self.count += 1;
        self.not_200 += u64::from(status != 200);
        if status != 200 && self.first_error.is_empty() {
            self.first_error = format!("status {status}");
        }
        self.times.add(took);
    }

    pub(crate) fn failed(&mut self, error: &std::io::Error) {
        self.errors += 1;
        if self.first_error.is_empty() {
            self.first_error = error.to_string();
        }
    }

    pub(crate) fn join(&mut self, other: &Tally) {
        self.count += other.count;
        self.resumed += other.resumed;
        self.errors += other.errors;
        self.not_200 += other.not_200;
        if self.first_error.is_empty() {
            self.first_error.clone_from(&other.first_error);
        }
        if self.times.0.len() < other.times.0.len() {
            self.times.0.resize(other.times.0.len(), 0);
        }
        self.times.0.iter_mut().zip(&other.times.0).for_each(|(all, one)| *all += one);
    }

    pub(crate) fn told(&self) -> Value {
        let at = |part| self.times.quantile(part);
        json!({
            "count": self.count, "errors": self.errors, "not_200": self.not_200, "first_error": self.first_error,
            "resumed": self.resumed, "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0),
        })
    }
}

/// Microseconds that all threads of these processes have been on a CPU.
pub(crate) fn cpu_micros(pids: &[u32]) -> f64 {
    let threads = |pid: &u32| std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = |thread: std::fs::DirEntry| -> Option<f64> {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    pids.iter().flat_map(threads).filter_map(nanos).sum::<f64>() / 1e3
}
