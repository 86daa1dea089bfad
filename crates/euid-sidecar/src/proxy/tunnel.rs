//! A WebSocket: once the site has agreed, bytes go both ways until one side ends.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::activity::Underway;

/// Both halves of a tunnel, in the response of a site that has agreed.
#[derive(Clone)]
pub(super) struct Tunnel {
    pub(super) visitor: OnUpgrade,
    pub(super) site: OnUpgrade,
}

impl Tunnel {
    /// Passes bytes until one side ends. The request is under way meanwhile.
    pub(super) fn open(self, underway: Underway) {
        tokio::spawn(async move {
            if let (Ok(visitor), Ok(site)) = tokio::join!(self.visitor, self.site) {
                // That one side has gone away is an end as good as any.
                drop(copy_bidirectional(&mut TokioIo::new(visitor), &mut TokioIo::new(site)).await);
            }
            drop(underway);
        });
    }
}
