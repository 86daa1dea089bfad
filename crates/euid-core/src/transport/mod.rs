//! The transport of values: finds and renders the layer's cookies and headers, and the cookies of scripts. It never
//! interprets a value.
//!
//! [`slots`] is what a request brought, whatever carried it. [`cookies`] and [`headers`] are the two [`Transport`]s, and
//! [`route`] says which of them a request has. [`cookie`] finds and renders single cookies, [`js_sdk`] those of scripts,
//! and [`config`] has the settings.

pub(crate) mod config;
pub(crate) mod cookie;
pub(crate) mod cookies;
pub(crate) mod headers;
pub(crate) mod js_sdk;
pub(crate) mod route;
pub(crate) mod slots;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

pub use self::config::{CookieConfig, HeaderConfig, SameSite};
use self::cookies::Cookies;
use self::slots::{Hits, Slot, Tagged};
use crate::scope::Scope;

/// What carries a visitor's state: cookies, or headers. One value of it serves one scope.
pub(crate) trait Transport {
    /// The part of a request that the values are in.
    type Values<'a>;
    /// A change of a slot, as the response writes it.
    type Line;

    /// The client deletes a value at its end. If it does not, a page removes what ended more than a day ago.
    const EXPIRES: bool;

    fn scope(&self) -> Scope;

    /// The values of a request.
    fn values<'a>(headers: &'a HeaderMap) -> Self::Values<'a>;

    /// The name of the request header by which responses differ, for `Vary`.
    fn varies_on(&self) -> HeaderValue;

    /// Adds the values of this crate in a request.
    fn find<'a>(&self, values: &Self::Values<'a>, hits: &mut Hits<'a>);

    /// Calls `found` with every value that has a tag: those in `hits`, and those behind them.
    fn for_each_tagged<'a>(&self, values: &Self::Values<'a>, hits: &Hits<'a>, found: impl FnMut(Tagged<'a>));

    /// Calls `take` with the name of a slot, in two parts.
    fn with_name<R>(&self, slot: &Slot, take: impl FnOnce([&[u8]; 2]) -> R) -> R;

    /// The line that puts `value` into a slot; `None` for a value that no header takes; this crate's values all fit.
    fn set(&self, slot: Slot, value: &str, max_age: Duration) -> Option<Self::Line>;

    /// The line that empties a slot; `None` never happens, as for [`set`](Self::set).
    fn remove(&self, slot: Slot) -> Option<Self::Line>;

    /// The line that [`append`](Self::append) wrote as this header.
    fn line(name: &HeaderName, value: HeaderValue) -> Self::Line;

    /// Adds a line to a response.
    fn append(line: Self::Line, headers: &mut HeaderMap);

    /// The cookies, if it carries state in cookies: scripts know some.
    #[inline]
    fn cookies(&self) -> Option<&Cookies> {
        None
    }
}
