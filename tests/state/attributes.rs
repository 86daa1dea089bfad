//! Names and attributes on the wire, for every configuration of the cookies: what sets a cookie and what
//! clears it differ in value and `Max-Age` alone.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;

use http::{HeaderMap, Response};
use tower_euid::{CookieConfig, EuidUpdate, Refreshed, SameSite};

use crate::support::{DUE, Operator, SCRIPT_TOKEN, SDK, Site, new_pair, set_cookies};

/// Every configuration that can be built; of each, prefix of the names and attributes of all cookies.
fn configurations() -> Vec<(CookieConfig, String, String)> {
    let mut all = Vec::new();
    let secure = [
        (SameSite::Strict, "; SameSite=Strict", ""),
        (SameSite::Lax, "; SameSite=Lax", ""),
        (SameSite::None, "; SameSite=None", ""),
        (SameSite::Partitioned, "; SameSite=None", "; Partitioned"),
    ];
    for (same_site, said, partitioned) in secure {
        for (domain, prefix) in [(None, "__Host-"), (Some("publisher.example"), "__Secure-")] {
            let in_order = [with_domain(CookieConfig::default(), domain).same_site(same_site).unwrap()];
            let reversed = [with_domain(CookieConfig::default().same_site(same_site).unwrap(), domain)];
            for config in in_order.into_iter().chain(reversed) {
                let domain = domain.map_or(String::new(), |domain| format!("; Domain={domain}"));
                all.push((config, prefix.to_owned(), format!("{said}{partitioned}; Secure; Path=/{domain}")));
            }
        }
    }
    for (same_site, said, _) in &secure[..2] {
        for domain in [None, Some("publisher.example")] {
            let config = with_domain(CookieConfig::insecure(), domain).same_site(*same_site).unwrap();
            let domain = domain.map_or(String::new(), |domain| format!("; Domain={domain}"));
            all.push((config, String::new(), format!("{said}; Path=/{domain}")));
        }
    }
    all
}

fn with_domain(config: CookieConfig, domain: Option<&str>) -> CookieConfig {
    domain.map_or(config.clone(), |domain| config.domain(domain).unwrap())
}

/// Name, whether it is cleared, and attributes without `Max-Age`, of each cookie that a response writes.
fn written(headers: &HeaderMap) -> BTreeSet<(String, bool, String)> {
    let lines = set_cookies(headers).into_iter().map(|line| {
        let (name, rest) = line.to_str().unwrap().split_once('=').unwrap();
        let mut parts: Vec<&str> = rest.split("; ").collect();
        let cleared = parts.remove(0).is_empty();
        let age = parts.iter().position(|part| part.starts_with("Max-Age=")).unwrap();
        assert_eq!(parts.remove(age) == "Max-Age=0", cleared, "an empty value and no time go together");
        let attributes: String = parts.iter().map(|part| format!("; {part}")).collect();
        (name.to_owned(), cleared, attributes)
    });
    let written: Vec<_> = lines.collect();
    let once: BTreeSet<_> = written.iter().cloned().collect();
    assert_eq!(once.len(), written.len(), "nothing is said twice");
    once
}

/// What the browser is told by all that there is to tell, in the order of a life.
async fn life(config: CookieConfig) -> Vec<(&'static str, BTreeSet<(String, bool, String)>)> {
    let site = |operator| Site::new(operator).configured(|layer| layer.cookie(config.clone()));
    let (mut refreshed, mut opted_out) =
        (site(Operator::answering(new_pair("new"))), site(Operator::answering(Ok(Refreshed::OptedOut))));
    let login = refreshed.login("old").await;
    refreshed.wait_until(DUE);
    let refresh = refreshed.look().await;
    let logout = refreshed.update(EuidUpdate::logout()).await;
    opted_out.login("old").await;
    opted_out.wait_until(DUE);
    let recorded = opted_out.look().await;
    let stated = opted_out.update(EuidUpdate::opt_out()).await;
    let visits =
        [("login", login), ("refresh", refresh), ("logout", logout), ("recorded", recorded), ("stated", stated)];
    visits.map(|(what, visit)| (what, written(visit.response.headers()))).into()
}

#[tokio::test]
async fn every_configuration_sets_and_clears_under_its_names_with_its_attributes() {
    for (config, prefix, attributes) in configurations() {
        let [identity, anchor, record] = ["euid", "euid-login", "euid-optout"].map(|name| format!("{prefix}{name}"));
        assert_eq!((config.identity_name(), config.anchor_name()), (&*identity, &*anchor));
        assert_eq!(config.opt_out_name(), record);
        let ours = |name: &str, cleared| (name.to_owned(), cleared, format!("; HttpOnly{attributes}"));
        for (what, told) in life(config.clone()).await {
            let expected: BTreeSet<_> = match what {
                "login" => [ours(&identity, false), ours(&anchor, false), ours(&record, true)].into(),
                "refresh" => [ours(&identity, false)].into(),
                "recorded" => [ours(&identity, true), ours(&record, false)].into(),
                "logout" => [ours(&identity, true), ours(&anchor, true), ours(&record, true)].into(),
                _ => [ours(&identity, true), ours(&anchor, false), ours(&record, true)].into(),
            };
            assert_eq!(told, expected, "{what}: {config:?}");
        }
    }
}

#[tokio::test]
async fn the_cookie_for_scripts_differs_in_httponly_alone() {
    for (config, _, attributes) in configurations() {
        for (what, told) in life(config.clone().expose_token_to_scripts()).await {
            let scripts: Vec<_> = told.into_iter().filter(|(name, ..)| name == SCRIPT_TOKEN).collect();
            let cleared = !matches!(what, "login" | "refresh");
            assert_eq!(scripts, [(SCRIPT_TOKEN.to_owned(), cleared, attributes.clone())], "{what}: {config:?}");
        }
    }
}

#[tokio::test]
async fn the_sdks_cookie_is_deleted_as_of_this_host_and_as_of_its_domain() {
    for (config, ..) in configurations() {
        let secure = if config.identity_name() == "euid" { "" } else { "; Secure" };
        for (domain, domains) in [(None, vec![""]), (Some("Publisher.Example"), vec!["", "; Domain=publisher.example"])]
        {
            let config = config.clone().migrate_js_sdk_cookie(domain).unwrap();
            for (what, told) in life(config.clone()).await {
                let told: Vec<_> = told.into_iter().filter(|(name, ..)| name == SDK).collect();
                let expected = domains
                    .iter()
                    .map(|domain| (SDK.to_owned(), true, format!("; SameSite=Lax{secure}; Path=/{domain}")));
                // A refresh says nothing of who is logged in.
                let expected = expected.filter(|_| !matches!(what, "refresh" | "recorded"));
                assert_eq!(told, expected.collect::<Vec<_>>(), "{what}: {config:?}");
            }
        }
    }
}

#[tokio::test]
async fn under_each_configuration_a_login_is_read_back() {
    for (config, ..) in configurations() {
        let mut site = Site::offline().configured(|layer| layer.cookie(config.clone()));
        site.login("old").await;
        assert_eq!(site.look().await.saw(), "active(old)", "{config:?}");
    }
}

#[tokio::test]
async fn no_configuration_reads_what_another_has_under_other_names() {
    let configurations = configurations();
    let keys = crate::support::ring();
    for (one, prefix, _) in &configurations {
        let mut site = Site::with_keys(keys.clone(), Operator::never()).configured(|layer| layer.cookie(one.clone()));
        site.login("old").await;
        for (other, other_prefix, _) in configurations.iter().filter(|(_, other, _)| other != prefix) {
            let under = site.clone().configured(|layer| layer.cookie(other.clone()));
            assert_eq!(under.clone().look().await.saw(), "absent");
            // Nor under the names of the other: the name is sealed in.
            let jar = crate::support::Jar::default()
                .with(other.identity_name(), site.jar.value(one.identity_name()).unwrap())
                .with(other.anchor_name(), site.jar.value(one.anchor_name()).unwrap());
            let visit = under.send(jar.request(), |_, _: &mut Response<()>| ()).await;
            assert_eq!(visit.saw(), "absent", "{prefix} {other_prefix}");
        }
    }
}

#[test]
fn what_no_browser_would_keep_is_not_built() {
    for same_site in [SameSite::None, SameSite::Partitioned] {
        assert!(CookieConfig::insecure().same_site(same_site).is_err());
        assert!(with_domain(CookieConfig::insecure(), Some("publisher.example")).same_site(same_site).is_err());
    }
    for domain in
        ["", "com", "localhost", ".example.com", "example.com.", "a b.com", "10.0.0.1", "example.com; Path=/x"]
    {
        for config in [CookieConfig::default(), CookieConfig::insecure()] {
            assert!(config.clone().domain(domain).is_err(), "{domain}");
            assert!(config.migrate_js_sdk_cookie(Some(domain)).is_err(), "{domain}");
        }
    }
}
