//! What can happen, and to what sites.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use tower_euid::Consent;

use crate::support::{ANCHOR, IDENTITY, OPT_OUT};

use super::operator::{MINUTES, Mode, REFRESH_FROM, User};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A tab asks a node for a page, and waits for the answer, or not; if it waits for another, that
    /// one is lost.
    Send {
        tab: usize,
        page: Page,
        node: usize,
        answer: When,
    },
    /// The answer that a tab waits for reaches the browser.
    Apply(usize),
    Wait(Duration),
    /// A node goes one step on in the rotation of its keys, as a new process.
    Deploy(usize),
    /// The same without a restart.
    Reload(usize),
    Evict(&'static str),
    /// The visitor's choice, which all requests bring from now on.
    Choose(Consent),
    /// At the operator, where nobody here is told of it.
    OptOut(User),
    OptIn(User),
    OperatorIs(Mode),
}

/// What a page does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Look,
    /// Generates again where somebody is signed in and `Absent`, as the docs ask.
    GenerateAgain,
    /// Signs in and generates.
    Login(User),
    /// Signs out and says so.
    Logout,
    ClearSiteData,
    /// Looks; something on the way has put another anchor beside the browser's.
    TwoAnchors,
    /// Signs in and says nothing to the layer, which knows who is signed in.
    SignIn(User),
    SignOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    AtOnce,
    Later,
}

/// How the site is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// Identities are bound to who is signed in.
    Bound,
    /// They are not, and whatever signs in or out says so to the layer.
    Unbound,
    /// They are not, and pages generate again for whom they think to be signed in.
    Careless,
    /// As [`Unbound`](Self::Unbound), but every request brings the anchor that its identity was minted
    /// under, so that comparing them is no use.
    Uncompared,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
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
    let send = (0..TABS, page, 0..NODES, select(vec![When::AtOnce, When::Later]));
    let wait = prop_oneof![
        9 => select(vec![REFRESH_FROM, 5 * MINUTES, 60 * MINUTES]),
        1 => select(vec![24 * 60 * MINUTES, 72 * 60 * MINUTES]),
    ];
    let trouble = select(vec![Mode::Slow, Mode::Down, Mode::Refuses, Mode::Ends]);
    let step = prop_oneof![
        20 => send.prop_map(|(tab, page, node, answer)| Step::Send { tab, page, node, answer }),
        16 => (0..TABS).prop_map(Step::Apply),
        8 => wait.prop_map(Step::Wait),
        1 => (0..NODES).prop_map(Step::Deploy),
        1 => (0..NODES).prop_map(Step::Reload),
        1 => select(vec![IDENTITY, ANCHOR, OPT_OUT]).prop_map(Step::Evict),
        1 => select(vec![Consent::Granted, Consent::Granted, Consent::Withheld, Consent::Withdrawn])
            .prop_map(Step::Choose),
        2 => user().prop_map(Step::OptOut),
        1 => user().prop_map(Step::OptIn),
        2 => prop_oneof![2 => Just(Mode::Works), 1 => trouble].prop_map(Step::OperatorIs),
    ];
    prop::collection::vec(step, 1..64)
}

impl Setup {
    /// Whether all is asked of this setup; of the others only that nobody sees what is over.
    pub(crate) fn must_hold(self) -> bool {
        matches!(self, Self::Bound | Self::Unbound)
    }

    pub(super) fn generating_again_signs_in(self) -> bool {
        matches!(self, Self::Unbound | Self::Uncompared)
    }

    /// Where the layer does not know who is signed in, it must be told.
    pub(super) fn page(self, page: Page) -> Page {
        match page {
            Page::SignIn(user) if self != Self::Bound => Page::Login(user),
            Page::SignOut if self != Self::Bound => Page::Logout,
            page => page,
        }
    }
}

pub(super) const TABS: usize = 4;
pub(super) const NODES: usize = 3;
