//! What the handler sees, and what the response will do.

use http::Method;

use super::{Change, Findings};
use crate::euid::{Euid, EuidLogout};
use crate::policy::{self, Consent, Credential, LoginMarker, Visibility};
use crate::token::{AdvertisingToken, Note};

/// What a request's handler sees and what its response will write, unless the handler asks for something else.
#[derive(Debug)]
#[must_use = "the handler has to see it, and the response has to write it"]
pub struct Decision {
    pub(super) euid: Euid,
    pub(super) change: Change,
    pub(super) consent: Consent,
    /// Whether the response may end a login: state came, or the method is not safe.
    pub(super) may_end: bool,
    pub(super) scripts: Scripts,
    pub(super) findings: Findings,
}

/// What the response does with the cookie for scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scripts {
    /// It differs from the token that the handler sees, and is put right.
    pub(super) sync: bool,
    /// It must not hold a token.
    pub(super) withheld: bool,
}

/// What the response of a request under way will do.
#[derive(Debug)]
#[must_use = "the response has to write it: `Engine::finish`"]
pub struct Pending {
    pub(super) change: Change,
    /// Notes what the handler does with the token or the login, if there is one.
    pub(super) note: Option<Note>,
    pub(super) consent: Consent,
    pub(super) scripts: Scripts,
}

/// A [`Pending`] with nothing planned: only what the handler does counts. One word.
#[derive(Debug, Default)]
pub struct Watch(Option<Note>);

impl Decision {
    /// For a request that brought no state.
    #[inline]
    pub(super) fn without_state(consent: Consent, method: &Method, withheld: bool) -> Self {
        let verdict = policy::without_identity(Credential::Nothing, LoginMarker::Nothing, consent);
        Self {
            euid: euid(verdict.sees, None),
            change: Change::Keep,
            consent,
            may_end: !method.is_safe(),
            scripts: Scripts { sync: false, withheld },
            findings: Findings::NONE,
        }
    }

    /// What the handler will see.
    #[inline]
    #[must_use]
    pub fn euid(&self) -> &Euid {
        &self.euid
    }

    /// What the response will write.
    #[inline]
    #[must_use]
    pub fn change(&self) -> &Change {
        &self.change
    }

    /// What became of the state that the request brought, for logs and metrics.
    #[inline]
    #[must_use]
    pub fn findings(&self) -> Findings {
        self.findings
    }

    /// Whether the response will write an identity that another page could write as well. A host that wants to write
    /// nothing for this request then calls [`defer`](Self::defer).
    #[inline]
    #[must_use]
    pub fn is_deferrable(&self) -> bool {
        self.change.stores()
    }

    /// Leaves to the next page what it can write as well. Withdrawn consent ends a login in any case.
    pub fn defer(&mut self) {
        if self.consent != Consent::Withdrawn {
            self.change = Change::Keep;
        }
        self.scripts.sync = false;
    }

    /// Splits what the handler sees from what the response does.
    #[inline]
    pub fn start(self) -> (Euid, Pending) {
        let note = match &self.euid {
            Euid::Active(token) => Some(token.note()),
            _ if self.may_end => Some(Note::without_token()),
            _ => None,
        };
        let Self { euid, change, consent, scripts, .. } = self;
        (euid, Pending { change, note, consent, scripts })
    }
}

impl Pending {
    /// The handle by which a handler ends the login at once. `None` if there is nothing to end.
    #[inline]
    #[must_use]
    pub fn logout(&self) -> Option<EuidLogout> {
        self.note.clone().map(EuidLogout::of_note)
    }

    /// Leaves a number of the host's with the token or the logout handle: [`EuidLogout::mark`] reads it.
    #[inline]
    pub fn mark(&self, number: usize) {
        if let Some(note) = &self.note {
            note.set_mark(number);
        }
    }

    /// Takes over what a later decision writes, for a refresh that ended after the handler was called.
    pub fn adopt(&mut self, decision: Decision) {
        self.change = decision.change;
    }

    /// Keeps the token from scripts.
    pub fn withhold_token(&mut self) {
        self.scripts = Scripts { sync: true, withheld: true };
    }

    /// Itself in one word, if nothing is planned.
    ///
    /// # Errors
    ///
    /// Returns it as it was, if something is.
    #[inline]
    pub fn into_watch(self) -> Result<Watch, Self> {
        let plans = self.scripts != Scripts::default() || self.consent == Consent::Withdrawn;
        if plans || !matches!(self.change, Change::Keep) { Err(self) } else { Ok(Watch(self.note)) }
    }
}

impl Default for Pending {
    fn default() -> Self {
        Watch::default().into()
    }
}

impl From<Watch> for Pending {
    fn from(Watch(note): Watch) -> Self {
        Self { change: Change::Keep, note, consent: Consent::Granted, scripts: Scripts::default() }
    }
}

impl Watch {
    /// Whether the handler did nothing that the response must follow.
    #[inline]
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.0.as_ref().is_none_or(Note::is_blank)
    }
}

/// What the handler sees.
#[inline]
pub(super) fn euid(sees: Visibility, token: Option<AdvertisingToken>) -> Euid {
    match (sees, token) {
        (Visibility::Active, Some(token)) => Euid::Active(token),
        (Visibility::Absent, _) => Euid::Absent,
        (Visibility::OptedOut, _) => Euid::OptedOut,
        (Visibility::Withheld, _) => Euid::Withheld,
        (Visibility::Unavailable | Visibility::Active, _) => Euid::Unavailable,
    }
}
