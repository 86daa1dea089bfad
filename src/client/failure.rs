//! Why a call to the operator got no response: a word for traces, and an error whose text is for logs.
//!
//! No text holds a URL, or what an application's own service says.

use std::borrow::Cow;
use std::error::Error;
use std::io;

use euid_core::error::{ErrorKind, EuidError};

/// A call without a response.
pub(super) struct Failure {
    /// One of a few words: `error.type` in traces.
    pub(super) word: &'static str,
    pub(super) error: EuidError,
}

impl Failure {
    pub(super) fn new(word: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        Self { word, error: EuidError::new(ErrorKind::Transient, what) }
    }

    /// The call has taken as long as it may.
    pub(super) fn timed_out() -> Self {
        Self::new("timeout", "the operator did not answer in time")
    }

    /// The default HTTP client has failed.
    pub(super) fn of_network(error: reqwest::Error) -> Self {
        let failure = match (error.is_connect(), error.is_timeout()) {
            (true, true) => Self::new("timeout", unreached("no connection in time")),
            (false, true) => Self::timed_out(),
            (true, false) => Self::unconnected(&error),
            (false, false) => Self::new("connection_closed", "the connection to the operator broke"),
        };
        Self { error: failure.error.with_source(error.without_url()), ..failure }
    }

    fn unconnected(error: &reqwest::Error) -> Self {
        for cause in causes(error) {
            // Of hyper-util, which does not export the type.
            if cause.to_string() == "dns error" {
                return Self::new("name_not_resolved", unreached("its name can't be resolved (DNS)"));
            }
            let Some(cause) = cause.downcast_ref::<io::Error>().map(innermost) else { continue };
            match (cause.kind(), cause.get_ref()) {
                (io::ErrorKind::ConnectionRefused, _) => {
                    return Self::new("connection_refused", unreached("connection refused"));
                }
                // An error of rustls. It is about the operator's certificate, or the protocol.
                (io::ErrorKind::InvalidData, Some(tls)) => {
                    return Self::new("tls", unreached(&format!("TLS: {tls}")));
                }
                _ => {}
            }
        }
        Self::new("not_connected", UNREACHED)
    }
}

/// Returns the error in errors of the same type, which `source` leaves out.
fn innermost(error: &io::Error) -> &io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
    inner.map_or(error, innermost)
}

fn unreached(why: &str) -> String {
    format!("{UNREACHED}: {why}")
}

/// Iterates over an error and its causes, the outermost first.
pub(super) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

const UNREACHED: &str = "the operator can't be reached";
