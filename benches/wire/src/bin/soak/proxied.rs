//! A site in Python behind two sidecars, in place of [`site`](crate::site).

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use euid_sandbox::Sandbox;
use tower_euid::{CookieKey, Scope};
use tower_euid_wire::resident;

use crate::site::MAX_WAIT;

/// The processes, which end when this is dropped.
pub(crate) struct Proxied {
    site: Child,
    sidecars: Vec<Child>,
    /// The addresses of the sidecars.
    pub(crate) nodes: Vec<String>,
}

impl Proxied {
    /// Starts them. `sidecar` is the path of the program.
    pub(crate) fn start(sidecar: &str, operator: &str) -> Self {
        let python = Command::new("python3").arg(SITE).stdout(Stdio::piped()).spawn();
        let mut site = python.expect("python3 is installed");
        let mut port = String::new();
        BufReader::new(site.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let key = CookieKey::generate().unwrap();
        let nodes: Vec<String> = (0..2).map(|_| free_address()).collect();
        let start = |node: &String| {
            let mut command = Command::new(sidecar);
            command.arg("serve").stdout(Stdio::null());
            command.env("EUID_OPERATOR_URL", operator).env("EUID_API_KEY", Sandbox::default_api_key(Scope::Euid));
            command.env("EUID_CLIENT_SECRET", Sandbox::DEFAULT_CLIENT_SECRET);
            command.env("EUID_COOKIE_KEYS", &*key.expose_base64());
            command.env("EUID_MAX_WAIT_MS", MAX_WAIT.as_millis().to_string());
            command.env("EUID_SIDECAR_API", "127.0.0.1:0").env("EUID_SIDECAR_API_TOKEN", key.expose_base64().as_str());
            command.env("EUID_SIDECAR_ADMIN", "127.0.0.1:0").env("EUID_SIDECAR_LOG", "error");
            command.env("EUID_SIDECAR_LISTEN", node).env("EUID_SIDECAR_UPSTREAM", format!("127.0.0.1:{}", port.trim()));
            command.spawn().expect("the sidecar starts")
        };
        let sidecars = nodes.iter().map(start).collect();
        for node in &nodes {
            while TcpStream::connect(node).is_err() {
                thread::sleep(Duration::from_millis(10));
            }
        }
        Self { site, sidecars, nodes }
    }

    /// Returns the resident memory of the sidecars, in kB.
    pub(crate) fn resident(&self) -> u64 {
        self.sidecars.iter().map(|sidecar| resident(sidecar.id())).sum()
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        for child in self.sidecars.iter_mut().chain([&mut self.site]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().to_string()
}

const SITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/soak/site.py");
