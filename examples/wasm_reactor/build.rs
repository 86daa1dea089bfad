//! Makes the library a *reactor*: links the target's own object with `_initialize`, which the host calls once, first.
//!
//! rustc links that object for programs only. Without it, the linker treats each export as a separate program, and starts and
//! ends the C library around every call.

use std::env;
use std::error::Error;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let (rustc, target) = (env::var("RUSTC")?, env::var("TARGET")?);
    if target == "wasm32-wasip1" {
        let printed = Command::new(rustc).args(["--print", "target-libdir", "--target", &target]).output()?.stdout;
        let libraries = String::from_utf8(printed)?;
        println!("cargo::rustc-link-arg-cdylib={}/self-contained/crt1-reactor.o", libraries.trim());
    }
    Ok(())
}
