//! The site's HTML: the templates beside this file, filled in.

use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use tower_euid::clock::UnixMillis;
use tower_euid::identity::IdentityTimes;
use tower_euid::{Euid, Scope};

use crate::region;
use crate::requests::{Calls, Cookies, Done, Requests};
use crate::sandbox::Operator;
use crate::session::Visitor;

/// The facts that the front page's handler collects.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) euid: Euid,
    pub(crate) scope: Scope,
    /// Whether the site has two regions to choose from.
    pub(crate) is_choice: bool,
    pub(crate) now: UnixMillis,
    /// The times of the token, or of the last token if there is none now.
    pub(crate) times: Option<IdentityTimes>,
    /// The logged-in visitor.
    pub(crate) visitor: Option<Visitor>,
    /// The sandbox's state; `None` with an external operator, which the page cannot control.
    pub(crate) operator: Option<Operator>,
    /// The bid request, as JSON.
    pub(crate) bid_request: String,
}

impl Home {
    pub(crate) fn html(&self, requests: &Requests) -> String {
        let (name, headline, text) = self.words();
        let scope = self.scope.to_string();
        let content = format!(
            include_str!("home.html"),
            state = self.euid.state(),
            name = name,
            headline = headline.replace("SCOPE", &scope),
            text = text.replace("SCOPE", &scope),
            scope = scope,
            place = if self.is_choice {
                format!(" in the {}", region::name(self.scope).to_uppercase())
            } else {
                String::new()
            },
            clock = short(self.now),
            times = self.times.map_or_else(String::new, |times| timeline(self.now, &times)),
            requests = requests.newest_first().map(request).collect::<String>(),
            bid_request = escaped(&self.bid_request),
            region = if self.is_choice { self.region() } else { String::new() },
            sandbox = self.operator.map_or_else(String::new, |operator| self.sandbox(operator)),
        );
        frame(name, &content)
    }

    /// The state's name, a headline, and an explanation, with `SCOPE` for the name of the scope.
    fn words(&self) -> (&'static str, &'static str, &'static str) {
        match &self.euid {
            Euid::Active(token) if token.times().is_due(self.now) => (
                "Active",
                "The token is still valid",
                "A refresh is due, but the operator has not returned a new token in time. This page uses the token that \
                 it has; a later page tries again.",
            ),
            Euid::Active(_) => (
                "Active",
                "There is a token for the bid request",
                "The bid request contains it. When its refresh is due, the next page gets a new one.",
            ),
            Euid::OptedOut => (
                "Opted out",
                "This person opted out of SCOPE",
                "The browser no longer has their identity. For 72 hours pages know of the opt-out, so that the site \
                 does not request SCOPE for this person again.",
            ),
            Euid::Unavailable => (
                "Unavailable",
                "There is no valid token now",
                "The last token has expired, and the operator has not returned a new one. The login stays: a later \
                 page may get a token.",
            ),
            Euid::Withheld => (
                "Withheld",
                "There is no consent to use the token",
                "If there is an identity, the page does not see it.",
            ),
            _ => (
                "Absent",
                "There is no identity",
                "The visitor has not logged in here, or the login has ended. The bid request has no SCOPE. Log in to \
                 add one.",
            ),
        }
    }

    fn region(&self) -> String {
        let pressed = |scope| if self.scope == scope { "true" } else { "false" };
        format!(include_str!("region.html"), eu = pressed(Scope::Euid), us = pressed(Scope::Uid2))
    }

    fn sandbox(&self, operator: Operator) -> String {
        let pressed = |this| if operator == this { "true" } else { "false" };
        format!(
            include_str!("sandbox.html"),
            up = pressed(Operator::Up),
            slow = pressed(Operator::Slow),
            down = pressed(Operator::Down),
            visitor = self
                .visitor
                .as_ref()
                .map_or_else(|| "No visitor is logged in.".to_owned(), |visitor| self.who(visitor)),
        )
    }

    fn who(&self, visitor: &Visitor) -> String {
        let known = match (&self.euid, visitor.opted_out.contains(&self.scope)) {
            (Euid::OptedOut, _) => "has opted out, and the site knows it.",
            (_, true) => "has opted out. The site learns of it at the next refresh.",
            (_, false) => "is logged in.",
        };
        format!("<b>{}</b> {known}", escaped(&visitor.address))
    }
}

/// An error page. `text` is not escaped, so it must not contain a visitor's input.
pub(crate) fn error(title: &str, text: &str) -> String {
    frame(title, &format!(include_str!("error.html"), title = title, text = escaped(text)))
}

fn frame(title: &str, content: &str) -> String {
    format!(include_str!("frame.html"), title = title, content = content)
}

fn request(done: &Done) -> String {
    let (kind, name, text) = match done.cookies {
        Cookies::None => ("none", "no cookie", "The request brought none, and the response set none."),
        Cookies::Kept if done.calls.is_some_and(|calls| calls.refresh > 0) => {
            ("kept", "kept", "The cookies stay as they are: no new pair of tokens arrived in time.")
        }
        Cookies::Kept => ("kept", "kept", "The cookies stay as they are."),
        Cookies::Refreshed if done.calls.is_some_and(|calls| calls.refresh == 0) => (
            "refreshed",
            "refreshed",
            "The cookie holds a new pair of tokens: the answer to an earlier page’s refresh.",
        ),
        Cookies::Refreshed => ("refreshed", "refreshed", "The cookie holds a new pair of tokens."),
        Cookies::SetAtLogin => ("login", "set at login", "The identity cookie and the login cookie are new."),
        Cookies::TakenOver => ("login", "taken over", "The identity of the SDK’s cookie is in a cookie of the layer."),
        Cookies::Cleared => ("cleared", "cleared", "The response removes the identity."),
        Cookies::OptedOut => ("cleared", "cleared", "Identity removed, opt-out remembered."),
    };
    format!(
        include_str!("request.html"),
        kind = kind,
        name = name,
        text = text,
        line = escaped(&done.line),
        time = date_and_time(done.at).1,
        status = done.status.as_u16(),
        calls = done.calls.map_or("", calls),
        took = match done.took.as_millis() {
            0 => "under 1 ms".to_owned(),
            millis => format!("{millis} ms"),
        },
    )
}

fn calls(calls: Calls) -> &'static str {
    match calls {
        Calls { generate: 0, refresh: 0 } => "No operator call.",
        Calls { generate: 0, refresh: 1 } => "One operator call: refresh.",
        Calls { generate: 1, refresh: 0 } => "One operator call: generate.",
        _ => "Several operator calls, some of them for other pages.",
    }
}

fn timeline(now: UnixMillis, times: &IdentityTimes) -> String {
    let row = |moment| (short(moment), distance(now, moment));
    let [refresh_from, identity_expires, refresh_expires] =
        [times.refresh_from, times.identity_expires, times.refresh_expires].map(row);
    format!(
        include_str!("times.html"),
        at = position(now, times),
        refresh_from = refresh_from.0,
        until_refresh_from = refresh_from.1,
        identity_expires = identity_expires.0,
        until_identity_expires = identity_expires.1,
        refresh_expires = refresh_expires.0,
        until_refresh_expires = refresh_expires.1,
    )
}

/// The position of `now` on the timeline, in percent. The line has three parts of the same width, each with its own scale.
fn position(now: UnixMillis, times: &IdentityTimes) -> f64 {
    let parts = [
        // A handler cannot see when the token was issued.
        (times.refresh_from.saturating_sub(FIRST_PART), times.refresh_from),
        (times.refresh_from, times.identity_expires),
        (times.identity_expires, times.refresh_expires),
    ];
    let passed = parts.map(|(from, to)| {
        let (passed, whole) = (now.saturating_since(from), to.saturating_since(from));
        if passed < whole { passed.as_secs_f64() / whole.as_secs_f64() } else { 1.0 }
    });
    (passed.iter().sum::<f64>() / 3.0 * 1000.0).round() / 10.0
}

fn short(moment: UnixMillis) -> String {
    let (date, time) = date_and_time(moment);
    format!("<time>{date} {time}</time>")
}

/// Day and month, and the time in UTC, in HTTP's format.
fn date_and_time(moment: UnixMillis) -> (String, String) {
    let since_epoch = Duration::from_millis(moment.as_millis().clamp(0, LAST_MOMENT).cast_unsigned());
    let date = httpdate::fmt_http_date(UNIX_EPOCH + since_epoch);
    let part = |range: Range<usize>| date.get(range).unwrap_or_default().to_owned();
    (part(5..11), part(17..25))
}

fn distance(now: UnixMillis, moment: UnixMillis) -> String {
    let text = |duration: Duration| match (duration.as_secs(), duration.as_secs() / 60) {
        (seconds, 0) => format!("{seconds} s"),
        (seconds, minutes @ ..60) => format!("{minutes} min {} s", seconds % 60),
        (_, minutes @ ..1440) => format!("{} h {} min", minutes / 60, minutes % 60),
        (_, minutes) => format!("{} d {} h", minutes / 1440, minutes / 60 % 24),
    };
    if moment > now {
        format!("in {}", text(moment.saturating_since(now)))
    } else {
        format!("{} ago", text(now.saturating_since(moment)))
    }
}

/// Escapes text for HTML. Tokens are opaque and visitors type addresses, so both may contain markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The time before a refresh that the timeline shows. With the sandbox, that is all of it.
const FIRST_PART: Duration = Duration::from_secs(900);
/// The last moment that HTTP can write: its years have four digits.
const LAST_MOMENT: i64 = 253_402_300_799_000;
