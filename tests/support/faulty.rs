//! An operator on a loopback port of its own, with faults of its socket.
//!
//! The sandbox's [`Fault`](euid_sandbox::Fault)s are those of a working HTTP server. This file has the others.
//!
//! 1. A [`FaultyOperator`] and all its connections end when it is dropped.
//! 2. It reads the complete request before the fault. Otherwise closing the connection would reset it.
//! 3. "Never accepts" is a full queue of connections: the kernel then drops the packets that would open another one.
//!    Linux does this; other systems refuse the connection, so the mode does not exist there.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// A fault of the operator's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The port is closed.
    Refuses,
    /// A connection is never established.
    #[cfg(target_os = "linux")]
    NeverAccepts,
    /// A connection is established, but never read.
    NeverReads,
    /// The request is read, and no answer is sent.
    StallsInHead,
    /// A head that announces a body is sent, and nothing more.
    StallsInBody,
    /// The request is read, and the connection is reset.
    Resets,
    /// Half of the announced body is sent, and the connection is closed.
    HalfABody,
    /// Bytes are sent that are not HTTP.
    SendsNoHttp,
}

impl Mode {
    pub(crate) const ALL: &[Self] = &[
        Self::Refuses,
        #[cfg(target_os = "linux")]
        Self::NeverAccepts,
        Self::NeverReads,
        Self::StallsInHead,
        Self::StallsInBody,
        Self::Resets,
        Self::HalfABody,
        Self::SendsNoHttp,
    ];

    /// Returns whether a call ends only by the client's timeouts.
    pub(crate) fn stalls(self) -> bool {
        !matches!(self, Self::Refuses | Self::Resets | Self::HalfABody | Self::SendsNoHttp)
    }
}

/// An operator that listens on a port until it is dropped.
#[derive(Debug)]
pub(crate) struct FaultyOperator {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl FaultyOperator {
    pub(crate) async fn start(mode: Mode) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let task = match mode {
            // A port that is bound but does not listen is closed, and no other program gets it.
            Mode::Refuses => tokio::spawn(async move {
                let _bound = socket;
                pending::<()>().await;
            }),
            #[cfg(target_os = "linux")]
            Mode::NeverAccepts => {
                let listener = socket.listen(1).unwrap();
                let queue = fill(address).await;
                tokio::spawn(async move {
                    let _full = (listener, queue);
                    pending::<()>().await;
                })
            }
            _ => tokio::spawn(accept(socket.listen(128).unwrap(), mode, Arc::clone(&requests))),
        };
        Self { address, requests, task }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns how many complete requests were read.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for FaultyOperator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens connections that are never accepted, as many as fit into the queue.
async fn fill(address: SocketAddr) -> Vec<TcpStream> {
    let mut queue = Vec::new();
    while let Ok(connected) = timeout(LONG_FOR_LOOPBACK, TcpStream::connect(address)).await {
        queue.push(connected.unwrap());
        assert!(queue.len() < 64, "the queue does not fill");
    }
    queue
}

/// Accepts connections and owns them: dropping this future ends them.
async fn accept(listener: TcpListener, mode: Mode, requests: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, mode, Arc::clone(&requests)));
    }
}

async fn serve(mut stream: TcpStream, mode: Mode, requests: Arc<AtomicUsize>) {
    if mode == Mode::NeverReads {
        pending::<()>().await;
    }
    if read_request(&mut stream).await.is_none() {
        return;
    }
    requests.fetch_add(1, Ordering::SeqCst);
    let bytes = match mode {
        Mode::StallsInBody => HEAD.to_owned(),
        Mode::HalfABody => format!("{HEAD}{}", "A".repeat(ANNOUNCED / 2)),
        Mode::SendsNoHttp => "220 mail.example.com ESMTP\r\n".to_owned(),
        _ => String::new(),
    };
    // The client may have closed the connection.
    drop(stream.write_all(bytes.as_bytes()).await);
    match mode {
        Mode::Resets => stream.set_zero_linger().unwrap(),
        mode if mode.stalls() => pending().await,
        _ => {}
    }
}

/// Reads head and body; `None` if the client closes the connection before their end.
async fn read_request(stream: &mut TcpStream) -> Option<()> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request);
        if text.split_once("\r\n\r\n").is_some_and(|(head, body)| body.len() >= content_length(head)) {
            return Some(());
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}

fn content_length(head: &str) -> usize {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.map_or(0, |(_, length)| length.parse().unwrap())
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 400\r\n\r\n";
/// The `content-length` of [`HEAD`].
const ANNOUNCED: usize = 400;
/// A loopback connection that takes this long will never be established.
const LONG_FOR_LOOPBACK: Duration = Duration::from_millis(200);
