//! Names and attributes of the cookies, for every configuration.
//!
//! A cookie and its removal have the same attributes; they differ only in value and `Max-Age`.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;

use http::HeaderMap;
use tower_euid::{CookieConfig, EuidUpdate, Refreshed, SameSite};

use crate::support::{DUE, Jar, NOTHING, Operator, SCRIPT_TOKEN, SDK, Site, new_pair, ring, set_cookies};

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
    assert_eq!(unique.len(), lines.len(), "no line is repeated");
    unique
}

/// Returns the `Set-Cookie` lines of each kind of change, in the order of a visitor's life.
async fn lines_of_all_changes(config: CookieConfig) -> [(&'static str, BTreeSet<Line>); 5] {
    let site = |operator| Site::new(operator).configured(|layer| layer.cookie(config.clone()));
    let mut refreshing = site(Operator::answering(new_pair("new")));
    let login = refreshing.login("old").await;
    refreshing.wait_until(DUE);
    let refresh = refreshing.look().await;
    let logout = refreshing.update(EuidUpdate::logout()).await;
    let mut opting_out = site(Operator::answering(Ok(Refreshed::OptedOut))).logged_in(DUE).await;
    let opt_out_of_refresh = opting_out.look().await;
    let opt_out_of_handler = opting_out.update(EuidUpdate::opt_out()).await;
    let visits = [
        ("login", login),
        ("refresh", refresh),
        ("logout", logout),
        ("opt-out of refresh", opt_out_of_refresh),
        ("opt-out of handler", opt_out_of_handler),
    ];
    visits.map(|(change, visit)| (change, lines(visit.response.headers())))
}

#[tokio::test]
async fn cookies_and_their_removals_have_the_names_and_attributes_of_the_configuration() {
    for (config, prefix, attributes) in configurations() {
        let [identity, anchor, record] = ["euid", "euid-login", "euid-optout"].map(|name| format!("{prefix}{name}"));
        assert_eq!((config.identity_name(), config.anchor_name()), (&*identity, &*anchor));
        assert_eq!(config.opt_out_name(), record);
        let set = |name: &str| (name.to_owned(), false, format!("; HttpOnly{attributes}"));
        let cleared = |name: &str| (name.to_owned(), true, format!("; HttpOnly{attributes}"));
        for (change, lines) in lines_of_all_changes(config.clone()).await {
            let expected: BTreeSet<_> = match change {
                "login" => [set(&identity), set(&anchor), cleared(&record)].into(),
                "refresh" => [set(&identity)].into(),
                "opt-out of refresh" => [cleared(&identity), set(&record)].into(),
                "logout" => [cleared(&identity), cleared(&anchor), cleared(&record)].into(),
                _ => [cleared(&identity), set(&anchor), cleared(&record)].into(),
            };
            assert_eq!(lines, expected, "{change}: {config:?}");
        }
    }
}

#[tokio::test]
async fn script_cookie_has_the_same_attributes_without_http_only() {
    for (config, _, attributes) in configurations() {
        for (change, lines) in lines_of_all_changes(config.clone().expose_token_to_scripts()).await {
            let lines: Vec<_> = lines.into_iter().filter(|(name, ..)| name == SCRIPT_TOKEN).collect();
            let is_removal = !matches!(change, "login" | "refresh");
            assert_eq!(lines, [(SCRIPT_TOKEN.to_owned(), is_removal, attributes.clone())], "{change}: {config:?}");
        }
    }
}

#[tokio::test]
async fn js_sdk_cookie_is_removed_from_the_host_and_from_its_domain() {
    for (config, ..) in configurations() {
        let secure = if config.identity_name() == "euid" { "" } else { "; Secure" };
        for (domain, domains) in [(None, vec![""]), (Some("Publisher.Example"), vec!["", "; Domain=publisher.example"])]
        {
            let config = config.clone().migrate_js_sdk_cookie(domain).unwrap();
            for (change, lines) in lines_of_all_changes(config.clone()).await {
                let lines: Vec<_> = lines.into_iter().filter(|(name, ..)| name == SDK).collect();
                let removals = domains
                    .iter()
                    .map(|domain| (SDK.to_owned(), true, format!("; SameSite=Lax{secure}; Path=/{domain}")));
                // A refresh changes no login, so it leaves this cookie alone.
                let expected = removals.filter(|_| !matches!(change, "refresh" | "opt-out of refresh"));
                assert_eq!(lines, expected.collect::<Vec<_>>(), "{change}: {config:?}");
            }
        }
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
            let renamed = Jar::default()
                .with(other.identity_name(), site.jar.value(config.identity_name()).unwrap())
                .with(other.anchor_name(), site.jar.value(config.anchor_name()).unwrap());
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
