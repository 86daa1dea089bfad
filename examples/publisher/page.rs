//! The site's HTML.

use std::time::{Duration, UNIX_EPOCH};

use tower_euid::{Euid, UnixMillis};

/// The front page: what is known of the visitor, and what can be done about it.
pub(crate) fn home(euid: &Euid, now: UnixMillis, sandbox: bool) -> String {
    let (colour, words) = match euid {
        Euid::Active(_) => ("#1a7f37", "There is a token for the bid request."),
        Euid::OptedOut => ("#9a3412", "This person opted out of EUID. Nobody asks for them again soon."),
        Euid::Unavailable => ("#854d0e", "There is an identity, but the operator gives no token now."),
        Euid::Withheld => ("#854d0e", "There is an identity, and no consent to use it."),
        _ => ("#57606a", "Nobody is logged in."),
    };
    let details = euid.advertising_token().map_or_else(String::new, |token| {
        let times = token.times();
        let rows: String = [
            ("refreshed from", times.refresh_from),
            ("token expires", times.identity_expires),
            ("login expires", times.refresh_expires),
        ]
        .map(|(name, moment)| format!("<tr><th scope=row>{name}<td>{}<td>{}", clock(moment), distance(now, moment)))
        .concat();
        let token = escaped(token.as_str());
        format!("<h2>Advertising token</h2><p><code>{token}</code><table>{rows}</table>")
    });
    let state = euid.state();
    let advance = if sandbox { ADVANCE } else { "" };
    page(&format!(
        "<p class=state style='background:{colour}'><strong>{state}</strong> {words}{details}\
         <p>It is {} on the site's clock.{FORMS}{advance}",
        clock(now)
    ))
}

/// A page that says what went wrong. `text` must be ours.
pub(crate) fn error(title: &str, text: &str) -> String {
    page(&format!("<h2>{title}</h2><p role=alert>{text}<p><a href='/'>Back</a>"))
}

fn page(body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>{HEAD}<main><h1>The Daily Example</h1>{body}</main></html>"
    )
}

/// Day and time, as HTTP writes them.
fn clock(moment: UnixMillis) -> String {
    let since_epoch = Duration::from_millis(moment.as_millis().clamp(0, LAST_MOMENT).cast_unsigned());
    httpdate::fmt_http_date(UNIX_EPOCH + since_epoch)
}

/// Tokens are opaque: nobody promises that they hold no markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn distance(now: UnixMillis, moment: UnixMillis) -> String {
    let text = |duration: Duration| format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60);
    if moment > now {
        format!("in {}", text(moment.saturating_since(now)))
    } else {
        format!("{} ago", text(now.saturating_since(moment)))
    }
}

/// HTTP's years have four digits.
const LAST_MOMENT: i64 = 253_402_300_799_000;

const HEAD: &str = "<title>The Daily Example</title><meta name=viewport content='width=device-width'><style>\
    main{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:2rem auto;padding:0 1rem}\
    .state{color:#fff;padding:.75rem 1rem;border-radius:.5rem}code{word-break:break-all}\
    th,td{text-align:left;padding-right:1.5rem;font-weight:400}form{margin:1rem 0}\
    input,button{font:inherit;padding:.3rem .6rem}</style>";

const FORMS: &str = "<form method=post action=/login><label>Email address <input name=email type=email></label> \
    <button>Log in</button></form>\
    <form method=post action=/login><label>Phone number <input name=phone type=tel placeholder='+442345678901'></label> \
    <button>Log in</button></form>\
    <form method=post action=/logout><button>Log out</button></form>";

const ADVANCE: &str = "<form method=post action=/sandbox/advance><button name=seconds value=600>10 minutes later</button> \
    <button name=seconds value=3600>1 hour later</button></form>\
    <p>Addresses that the sandbox knows: <code>optout@example.com</code> has opted out, \
    <code>refresh-optout@example.com</code> does so before the next refresh.";
