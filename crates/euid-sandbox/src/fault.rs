//! The faults of a sandbox.

use std::time::Duration;

use euid_core::protocol::{Key, RequestNonce};

/// A fault of every call until another or none is set; see [`Sandbox::fault`](super::Sandbox::fault).
///
/// ```
/// use tower_euid::Dii;
/// use tower_euid::error::ErrorKind;
/// use euid_sandbox::{Fault, Sandbox};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sandbox = Sandbox::builder().build()?;
/// let client = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?.0;
/// for (fault, kind) in [
///     (Fault::Status(503), ErrorKind::Transient),
///     (Fault::Refuse("client_error"), ErrorKind::RejectedInput),
///     (Fault::Garbage, ErrorKind::Malformed),
///     (Fault::WrongKey, ErrorKind::Undecryptable),
/// ] {
///     sandbox.fault(fault);
///     assert_eq!(client.generate(Dii::email("user@example.com")?).await.unwrap_err().kind(), kind);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The right answer, but only after this long. Measured by tokio's timer, not the sandbox clock:
    /// the runtime must have time enabled.
    Delay(Duration),
    /// This HTTP status and a page of HTML, as a load balancer writes it. 200 to 999; anything else
    /// is sent as 500.
    Status(u16),
    /// HTTP 200, `text/plain`, and nonsense.
    Garbage,
    /// HTTP 400 with this status word, not encrypted: `invalid_token`, `expired_token`, `client_error`, or
    /// `error`, which a caller without an API key gets.
    Refuse(&'static str),
    /// HTTP 302 to the same place, for ever.
    Redirect,
    /// HTTP 200, `text/plain`, and this many bytes of valid base64.
    LargeBody(usize),
    /// An answer that belongs to another request. Without effect on refresh, whose answers carry no
    /// nonce.
    WrongNonce,
    /// An answer encrypted under another key.
    WrongKey,
}

impl Fault {
    /// The key to encrypt an answer under instead of `key`.
    pub(crate) fn key(fault: Option<Self>, key: &Key) -> Key {
        if fault == Some(Self::WrongKey) { key.map(|byte| !byte) } else { *key }
    }

    /// The nonce of the answer, instead of `nonce`.
    pub(crate) fn nonce(fault: Option<Self>, nonce: RequestNonce) -> RequestNonce {
        if fault == Some(Self::WrongNonce) { nonce.map(|byte| !byte) } else { nonce }
    }
}
