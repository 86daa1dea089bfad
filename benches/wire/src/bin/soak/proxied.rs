//! A site in Python with two sidecars, in place of [`site`](crate::site). One port of the site is behind the proxies of both
//! sidecars. At another port, the site asks the API of one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use euid_sandbox::Sandbox;
use tower_euid::{CookieKey, Scope};
use tower_euid_wire::resident;

/// The processes, which end when this is dropped.
pub(crate) struct Proxied {
    site: Child,
    sidecars: Vec<Child>,
    /// The folder of the sockets.
    folder: PathBuf,
    /// The addresses for visitors: those of both proxies, and that of the site that asks the API.
    pub(crate) nodes: Vec<String>,
}

impl Proxied {
    /// Starts them. `sidecar` is the path of the program, and `store` the URL of the store, if there is one.
    pub(crate) fn start(sidecar: &str, operator: &str, store: Option<&str>) -> Self {
        let folder = std::env::temp_dir().join(format!("tower-euid-soak-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let socket = |number: usize| folder.join(format!("api-{number}.sock"));
        let python = Command::new("python3").arg(SITE).arg(socket(0)).stdout(Stdio::piped()).spawn();
        let mut site = python.expect("python3 is installed");
        let mut ports = String::new();
        BufReader::new(site.stdout.take().unwrap()).read_line(&mut ports).unwrap();
        let (behind, asking) = ports.trim().split_once(' ').expect("two ports");
        let key = CookieKey::generate().unwrap();
        let mut nodes: Vec<String> = (0..2).map(|_| free_address()).collect();
        let admins: Vec<String> = nodes.iter().map(|_| free_address()).collect();
        let start = |number: usize| {
            let mut command = Command::new(sidecar);
            command.arg("serve").stdout(Stdio::null());
            command.env("EUID_OPERATOR_URL", operator).env("EUID_API_KEY", Sandbox::default_api_key(Scope::Euid));
            command.env("EUID_CLIENT_SECRET", Sandbox::DEFAULT_CLIENT_SECRET);
            command.env("EUID_COOKIE_KEYS", &*key.expose_base64());
            command.envs(store.map(|url| ("EUID_STORE_URL", url)));
            command.env("EUID_SIDECAR_API", format!("unix:{}", socket(number).display()));
            command.env("EUID_SIDECAR_ADMIN", &admins[number]).env("EUID_SIDECAR_LOG", "error");
            command.env("EUID_SIDECAR_LISTEN", &nodes[number]);
            command.env("EUID_SIDECAR_UPSTREAM", format!("127.0.0.1:{behind}"));
            command.spawn().expect("the sidecar starts")
        };
        let sidecars = (0..nodes.len()).map(start).collect();
        for address in nodes.iter().chain(&admins) {
            while TcpStream::connect(address).is_err() {
                thread::sleep(Duration::from_millis(10));
            }
        }
        println!("admin: {}", admins.join(" "));
        nodes.push(format!("127.0.0.1:{asking}"));
        Self { site, sidecars, folder, nodes }
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
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().to_string()
}

const SITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/soak/site.py");
