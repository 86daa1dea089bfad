//! Listeners: of TCP, of unix sockets, and those that systemd has opened.
//!
//! 1. A unix socket has mode 0660 from the moment it can be found: it is bound under another name, and then moved.
//! 2. A socket on which a program listens is never replaced. A dead one is. Other files are left alone.
//! 3. While a socket is being replaced, its folder is locked, so that of two sidecars that start together one fails.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream};
use std::path::Path;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::{TcpListener, UnixListener};

use crate::address::Address;

#[derive(Debug)]
pub(crate) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    pub(crate) fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Self::of_tcp(StdTcpListener::bind(address)?),
            Address::Unix(path) => Self::of_unix(bind_unix(path)?),
        }
    }

    fn of_tcp(listener: StdTcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(listener)?))
    }

    fn of_unix(listener: StdUnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(UnixListener::from_std(listener)?))
    }

    /// Returns the same socket for the runtime of the caller.
    pub(crate) fn again(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => Self::of_tcp(listener.as_fd().try_clone_to_owned()?.into()),
            Self::Unix(listener) => Self::of_unix(listener.as_fd().try_clone_to_owned()?.into()),
        }
    }

    pub(crate) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                Ok(Address::Unix(address.as_pathname().unwrap_or(Path::new("(no path)")).to_owned()))
            }
        }
    }

    /// Serves until `stop`, and then until the requests under way have ended.
    pub(crate) async fn serve(self, app: Router, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => {
                // Without Nagle's algorithm: an answer is one small write.
                let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
                axum::serve(listener, app).with_graceful_shutdown(stop).await
            }
            Self::Unix(listener) => axum::serve(listener, app).with_graceful_shutdown(stop).await,
        }
    }
}

/// The listeners that systemd has opened for this process.
#[derive(Debug, Default)]
pub(crate) struct Activated {
    pub(crate) api: Option<Listening>,
    pub(crate) admin: Option<Listening>,
    pub(crate) proxy: Option<Listening>,
}

impl Activated {
    /// Takes over the sockets that `LISTEN_FDS` counts. `LISTEN_FDNAMES` has `api`, `admin` and `proxy`; a single
    /// socket of any other name is the API's. Call it once.
    pub(crate) fn take() -> Result<Self, String> {
        let sockets = sd_listen_fds::get().map_err(|error| format!("LISTEN_FDS: {error}"))?;
        let is_only = sockets.len() == 1;
        let mut activated = Self::default();
        for (name, socket) in sockets {
            let name = name.unwrap_or_default();
            let slot = match &*name {
                "admin" => &mut activated.admin,
                "api" => &mut activated.api,
                "proxy" => &mut activated.proxy,
                _ if is_only => &mut activated.api,
                _ => return Err("LISTEN_FDNAMES: none of `api`, `admin` and `proxy`".to_owned()),
            };
            let socket = socket.into_std();
            let listener = StdUnixListener::from(socket.try_clone().map_err(|error| format!("LISTEN_FDS: {error}"))?);
            // The address of a socket tells its kind.
            let listening = match listener.local_addr() {
                Ok(_) => Listening::of_unix(listener),
                Err(_) => Listening::of_tcp(StdTcpListener::from(socket)),
            };
            if slot.replace(listening.map_err(|error| format!("LISTEN_FDS: {error}"))?).is_some() {
                return Err(format!("LISTEN_FDNAMES: two sockets are `{name}`"));
            }
        }
        Ok(activated)
    }
}

fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lock = File::open(folder)?;
    lock.lock()?;
    refuse_living(path)?;
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{}", std::process::id()));
    let hidden = Path::new(&hidden);
    let listener = StdUnixListener::bind(hidden)?;
    let moved = fs::set_permissions(hidden, Permissions::from_mode(0o660)).and_then(|()| fs::rename(hidden, path));
    if moved.is_err() {
        drop(fs::remove_file(hidden));
    }
    moved.map(|()| listener)
}

/// Fails unless there is nothing at `path`, or a socket on which no program listens.
fn refuse_living(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "a program listens on this socket")),
    }
}

/// Returns the address at which a client on this machine reaches a listener.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback: std::net::IpAddr =
        if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
    if address.ip().is_unspecified() { SocketAddr::new(loopback, address.port()) } else { address }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A folder of a test of its own.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("listen-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn unix_socket_has_mode_0660_and_leaves_no_other_file() {
        let folder = Folder::new("mode");
        let path = folder.0.join("api.sock");
        let _listener = bind_unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    #[test]
    fn living_socket_is_refused_and_dead_one_replaced() {
        let folder = Folder::new("living");
        let path = folder.0.join("api.sock");
        let first = bind_unix(&path).unwrap();
        assert_eq!(bind_unix(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).is_ok(), "the living one is still there");
        drop(first);
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let _second = bind_unix(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn file_that_is_no_socket_is_left_alone() {
        let folder = Folder::new("file");
        let path = folder.0.join("api.sock");
        fs::write(&path, "text").unwrap();
        assert_eq!(bind_unix(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
