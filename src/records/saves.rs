//! The calls of one response: a login that is put, or logins that end.
//!
//! They are made in a task of their own: a visitor who hangs up during a logout is logged out all the same.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use euid_core::engine::{Save, StoreAnswer, StoreCall, Unavailable};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::owed::owe;
use super::{Records, has_runtime};

/// A future of a save whose calls have been made, or can't be.
pub(crate) struct Saving(oneshot::Receiver<Box<Save>>);

/// Gives the save back, even if its task ends early with its runtime: the response has to be written.
struct Making {
    records: Arc<Records>,
    save: Option<Box<Save>>,
    sender: Option<oneshot::Sender<Box<Save>>>,
}

impl Records {
    /// Begins the calls of a save. Without a runtime it gives the save back: none can be made.
    pub(crate) fn save(self: &Arc<Self>, save: Box<Save>) -> Result<Saving, Box<Save>> {
        let runtime = if has_runtime() { Handle::try_current().ok() } else { None };
        let Some(runtime) = runtime else {
            self.owe_ends(&save);
            return Err(save);
        };
        let (sender, saved) = oneshot::channel();
        let mut making = Making { records: Arc::clone(self), save: Some(save), sender: Some(sender) };
        runtime.spawn(async move {
            if let Some(save) = &mut making.save {
                making.records.make(save).await;
            }
        });
        Ok(Saving(saved))
    }

    async fn make(self: &Arc<Self>, save: &mut Save) {
        while let Some(call) = save.call() {
            let answer = match call {
                StoreCall::Get(key) => StoreAnswer::Got(self.get(key).await),
                StoreCall::Put(write) => StoreAnswer::Put(self.put(write.clone()).await),
                // Only refreshes ask for these.
                StoreCall::Wait(_) | StoreCall::Refresh(_) => StoreAnswer::Put(Err(Unavailable)),
            };
            save.answer(answer);
        }
    }

    /// Owes the ends of a save that have not been made.
    fn owe_ends(self: &Arc<Self>, save: &Save) {
        save.open_ends().for_each(|end| owe(self, end.clone()));
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let (Some(save), Some(sender)) = (self.save.take(), self.sender.take()) {
            self.records.owe_ends(&save);
            // If no response waits for it, the visitor has hung up.
            let _ = sender.send(save);
        }
    }
}

impl Future for Saving {
    /// `None` never happens: [`Making`] sends it.
    type Output = Option<Box<Save>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(cx)).ok())
    }
}

impl fmt::Debug for Saving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Saving(..)")
    }
}
