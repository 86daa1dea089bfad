//! What a visitor's connection is doing, and how long it may take.
//!
//! 1. Between two requests a connection may be idle for 75 s, so that a load balancer in front closes it first.
//! 2. The head of a request must be complete 10 s after its first byte. hyper has one timeout for both.
//! 3. While a request is under way there is no timeout: uploads and downloads take as long as they take.
//! 4. HTTP/2 has frames between requests that begin none, so once it is known, rule 2 does not count.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Version;
use metrics::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::access::now;

/// The requests of one connection. Clones share it.
#[derive(Clone)]
pub(super) struct Activity(Arc<Counts>);

struct Counts {
    /// The worker goes on while there is any.
    _alive: Alive,
    underway: AtomicUsize,
    /// All requests so far.
    begun: AtomicUsize,
    is_http_2: AtomicBool,
    opened: Instant,
    /// When the last request ended, in milliseconds from `opened`.
    idle_since: AtomicU64,
}

/// A request under way, until the last byte of its response, or until its tunnel ends.
pub(super) struct Underway {
    activity: Activity,
    in_flight: Gauge,
}

/// Held by all that needs the worker. Nothing is ever sent.
pub(super) type Alive = mpsc::Sender<()>;

impl Activity {
    pub(super) fn new(alive: Alive) -> Self {
        let [underway, begun] = [const { AtomicUsize::new(0) }; 2];
        let (is_http_2, idle_since) = (AtomicBool::new(false), AtomicU64::new(0));
        Self(Arc::new(Counts { _alive: alive, underway, begun, is_http_2, opened: now(), idle_since }))
    }

    /// Notes a request. `in_flight` counts it.
    pub(super) fn begin(&self, version: Version, in_flight: Gauge) -> Underway {
        self.0.underway.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            self.0.is_http_2.store(true, Ordering::Relaxed);
        }
        in_flight.increment(1);
        Underway { activity: self.clone(), in_flight }
    }

    fn is_idle(&self) -> bool {
        self.0.underway.load(Ordering::Relaxed) == 0
    }

    /// Whether there was a request.
    pub(super) fn has_begun(&self) -> bool {
        self.begun() > 0
    }

    fn begun(&self) -> usize {
        self.0.begun.load(Ordering::Relaxed)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let counts = &self.activity.0;
        let since = now().saturating_duration_since(counts.opened).as_millis();
        counts.idle_since.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        counts.underway.fetch_sub(1, Ordering::Relaxed);
        self.in_flight.decrement(1);
    }
}

/// A visitor's connection, whose reads fail after a timeout.
pub(super) struct Timed<IO> {
    io: IO,
    activity: Activity,
    /// The head that is being read.
    head: Option<Head>,
    /// Fires at the deadline or before. It is moved when it fires, which is rarer than requests are.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// A head that has begun.
struct Head {
    /// How many requests came before it.
    number: usize,
    deadline: Instant,
}

impl<IO> Timed<IO> {
    pub(super) fn new(io: IO, activity: Activity) -> Self {
        Self { io, activity, head: None, alarm: None }
    }

    /// When a read that waits fails; `None` while a request is under way.
    fn deadline(&self) -> Option<Instant> {
        let activity = &self.activity;
        let head = self.head.as_ref().filter(|head| head.number == activity.begun()).map(|head| head.deadline);
        let idle_since = activity.0.opened + Duration::from_millis(activity.0.idle_since.load(Ordering::Relaxed));
        activity.is_idle().then(|| head.unwrap_or(idle_since + LONGEST_IDLE))
    }

    /// Notes that bytes have come.
    fn received(&mut self) {
        let number = self.activity.begun();
        let is_new = self.head.as_ref().is_none_or(|head| head.number != number);
        if is_new && self.activity.is_idle() && !self.activity.0.is_http_2.load(Ordering::Relaxed) {
            self.head = Some(Head { number, deadline: now() + LONGEST_HEAD });
        }
    }

    /// Fails once the deadline has passed. The end of a request does not wake the reader, so the alarm is set while one
    /// is under way, too.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let deadline = self.deadline();
        let next = deadline.unwrap_or_else(|| now() + LONGEST_IDLE);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(next)));
        if alarm.deadline() > next {
            alarm.as_mut().reset(next);
        }
        loop {
            ready!(alarm.as_mut().poll(cx));
            if deadline.is_some_and(|deadline| now() >= deadline) {
                return Poll::Ready(ErrorKind::TimedOut.into());
            }
            alarm.as_mut().reset(next);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Timed<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if read.is_pending() {
            return self.poll_alarm(cx).map(Err);
        }
        if buffer.filled().len() > before {
            self.received();
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Timed<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

const LONGEST_IDLE: Duration = Duration::from_secs(75);
const LONGEST_HEAD: Duration = Duration::from_secs(10);
