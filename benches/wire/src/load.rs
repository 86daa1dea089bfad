//! `wrk`, the load generator.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The cookies of visitors, a file of lines for each kind, and the share of requests that bring a due one.
pub struct Cookies<'a> {
    pub fresh: &'a Path,
    pub due: &'a Path,
    pub share: f64,
    /// How many due visitors have been used; the next request uses the next one.
    pub due_seen: usize,
}

/// What one run of `wrk` has measured. Times are in microseconds.
pub struct Load {
    pub requests: f64,
    pub micros: f64,
    pub p50: f64,
    pub p99: f64,
    pub errors: u64,
}

impl Load {
    /// Loads the site at this address, with one thread of `wrk`.
    pub fn run(address: &str, cookies: &Cookies<'_>, connections: u32, lasts: Duration) -> Self {
        let output = Command::new("wrk")
            .arg("--threads=1")
            .arg(format!("--connections={connections}"))
            .args(["--script", SCRIPT])
            .arg(format!("--duration={}", lasts.as_secs()))
            .arg(format!("http://{address}/"))
            .arg("--")
            .args([cookies.fresh, cookies.due])
            .args([cookies.share.to_string(), cookies.due_seen.to_string()])
            .output()
            .expect("wrk is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        let done = text.lines().find_map(|line| line.strip_prefix("done ")).unwrap_or_else(|| panic!("{output:?}"));
        let numbers: Vec<f64> = done.split(' ').map(|number| number.parse().unwrap()).collect();
        let [requests, micros, p50, p99, errors] = numbers[..] else { panic!("{done}") };
        Self { requests, micros, p50, p99, errors: errors as u64 }
    }

    pub fn per_second(&self) -> f64 {
        self.requests / self.micros * 1e6
    }
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/visitors.lua");
