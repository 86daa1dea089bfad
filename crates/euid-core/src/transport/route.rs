//! The route of a request's state: its scope, and what carries it. The engine chooses it for each request.

use crate::scope::Scope;

/// Which scope serves a request, and what carries its state. It is one byte, for which a decision has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route(u8);

impl Route {
    /// `scope` is `None` if the engine serves both scopes, and neither serves this request.
    #[inline]
    pub(crate) const fn new(scope: Option<Scope>, carrier: Carrier) -> Self {
        let scope = match scope {
            Some(Scope::Euid) => 0,
            Some(Scope::Uid2) => 1,
            None => 2,
        };
        Self(match carrier {
            Carrier::Cookies => scope,
            Carrier::Headers => scope | Self::HEADERS,
        })
    }

    /// In this scope, in cookies.
    #[inline]
    pub(crate) const fn by_cookies(scope: Scope) -> Self {
        Self::new(Some(scope), Carrier::Cookies)
    }

    #[inline]
    pub(crate) const fn scope(self) -> Option<Scope> {
        match self.0 & !Self::HEADERS {
            0 => Some(Scope::Euid),
            1 => Some(Scope::Uid2),
            _ => None,
        }
    }

    #[inline]
    pub(crate) const fn carrier(self) -> Carrier {
        if self.0 & Self::HEADERS == 0 { Carrier::Cookies } else { Carrier::Headers }
    }

    const HEADERS: u8 = 4;
}

/// What carries the state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Cookies,
    Headers,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_holds_scope_and_carrier() {
        for scope in [None, Some(Scope::Euid), Some(Scope::Uid2)] {
            for carrier in [Carrier::Cookies, Carrier::Headers] {
                let route = Route::new(scope, carrier);
                assert_eq!((route.scope(), route.carrier()), (scope, carrier));
            }
        }
    }
}
