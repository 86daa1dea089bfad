//! What the programs here share: the sites that are compared, and a look at processes.
//!
//! | program | what it finds out |
//! | --- | --- |
//! | `wire` | requests a second of each [site](Site) over loopback, and what due visitors cost |
//! | `memory` | what a visitor, a remembered answer, a refresh under way and a waiting page take |
//! | `soak` | whether anything is ever wrong with visitors and an operator that misbehave for long |
//! | `curves` | instructions by number of foreign cookies, operator calls by number of nodes |
//! | `plots` | pictures of what the others have written to `recorded/` |

#[path = "../../peers/src/pair.rs"]
mod pair;
pub mod plot;
mod process;
mod site;

pub use process::{Spawned, ended_with_parent, on_cpu, resident};
pub use site::{PAGE, Site};

use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where results are kept that the plots are made of.
pub fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded").join(name)
}

/// The one look at the clock of the machine.
#[expect(clippy::disallowed_methods, reason = "measures how long things really take")]
pub fn now() -> Instant {
    Instant::now()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
