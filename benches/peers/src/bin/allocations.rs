//! Allocations and bytes of each case, in addition to those of the bare service.

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower_euid_peers::{Call, Measured, cases};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

fn main() {
    for case in cases() {
        let Measured { mut layered, mut bare, request } = case.set_up();
        let (mut layered, bare) = (of(&mut layered, &*request), of(&mut bare, &*request));
        layered -= bare;
        let count = layered.allocations + layered.reallocations;
        println!("{:<28} {count:>6} {:>8} bytes", case.name, layered.bytes_allocated);
    }
}

fn of(call: &mut Call, request: &dyn Fn() -> http::Request<()>) -> stats_alloc::Stats {
    let request = request();
    let region = Region::new(ALLOCATOR);
    let response = call(request);
    let change = region.change();
    drop(response);
    change
}
