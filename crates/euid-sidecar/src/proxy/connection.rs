//! A visitor's connection: each of its requests is checked, stripped, and goes through the layer to the site.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;
use tower_euid::EuidService;

use super::activity::{Activity, Alive, Timed};
use super::body::ResponseBody;
use super::forward::{Forward, Peer, own};
use super::hop;
use super::numbers::{Begun, Numbers};
use super::refuse;
use super::tunnel::Tunnel;
use super::{MOST_BUFFERED, MOST_HEADERS};

/// What the connections of one worker share.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) service: EuidService<Forward>,
    pub(super) numbers: Arc<Numbers>,
    /// Also takes HTTP/2 without TLS.
    pub(super) h2c: bool,
}

impl Front {
    /// Serves a connection until it ends. After `stop` it takes no more requests.
    pub(super) async fn serve(
        self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Option<IpAddr>,
        stop: watch::Receiver<bool>,
        alive: Alive,
    ) {
        let (h2c, activity) = (self.h2c, Activity::new(alive));
        let end = End { stop, activity: activity.clone() };
        let io = TokioIo::new(Timed::new(io, activity.clone()));
        let service = service_fn(move |request| {
            let (front, activity) = (self.clone(), activity.clone());
            // In a box, so that an idle connection has no room for it.
            Box::pin(async move { Ok::<_, Infallible>(front.answer(request, peer, &activity).await) })
        });
        if h2c {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().max_headers(MOST_HEADERS).max_buf_size(MOST_BUFFERED);
            builder.http2().max_header_list_size(LONGEST_HTTP_2_HEAD);
            let connection = Box::pin(builder.serve_connection_with_upgrades(io, service));
            end.drive(connection, |connection| connection.graceful_shutdown()).await;
        } else {
            // hyper-util's builder takes HTTP/2 even where that is turned off.
            let connection = http1::Builder::new()
                .max_headers(MOST_HEADERS)
                .max_buf_size(MOST_BUFFERED)
                .serve_connection(io, service);
            end.drive(Box::pin(connection.with_upgrades()), |connection| connection.graceful_shutdown()).await;
        }
    }

    async fn answer(
        self,
        mut request: Request<Incoming>,
        peer: Option<IpAddr>,
        activity: &Activity,
    ) -> Response<ResponseBody> {
        let underway = activity.begin(request.version(), self.numbers.in_flight.clone());
        let begun = Begun::of(&request);
        let numbers = Arc::clone(&self.numbers);
        let mut response = match refuse::check(&mut request) {
            Ok(()) => self.pass(request, peer).await,
            Err(refusal) => {
                let mut response = own(refusal.status, refusal.text);
                if request.version() != Version::HTTP_2 {
                    // What follows may be a part of it.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        };
        numbers.answered(&begun, &response);
        match response.extensions_mut().remove::<Tunnel>() {
            Some(tunnel) => tunnel.open(underway),
            None => response.body_mut().hold(underway),
        }
        response
    }

    async fn pass(self, mut request: Request<Incoming>, peer: Option<IpAddr>) -> Response<ResponseBody> {
        hop::strip_request(request.headers_mut());
        if let Some(address) = peer {
            request.extensions_mut().insert(Peer(address));
        }
        match self.service.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// How a connection ends when the sidecar does.
struct End {
    stop: watch::Receiver<bool>,
    activity: Activity,
}

impl End {
    /// Drives a connection to its end. After `stop`, `shut_down` lets it take no more requests. The connection is in a box, as a
    /// future that it is moved into would have room for it twice.
    async fn drive<C: Future>(mut self, mut connection: Pin<Box<C>>, shut_down: fn(Pin<&mut C>)) {
        tokio::select! {
            // A visitor who has gone away, or who speaks no HTTP, is no error.
            _ = connection.as_mut() => return,
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
        // The first request of a new connection is on its way. No visitor sends it again if it is not answered.
        let until_first = poll_fn(|cx| match connection.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if self.activity.has_begun() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        });
        if timeout(LONGEST_FIRST, until_first).await == Ok(true) {
            return;
        }
        shut_down(connection.as_mut());
        drop(connection.await);
    }
}

/// How long a new connection is waited for when the sidecar ends.
const LONGEST_FIRST: Duration = Duration::from_secs(1);
/// hyper's default is 16 KiB. HTTP/1.1 has [`MOST_HEADERS`] and [`MOST_BUFFERED`].
const LONGEST_HTTP_2_HEAD: u32 = 64 * 1024;
