//! The shared parts of the programs here: the sites to compare, and the figures of processes.
//!
//! | program | purpose |
//! | --- | --- |
//! | `wire` | requests a second of each [site](Site) over loopback, and the cost of due visitors |
//! | `memory` | the memory of a visitor, a remembered answer, a refresh under way and a waiting page |
//! | `store` | a site on Redis: calls to the operator, added time, faults of Redis |
//! | `proxy` | the sidecar's proxy beside nginx |
//! | `soak` | a long run with visitors, an operator and a store that misbehave, which checks every answer |
//! | `curves` | instructions by number of foreign cookies, operator calls by number of nodes |
//! | `plots` | plots of the results that the others have written to `recorded/` |

mod load;
#[path = "../../peers/src/pair.rs"]
pub mod pair;
pub mod plot;
mod process;
mod redis;
mod site;

pub use self::redis::{Redis, RedisFault};
pub use load::{Cookies, Load};
pub use process::{Spawned, ended_with_parent, on_cpu, pin, resident, threads};
pub use site::{PAGE, Site};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Returns the path of a result that the plots are drawn from.
pub fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded").join(name)
}

/// Returns the time of the machine's clock. No other function reads it.
#[expect(clippy::disallowed_methods, reason = "measures how long things really take")]
pub fn now() -> Instant {
    Instant::now()
}

/// A time that no step needs.
pub const PATIENT: Duration = Duration::from_secs(20);

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
