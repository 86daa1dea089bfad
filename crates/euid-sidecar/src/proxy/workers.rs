//! The threads of the proxy, each with a runtime and connections to the site of its own.
//!
//! 1. A request stays on the thread that has accepted its connection.
//! 2. At the end the listeners close at once. Requests under way, tunnels and long downloads go on until the process
//!    ends, and so do the threads.

use std::io;
use std::net::IpAddr;
use std::thread;

use axum::serve::{Listener, ListenerExt};
use tokio::runtime;
use tokio::sync::{mpsc, watch};

use super::Proxy;
use super::connection::Front;
use crate::listen::Listening;

/// The threads that serve.
pub(crate) struct Workers {
    stop: watch::Sender<bool>,
    /// Ends when no thread has a connection.
    ended: mpsc::Receiver<()>,
}

impl Workers {
    /// Starts `count` threads, which all accept connections from `listener`.
    pub(crate) fn start(proxy: &Proxy, listener: &Listening, count: usize) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (alive, ended) = mpsc::channel(1);
        for number in 0..count {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let listener = {
                let _entered = runtime.enter();
                listener.again()?
            };
            let (proxy, stopped, alive) = (proxy.clone(), stopped.clone(), alive.clone());
            thread::Builder::new().name(format!("proxy-{number}")).spawn(move || {
                runtime.block_on(async {
                    run(proxy.front(), listener, stopped).await;
                    drop(alive);
                    // Calls of other threads to the operator may use connections that this one drives.
                    std::future::pending::<()>().await;
                });
            })?;
        }
        Ok(Self { stop, ended })
    }

    /// Takes no more connections, and returns when those that are open have ended.
    pub(crate) async fn drain(&mut self) {
        self.stop.send_replace(true);
        while self.ended.recv().await.is_some() {}
    }
}

/// Serves until `stop`, and then until no connection is left.
pub(super) async fn run(front: Front, listener: Listening, stop: watch::Receiver<bool>) {
    let (alive, mut ended) = mpsc::channel(1);
    match listener {
        Listening::Tcp(listener) => {
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            accept(front, listener, |address| Some(address.ip()), stop, alive).await;
        }
        // A program that connects to a socket in the file system says itself where a request came from.
        Listening::Unix(listener) => accept(front, listener, |_| None, stop, alive).await,
    }
    while ended.recv().await.is_some() {}
}

async fn accept<L: Listener>(
    front: Front,
    mut listener: L,
    peer: fn(&L::Addr) -> Option<IpAddr>,
    stop: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
) {
    let mut stopped = stop.clone();
    loop {
        let (io, address) = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        tokio::spawn(front.clone().serve(io, peer(&address), stop.clone(), alive.clone()));
    }
}
