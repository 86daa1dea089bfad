//! Requests a second through the sidecar's proxy and through nginx's `proxy_pass`, with one worker each.
//!
//! ```console
//! $ cargo build --release --package euid-sidecar
//! $ cargo run --release --manifest-path benches/wire/Cargo.toml --bin proxy -- target/release/euid-sidecar   # 2 minutes
//! ```
//!
//! A second argument is the path of the peer `oauth2-proxy`: a proxy in front of sites, too, with an encrypted cookie for
//! each visitor's session.
//!
//! The site is another nginx, with keep-alive. `wrk` has one thread and keeps [`CONNECTIONS`] connections. A shared machine is
//! faster in one second than in another, so all cases take turns, [`LASTS`] each. "cpu" is the time that the worker's thread
//! was on a processor, for the peer all its threads. It needs `nginx` and `wrk`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use euid_sandbox::{Sandbox, VisitorState};
use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
use tower_euid_wire::{Cookies, Load, PAGE, median, on_cpu, threads};

fn main() {
    let sidecar = env::args().nth(1).expect("the path of euid-sidecar");
    let peer = env::args().nth(2);
    let folder = Folder::new();
    let (site, nginx, proxy) = (free_port(), free_port(), free_port());
    let _site = Process::nginx(&folder, "site", &format!("return 200 '{PAGE}';"), site);
    let pass = "proxy_pass http://site; proxy_http_version 1.1; proxy_set_header Connection ''; \
                proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
    let upstream =
        format!("upstream site {{ server 127.0.0.1:{site}; keepalive 512; keepalive_requests 1000000000; }}");
    let in_front = Process::nginx_with(&folder, "proxy", &upstream, pass, nginx);

    let sandbox = Sandbox::builder().build().unwrap();
    let key = CookieKey::generate().unwrap();
    let never = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    let layer = EuidLayer::new(key.clone().into(), never).clock(sandbox.clock());
    let visitors = (0..VISITORS).map(|_| sandbox.visitor(&layer, VisitorState::Fresh).unwrap().cookie_header());
    fs::write(folder.0.join("fresh"), visitors.collect::<Vec<_>>().join("\n")).unwrap();
    fs::write(folder.0.join("none"), "theme=dark\n").unwrap();
    let sidecar = Process::start(
        Command::new(sidecar)
            .arg("serve")
            .env("EUID_OPERATOR_URL", "http://127.0.0.1:9")
            .env("EUID_API_KEY", sandbox.api_key())
            .env("EUID_CLIENT_SECRET", sandbox.client_secret())
            .env("EUID_COOKIE_KEYS", &*key.expose_base64())
            .env("EUID_SIDECAR_API", format!("unix:{}", folder.0.join("api.sock").display()))
            .env("EUID_SIDECAR_ADMIN", "127.0.0.1:0")
            .env("EUID_SIDECAR_LISTEN", format!("127.0.0.1:{proxy}"))
            .env("EUID_SIDECAR_UPSTREAM", format!("127.0.0.1:{site}"))
            .env("EUID_SIDECAR_WORKERS", "1")
            .env("EUID_SIDECAR_LOG", "warn"),
        proxy,
    );

    let (nginx_worker, sidecar_worker) = (in_front.child(), sidecar.thread("proxy-0"));
    let mut cases = vec![
        ("nginx", nginx, Worker::Thread(nginx_worker), "fresh"),
        ("sidecar, no cookie of its own", proxy, Worker::Thread(sidecar_worker), "none"),
        ("sidecar, fresh cookie", proxy, Worker::Thread(sidecar_worker), "fresh"),
    ];
    let peer = peer.map(|program| Peer::start(&program, &folder, site));
    if let Some(peer) = &peer {
        fs::write(folder.0.join("session"), &peer.session).unwrap();
        cases.push(("oauth2-proxy, session in a cookie", peer.port, Worker::Process(peer.process.0.id()), "session"));
    }
    let mut found: Vec<Vec<Figures>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 0..=ROUNDS {
        for (figures, (_, port, worker, cookies)) in found.iter_mut().zip(&cases) {
            let measured = Figures::of(*port, worker, &folder.0.join(cookies));
            // The first round opens connections and fills caches.
            figures.extend((round > 0).then_some(measured));
        }
        eprintln!("round {round} of {ROUNDS}");
    }
    println!("| proxy | requests/s | of nginx | cpu, µs | of nginx | p50, ms | p99, ms |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let of_nginx = &found[0];
    for ((name, ..), figures) in cases.iter().zip(&found) {
        let of = |what: fn(&Figures) -> f64| median(figures.iter().map(what).collect());
        let ratio = |what: fn(&Figures) -> f64| {
            median(figures.iter().zip(of_nginx).map(|(one, nginx)| what(one) / what(nginx)).collect())
        };
        println!(
            "| {name} | {:.0} | {:.2} | {:.1} | {:.2} | {:.1} | {:.1} |",
            of(|figures| figures.per_second),
            ratio(|figures| figures.per_second),
            of(|figures| figures.cpu),
            ratio(|figures| figures.cpu),
            of(|figures| figures.p50) / 1e3,
            of(|figures| figures.p99) / 1e3,
        );
    }
}

/// The results of one measurement.
struct Figures {
    per_second: f64,
    /// Microseconds a request.
    cpu: f64,
    /// Microseconds.
    p50: f64,
    p99: f64,
}

impl Figures {
    fn of(port: u16, worker: &Worker, cookies: &Path) -> Self {
        let cpu = worker.on_cpu();
        let cookies = Cookies { fresh: cookies, due: cookies, share: 0.0, due_seen: 0 };
        let load = Load::run(&format!("127.0.0.1:{port}"), &cookies, CONNECTIONS, LASTS);
        assert_eq!(load.errors, 0, "each request is answered with the page");
        let cpu = (worker.on_cpu() - cpu).as_secs_f64() * 1e6 / load.requests;
        Self { per_second: load.per_second(), cpu, p50: load.p50, p99: load.p99 }
    }
}

/// What does the work of a proxy.
enum Worker {
    Thread(u32),
    /// All threads of a process.
    Process(u32),
}

impl Worker {
    fn on_cpu(&self) -> Duration {
        match self {
            Self::Thread(thread) => on_cpu(*thread),
            Self::Process(process) => threads(*process).into_iter().map(on_cpu).sum(),
        }
    }
}

/// `oauth2-proxy` in front of the site, and the cookie of a visitor who has logged in there with a password.
struct Peer {
    process: Process,
    port: u16,
    session: String,
}

impl Peer {
    fn start(program: &str, folder: &Folder, site: u16) -> Self {
        let (port, users) = (free_port(), folder.0.join("users"));
        // The SHA-1 hash of "password", in base64.
        fs::write(&users, "visitor:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n").unwrap();
        let process = Process::start(
            Command::new(program)
                .args([format!("--http-address=127.0.0.1:{port}"), format!("--upstream=http://127.0.0.1:{site}")])
                .args(["--provider=github", "--client-id=site", "--client-secret=secret", "--email-domain=*"])
                .args(["--cookie-secret=0123456789abcdef0123456789abcdef", "--cookie-secure=false"])
                .args(["--request-logging=false", "--auth-logging=false", "--standard-logging=false"])
                .arg(format!("--htpasswd-file={}", users.display()))
                .env("GOMAXPROCS", "1"),
            port,
        );
        let form = "username=visitor&password=password";
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            connection,
            "POST /oauth2/sign_in HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        )
        .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let cookie = answer.lines().find_map(|line| line.strip_prefix("Set-Cookie: "));
        let session = cookie.and_then(|cookie| cookie.split(';').next()).expect("the login sets a cookie").to_owned();
        Self { process, port, session }
    }
}

/// A process that ends when this is dropped.
struct Process(Child);

impl Process {
    /// Starts it and waits until it listens.
    fn start(command: &mut Command, port: u16) -> Self {
        let process = Self(command.stdout(Stdio::null()).spawn().expect("the program is installed"));
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            thread::sleep(Duration::from_millis(10));
        }
        process
    }

    fn nginx(folder: &Folder, name: &str, location: &str, port: u16) -> Self {
        Self::nginx_with(folder, name, "", location, port)
    }

    fn nginx_with(folder: &Folder, name: &str, before: &str, location: &str, port: u16) -> Self {
        let file = folder.0.join(name).with_extension("conf");
        let text = format!(
            "worker_processes 1; daemon off; pid {name}.pid; error_log stderr crit; events {{ worker_connections 4096; }}
             http {{ access_log off; keepalive_requests 1000000000; default_type text/html; {before}
             server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }} }}"
        );
        fs::write(&file, text).unwrap();
        Self::start(Command::new("nginx").arg("-p").arg(&folder.0).arg("-c").arg(&file), port)
    }

    /// Returns the only child of the process. (Linux)
    fn child(&self) -> u32 {
        let id = self.0.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.trim().parse().expect("there is one")
    }

    /// Returns the thread with this name. (Linux)
    fn thread(&self, name: &str) -> u32 {
        let comm = |id: &u32| fs::read_to_string(format!("/proc/{id}/comm"));
        let is_named = |id: &u32| comm(id).is_ok_and(|other| other.trim() == name);
        threads(self.0.id()).into_iter().find(is_named).expect("there is one")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx ends its worker at a `SIGTERM` alone.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = env::temp_dir().join(format!("tower-euid-proxy-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port()
}

const ROUNDS: usize = 8;
const LASTS: Duration = Duration::from_secs(3);
const CONNECTIONS: u32 = 64;
const VISITORS: usize = 200;
