//! A sandbox on a loopback port of its own, whose connections fail as a test demands.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use euid_sandbox::Sandbox;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tower::ServiceExt;

/// How a connection reacts to a request that it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    Answer,
    /// Answers without `Connection: close`, and closes nevertheless.
    AnswerAndClose,
    Close,
    Reset,
    /// Sends an incomplete answer, and closes the connection.
    AnswerHalf,
    Stall,
    /// Sends this text as the answer.
    Send(&'static str),
}

/// A server that listens on a port until it is dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    /// The head of each complete request.
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Peer {
    /// Starts a server. The arguments of `reaction` are the number of the connection and the number of the request on
    /// it, both from 0.
    pub(crate) async fn start(
        sandbox: &Sandbox,
        reaction: impl Fn(usize, usize) -> Reaction + Copy + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let (sandbox, seen) = (sandbox.clone(), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            // Owns the connections: dropping this future ends them.
            let mut connections = JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (sandbox, seen) = (sandbox.clone(), Arc::clone(&seen));
                connections.spawn(serve(stream, sandbox, seen, move |request| reaction(connection, request)));
            }
        });
        Self { address, heads, task }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.heads().len()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a connection until the client closes it or a reaction ends it.
async fn serve(
    mut stream: TcpStream,
    sandbox: Sandbox,
    seen: Arc<Mutex<Vec<String>>>,
    reaction: impl Fn(usize) -> Reaction,
) -> Option<()> {
    for number in 0.. {
        let (head, body) = read(&mut stream).await?;
        let answer = answer(&sandbox, &head, body).await;
        seen.lock().unwrap().push(head);
        match reaction(number) {
            Reaction::Answer => stream.write_all(&answer).await.ok()?,
            Reaction::AnswerAndClose => return stream.write_all(&answer).await.ok(),
            Reaction::Close => return None,
            Reaction::Reset => return stream.set_zero_linger().ok(),
            Reaction::AnswerHalf => return stream.write_all(answer.get(..answer.len() - 10)?).await.ok(),
            Reaction::Stall => std::future::pending().await,
            Reaction::Send(text) => stream.write_all(text.as_bytes()).await.ok()?,
        }
    }
    None
}

/// Reads head and body of a request; `None` if the client closes the connection before their end.
async fn read(stream: &mut TcpStream) -> Option<(String, Bytes)> {
    let mut request = Vec::new();
    loop {
        if let Some((head, body)) = std::str::from_utf8(&request).ok()?.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
            if body.len() == length.parse::<usize>().ok()? {
                return Some((head.to_owned(), body.to_owned().into()));
            }
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}

/// Returns the sandbox's answer as bytes of HTTP.
async fn answer(sandbox: &Sandbox, head: &str, body: Bytes) -> Vec<u8> {
    let mut lines = head.lines();
    let mut request = Request::post(lines.next().unwrap().split(' ').nth(1).unwrap());
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    let response = sandbox.clone().oneshot(request.body(Full::new(body)).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let kind = parts.headers.get("content-type").map_or("text/plain", |kind| kind.to_str().unwrap());
    let head = format!("HTTP/1.1 {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", parts.status, body.len());
    [head.as_bytes(), &body].concat()
}
