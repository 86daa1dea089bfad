//! `serve --demo`: an operator, the sidecar, and a small site in Python that has the sidecar's client.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use euid_sandbox::SandboxServer;
use tokio::process::{Child, Command};
use tower_euid::{CookieKey, Scope};

use crate::sandbox;
use crate::settings::{Settings, of_scope, sidecar};

/// What runs beside the sidecar. It ends when this is dropped.
pub(crate) struct Demo {
    pub(crate) settings: Settings,
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
    let site = start_site(&folder, &api).map_err(|error| format!("python3: {error}"))?;

    let mut variables: Vec<(String, OsString)> =
        sandbox::variables(&operator).into_iter().map(|(name, value)| (name, value.into())).collect();
    let mut unix = OsString::from("unix:");
    unix.push(&api);
    variables.push((sidecar("api"), unix));
    variables.push((sidecar("admin"), "127.0.0.1:0".into()));
    variables.push((sidecar("log"), "warn".into()));
    variables.push((of_scope(Scope::Euid, "cookie_keys"), key.expose_base64().as_str().into()));
    let settings = Settings::of(variables, "", &mut Vec::new());
    println!("operator: {} (a sandbox)", operator.base_url());
    println!("API: curl --unix-socket {} http://localhost/v1/page", api.display());
    println!("Open the address of the site in a browser, and log in. Ctrl-C ends all.");
    Ok(Demo { settings, _operator: operator, _site: site, _folder: folder })
}

fn start_site(folder: &Folder, api: &Path) -> io::Result<Child> {
    let client =
        include_str!("../clients/euid_sidecar.py").replace("/run/euid-sidecar/api.sock", &api.to_string_lossy());
    fs::write(folder.0.join("euid_sidecar.py"), client)?;
    fs::write(folder.0.join("site.py"), include_str!("demo/site.py"))?;
    Command::new("python3").arg(folder.0.join("site.py")).kill_on_drop(true).spawn()
}
