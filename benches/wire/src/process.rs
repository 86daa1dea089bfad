//! Other processes: this program in another role, and the system's figures of a process.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// This program in another role, as a child process. It ends when this is dropped, and at the latest with its parent.
pub struct Spawned {
    child: Child,
    /// The first line that it printed.
    pub says: String,
}

impl Spawned {
    /// Starts it and waits for the first line that it prints.
    pub fn start(arguments: &[&str]) -> Self {
        let program = std::env::current_exe().expect("there is a program that runs");
        let mut command = Command::new(program);
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a program that runs can be started again");
        let mut says = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut says).expect("it speaks UTF-8");
        assert!(!says.is_empty(), "it ended without a word: {arguments:?}");
        Self { child, says: says.trim().to_owned() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the other role, ends this process once its parent has ended, which closes its input.
pub fn ended_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// Returns how long a thread, or the first thread of a process, has been on a processor. (Linux)
pub fn on_cpu(thread: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// Runs a process, and all that it starts from now on, on one core only. (Linux)
pub fn pin(process: u32, core: usize) {
    let (core, process) = (core.to_string(), process.to_string());
    let output = Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", &core, &process]).output();
    assert!(output.expect("taskset is installed").status.success(), "core {core} is there");
}

/// Returns the threads of a process. (Linux)
pub fn threads(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the resident memory of a process in kB. (Linux)
pub fn resident(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
