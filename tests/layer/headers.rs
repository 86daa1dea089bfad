//! `EuidLayer::headers`: the state of apps and TV sets, in headers.
//!
//! 1. The app keeps the contract of `HeaderConfig`: see `tests/support/keeper.rs`.
//! 2. A request's state is in headers or in cookies, never in both.
//! 3. What holds for cookies holds for headers: a late response brings no ended login back, a value counts under its own
//!    name only, and a page removes what is left of other logins.
//! 4. Headers do not expire by themselves, so a page removes what ended more than a day ago.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use tower::{Layer, ServiceExt};
use tower_euid::error::ErrorKind;
use tower_euid::{
    Consent, CookieConfig, CookieKey, Euid, EuidUpdate, HeaderConfig, Identity, KeyRing, Refreshed, Scope,
};

use crate::support::keeper::{IDENTITY_HEADER, Keeper, LOGIN_HEADER, OPT_OUT_HEADER, header_writes, hex_tag};
use crate::support::{
    ANCHOR, DUE, IDENTITY, IDENTITY_EXPIRES, Jar, LOGIN_REMOVED, LOGIN_REPLACED, LOGIN_WRITTEN, NOTHING, OPTED_OUT,
    Operator, REFRESH_EXPIRES, REFRESH_FROM, SDK, Seen, Site, User, Visit, expect, failure, identity, identity_until,
    new_pair, page, ring, scope,
};

/// An app of a site.
#[derive(Clone, Debug)]
struct App {
    site: Site,
    keeper: Keeper,
}

impl App {
    fn new(site: Site) -> Self {
        Self::with(site, HeaderConfig::default())
    }

    fn with(site: Site, config: HeaderConfig) -> Self {
        Self { site: site.configured(|layer| layer.headers(config)), keeper: Keeper::default() }
    }

    /// Returns another app of the same site, without state.
    fn another(&self) -> Self {
        Self { keeper: Keeper::default(), ..self.clone() }
    }

    /// Sends a request without keeping the headers of its response. Fails if that sets a cookie.
    async fn send(
        &self,
        request: Request<()>,
        handler: impl Fn(&Euid, &mut Response<()>) + Clone + Send + 'static,
    ) -> Visit {
        let visit = self.site.send(request, handler).await;
        assert!(!visit.response.headers().contains_key(SET_COOKIE), "{:?}", visit.response);
        visit
    }

    async fn visit(&mut self, handler: impl Fn(&Euid, &mut Response<()>) + Clone + Send + 'static) -> Visit {
        let visit = self.send(self.keeper.request(), handler).await;
        self.keep(&visit);
        visit
    }

    fn keep(&mut self, visit: &Visit) {
        self.keeper.apply(visit.response.headers());
    }

    async fn look(&mut self) -> Visit {
        self.visit(NOTHING).await
    }

    /// Visits a page that does nothing, whose response arrives later or never.
    async fn look_once(&self) -> Visit {
        self.send(self.keeper.request(), NOTHING).await
    }

    async fn update(&mut self, update: EuidUpdate) -> Visit {
        self.visit(move |_, response| update.clone().attach(response)).await
    }

    /// Logs the visitor in with the token `old`, and moves the clock to `millis` after the start.
    async fn logged_in(mut self, millis: i64) -> Self {
        self.update(EuidUpdate::login(identity("old"))).await;
        self.site.wait_until(millis);
        self
    }
}

/// Returns the state that the handler saw, and the headers that the response writes.
fn outcome(visit: &Visit) -> (String, String) {
    (visit.saw(), header_writes(visit.response.headers()))
}

/// Returns an identity that is not due for a day.
fn fresh(name: &str) -> Identity {
    identity_until(name, [DAY, 2 * DAY, 10 * DAY])
}

/// Returns an app with a login, and with the identity of another login beside it.
async fn with_leftover(app: App) -> App {
    let app = app.logged_in(0).await;
    let other = app.another().logged_in(0).await;
    App { keeper: app.keeper.clone().with_from(&other.keeper, IDENTITY_HEADER), ..app }
}

const DAY: i64 = 86_400_000;
/// For how long an opt-out counts, in milliseconds.
const OPT_OUT_REMEMBERED: i64 = 3 * DAY;

#[tokio::test]
async fn login_is_kept_in_headers_and_seen_by_the_next_page() {
    let mut app = App::new(Site::offline());
    assert_eq!(outcome(&app.look().await), expect("absent", ""));
    assert_eq!(outcome(&app.update(EuidUpdate::login(identity("old"))).await), expect("absent", LOGIN_WRITTEN));
    let tag = hex_tag(app.keeper.value(LOGIN_HEADER));
    assert_eq!(app.keeper.names(), [format!("{IDENTITY_HEADER}{tag}"), LOGIN_HEADER.to_string()]);
    assert_eq!(outcome(&app.look().await), expect("active(old)", ""));
}

#[tokio::test]
async fn refresh_replaces_the_identity_under_its_name() {
    let operator = Operator::answering(new_pair("new"));
    let mut app = App::new(Site::new(operator.clone())).logged_in(DUE).await;
    let before = app.keeper.clone();
    assert_eq!(outcome(&app.look().await), expect("active(new)", "identity set"));
    assert_eq!(outcome(&app.look().await), expect("active(new)", ""));
    assert_eq!((app.keeper.names(), operator.calls()), (before.names(), 1));
}

#[tokio::test]
async fn opt_out_that_a_refresh_finds_is_recorded_for_its_login() {
    let mut app = App::new(Site::new(Operator::answering(Ok(Refreshed::OptedOut)))).logged_in(DUE).await;
    assert_eq!(outcome(&app.look().await), expect("opted_out", "identity cleared, opt-out set"));
    assert_eq!(outcome(&app.look().await), expect("opted_out", ""));
    let tag = hex_tag(app.keeper.value(LOGIN_HEADER));
    assert_eq!(app.keeper.names(), [LOGIN_HEADER.to_string(), format!("{OPT_OUT_HEADER}{tag}")]);
}

#[tokio::test]
async fn stated_opt_out_ends_the_login() {
    let mut app = App::new(Site::offline()).logged_in(0).await;
    assert_eq!(outcome(&app.update(EuidUpdate::opt_out()).await), expect("active(old)", OPTED_OUT));
    assert_eq!(outcome(&app.look().await), expect("opted_out", ""));
    assert_eq!(app.keeper.names().len(), 2);
}

#[tokio::test]
async fn logout_of_any_kind_removes_all_headers() {
    let clear = |response: &mut Response<()>| {
        response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cookies\""));
    };
    let mut app = App::new(Site::offline()).logged_in(0).await;
    let before = app.keeper.clone();
    for by_header in [false, true] {
        app.keeper = before.clone();
        let logout = app.visit(
            move |_, response| {
                if by_header { clear(response) } else { EuidUpdate::logout().attach(response) }
            },
        );
        assert_eq!(outcome(&logout.await), expect("active(old)", LOGIN_REMOVED), "{by_header}");
        assert_eq!(app.keeper, Keeper::default());
        assert_eq!(outcome(&app.look().await), expect("absent", ""));
    }
}

#[tokio::test]
async fn withdrawn_consent_ends_the_login_whatever_is_left_of_it() {
    let app = with_leftover(App::new(Site::offline())).await;
    let withdrawn =
        App { site: app.site.clone().configured(|layer| layer.consent(|_| Consent::Withdrawn)), ..app.clone() };
    for keeper in [
        app.keeper.clone(),
        Keeper::default().with_from(&app.keeper, LOGIN_HEADER),
        app.keeper.clone().without(LOGIN_HEADER),
    ] {
        let mut app = App { keeper, ..withdrawn.clone() };
        assert_eq!(app.look().await.saw(), "withheld");
        assert_eq!(app.keeper, Keeper::default());
        assert_eq!(outcome(&app.look().await), expect("withheld", ""), "nothing is left to end");
    }
}

#[tokio::test]
async fn consent_that_is_withheld_keeps_all_headers() {
    let app = App::new(Site::offline()).logged_in(DUE).await;
    let mut app = App { site: app.site.configured(|layer| layer.consent(|_| Consent::Withheld)), ..app };
    assert_eq!(outcome(&app.look().await), expect("withheld", ""));
}

#[tokio::test]
async fn late_response_to_a_page_changes_nothing_of_what_came_after_its_login() {
    for answer in [new_pair("new"), Ok(Refreshed::OptedOut), failure(ErrorKind::RejectedToken)] {
        for (update, saw) in [
            (EuidUpdate::logout(), "absent"),
            (EuidUpdate::login(fresh("other")), "active(other)"),
            (EuidUpdate::opt_out(), "opted_out"),
        ] {
            let mut app = App::new(Site::new(Operator::answering(answer.clone()))).logged_in(DUE).await;
            let late = app.look_once().await;
            app.update(update).await;
            let before = app.keeper.clone();
            app.keep(&late);
            assert_eq!(app.look().await.saw(), saw, "{answer:?}");
            assert_eq!(app.keeper, before, "the page has removed what is left");
            assert_eq!(outcome(&app.look().await), expect(saw, ""));
        }
    }
}

#[tokio::test]
async fn login_whose_response_arrives_last_counts() {
    let mut app = App::new(Site::offline());
    let login = |name| {
        let update = EuidUpdate::login(identity(name));
        app.send(app.keeper.request(), move |_, response| update.clone().attach(response))
    };
    let [first, second] = [login("first").await, login("second").await];
    app.keep(&second);
    app.keep(&first);
    assert_eq!(outcome(&app.look().await), expect("active(first)", "identity cleared"));
    assert_eq!(app.keeper.names().len(), 2);
}

#[tokio::test]
async fn logout_that_arrives_last_ends_the_login_and_a_page_removes_its_identity() {
    let mut app = App::new(Site::offline()).logged_in(0).await;
    let logout = app.send(app.keeper.request(), |_, response| EuidUpdate::logout().attach(response)).await;
    app.update(EuidUpdate::login(identity("other"))).await;
    app.keep(&logout);
    assert_eq!(outcome(&app.look().await), expect("absent", "identity cleared"));
    assert_eq!(app.keeper, Keeper::default());
}

#[tokio::test]
async fn pair_that_arrives_beside_the_record_of_its_opt_out_is_not_seen() {
    let keys = ring();
    let node = |answer| App::new(Site::with_keys(keys.clone(), Operator::answering(answer)));
    let app = node(new_pair("new")).logged_in(DUE).await;
    let late = app.look_once().await;
    assert_eq!(late.saw(), "active(new)");
    let mut other = App { keeper: app.keeper, ..node(Ok(Refreshed::OptedOut)) };
    other.site.wait_until(DUE);
    assert_eq!(other.look().await.saw(), "opted_out");
    other.keep(&late);
    assert_eq!(outcome(&other.look().await), expect("opted_out", "identity cleared"));
}

#[tokio::test]
async fn page_removes_leftovers_and_an_image_or_a_prefetch_does_not() {
    let mut app = with_leftover(App::new(Site::offline())).await;
    let mut opted_out = app.another();
    opted_out.update(EuidUpdate::opt_out()).await;
    app.keeper = app.keeper.with_from(&opted_out.keeper, OPT_OUT_HEADER);
    for header in [("sec-fetch-dest", "image"), ("sec-purpose", "prefetch")] {
        let visit = app.send(app.keeper.request_with(&[header]), NOTHING).await;
        assert_eq!(outcome(&visit), expect("active(old)", ""), "{header:?}");
        assert!(visit.response.headers().is_empty(), "{header:?}");
    }
    assert_eq!(outcome(&app.look().await), expect("active(old)", "identity cleared, opt-out cleared"));
    assert_eq!(outcome(&app.look().await), expect("active(old)", ""));
    assert_eq!(app.keeper.names().len(), 2);
}

#[tokio::test]
async fn image_and_prefetch_cause_no_refresh_and_write_nothing() {
    let operator = Operator::answering(new_pair("new"));
    let app = App::new(Site::new(operator.clone())).logged_in(DUE).await;
    for header in [("sec-fetch-dest", "image"), ("sec-purpose", "prefetch")] {
        let visit = app.send(app.keeper.request_with(&[header]), NOTHING).await;
        assert_eq!(outcome(&visit), expect("active(old)", ""), "{header:?}");
    }
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn page_removes_eight_leftovers_at_once_and_finds_its_own_identity_behind_any_number() {
    let mut app = App::new(Site::offline()).logged_in(0).await;
    let own = app.keeper.clone();
    for (count, pages) in [(1, 1), (8, 1), (9, 2), (20, 3)] {
        let leftovers = (0..count).map(|number| (format!("{IDENTITY_HEADER}{number:06x}"), "garbage"));
        let leftovers: Vec<_> = leftovers.filter(|(name, _)| *name != own.name(IDENTITY_HEADER)).collect();
        app.keeper = leftovers.iter().fold(own.clone(), |keeper, (name, value)| keeper.with(name, value));
        for page in 0..pages {
            assert_ne!(app.keeper, own, "{count} {page}");
            // The headers of the login that counts come last.
            let mut request = app.keeper.request();
            for name in own.names() {
                let value = request.headers_mut().remove(name).unwrap();
                request.headers_mut().insert(HeaderName::try_from(name).unwrap(), value);
            }
            let visit = app.send(request, NOTHING).await;
            app.keep(&visit);
            assert_eq!(visit.saw(), "active(old)", "{count} {page}");
        }
        assert_eq!(app.keeper, own, "{count}");
    }
}

#[tokio::test]
async fn forged_or_cut_identity_is_removed() {
    let app = App::new(Site::offline()).logged_in(0).await;
    let value = app.keeper.value(IDENTITY_HEADER).to_owned();
    let forged = |position: usize| {
        let other = if value[position..].starts_with('A') { "B" } else { "A" };
        [&value[..position], other, &value[position + 1..]].concat()
    };
    for wrong in [forged(40), forged(value.len() / 2), value[..60].to_owned(), format!("{value}A")] {
        let mut app = App { keeper: app.keeper.clone().with(IDENTITY_HEADER, &wrong), ..app.clone() };
        assert_eq!(outcome(&app.look().await), expect("absent", "identity cleared"), "{wrong}");
        assert_eq!(app.keeper.names(), [&*LOGIN_HEADER]);
    }
}

#[tokio::test]
async fn login_header_that_can_not_be_read_keeps_all() {
    let app = with_leftover(App::new(Site::offline())).await;
    let anchor = app.keeper.value(LOGIN_HEADER).to_owned();
    for garbled in
        ["x", "none ", &anchor[..21], &format!("{anchor}A"), &format!("{anchor}, {anchor}"), "!!!!!!!!!!!!!!!!!!!!!!"]
    {
        let garbled = App { keeper: app.keeper.clone().with(LOGIN_HEADER, garbled), ..app.clone() };
        assert_eq!(outcome(&garbled.look_once().await), expect("absent", ""), "{:?}", garbled.keeper);
    }
}

#[tokio::test]
async fn two_login_headers_that_differ_keep_all_and_two_that_do_not_are_one() {
    let app = App::new(Site::offline()).logged_in(0).await;
    let other = app.another().logged_in(0).await;
    let anchors = [&other, &app].map(|app| app.keeper.value(LOGIN_HEADER).to_owned());
    for (anchor, saw) in [(&anchors[0], "absent"), (&anchors[1], "active(old)")] {
        let visit = app.send(app.keeper.request_with(&[(&LOGIN_HEADER, anchor)]), NOTHING).await;
        assert_eq!(outcome(&visit), expect(saw, ""));
    }
}

#[tokio::test]
async fn first_usable_of_two_identities_under_one_name_counts() {
    let app = App::new(Site::offline()).logged_in(0).await;
    let name = app.keeper.name(IDENTITY_HEADER);
    let value = app.keeper.value(&name).to_owned();
    let garbled = app.keeper.clone().with(&name, &value[..60]);
    for (keeper, more) in [(&garbled, &*value), (&app.keeper, &value[..60])] {
        let visit = app.send(keeper.request_with(&[(&name, more)]), NOTHING).await;
        assert_eq!(outcome(&visit), expect("active(old)", ""));
    }
}

#[tokio::test]
async fn value_counts_under_its_own_name_only() {
    let mut app = App::new(Site::offline()).logged_in(0).await;
    let own = app.keeper.clone();
    let other = app.another().logged_in(0).await.keeper;
    let mut opted_out = app.another();
    opted_out.update(EuidUpdate::opt_out()).await;
    let tag = hex_tag(own.value(LOGIN_HEADER));
    let [identity, record] = [IDENTITY_HEADER, OPT_OUT_HEADER].map(|kind| format!("{kind}{tag}"));
    for (keeper, saw, writes) in [
        (own.clone().with(&identity, other.value(IDENTITY_HEADER)), "absent", "identity cleared"),
        (own.clone().with(&record, own.value(&identity)), "active(old)", ""),
        (own.clone().with(&record, opted_out.keeper.value(OPT_OUT_HEADER)), "active(old)", ""),
        (own.clone().without(&identity).with(&record, own.value(&identity)), "absent", ""),
    ] {
        app.keeper = keeper;
        assert_eq!(outcome(&app.look().await), expect(saw, writes), "{:?}", app.keeper);
    }
    let tag = hex_tag(opted_out.keeper.value(LOGIN_HEADER));
    let value = opted_out.keeper.value(OPT_OUT_HEADER).to_owned();
    opted_out.keeper = opted_out.keeper.without(OPT_OUT_HEADER).with(format!("{IDENTITY_HEADER}{tag}"), &value);
    assert_eq!(outcome(&opted_out.look().await), expect("absent", "identity cleared"), "a record as an identity");
}

#[tokio::test]
async fn cookie_does_not_count_as_a_header_nor_a_header_as_a_cookie() {
    let mut app = App::new(Site::offline()).logged_in(0).await;
    let mut browser = Site { jar: Jar::default(), ..app.site.clone() };
    browser.login("browser").await;
    assert_eq!(browser.look().await.saw(), "active(browser)");

    let anchor = app.keeper.value(LOGIN_HEADER);
    let name = format!("{IDENTITY}{}", &anchor[..4]);
    let as_cookies = Jar::default().with(ANCHOR, anchor).with(name, app.keeper.value(IDENTITY_HEADER));
    let visit = Site { jar: as_cookies, ..app.site.clone() }.look().await;
    assert_eq!((visit.saw(), visit.writes()), expect("absent", "identity cleared"));

    let anchor = browser.jar.value(ANCHOR).unwrap();
    let name = format!("{IDENTITY_HEADER}{}", hex_tag(anchor));
    app.keeper = Keeper::default().with(LOGIN_HEADER, anchor).with(name, browser.jar.value(IDENTITY).unwrap());
    assert_eq!(outcome(&app.look().await), expect("absent", "identity cleared"));
}

/// Returns a request of an app that also brings the cookies of a browser.
fn with_cookies(keeper: &Keeper, jar: &Jar) -> Request<()> {
    let mut request = keeper.request();
    request.headers_mut().extend(jar.request().into_parts().0.headers);
    request
}

#[tokio::test]
async fn cookies_beside_headers_are_neither_read_nor_written() {
    let app = App::new(Site::offline()).logged_in(0).await;
    let mut browser = Site { jar: Jar::default(), ..app.site.clone() };
    browser.login("browser").await;
    for (keeper, saw) in [(&app.keeper, "active(old)"), (&Keeper::default(), "absent")] {
        let visit = app.send(with_cookies(keeper, &browser.jar), NOTHING).await;
        assert_eq!(outcome(&visit), expect(saw, ""));
        for update in [EuidUpdate::logout(), EuidUpdate::login(identity("new"))] {
            let handler = move |_: &Euid, response: &mut Response<()>| update.clone().attach(response);
            app.send(with_cookies(keeper, &browser.jar), handler).await; // fails if it sets a cookie
        }
    }
}

#[tokio::test]
async fn request_of_a_browser_has_its_state_in_cookies() {
    let app = App::new(Site::offline()).logged_in(0).await;
    for site in ["same-origin", "same-site", "cross-site", "none", ""] {
        let request = || app.keeper.request_with(&[("sec-fetch-site", site)]);
        let login = |_: &Euid, response: &mut Response<()>| EuidUpdate::login(identity("new")).attach(response);
        for visit in [app.site.send(request(), NOTHING).await, app.site.send(request(), login).await] {
            assert_eq!((visit.saw().as_str(), Keeper::lines(visit.response.headers()).count()), ("absent", 0));
        }
        let mut browser = Site { jar: Jar::default(), ..app.site.clone() };
        let visit = browser.send(request(), login).await;
        assert_eq!(visit.writes(), LOGIN_WRITTEN, "{site}");
        browser.jar.apply(visit.response.headers());
        let mut both = with_cookies(&app.keeper, &browser.jar);
        both.headers_mut().insert("sec-fetch-site", HeaderValue::try_from(site).unwrap());
        assert_eq!(browser.send(both, NOTHING).await.saw(), "active(new)", "{site}");
    }
}

#[tokio::test]
async fn request_of_a_browser_has_its_state_in_headers_if_all_pages_are_in_web_views() {
    let web_views = HeaderConfig::default().web_views();
    let app = App::with(Site::offline(), web_views).logged_in(0).await;
    let visit = app.send(app.keeper.request_with(&[("sec-fetch-site", "same-origin")]), NOTHING).await;
    assert_eq!(outcome(&visit), expect("active(old)", ""));
}

#[tokio::test]
async fn request_without_a_header_of_the_layer_gets_cookies() {
    let app = App::new(Site::offline()).logged_in(0).await;
    let anchor = app.keeper.value(LOGIN_HEADER).to_owned();
    let underscored = LOGIN_HEADER.replace('-', "_");
    let identity_without_tag = IDENTITY_HEADER.trim_end_matches('-').to_owned();
    let longer = format!("{OPT_OUT_HEADER}0000000");
    for headers in [&[][..], &[(&*underscored, &*anchor)], &[(&identity_without_tag, "x")], &[(&longer, "x")]] {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        let login = |_: &Euid, response: &mut Response<()>| EuidUpdate::login(identity("new")).attach(response);
        let visit = app.site.send(request, login).await;
        assert_eq!((visit.saw(), visit.writes()), expect("absent", LOGIN_WRITTEN), "{headers:?}");
        assert_eq!(Keeper::lines(visit.response.headers()).count(), 0);
    }
}

#[tokio::test]
async fn header_with_underscores_does_not_change_the_login() {
    let app = App::new(Site::offline()).logged_in(0).await;
    let other = app.another().logged_in(0).await;
    let underscored = LOGIN_HEADER.replace('-', "_");
    let visit = app.send(app.keeper.request_with(&[(&underscored, other.keeper.value(LOGIN_HEADER))]), NOTHING).await;
    assert_eq!(outcome(&visit), expect("active(old)", ""));
}

#[tokio::test]
async fn layer_without_the_setting_takes_no_headers() {
    let app = App::new(Site::offline()).logged_in(0).await;
    let plain = Site::offline();
    let visit =
        plain.send(app.keeper.request(), |_, response| EuidUpdate::login(identity("new")).attach(response)).await;
    assert_eq!((visit.saw(), visit.writes()), expect("absent", LOGIN_WRITTEN));
    assert_eq!(Keeper::lines(visit.response.headers()).count(), 0);
}

#[tokio::test]
async fn empty_value_is_none() {
    let app = App::new(Site::offline()).logged_in(0).await;
    let empty = format!("{IDENTITY_HEADER}000000");
    let visit = app.send(app.keeper.request_with(&[(&empty, ""), (&LOGIN_HEADER, "")]), NOTHING).await;
    assert_eq!(outcome(&visit), expect("active(old)", ""), "not removed, and no second login");
    let visit = app.send(Keeper::default().request_with(&[(&empty, "")]), NOTHING).await;
    assert_eq!(outcome(&visit), expect("absent", ""));
}

#[tokio::test]
async fn identity_under_an_old_key_is_sealed_under_the_newest_by_its_refresh() {
    let [old, new] = [(); 2].map(|()| CookieKey::generate().unwrap());
    let [old, both, new] = [vec![old.clone()], vec![new.clone(), old], vec![new]].map(|keys| {
        let keys = KeyRing::new(keys).unwrap();
        App::new(Site::with_keys(keys, Operator::answering(new_pair("new"))))
    });
    let mut app = App { keeper: old.logged_in(0).await.keeper, ..both };
    assert_eq!(outcome(&app.look().await), expect("active(old)", ""));
    app.site.wait_until(DUE);
    assert_eq!(app.look().await.saw(), "active(new)");
    assert_eq!(App { keeper: app.keeper, ..new }.look().await.saw(), "active(new)");
}

#[tokio::test]
async fn state_under_an_unknown_key_keeps_all_until_a_login() {
    let mut opted_out = App::new(Site::offline());
    opted_out.update(EuidUpdate::opt_out()).await;
    let identities = with_leftover(App::new(Site::offline())).await;
    let identity = App::new(Site::offline()).logged_in(0).await.keeper;
    let records = opted_out.keeper.with_from(&identity, IDENTITY_HEADER);
    for keeper in [identities.keeper, records] {
        for millis in [0, 30 * DAY] {
            let mut foreign = App { keeper: keeper.clone(), ..App::new(Site::offline()) };
            foreign.site.wait_until(millis);
            assert_eq!(outcome(&foreign.look().await), expect("absent", ""));
            foreign.update(EuidUpdate::login(identity_until("new", [40, 41, 42].map(|days| days * DAY)))).await;
            assert_eq!(outcome(&foreign.look().await), expect("active(new)", ""));
            assert_eq!(foreign.keeper.names().len(), 2);
        }
    }
}

#[tokio::test]
async fn identity_that_ended_is_removed_by_a_page_a_day_later_and_its_login_is_not() {
    for (millis, writes) in [(0, ""), (DAY, ""), (DAY + 1, "identity cleared"), (400 * DAY, "identity cleared")] {
        let mut app = App::new(Site::offline()).logged_in(REFRESH_EXPIRES + millis).await;
        let image = app.send(app.keeper.request_with(&[("sec-fetch-dest", "image")]), NOTHING).await;
        assert_eq!(outcome(&image), expect("absent", ""), "{millis}");
        let anchor = app.keeper.value(LOGIN_HEADER).to_owned();
        assert_eq!(outcome(&app.look().await), expect("absent", writes), "{millis}");
        assert_eq!(app.keeper.value(LOGIN_HEADER), anchor);
        assert_eq!(app.keeper.names().len(), if writes.is_empty() { 2 } else { 1 });
    }
}

#[tokio::test]
async fn record_that_ended_is_removed_by_a_page_a_day_later_and_its_login_is_not() {
    for (millis, saw, writes) in [
        (-1, "opted_out", ""),
        (0, "absent", ""),
        (DAY, "absent", ""),
        (DAY + 1, "absent", "opt-out cleared"),
        (400 * DAY, "absent", "opt-out cleared"),
    ] {
        let mut app = App::new(Site::offline());
        app.update(EuidUpdate::opt_out()).await;
        app.site.wait_until(OPT_OUT_REMEMBERED + millis);
        let image = app.send(app.keeper.request_with(&[("sec-fetch-dest", "image")]), NOTHING).await;
        assert_eq!(outcome(&image), expect(saw, ""), "{millis}");
        let anchor = app.keeper.value(LOGIN_HEADER).to_owned();
        assert_eq!(outcome(&app.look().await), expect(saw, writes), "{millis}");
        assert_eq!(app.keeper.value(LOGIN_HEADER), anchor);
    }
}

#[tokio::test]
async fn cookies_that_ended_are_left_to_the_browser() {
    let mut site = App::new(Site::offline()).site.logged_in(REFRESH_EXPIRES + 2 * DAY).await;
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), expect("absent", ""));
}

#[tokio::test]
async fn late_removal_of_what_ended_does_not_end_a_newer_login() {
    for opted_out in [false, true] {
        let mut app = App::new(Site::offline()).logged_in(0).await;
        if opted_out {
            app.update(EuidUpdate::opt_out()).await;
        }
        app.site.wait_until(9 * DAY);
        let late = app.look_once().await;
        assert_ne!(header_writes(late.response.headers()), "");
        app.update(EuidUpdate::login(identity_until("new", [10, 11, 12].map(|days| days * DAY)))).await;
        app.keep(&late);
        assert_eq!(outcome(&app.look().await), expect("active(new)", ""), "{opted_out}");
        assert_eq!(app.keeper.names().len(), 2);
    }
}

#[tokio::test]
async fn login_replaces_another_and_removes_its_headers() {
    let mut app = App::new(Site::offline()).logged_in(0).await;
    let visit = app.update(EuidUpdate::login(identity("new"))).await;
    assert_eq!(outcome(&visit), expect("active(old)", LOGIN_REPLACED));
    assert_eq!(outcome(&app.look().await), expect("active(new)", ""));
    assert_eq!(app.keeper.names().len(), 2);
}

#[tokio::test]
async fn cookies_for_scripts_and_of_the_sdk_are_neither_read_nor_written_beside_headers() {
    let config = CookieConfig::default().expose_token_to_scripts().migrate_js_sdk_cookie(None).unwrap();
    let site = Site::offline().configured(|layer| layer.cookie(config));
    let browser = site.with_sdk_token("sdk");
    let app = App::new(site);
    let visit = app.send(with_cookies(&app.keeper, &browser.jar), NOTHING).await;
    assert_eq!(outcome(&visit), expect("absent", ""));
    for update in [EuidUpdate::login(identity("new")), EuidUpdate::opt_out(), EuidUpdate::logout()] {
        let handler = move |_: &Euid, response: &mut Response<()>| update.clone().attach(response);
        app.send(with_cookies(&app.keeper, &browser.jar), handler).await; // fails if it sets a cookie
    }
    let app = app.logged_in(0).await;
    let token = browser.jar.with("__euid_advertising_token", "other").with("__uid2_advertising_token", "other");
    assert!(token.value(SDK).is_some());
    let visit = app.send(with_cookies(&app.keeper, &token), NOTHING).await;
    assert_eq!(outcome(&visit), expect("active(old)", ""));
    assert!(visit.response.headers().is_empty());
}

#[tokio::test]
async fn response_that_writes_headers_is_private_and_not_stored() {
    let public = |response: &mut Response<()>| {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=600"));
    };
    for update in [EuidUpdate::login(identity("new")), EuidUpdate::opt_out(), EuidUpdate::logout()] {
        let mut app = App::new(Site::offline());
        let visit = app.visit(move |_, response| {
            public(response);
            update.clone().attach(response);
        });
        assert_eq!(visit.await.header("cache-control"), Some("private, no-store"));
    }
    let mut app = App::new(Site::new(Operator::answering(new_pair("new")))).logged_in(DUE).await;
    let visit = app.visit(move |_, response| public(response)).await;
    assert_eq!(visit.header("cache-control"), Some("private, no-store"));
}

#[tokio::test]
async fn response_whose_token_was_read_is_private_and_varies_on_the_login_header() {
    let mut app = App::new(Site::offline()).logged_in(0).await;
    let visit =
        app.visit(|euid, _| assert!(euid.advertising_token().is_some_and(|token| token.as_str() == "old"))).await;
    assert_eq!(visit.header("cache-control"), Some("private, no-cache"));
    assert!(visit.header("vary").is_some_and(|vary| vary.eq_ignore_ascii_case(&LOGIN_HEADER)), "{visit:?}");
    let visit = app.look().await;
    assert!(visit.response.headers().is_empty(), "a page that does not read it stays as it is");
}

#[tokio::test]
async fn every_value_that_is_written_is_sensitive() {
    let mut app = with_leftover(App::new(Site::offline())).await;
    for (update, lines) in [(EuidUpdate::login(identity("new")), 4), (EuidUpdate::logout(), 2)] {
        let visit = app.update(update).await;
        let headers = visit.response.headers();
        let written: Vec<_> = Keeper::lines(headers).map(|(name, _)| &headers[name]).collect();
        assert_eq!((written.len(), written.iter().all(|value| value.is_sensitive())), (lines, true));
    }
}

#[tokio::test]
async fn response_304_brings_no_new_pair_and_the_next_page_does() {
    let operator = Operator::answering(new_pair("new"));
    let mut app = App::new(Site::new(operator.clone())).logged_in(DUE).await;
    let visit = app.visit(|_, response| *response.status_mut() = StatusCode::NOT_MODIFIED).await;
    assert_eq!(outcome(&visit), expect("active(new)", ""));
    assert_eq!(outcome(&app.look().await), expect("active(new)", "identity set"));
    assert_eq!(operator.calls(), 1);
}

/// Returns an app of a site with both scopes, and with a login in each.
#[expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
async fn in_both_scopes() -> App {
    let site = Site::new(Operator::never().of_scope(Scope::Euid)).configured(|layer| {
        let region = |request: &http::request::Parts| match request.headers.get("x-region")?.as_bytes() {
            b"eu" => Some(Scope::Euid),
            b"us" => Some(Scope::Uid2),
            _ => None,
        };
        layer.scope(Operator::never().of_scope(Scope::Uid2), region).unwrap()
    });
    let mut app = App::new(site);
    for (region, token) in [("eu", "E4old"), ("us", "A4old")] {
        let login = EuidUpdate::login(identity_until(token, [REFRESH_FROM, IDENTITY_EXPIRES, REFRESH_EXPIRES]));
        let handler = move |_: &Euid, response: &mut Response<()>| login.clone().attach(response);
        let visit = app.send(app.keeper.request_with(&[("x-region", region)]), handler).await;
        app.keep(&visit);
    }
    app
}

#[tokio::test]
async fn setting_holds_whatever_is_set_after_it() {
    let choose = |_: &http::request::Parts| Some(scope());
    let site = Site::offline().configured(|layer| layer.headers(HeaderConfig::default().web_views()));
    let site = site.configured(|layer| layer.cookie(CookieConfig::insecure()));
    let other = Operator::never().of_scope(scope().other());
    let site = site.configured(|layer| layer.scope(other, choose).unwrap());
    let app = App { site, keeper: Keeper::default() }.logged_in(0).await;
    let visit = app.send(app.keeper.request_with(&[("sec-fetch-site", "same-origin")]), NOTHING).await;
    assert_eq!(outcome(&visit), expect("active(old)", ""));
}

#[tokio::test]
async fn layer_inside_another_compares_the_user_of_an_app() {
    let mut app = App::new(Site::offline());
    app.update(EuidUpdate::login(identity("old")).subject("ann")).await;
    let inner = app.site.clone().with_subject().layer;
    for (user, saw) in [("ann", "active(old)"), ("bob", "absent")] {
        let mut request = app.keeper.request();
        request.extensions_mut().insert(User(user));
        let seen = Seen::default();
        let service = app.site.layer.layer(inner.layer(page(Arc::clone(&seen), NOTHING)));
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(outcome(&Visit::of(&seen, response)), expect(saw, ""), "{user}");
    }
}

#[tokio::test]
async fn layer_inside_another_does_not_compare_the_user_of_state_that_is_not_shown() {
    for outer_takes_headers in [true, false] {
        let mut browser = Site::offline();
        let mut app = App::new(browser.clone());
        let with_headers = app.site.clone();
        let (outer, inner) = if outer_takes_headers {
            (with_headers.layer, browser.clone().with_subject().layer)
        } else {
            (browser.layer.clone(), with_headers.with_subject().layer)
        };
        let (in_headers, in_cookies) = if outer_takes_headers { ("bob", "ann") } else { ("ann", "bob") };
        app.update(EuidUpdate::login(identity(in_headers)).subject(in_headers)).await;
        browser.update(EuidUpdate::login(identity(in_cookies)).subject(in_cookies)).await;
        let mut request = with_cookies(&app.keeper, &browser.jar);
        request.extensions_mut().insert(User("ann"));
        let seen = Seen::default();
        let service = outer.layer(inner.layer(page(Arc::clone(&seen), NOTHING)));
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(Visit::of(&seen, response).saw(), "absent", "{outer_takes_headers}");
    }
}

#[tokio::test]
async fn traveller_has_each_identity_again() {
    let app = in_both_scopes().await;
    assert_eq!(app.keeper.names().len(), 4);
    for (region, saw) in [("eu", "active(E4old)"), ("us", "active(A4old)"), ("eu", "active(E4old)"), ("at", "absent")] {
        let visit = app.send(app.keeper.request_with(&[("x-region", region)]), NOTHING).await;
        assert_eq!((visit.saw().as_str(), visit.response.headers().is_empty()), (saw, true), "{region}");
    }
}

#[tokio::test]
async fn login_header_of_either_scope_asks_for_headers_in_both() {
    let app = in_both_scopes().await.another();
    for name in [LOGIN_HEADER.euid, LOGIN_HEADER.uid2] {
        for (region, token, written) in [("eu", "E4new", LOGIN_HEADER.euid), ("us", "A4new", LOGIN_HEADER.uid2)] {
            let mut request = Request::new(());
            request.headers_mut().insert(name, HeaderValue::from_static(""));
            request.headers_mut().insert("x-region", HeaderValue::from_static(region));
            let login = move |_: &Euid, response: &mut Response<()>| EuidUpdate::login(fresh(token)).attach(response);
            let visit = app.send(request, login).await;
            assert!(visit.response.headers().contains_key(written), "{name} {region}");
        }
    }
}

#[tokio::test]
async fn logout_and_withdrawn_consent_in_any_region_remove_the_headers_of_both_scopes() {
    for region in ["eu", "us", "at"] {
        for withdrawn in [false, true] {
            let mut app = in_both_scopes().await;
            app.site = app.site.configured(|layer| {
                layer.consent(move |_| if withdrawn { Consent::Withdrawn } else { Consent::Granted })
            });
            let handler = move |_: &Euid, response: &mut Response<()>| {
                if !withdrawn {
                    EuidUpdate::logout().attach(response);
                }
            };
            let visit = app.send(app.keeper.request_with(&[("x-region", region)]), handler).await;
            app.keep(&visit);
            assert_eq!(app.keeper, Keeper::default(), "{region} {withdrawn}");
        }
    }
}

#[tokio::test]
async fn withdrawn_consent_ends_a_login_whose_identity_ended_more_than_a_day_ago() {
    let mut app = App::new(Site::offline()).logged_in(REFRESH_EXPIRES + DAY + 1).await;
    app.site = app.site.configured(|layer| layer.consent(|_| Consent::Withdrawn));
    assert_eq!(outcome(&app.look().await), expect("withheld", "identity cleared, anchor cleared"));
    assert_eq!(app.keeper, Keeper::default());
}

#[tokio::test]
async fn logout_and_login_replace_a_header_that_the_response_of_another_server_brought() {
    let (region, token) = match scope() {
        Scope::Euid => ("eu", "E4new"),
        Scope::Uid2 => ("us", "A4new"),
    };
    for app in [App::new(Site::offline()).logged_in(0).await, in_both_scopes().await] {
        for update in [EuidUpdate::logout(), EuidUpdate::login(fresh(token))] {
            let other = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA");
            let brought = other.clone();
            let handler = move |_: &Euid, response: &mut Response<()>| {
                response.headers_mut().insert(&*LOGIN_HEADER, brought.clone());
                update.clone().attach(response);
            };
            let visit = app.send(app.keeper.request_with(&[("x-region", region)]), handler).await;
            let values: Vec<_> = visit.response.headers().get_all(&*LOGIN_HEADER).iter().collect();
            assert_eq!((values.len(), values.contains(&&other)), (1, false), "{values:?}");
        }
    }
}
