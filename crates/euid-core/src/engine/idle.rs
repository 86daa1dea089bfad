//! The scopes that do not serve a request, in an engine with both.
//!
//! 1. Pages leave the state of an idle scope alone: its identity is there when the visitor comes back.
//! 2. A logout and withdrawn consent end the login of every scope.
//! 3. A login and a stated opt-out end what was migrated from the JS SDK's cookie in every scope: it names no user, and may
//!    be another person's.
//! 4. A page takes back the token that scripts of another page got: `expose_token_to_scripts` shows a page the token of
//!    its own scope only.

use http::HeaderMap;

use super::read::FoundAnchor;
use super::routes::Served;
use super::{Engine, RequestContext};
use crate::scope::Scope;
use crate::transport::Transport;
use crate::transport::cookies::Cookies;
use crate::transport::slots::{Brought, Hits, Idle, IdleScope};

impl Engine {
    /// The state of all scopes but the one that serves the request.
    pub(super) fn find_idle<T: Served>(
        &self,
        headers: &HeaderMap,
        context: &RequestContext<'_>,
        serves: Option<Scope>,
    ) -> Idle {
        let scopes = Scope::ALL.into_iter().filter(|scope| Some(*scope) != serves);
        let transports = scopes.filter_map(|scope| T::of(self, scope));
        let idle = |transport: &T| {
            let mut idle = find(transport, headers);
            if let Some(held) = self.held_of(transport, headers, context) {
                idle.brought.note_others(&[], Some(&held));
            }
            idle
        };
        transports.map(idle).collect()
    }
}

fn find<T: Transport>(transport: &T, headers: &HeaderMap) -> IdleScope {
    let scope = transport.scope();
    let values = T::values(headers);
    let mut hits = Hits::default();
    transport.find(&values, &mut hits);
    let anchor = FoundAnchor::of(&hits);
    let config = transport.cookies().map(Cookies::config);
    let tag = anchor.tag(config.is_some_and(|config| config.js_sdk_cookie().is_some()));
    let mut brought = Brought { tag, migration: anchor.migration(), ..Brought::NOTHING };
    transport.for_each_tagged(&values, &hits, |hit| {
        if hit.slot.has_valid_tag() {
            brought.note(hit.slot);
        }
    });
    let cookies = transport.cookies();
    let migrates = cookies.is_some_and(|cookies| brings_migration(cookies, anchor, headers));
    let has_state = brought.any() || anchor.is_state() || migrates;
    let came = |cookies: &Cookies| cookies.scripts().find(headers, None).differs(false);
    let has_script_cookie = cookies.filter(|cookies| cookies.config().exposes_token()).is_some_and(came);
    IdleScope { scope, brought, has_anchor: anchor != FoundAnchor::None, has_state, has_script_cookie }
}

/// Whether a page of the scope would take over the JS SDK's cookie, if no tagged cookie of the scope came.
fn brings_migration(cookies: &Cookies, anchor: FoundAnchor<'_>, headers: &HeaderMap) -> bool {
    let migrates = anchor == FoundAnchor::None && cookies.config().js_sdk_cookie().is_some();
    let sdk = migrates.then(|| cookies.scripts().read_js_sdk(headers)).flatten();
    sdk.is_some_and(|sdk| sdk.can_be_of(cookies.scope()))
}
