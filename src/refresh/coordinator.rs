//! The coordinator of refreshes. It makes one call per token and per login, however many requests need it, in a task of
//! its own.
//!
//! The task has its own deadline, so a visitor who hangs up neither stops the call nor loses its outcome for other
//! waiters. [`table`](super::table) decides, [`leader`](super::leader) is the task, [`flight`](super::flight) is the
//! call that requests wait for.
//!
//! No code of the application (its log, its metrics, its clock) may run while a call has begun and no [`Leader`] guards
//! it: a panic there would leave the call under way for ever.

use std::fmt;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use euid_core::clock::{Clock, UnixMillis};
use euid_core::error::EuidError;
use euid_core::identity::Identity;
use euid_core::{Reason, Scope};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::ErasedRefresh;
use super::breaker::BreakerState;
use super::flight::{Outcome, Waiter};
use super::leader::Leader;
use super::log_limit::{LogLimit, LogLimits};
use super::memo::{Lineage, MemoLimit, RefreshKey};
use super::sync::{Mutex, lock};
use super::table::{NextStep, Origin, RefreshTable};
use crate::deadline::Deadline;
use crate::telemetry;

/// The settings of a coordinator.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The scope of the identities that `refresh` takes.
    pub(crate) scope: Scope,
    pub(crate) refresh: Arc<dyn ErasedRefresh>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long a page waits.
    pub(crate) max_wait: Duration,
    /// How long a call may take.
    pub(crate) call_deadline: Duration,
    /// How many calls may be under way at once; others queue.
    pub(crate) max_concurrent: usize,
    pub(crate) memo_limit: MemoLimit,
}

pub(crate) struct Coordinator {
    settings: Settings,
    pub(super) table: Mutex<RefreshTable>,
    pub(super) permits: Semaphore,
    /// Whether the warning about clocks that differ has been logged.
    pub(super) warned_of_skew: AtomicBool,
    /// Limits the log of failed refreshes of migrated identities.
    pub(super) migrated_failures: Mutex<LogLimit>,
    /// Limits the log of all other failed refreshes.
    pub(super) failures: Mutex<LogLimits>,
}

/// The reply to a request that needs a refresh.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The outcome is known without a call.
    Known(Outcome),
    /// A call is under way.
    Waiting {
        waiter: Waiter,
        /// Ends the page's wait; the call goes on.
        patience: Deadline,
        /// The identity, in the copy that all waiters of the call share. Otherwise each would keep its own in memory.
        shared: Arc<Identity>,
    },
    /// No outcome is known, and no call is made now, for this reason.
    Refused(Reason),
}

impl Coordinator {
    pub(crate) fn new(settings: Settings) -> Self {
        let max_concurrent = settings.max_concurrent.clamp(1, Semaphore::MAX_PERMITS);
        let table = Mutex::new(RefreshTable::new(
            settings.memo_limit,
            settings.max_wait,
            settings.call_deadline,
            max_concurrent,
        ));
        Self {
            settings,
            table,
            permits: Semaphore::new(max_concurrent),
            warned_of_skew: AtomicBool::new(false),
            migrated_failures: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// Returns a coordinator with changed settings, which remembers nothing yet.
    pub(crate) fn with(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings.clone();
        change(&mut settings);
        Self::new(settings)
    }

    /// What makes its calls.
    pub(crate) fn refresh(&self) -> &Arc<dyn ErasedRefresh> {
        &self.settings.refresh
    }

    /// How long a call may take.
    pub(crate) fn call_deadline(&self) -> Duration {
        self.settings.call_deadline
    }

    /// The scope of the identities that it refreshes.
    pub(crate) fn scope(&self) -> Scope {
        self.settings.scope
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the outcome that is known for this token or login. Makes no call.
    pub(crate) fn recall(&self, key: &RefreshKey, now: UnixMillis) -> Option<Outcome> {
        lock(&self.table).known(key, now)
    }

    /// Starts or joins the refresh of `identity`, if its outcome is not known. Never blocks. The call is made by `by`, which
    /// may ask others first; without it by this coordinator's own [`Refresh`](super::Refresh).
    pub(crate) fn ask(
        self: &Arc<Self>,
        key: &RefreshKey,
        identity: &Arc<Identity>,
        origin: Origin,
        by: Option<Arc<dyn ErasedRefresh>>,
        now: UnixMillis,
    ) -> Reply {
        // This check is first, as a known outcome needs neither runtime nor timer.
        if let Some(outcome) = lock(&self.table).known(key, now) {
            return Reply::Known(outcome);
        }
        let Ok(runtime) = Handle::try_current() else {
            return Reply::Refused(Reason::NoRuntime);
        };
        // tokio reports a runtime without a timer only by a panic.
        let max_wait = self.settings.max_wait;
        let Ok(patience) = catch_unwind(|| Deadline::after(max_wait)) else {
            return Reply::Refused(Reason::NoTimer);
        };
        let steady = crate::deadline::steady_now();
        let (next, moved) = self.with_table(|table| table.next(key, origin, now, steady));
        let reply = match next {
            NextStep::Lead { flight, probe } => {
                let leader = Leader::new(Arc::clone(self), *key, Arc::clone(&flight), origin, probe, now);
                moved.report(None);
                let shared = flight.share(identity);
                let span = telemetry::spans::refresh(self.settings.scope);
                runtime.spawn(leader.lead(Arc::clone(&shared), by).instrument(span));
                return Reply::Waiting { waiter: flight.wait(), patience, shared };
            }
            NextStep::Join(flight) => {
                telemetry::refresh_joined(self.settings.scope);
                let shared = flight.share(identity);
                Reply::Waiting { waiter: flight.wait(), patience, shared }
            }
            NextStep::Known(outcome) => Reply::Known(outcome),
            NextStep::BreakerOpen => {
                telemetry::breaker_refused(self.settings.scope);
                Reply::Refused(Reason::OperatorDown)
            }
            NextStep::Full => Reply::Refused(Reason::TooManyRefreshes),
            NextStep::MigrationFull => {
                telemetry::migration_refused(self.settings.scope);
                Reply::Refused(Reason::TooManyMigrations)
            }
            NextStep::Overdue => Reply::Refused(Reason::RefreshSlow),
            NextStep::LoginBusy => Reply::Refused(Reason::LoginBusy),
        };
        moved.report(None);
        reply
    }

    /// Notes that a response has written this pair of a login.
    pub(crate) fn delivered(&self, lineage: Lineage, pair: &Identity) {
        lock(&self.table).delivered(lineage, pair);
    }

    /// Changes the table. The caller must report the breaker's move once the lock is free: the report runs the
    /// application's log and metrics.
    pub(super) fn with_table<T>(&self, change: impl FnOnce(&mut RefreshTable) -> T) -> (T, BreakerMoved) {
        let mut table = lock(&self.table);
        let from = table.breaker();
        let result = change(&mut table);
        (result, BreakerMoved { scope: self.settings.scope, from, to: table.breaker() })
    }
}

/// The breaker's state before and after a change.
#[must_use = "a move of the breaker is to be reported"]
pub(super) struct BreakerMoved {
    scope: Scope,
    from: BreakerState,
    to: BreakerState,
}

impl BreakerMoved {
    /// Reports the move. `error` is the failure that caused it, if one did.
    pub(super) fn report(&self, error: Option<&EuidError>) {
        if self.from != self.to {
            telemetry::breaker_moved(self.scope, self.from.word(), self.to.word(), error);
        }
        telemetry::breaker_is(self.scope, self.to.number());
    }
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator")
            .field("scope", &self.settings.scope)
            .field("max_wait", &self.settings.max_wait)
            .field("call_deadline", &self.settings.call_deadline)
            .field("max_concurrent", &self.settings.max_concurrent)
            .field("memo_limit", &self.settings.memo_limit)
            .finish_non_exhaustive()
    }
}
