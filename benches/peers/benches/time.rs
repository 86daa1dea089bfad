//! Nanoseconds of each case. Compare only rows of one run.

use divan::Bencher;
use tower_euid_peers::{Case, Measured, cases};

fn main() {
    divan::main();
}

#[divan::bench(args = cases())]
fn bare(bencher: Bencher<'_, '_>, case: &Case) {
    let Measured { mut bare, request, .. } = case.set_up();
    bencher.with_inputs(request).bench_local_values(|request| bare(request));
}

#[divan::bench(args = cases())]
fn layered(bencher: Bencher<'_, '_>, case: &Case) {
    let Measured { mut layered, request, .. } = case.set_up();
    bencher.with_inputs(request).bench_local_values(|request| layered(request));
}
