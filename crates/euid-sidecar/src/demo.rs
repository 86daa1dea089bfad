//! `serve --demo`: an operator, the sidecar as a proxy, and a small site in Python that only reads headers.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::Stdio;

use euid_sandbox::SandboxServer;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tower_euid::{CookieKey, Scope};

use crate::address::Address;
use crate::listen::Listening;
use crate::sandbox;
use crate::settings::{Settings, of_scope, sidecar};

/// What runs beside the sidecar. It ends when this is dropped.
pub(crate) struct Demo {
    pub(crate) settings: Settings,
    /// Where visitors open the site.
    pub(crate) proxy: Option<Listening>,
    _operator: SandboxServer,
    _site: Child,
    _folder: Folder,
}

/// A folder that only this user can enter. It is removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("euid-sidecar-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Starts the operator and the site.
pub(crate) async fn start() -> Result<Demo, String> {
    // Short lives, so that the token changes while a person looks on.
    let options = sandbox::Options { port: 0, refresh_from: 10, identity_expires: 120, ..sandbox::Options::default() };
    let operator = sandbox::start(&options).await?;
    let key = CookieKey::generate().map_err(|error| error.to_string())?;
    let folder = Folder::new().map_err(|error| format!("a folder for the demo: {error}"))?;
    let api = folder.0.join("api.sock");
    let (site, port) = start_site().await.map_err(|error| format!("python3: {error}"))?;
    let address = Address::Tcp(([127, 0, 0, 1], 0).into());
    let listening = Listening::bind(&address).and_then(|proxy| proxy.address().map(|address| (proxy, address)));
    let (proxy, address) = listening.map_err(|error| error.to_string())?;

    let mut variables: Vec<(String, OsString)> =
        sandbox::variables(&operator).into_iter().map(|(name, value)| (name, value.into())).collect();
    let mut unix = OsString::from("unix:");
    unix.push(&api);
    variables.push((sidecar("api"), unix));
    variables.push((sidecar("admin"), "127.0.0.1:0".into()));
    variables.push((sidecar("log"), "warn".into()));
    variables.push((sidecar("upstream"), format!("127.0.0.1:{port}").into()));
    variables.push((of_scope(Scope::Euid, "cookie_keys"), key.expose_base64().as_str().into()));
    let settings = Settings::of(variables, "", &mut Vec::new());
    println!("operator: {} (a sandbox)", operator.base_url());
    println!("site: http://127.0.0.1:{port}/ (without the sidecar)");
    println!("API: curl --unix-socket {} http://localhost/v1/page", api.display());
    println!("Open http://{address}/ in a browser, and log in: the token arrives at the site. Ctrl-C ends all.");
    Ok(Demo { settings, proxy: Some(proxy), _operator: operator, _site: site, _folder: folder })
}

/// Starts the site, and returns its port, which is the first line that it prints.
async fn start_site() -> io::Result<(Child, u16)> {
    let mut command = Command::new("python3");
    let mut site = command.args(["-c", SITE]).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut line = String::new();
    if let Some(output) = &mut site.stdout {
        BufReader::new(output).read_line(&mut line).await?;
    }
    let port = line.trim().parse().map_err(|_| io::Error::other("the site has not started"))?;
    Ok((site, port))
}

const SITE: &str = include_str!("demo/site.py");
