//! Mistakes in how an application is put together. A layer warns once of each.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::telemetry;

/// The mistakes that one layer has noticed. A clone with other settings starts with none.
#[derive(Default)]
pub(crate) struct Mistakes {
    inside_another: AtomicBool,
    domain_without_subject: AtomicBool,
    both_scopes_without_subject: AtomicBool,
    store_without_subject: AtomicBool,
    uid2_with_tcf_string: AtomicBool,
    found_user: AtomicBool,
    found_no_user: AtomicU32,
}

impl Mistakes {
    /// Notes that the layer is inside another one that is not its clone.
    pub(crate) fn inside_another(&self) {
        if !self.inside_another.swap(true, Ordering::Relaxed) {
            telemetry::layer_inside_another();
        }
    }

    /// Notes that the layer has no hook `subject`, and its cookies have a `Domain`.
    pub(crate) fn domain_without_subject(&self) {
        if !self.domain_without_subject.swap(true, Ordering::Relaxed) {
            telemetry::domain_without_subject();
        }
    }

    /// Notes that the layer serves both scopes and has no hook `subject`.
    pub(crate) fn both_scopes_without_subject(&self) {
        if !self.both_scopes_without_subject.swap(true, Ordering::Relaxed) {
            telemetry::both_scopes_without_subject();
        }
    }

    /// Notes that the layer has no hook `subject`, and its store is keyed by the user.
    pub(crate) fn store_without_subject(&self) {
        if !self.store_without_subject.swap(true, Ordering::Relaxed) {
            telemetry::store_without_subject();
        }
    }

    /// Notes that a request with an identity of UID2 may bring a TCF string; `brings` looks for it.
    #[cold]
    pub(crate) fn found_uid2(&self, brings: impl FnOnce() -> bool) {
        if !self.uid2_with_tcf_string.load(Ordering::Relaxed)
            && brings()
            && !self.uid2_with_tcf_string.swap(true, Ordering::Relaxed)
        {
            telemetry::uid2_with_tcf_string();
        }
    }

    /// Notes that the hook `subject` has found a signed-in user.
    pub(crate) fn found_user(&self) {
        // A load is cheaper than a store that other threads notice.
        if !self.found_user.load(Ordering::Relaxed) {
            self.found_user.store(true, Ordering::Relaxed);
        }
    }

    /// Notes a bound identity for which the hook `subject` has found no user. If it never finds one, the session layer
    /// is probably further in.
    pub(crate) fn found_no_user(&self) {
        if self.found_user.load(Ordering::Relaxed) {
            return;
        }
        let identities = self.found_no_user.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if identities == SUSPICIOUS {
            telemetry::bind_without_user(identities);
        }
    }
}

impl Clone for Mistakes {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// How many bound identities without any signed-in user cause the warning: signed-out visitors bring some.
const SUSPICIOUS: u32 = 20;
