//! Names and attributes of the cookies, for every configuration.
//!
//! A cookie and its removal have the same attributes; they differ only in value and `Max-Age`.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;

use http::HeaderMap;
use tower_euid::{CookieConfig, EuidUpdate, Refreshed, SameSite};

use crate::support::{
    DUE, Jar, NOTHING, Operator, SCRIPT_TOKEN, SDK, STEM, Site, identity, new_pair, ring, scope, set_cookies,
};

/// Returns every valid configuration, with the prefix of its names and the attributes of all its cookies.
fn configurations() -> Vec<(CookieConfig, String, String)> {
    let mut all = Vec::new();
    let same_sites = [
        (SameSite::Strict, "; SameSite=Strict", ""),
        (SameSite::Lax, "; SameSite=Lax", ""),
        (SameSite::None, "; SameSite=None", ""),
        (SameSite::Partitioned, "; SameSite=None", "; Partitioned"),
    ];
    for (same_site, attribute, partitioned) in same_sites {
        for (domain, prefix) in [(None, "__Host-"), (Some("publisher.example"), "__Secure-")] {
            let domain_first = with_domain(CookieConfig::default(), domain).same_site(same_site).unwrap();
            let domain_last = with_domain(CookieConfig::default().same_site(same_site).unwrap(), domain);
            for config in [domain_first, domain_last] {
                let domain = domain.map_or(String::new(), |domain| format!("; Domain={domain}"));
                all.push((config, prefix.to_owned(), format!("{attribute}{partitioned}; Secure; Path=/{domain}")));
            }
        }
    }
    for (same_site, attribute, _) in &same_sites[..2] {
        for domain in [None, Some("publisher.example")] {
            let config = with_domain(CookieConfig::insecure(), domain).same_site(*same_site).unwrap();
            let domain = domain.map_or(String::new(), |domain| format!("; Domain={domain}"));
            all.push((config, String::new(), format!("{attribute}; Path=/{domain}")));
        }
    }
    all
}

fn with_domain(config: CookieConfig, domain: Option<&str>) -> CookieConfig {
    domain.map_or(config.clone(), |domain| config.domain(domain).unwrap())
}

/// The name of a cookie, whether the line removes it, and its attributes without `Max-Age`.
type Line = (String, bool, String);

/// Returns the `Set-Cookie` lines of a response.
fn lines(headers: &HeaderMap) -> BTreeSet<Line> {
    let lines = set_cookies(headers).into_iter().map(|line| {
        let (name, rest) = line.to_str().unwrap().split_once('=').unwrap();
        let mut parts: Vec<&str> = rest.split("; ").collect();
        let is_removal = parts.remove(0).is_empty();
        let max_age = parts.iter().position(|part| part.starts_with("Max-Age=")).unwrap();
        assert_eq!(parts.remove(max_age) == "Max-Age=0", is_removal, "only a removal has Max-Age=0");
        let attributes: String = parts.iter().map(|part| format!("; {part}")).collect();
        (name.to_owned(), is_removal, attributes)
    });
    let lines: Vec<_> = lines.collect();
    let unique: BTreeSet<_> = lines.iter().cloned().collect();
    // Only a logout that removes a record repeats a line: the removal of the anchor comes first and last.
    let repeats_anchor = lines.len() > 2 && lines.first() == lines.last();
    assert_eq!(unique.len() + usize::from(repeats_anchor), lines.len(), "no other line is repeated");
    unique
}

/// The `Set-Cookie` lines of a change, and the browser before and after it.
struct Written {
    change: &'static str,
    before: Jar,
    after: Jar,
    lines: BTreeSet<Line>,
}

/// Visits a page whose response makes a change.
async fn written(site: &mut Site, change: &'static str, update: Option<EuidUpdate>) -> Written {
    let before = site.jar.clone();
    let visit = match update {
        Some(update) => site.update(update).await,
        None => site.look().await,
    };
    Written { change, before, after: site.jar.clone(), lines: lines(visit.response.headers()) }
}

/// Returns the `Set-Cookie` lines of each kind of change.
async fn lines_of_all_changes(config: CookieConfig) -> Vec<Written> {
    let site = |operator| Site::new(operator).configured(|layer| layer.cookie(config.clone()));
    let login = |name| Some(EuidUpdate::login(identity(name)));
    let mut refreshing = site(Operator::answering(new_pair("new")));
    let mut all = vec![written(&mut refreshing, "login", login("old")).await];
    all.push(written(&mut refreshing, "login in place of a login", login("old")).await);
    refreshing.wait_until(DUE);
    all.push(written(&mut refreshing, "refresh", None).await);
    all.push(written(&mut refreshing, "logout", Some(EuidUpdate::logout())).await);

    let mut opting_out = site(Operator::answering(Ok(Refreshed::OptedOut))).logged_in(DUE).await;
    all.push(written(&mut opting_out, "opt-out of refresh", None).await);
    let recorded = opting_out.jar.clone();
    all.push(written(&mut opting_out, "login in place of an opt-out", login("again")).await);
    opting_out.jar = recorded.clone();
    all.push(written(&mut opting_out, "logout after an opt-out", Some(EuidUpdate::logout())).await);
    opting_out.jar = recorded;
    all.push(written(&mut opting_out, "opt-out of handler", Some(EuidUpdate::opt_out())).await);
    all
}

#[tokio::test]
async fn cookies_and_their_removals_have_the_names_and_attributes_of_the_configuration() {
    for (config, prefix, attributes) in configurations() {
        let [identity, anchor, record] = [".", "-login", "-optout."].map(|name| format!("{prefix}{STEM}{name}"));
        assert_eq!(config.identity_prefix(scope()), identity);
        assert_eq!(config.anchor_name(scope()), anchor);
        assert_eq!(config.opt_out_prefix(scope()), record);
        for Written { change, before, after, lines } in lines_of_all_changes(config.clone()).await {
            let set = |name: &str| (after.name(name), false, format!("; HttpOnly{attributes}"));
            let cleared = |name: &str| (before.name(name), true, format!("; HttpOnly{attributes}"));
            let expected: BTreeSet<_> = match change {
                "login" => [set(&identity), set(&anchor)].into(),
                "login in place of a login" => [set(&identity), set(&anchor), cleared(&identity)].into(),
                "refresh" => [set(&identity)].into(),
                "logout" => [cleared(&identity), cleared(&anchor)].into(),
                "opt-out of refresh" => [cleared(&identity), set(&record)].into(),
                "login in place of an opt-out" => [set(&identity), set(&anchor), cleared(&record)].into(),
                "logout after an opt-out" => [cleared(&record), cleared(&anchor)].into(),
                _ => [set(&anchor), set(&record), cleared(&record)].into(),
            };
            assert_eq!(lines, expected, "{change}: {config:?}");
            // A tag is the beginning of the anchor's value, and stays for the login.
            let tag = |jar: &Jar| jar.value(&anchor).map(|value| value[..4].to_owned());
            for (jar, prefix) in [&before, &after].into_iter().flat_map(|jar| [(jar, &identity), (jar, &record)]) {
                let names = jar.names().into_iter().filter(|name| name.starts_with(&**prefix));
                assert!(names.eq(names_of(jar, prefix, tag(jar).as_deref())), "{change}: {:?}", jar.names());
            }
        }
    }
}

/// Returns the name that a jar may have with this prefix.
fn names_of(jar: &Jar, prefix: &str, tag: Option<&str>) -> Option<String> {
    Some(format!("{prefix}{}", tag?)).filter(|name| jar.value(name).is_some())
}

#[tokio::test]
async fn script_cookie_has_the_same_attributes_without_http_only() {
    for (config, _, attributes) in configurations() {
        for Written { change, lines, .. } in lines_of_all_changes(config.clone().expose_token_to_scripts()).await {
            let lines: Vec<_> = lines.into_iter().filter(|(name, ..)| *name == SCRIPT_TOKEN).collect();
            let is_removal = change.starts_with("logout") || change.starts_with("opt-out");
            assert_eq!(lines, [(SCRIPT_TOKEN.to_string(), is_removal, attributes.clone())], "{change}: {config:?}");
        }
    }
}

#[tokio::test]
async fn js_sdk_cookie_is_removed_from_the_host_and_from_its_domain() {
    for (config, ..) in configurations() {
        let secure = if config.identity_prefix(scope()) == format!("{STEM}.") { "" } else { "; Secure" };
        for (domain, domains) in [(None, vec![""]), (Some("Publisher.Example"), vec!["", "; Domain=publisher.example"])]
        {
            let config = config.clone().migrate_js_sdk_cookie(domain).unwrap();
            for Written { change, lines, .. } in lines_of_all_changes(config.clone()).await {
                let lines: Vec<_> = lines.into_iter().filter(|(name, ..)| *name == SDK).collect();
                let removals = domains
                    .iter()
                    .map(|domain| (SDK.to_string(), true, format!("; SameSite=Lax{secure}; Path=/{domain}")));
                // A refresh changes no login, so it leaves this cookie alone.
                let expected = removals.filter(|_| !matches!(change, "refresh" | "opt-out of refresh"));
                assert_eq!(lines, expected.collect::<Vec<_>>(), "{change}: {config:?}");
            }
        }
    }
}

#[tokio::test]
async fn leftovers_of_other_logins_are_removed_with_the_attributes_of_the_configuration() {
    for (config, prefix, attributes) in configurations() {
        let mut site = Site::offline().configured(|layer| layer.cookie(config.clone())).logged_in(0).await;
        let names = [".Az-_", "-optout.0000", ".sdk", "-optout.sdk"].map(|name| format!("{prefix}{STEM}{name}"));
        names.iter().for_each(|name| site.jar.put(name, "of another login"));
        let expected: BTreeSet<_> = names.map(|name| (name, true, format!("; HttpOnly{attributes}"))).into();
        assert_eq!(lines(site.look_once().await.response.headers()), expected, "{config:?}");
    }
}

#[tokio::test]
async fn cookies_of_a_migrated_identity_have_the_names_and_attributes_of_the_configuration() {
    for (config, prefix, attributes) in configurations() {
        let config = config.migrate_js_sdk_cookie(None).unwrap();
        let line =
            |name: &str, is_removal| (format!("{prefix}{STEM}{name}"), is_removal, format!("; HttpOnly{attributes}"));
        let site = Site::new(Operator::answering(Ok(Refreshed::OptedOut)));
        let mut site = site.configured(|layer| layer.cookie(config.clone())).with_sdk_token("sdk");
        let own =
            |written: Written| -> BTreeSet<_> { written.lines.into_iter().filter(|(name, ..)| *name != SDK).collect() };
        let migrated = own(written(&mut site, "migration", None).await);
        assert_eq!(migrated, [line(".sdk", false)].into(), "{config:?}");
        site.wait_until(DUE);
        let opted_out = own(written(&mut site, "opt-out", None).await);
        assert_eq!(opted_out, [line("-optout.sdk", false), line(".sdk", true)].into(), "{config:?}");
        let ended = own(written(&mut site, "logout", Some(EuidUpdate::logout())).await);
        assert_eq!(ended, [line("-login", false), line("-optout.sdk", true)].into(), "{config:?}");
    }
}

#[tokio::test]
async fn login_is_readable_under_each_configuration() {
    for (config, ..) in configurations() {
        let site = Site::offline().configured(|layer| layer.cookie(config.clone())).logged_in(0).await;
        assert_eq!(site.look_once().await.saw(), "active(old)", "{config:?}");
    }
}

#[tokio::test]
async fn identity_is_not_readable_under_a_configuration_with_another_prefix() {
    let configurations = configurations();
    let keys = ring();
    for (config, prefix, _) in &configurations {
        let site = Site::with_keys(keys.clone(), Operator::never()).configured(|layer| layer.cookie(config.clone()));
        let site = site.logged_in(0).await;
        for (other, other_prefix, _) in configurations.iter().filter(|(_, other, _)| other != prefix) {
            let other_site = site.clone().configured(|layer| layer.cookie(other.clone()));
            assert_eq!(other_site.look_once().await.saw(), "absent");
            // The name is sealed, so the values are not readable under the other names either.
            let names = [config.identity_prefix(scope()), config.anchor_name(scope())];
            let [identity, anchor] = names.map(|name| site.jar.value(&name).unwrap());
            let name = format!("{}{}", other.identity_prefix(scope()), &anchor[..4]);
            let renamed = Jar::default().with(&name, identity).with(other.anchor_name(scope()), anchor);
            let visit = other_site.send(renamed.request(), NOTHING).await;
            assert_eq!(visit.saw(), "absent", "{prefix} {other_prefix}");
        }
    }
}

#[test]
fn same_site_that_needs_secure_is_rejected_for_insecure_cookies() {
    for same_site in [SameSite::None, SameSite::Partitioned] {
        assert!(CookieConfig::insecure().same_site(same_site).is_err());
        assert!(with_domain(CookieConfig::insecure(), Some("publisher.example")).same_site(same_site).is_err());
    }
}

#[test]
fn domain_that_browsers_reject_is_rejected() {
    for domain in
        ["", "com", "localhost", ".example.com", "example.com.", "a b.com", "10.0.0.1", "example.com; Path=/x"]
    {
        for config in [CookieConfig::default(), CookieConfig::insecure()] {
            assert!(config.clone().domain(domain).is_err(), "{domain}");
            assert!(config.migrate_js_sdk_cookie(Some(domain)).is_err(), "{domain}");
        }
    }
}
