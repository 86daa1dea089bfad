//! The bodies that pass through, frame by frame.
//!
//! 1. Nothing is kept: memory does not grow with the length of a body.
//! 2. A visitor's trailers lose the names that only the sidecar may use, as their headers do.
//! 3. A response holds its connection to the site, which goes back to the pool when the last byte has been read.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::activity::Underway;
use super::names;
use super::pool::Lease;

/// The body of a request on its way to the site.
pub(super) struct RequestBody {
    /// `None`: there is no body.
    body: Option<Incoming>,
    failed: VisitorFailed,
}

/// Whether the body that the visitor sends has turned out to be broken. Clones share the answer.
#[derive(Clone, Default)]
pub(super) struct VisitorFailed(Arc<AtomicBool>);

impl VisitorFailed {
    pub(super) fn has(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl RequestBody {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body: Some(body).filter(|body| !body.is_end_stream()), failed: VisitorFailed::default() }
    }

    pub(super) fn empty() -> Self {
        Self { body: None, failed: VisitorFailed::default() }
    }

    pub(super) fn failed(&self) -> VisitorFailed {
        self.failed.clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if matches!(frame, Some(Err(_))) {
            self.failed.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map(without_reserved)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Drops the names from trailers that only the sidecar may use. hyper sends those that `Trailer` lists, where they are
/// missing already; this does not rely on it.
fn without_reserved(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        names::drop_reserved(trailers);
    }
    frame
}

/// The body of a response on its way to the visitor.
pub(super) struct ResponseBody {
    source: Source,
    /// The request is under way as long as its response.
    underway: Option<Underway>,
}

enum Source {
    /// A text of the sidecar's own; `None` once it has been read.
    Text(Option<&'static str>),
    Site(SiteBody),
}

/// A body that the site sends.
struct SiteBody {
    body: Incoming,
    lease: Option<Lease>,
    ended: bool,
}

impl ResponseBody {
    pub(super) fn text(text: &'static str) -> Self {
        Self { source: Source::Text(Some(text).filter(|text| !text.is_empty())), underway: None }
    }

    /// The body of a response whose connection is `lease`.
    pub(super) fn of_site(body: Incoming, lease: Lease) -> Self {
        Self { source: Source::Site(SiteBody { body, lease: Some(lease), ended: false }), underway: None }
    }

    pub(super) fn hold(&mut self, underway: Underway) {
        self.underway = Some(underway);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.source {
            Source::Text(text) => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
            }
            Source::Site(site) => {
                let frame = ready!(Pin::new(&mut site.body).poll_frame(cx));
                site.ended |= frame.is_none();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Text(text) => text.is_none(),
            Source::Site(site) => site.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => SizeHint::with_exact(text.map_or(0, str::len) as u64),
            Source::Site(site) => site.body.size_hint(),
        }
    }
}

impl Drop for SiteBody {
    fn drop(&mut self) {
        // A body with a length ends with its last byte: it is not polled for its end.
        if (self.ended || self.body.is_end_stream())
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn trailers_lose_reserved_names_and_data_stays() {
        let trailers = ["euid-token", "euid_state", "digest"].map(|name| (name, HeaderValue::from_static("x")));
        let mut map = HeaderMap::new();
        trailers.into_iter().for_each(|(name, value)| _ = map.insert(name, value));
        let left = without_reserved(Frame::trailers(map)).into_trailers().unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), ["digest"]);
        let data = without_reserved(Frame::data(Bytes::from_static(b"euid-token: x")));
        assert_eq!(data.into_data().unwrap(), "euid-token: x");
    }
}
