//! The steps of a history, and the set-ups of the site.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use tower_euid::Consent;

use crate::support::{ANCHOR, IDENTITY, Literal, OPT_OUT};

use super::operator::{MINUTES, Mode, REFRESH_FROM, User};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A tab requests a page from a node. If the tab still waits for an earlier response, that one is lost.
    Send {
        tab: usize,
        page: Page,
        node: usize,
        arrival: Arrival,
    },
    /// The response that a tab waits for reaches the browser.
    Apply(usize),
    Wait(Duration),
    /// A node makes the next step of its key rotation, as a new process.
    Deploy(usize),
    /// A node makes the next step of its key rotation without a restart.
    Reload(usize),
    /// The browser drops a cookie.
    Evict(Literal),
    /// The visitor's consent changes. All later requests bring it.
    SetConsent(Consent),
    /// The user opts out at the operator. The site is not informed.
    OptOut(User),
    OptIn(User),
    SetMode(Mode),
    /// A script stores the SDK's cookie again. Only a site that migrates reads it.
    PutBackSdk,
}

/// A page of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// Changes nothing.
    Look,
    /// Generates again if a user is signed in and the state is `Absent`, as the docs advise.
    GenerateAgain,
    /// Signs the user in, and logs them in to the layer.
    Login(User),
    /// Signs the user out, and logs them out of the layer.
    Logout,
    /// Signs the user out, with the header `Clear-Site-Data`. On a site that migrates, it also logs them out of the
    /// layer.
    ClearSiteData,
    /// Changes nothing. The request has a foreign anchor beside the browser's.
    TwoAnchors,
    /// Signs the user in without an update of the layer.
    SignIn(User),
    /// Signs the user out without an update of the layer.
    SignOut,
}

/// When the response of a request reaches the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    AtOnce,
    /// At a later [`Step::Apply`], or never.
    Later,
}

/// How the site uses the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// Identities are bound to the signed-in user. All rules must hold.
    Bound,
    /// Like [`Bound`](Self::Bound), and the site migrates the SDK's cookie. The browser begins with this cookie, and
    /// with a signed-in user. All rules must hold.
    Migrating,
    /// Like [`Bound`](Self::Bound), and the client is an app, which keeps headers. They do not expire. All rules must
    /// hold.
    App,
    /// Identities are not bound. Every sign-in and sign-out is also an update of the layer. All rules must hold.
    Unbound,
    /// Identities are not bound, and a page generates again for the user of its request without signing them in. This
    /// set-up must fail: when the response arrives, another user may be signed in.
    UnboundGenerating,
    /// Like [`Unbound`](Self::Unbound), but every request brings the anchor of its newest identity's own login. This
    /// set-up must fail: without the comparison, a late response restores an ended login.
    MatchingAnchor,
    /// Like [`Unbound`](Self::Unbound), but the browser keeps one identity and one record, whatever their tags. This
    /// set-up must fail: a late response replaces or removes the cookies of another login.
    Untagged,
    /// Like [`Migrating`](Self::Migrating), but the browser takes the anchor `none` for a removal of the anchor. This
    /// set-up must fail: what is migrated after a logout counts.
    EndedAnchorRemoved,
}

pub(crate) fn steps(setup: Setup) -> impl Strategy<Value = Vec<Step>> {
    let user = || select(vec![User::Anna, User::Ben, User::Cleo]);
    let page = prop_oneof![
        16 => Just(Page::Look),
        6 => Just(Page::GenerateAgain),
        8 => user().prop_map(Page::Login),
        2 => Just(Page::Logout),
        1 => Just(Page::ClearSiteData),
        1 => Just(Page::TwoAnchors),
        2 => user().prop_map(Page::SignIn),
        1 => Just(Page::SignOut),
    ];
    let send = (0..TABS, page, 0..NODES, select(vec![Arrival::AtOnce, Arrival::Later]));
    let wait = prop_oneof![
        9 => select(vec![REFRESH_FROM, 5 * MINUTES, 60 * MINUTES]),
        1 => select(vec![24 * 60 * MINUTES, 72 * 60 * MINUTES, 7 * 24 * 60 * MINUTES]),
    ];
    let trouble = select(vec![Mode::Slow, Mode::Down, Mode::Refuses, Mode::Ends]);
    let step = prop_oneof![
        20 => send.prop_map(|(tab, page, node, arrival)| Step::Send { tab, page, node, arrival }),
        16 => (0..TABS).prop_map(Step::Apply),
        8 => wait.prop_map(Step::Wait),
        1 => (0..NODES).prop_map(Step::Deploy),
        1 => (0..NODES).prop_map(Step::Reload),
        1 => select(vec![IDENTITY, ANCHOR, OPT_OUT]).prop_map(Step::Evict),
        1 => select(vec![Consent::Granted, Consent::Granted, Consent::Withheld, Consent::Withdrawn])
            .prop_map(Step::SetConsent),
        3 => user().prop_map(Step::OptOut),
        2 => user().prop_map(Step::OptIn),
        2 => prop_oneof![2 => Just(Mode::Works), 1 => trouble].prop_map(Step::SetMode),
    ];
    let step =
        if setup.migrates() { prop_oneof![40 => step, 1 => Just(Step::PutBackSdk)].boxed() } else { step.boxed() };
    prop::collection::vec(step, 1..64)
}

impl Setup {
    /// Returns whether all rules must hold. The other set-ups must fail.
    pub(crate) fn must_hold(self) -> bool {
        matches!(self, Self::Bound | Self::App | Self::Migrating | Self::Unbound)
    }

    /// Returns whether a handler must see the current login. A set-up without this rule shows an ended one.
    pub(super) fn must_see(self) -> bool {
        self.must_hold() || self == Self::Untagged
    }

    pub(super) fn is_bound(self) -> bool {
        matches!(self, Self::Bound | Self::App) || self.migrates()
    }

    pub(crate) fn migrates(self) -> bool {
        matches!(self, Self::Migrating | Self::EndedAnchorRemoved)
    }

    pub(super) fn generating_again_signs_in(self) -> bool {
        matches!(self, Self::Unbound | Self::MatchingAnchor | Self::Untagged)
    }

    /// Replaces a page that does not update the layer, if the layer does not know the signed-in user.
    pub(super) fn page(self, page: Page) -> Page {
        match page {
            Page::SignIn(user) if !self.is_bound() => Page::Login(user),
            Page::SignOut if !self.is_bound() => Page::Logout,
            page => page,
        }
    }
}

pub(super) const TABS: usize = 4;
pub(super) const NODES: usize = 3;
