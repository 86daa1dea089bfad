//! Draws the recorded results of the other programs into `src/docs/plots` of the crate.
//!
//! ```console
//! $ cargo run --release --manifest-path benches/wire/Cargo.toml --bin plots
//! ```
//!
//! The same numbers give the same bytes. `for_rustdoc.md` repeats the plots as data: GitHub shows the files, but
//! rustdoc has none, so this file defines the page's names for them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tower_euid_wire::{plot, recorded};

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/docs/plots");
    fs::create_dir_all(&folder).unwrap();
    let mut for_rustdoc = String::new();
    for (name, draw) in PLOTS {
        let csv = fs::read_to_string(recorded(&format!("{name}.csv"))).unwrap();
        let svg = draw(&csv);
        assert!(svg.len() < LARGEST, "{name}: {} bytes", svg.len());
        writeln!(for_rustdoc, "[{name}]: data:image/svg+xml;base64,{}", BASE64_STANDARD.encode(&svg)).unwrap();
        fs::write(folder.join(name).with_extension("svg"), svg).unwrap();
    }
    fs::write(folder.join("for_rustdoc.md"), for_rustdoc).unwrap();
}

type Draw = fn(&str) -> String;

const PLOTS: [(&str, Draw); 4] =
    [("foreign", plot::foreign), ("nodes", plot::nodes), ("due", plot::due), ("soak", plot::soak)];
const LARGEST: usize = 20_000;
