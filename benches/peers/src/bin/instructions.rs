//! Instructions of each case in addition to those of the bare service, counted by callgrind, beside the recorded ones.
//!
//! Fails if a count has grown by more than 5 %. With `--record` it records the counts instead; with `--parts` it shows
//! the share of single functions in a case.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

use http::{Request, Response};
use tower_euid_peers::{Call, Measured, cases};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["call", which, name] => call(which, name),
        ["--record"] => report(true),
        ["--parts"] => parts(),
        [] => report(false),
        _ => panic!("usage: instructions [--record | --parts | call layered|bare CASE]"),
    }
}

fn report(records: bool) -> ExitCode {
    let recorded = std::fs::read_to_string(RECORDED).unwrap_or_default();
    let recorded: BTreeMap<&str, i64> = recorded.lines().filter_map(parse).collect();
    let (mut lines, mut has_grown) = (String::new(), false);
    for case in cases() {
        let count = counted("layered", case.name) - counted("bare", case.name);
        writeln!(lines, "{}: {count}", case.name).unwrap();
        let before = recorded.get(case.name).copied();
        let growth = before.map(|before| (count - before) as f64 / before as f64 * 100.0);
        let grown = growth.is_none_or(|growth| growth > ALLOWED);
        has_grown |= grown;
        let growth = growth.map_or("not recorded".to_owned(), |growth| format!("{growth:+.1} %"));
        println!("{:<30} {count:>7}   {growth}{}", case.name, if grown { "   TOO MUCH" } else { "" });
    }
    if records {
        std::fs::write(RECORDED, lines).unwrap();
    } else if has_grown {
        eprintln!("grown by more than {ALLOWED} % over {RECORDED}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Prints the instructions of single functions, including their callees.
fn parts() -> ExitCode {
    let file = std::env::temp_dir().join(format!("tower-euid-parts-{}", std::process::id()));
    for (part, case, function) in PARTS {
        callgrind("layered", case, &file);
        let annotate =
            Command::new("callgrind_annotate").args(["--inclusive=yes", "--threshold=100"]).arg(&file).output();
        let table = annotate.expect("callgrind_annotate comes with valgrind").stdout;
        let table = String::from_utf8_lossy(&table);
        let line = table.lines().find(|line| line.contains(&format!(":{function} ")));
        let count = line.and_then(|line| line.split_whitespace().next()).unwrap_or("part of its caller");
        println!("{case:<10} {part:<28} {count:>7}");
    }
    let _ = std::fs::remove_file(file);
    ExitCode::SUCCESS
}

fn parse(line: &str) -> Option<(&str, i64)> {
    let (name, count) = line.rsplit_once(": ")?;
    Some((name, count.parse().ok()?))
}

/// Returns the instructions of one call, counted in a process of its own.
fn counted(which: &str, name: &str) -> i64 {
    let log = callgrind(which, name, Path::new("/dev/null"));
    let count = log.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim().parse());
    count.unwrap_or_else(|| panic!("{name}: {log}")).unwrap()
}

/// Runs one call under callgrind, which writes its counts to `file`. Returns its log.
fn callgrind(which: &str, name: &str, file: &Path) -> String {
    let mut out_file = OsString::from("--callgrind-out-file=");
    out_file.push(file);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*instructions::measured*"])
        .arg(out_file)
        .arg(std::env::current_exe().unwrap())
        .args(["call", which, name])
        .output()
        .expect("valgrind is installed");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {log}");
    log.into_owned()
}

fn call(which: &str, name: &str) -> ExitCode {
    let case = cases().find(|case| case.name == name).expect("there is such a case");
    let Measured { mut layered, mut bare, request } = case.set_up();
    let call = if which == "bare" { &mut bare } else { &mut layered };
    drop(measured(call, request()));
    ExitCode::SUCCESS
}

#[inline(never)]
fn measured(call: &mut Call, request: Request<()>) -> Response<()> {
    black_box(call(request))
}

/// A part, its case, and the function that does it.
const PARTS: &[(&str, &str, &str)] = &[
    ("find our cookies", "fresh", "euid_core::transport::cookie::Names::find"),
    ("open: base64 and cipher", "fresh", "euid_core::sealed::aead::Head::open_in"),
    ("parse the plaintext", "fresh", "euid_core::sealed::payload::Payload::parse"),
    ("show it to the handler", "fresh", "tower_euid::request::start_decision"),
    ("pack the tokens", "login", "euid_core::sealed::payload::write"),
    ("seal: cipher and base64", "login", "euid_core::sealed::aead::seal"),
    ("render the Set-Cookies", "login", "euid_core::transport::cookie::set_cookie"),
];
/// How far the counts of two compilers may differ, in percent.
const ALLOWED: f64 = 5.0;
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recorded.txt");
