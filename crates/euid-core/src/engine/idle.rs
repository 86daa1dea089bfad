//! The scopes that do not serve a request, in an engine with both.
//!
//! 1. Pages leave the state of an idle scope alone: its identity is there when the visitor comes back.
//! 2. A logout and withdrawn consent end the login of every scope.
//! 3. A page takes back the token that scripts of another page got: `expose_token_to_scripts` shows a page the token of
//!    its own scope only.

use http::HeaderMap;
use http::header::COOKIE;

use super::Engine;
use super::read::FoundAnchor;
use crate::scope::Scope;
use crate::transport::cookie::Hits;
use crate::transport::slots::{Brought, Cookies, Idle, IdleScope};

impl Engine {
    /// The cookies of all scopes but the one that serves the request.
    pub(super) fn find_idle(&self, headers: &HeaderMap, serves: Option<Scope>) -> Idle {
        let scopes = Scope::ALL.into_iter().filter(|scope| Some(*scope) != serves);
        scopes.filter_map(|scope| self.cookies_of(scope)).map(|cookies| find(cookies, headers)).collect()
    }
}

fn find(cookies: &Cookies, headers: &HeaderMap) -> IdleScope {
    let scope = cookies.scope();
    let values = headers.get_all(COOKIE);
    let mut hits = Hits::default();
    cookies.find(values.iter(), &mut hits);
    let anchor = FoundAnchor::of(&hits);
    let tag = anchor.tag(cookies.config().js_sdk_cookie().is_some());
    let mut brought = Brought { tag, migration: anchor.migration(), ..Brought::NOTHING };
    cookies.for_each_tagged(values.iter(), &hits, |hit| {
        if hit.slot.has_valid_tag() {
            brought.note(hit.slot);
        }
    });
    let has_state = brought.any() || anchor.is_state() || brings_migration(cookies, anchor, headers);
    let exposes_token = cookies.config().exposes_token();
    let has_script_cookie = exposes_token && cookies.scripts().find(headers, None).differs(false);
    IdleScope { scope, brought, has_state, has_script_cookie }
}

/// Whether a page of the scope would take over the JS SDK's cookie, if no tagged cookie of the scope came.
fn brings_migration(cookies: &Cookies, anchor: FoundAnchor, headers: &HeaderMap) -> bool {
    let migrates = anchor == FoundAnchor::None && cookies.config().js_sdk_cookie().is_some();
    let sdk = migrates.then(|| cookies.scripts().read_js_sdk(headers)).flatten();
    sdk.is_some_and(|sdk| sdk.can_be_of(cookies.scope()))
}
