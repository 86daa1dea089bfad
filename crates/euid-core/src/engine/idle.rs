//! The scopes that do not serve a request, in an engine with both.
//!
//! 1. Pages leave the state of an idle scope alone: its identity is there when the visitor comes back.
//! 2. A logout and withdrawn consent end the login of every scope.
//! 3. A page takes back the token that scripts of another page got: `expose_token_to_scripts` shows a page the token of
//!    its own scope only.

use http::HeaderMap;

use super::Engine;
use super::read::FoundAnchor;
use super::routes::Served;
use crate::scope::Scope;
use crate::transport::Transport;
use crate::transport::cookies::Cookies;
use crate::transport::slots::{Brought, Hits, Idle, IdleScope};

impl Engine {
    /// The state of all scopes but the one that serves the request.
    pub(super) fn find_idle<T: Served>(&self, headers: &HeaderMap, serves: Option<Scope>) -> Idle {
        let scopes = Scope::ALL.into_iter().filter(|scope| Some(*scope) != serves);
        scopes.filter_map(|scope| T::of(self, scope)).map(|transport| find(transport, headers)).collect()
    }
}

fn find<T: Transport>(transport: &T, headers: &HeaderMap) -> IdleScope {
    let scope = transport.scope();
    let mut hits = Hits::default();
    transport.find(&T::values(headers), &mut hits);
    let anchor = FoundAnchor::of(hits.anchor);
    let mut brought = Brought { migration: anchor.migration(), ..Brought::NOTHING };
    hits.tagged.iter().filter(|hit| hit.slot.has_valid_tag()).for_each(|hit| brought.note(hit.slot));
    let has_state = brought.any() || anchor.is_state() || hits.is_cut();
    let came = |cookies: &Cookies| cookies.scripts().find(headers, None).differs(false);
    let exposing = transport.cookies().filter(|cookies| cookies.config().exposes_token());
    let has_script_cookie = exposing.is_some_and(came);
    IdleScope { scope, brought, has_state, has_script_cookie }
}
