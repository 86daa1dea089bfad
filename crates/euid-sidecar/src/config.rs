//! The configuration of `serve`, made of the [`Settings`]. All problems are found at once, and each names its setting.

use std::fmt;
use std::num::NonZero;
use std::str::FromStr;
use std::time::Duration;

use subtle::ConstantTimeEq;
use tower_euid::error::ConfigError;
use tower_euid::{CookieConfig, CookieKey, EuidClient, EuidLayer, HeaderConfig, KeyRing, RefreshMode, SameSite, Scope};
use tracing::level_filters::LevelFilter;
use zeroize::Zeroizing;

use crate::address::Address;
use crate::api::Asked;
use crate::proxy::Upstream;
use crate::settings::{Settings, of_scope, sidecar, store};

pub(crate) struct Config {
    pub(crate) api: Address,
    pub(crate) token: Option<Token>,
    pub(crate) admin: Address,
    pub(crate) log: LevelFilter,
    /// The reverse proxy, if there is one.
    pub(crate) proxy: Option<ProxySettings>,
    pub(crate) site: Site,
    has_store: bool,
}

/// What the reverse proxy needs.
pub(crate) struct ProxySettings {
    pub(crate) upstream: Upstream,
    pub(crate) listen: Address,
    pub(crate) workers: usize,
    pub(crate) h2c: bool,
}

/// What the API needs: the layer, and a client for each scope that it serves.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) layer: EuidLayer,
    pub(crate) clients: Vec<(Scope, EuidClient)>,
}

/// The secret that a caller of the API brings.
#[derive(Clone)]
pub(crate) struct Token(Zeroizing<String>);

impl Token {
    /// Whether this is the token, in a time that does not depend on how much of it is right.
    pub(crate) fn is(&self, other: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(other).into()
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() < SHORTEST_TOKEN {
            return Err(format!("shorter than {SHORTEST_TOKEN} characters; make one with `openssl rand -hex 32`"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has a character other than visible ASCII".to_owned());
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Config {
    /// # Errors
    ///
    /// All problems of the settings, each with the name of its setting. They come after those in `problems`.
    pub(crate) fn of(settings: &Settings, problems: Vec<String>) -> Result<Self, Vec<String>> {
        let mut reader = Reader { settings, problems };
        let api = reader.or("api", Address::Unix(DEFAULT_API.into()), |text| text.parse::<Address>());
        let admin = reader.or("admin", default_admin(), |text| text.parse::<Address>());
        let token = reader.optional("api_token", |text| text.parse::<Token>());
        if let Err(problem) = check_exposure(&api, settings.sidecar("api_token").is_some()) {
            reader.problem("api", problem);
        }
        let log = reader.or("log", LevelFilter::INFO, level);
        let proxy = reader.proxy();
        let site = reader.site();
        match site {
            Some(site) if reader.problems.is_empty() => {
                let has_store = settings.get(&store("url")).is_some();
                Ok(Self { api, token, admin, log, proxy, site, has_store })
            }
            _ => Err(reader.problems),
        }
    }

    /// Returns one line for people.
    pub(crate) fn summary(&self) -> String {
        let scopes: Vec<String> = self.site.clients.iter().map(|(scope, _)| scope.to_string()).collect();
        let store = match (self.has_store, self.site.layer.sessions()) {
            (false, _) => "no store",
            (true, None) => "a store by login",
            (true, Some(_)) => "a store by user",
        };
        let proxy = |proxy: &ProxySettings| format!("proxy at {} to {}, ", proxy.listen, proxy.upstream);
        let proxy = self.proxy.as_ref().map(proxy).unwrap_or_default();
        format!("{}, API at {}, admin at {}, {proxy}{store}", scopes.join(" and "), self.api, self.admin)
    }
}

/// Whether an API at this address is for this machine's programs alone.
pub(crate) fn check_exposure(api: &Address, has_token: bool) -> Result<(), String> {
    match api {
        Address::Unix(_) => Ok(()),
        Address::Tcp(address) if !address.ip().is_loopback() => {
            Err("not a loopback address: any program that reaches the API can log visitors in and out".to_owned())
        }
        Address::Tcp(_) if !has_token => Err(format!(
            "every user of this machine can connect to a port: set {} too, or use `unix:` and a path",
            sidecar("api_token")
        )),
        Address::Tcp(_) => Ok(()),
    }
}

/// Returns the keys that the settings hold, for a running layer.
pub(crate) fn keys(settings: &Settings) -> Result<KeyRing, ConfigError> {
    let scopes = settings.scopes();
    let name = scopes.first().map(|scope| of_scope(*scope, "cookie_keys")).unwrap_or_default();
    let secrets: Vec<&str> =
        scopes.iter().filter_map(|scope| settings.get(&of_scope(*scope, "client_secret"))).collect();
    let keys = settings.get(&name).ok_or_else(|| ConfigError::new("not set"));
    keys.and_then(|keys| KeyRing::parse_beside(keys, &secrets)).map_err(|error| error.in_variable(name))
}

pub(crate) fn default_admin() -> Address {
    Address::Tcp(([127, 0, 0, 1], DEFAULT_ADMIN_PORT).into())
}

fn default_listen() -> Address {
    Address::Tcp(([127, 0, 0, 1], DEFAULT_LISTEN_PORT).into())
}

/// Reads settings and collects the problems.
struct Reader<'a> {
    settings: &'a Settings,
    problems: Vec<String>,
}

impl Reader<'_> {
    /// Adds a problem with a setting of the sidecar.
    fn problem(&mut self, setting: &str, problem: impl fmt::Display) {
        let name = sidecar(setting);
        let place = self.settings.place(&name).unwrap_or(&name);
        self.problems.push(format!("{place}: {problem}"));
    }

    fn optional<T, E: fmt::Display>(&mut self, setting: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        match parse(self.settings.sidecar(setting)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(setting, error);
                None
            }
        }
    }

    fn or<T, E: fmt::Display>(&mut self, setting: &str, default: T, parse: impl FnOnce(&str) -> Result<T, E>) -> T {
        self.optional(setting, parse).unwrap_or(default)
    }

    fn proxy(&mut self) -> Option<ProxySettings> {
        let listen = self.or("listen", default_listen(), str::parse::<Address>);
        let workers = self.or("workers", std::thread::available_parallelism().map_or(1, NonZero::get), workers);
        let h2c = self.or("h2c", false, switch);
        let upstream = self.optional("upstream", str::parse::<Upstream>)?;
        if self.settings.scopes().len() > 1 {
            self.problem("upstream", "the reverse proxy serves one scope, and the settings of both are set");
        }
        if self.settings.get(&store("secret")).is_some() {
            self.problem("upstream", "the reverse proxy knows no user, and the store is by user");
        }
        Some(ProxySettings { upstream, listen, workers, h2c })
    }

    /// Returns the layer and the clients; `None` if a setting of a scope can't be used.
    fn site(&mut self) -> Option<Site> {
        let site = self.of_scopes();
        let cookies = self.cookies();
        let headers = self.or("headers", None, headers);
        let tcf_cookie = self.or("consent", false, consent);
        let mode = self.or("refresh_mode", RefreshMode::Concurrent, refresh_mode);
        let Site { layer, clients } = site?;
        let has_wait = |(scope, _): &(Scope, EuidClient)| self.settings.get(&of_scope(*scope, "max_wait_ms")).is_some();
        let layer = if clients.iter().any(has_wait) { layer } else { layer.max_wait(DEFAULT_MAX_WAIT) };
        let layer = layer.cookie(cookies).refresh_mode(mode);
        let layer = headers.into_iter().fold(layer, EuidLayer::headers);
        let layer = if tcf_cookie { layer.consent_from_tcf_cookie() } else { layer };
        Some(Site { layer, clients })
    }

    /// Returns the layer with its settings of scopes alone. tower-euid reports one wrong variable at a time, so this
    /// replaces a wrong one with a good one and tries again.
    fn of_scopes(&mut self) -> Option<Site> {
        let mut settings = self.settings.clone();
        let scopes = settings.scopes();
        let mut is_good = true;
        for _ in 0..=scopes.len() * MOST_VARIABLES {
            match site_of(&settings, &scopes) {
                Ok(site) => return is_good.then_some(site),
                Err(error) => {
                    self.problems.push(self.placed(&error));
                    is_good = false;
                    let wrong = error.variable()?;
                    if wrong.starts_with(&store("")) {
                        settings.replace(wrong, (wrong == store("url")).then(|| "memory:".to_owned()));
                    }
                    for scope in &scopes {
                        repair(&mut settings, *scope, wrong).ok()?;
                    }
                }
            }
        }
        None
    }

    /// Returns the text of an error, with the key in the file in place of the variable's name.
    fn placed(&self, error: &ConfigError) -> String {
        let text = error.to_string();
        let variable = error.variable().unwrap_or_default();
        match (self.settings.place(variable), text.strip_prefix(variable)) {
            (Some(place), Some(rest)) => format!("{place}{rest}"),
            _ => text,
        }
    }

    fn cookies(&mut self) -> CookieConfig {
        let insecure = self.or("cookie_insecure", false, switch);
        let mut cookies = if insecure { CookieConfig::insecure() } else { CookieConfig::default() };
        cookies = self.changed(cookies, "cookie_domain", CookieConfig::domain);
        cookies = self.changed(cookies, "cookie_same_site", |cookies, text| cookies.same_site(same_site(text)?));
        cookies = self.changed(cookies, "migrate_js_sdk_cookie", |cookies, text| match switch(text) {
            Ok(false) => Ok(cookies),
            Ok(true) => cookies.migrate_js_sdk_cookie(None),
            Err(_) => cookies.migrate_js_sdk_cookie(Some(text)),
        });
        let exposes = self.or("expose_token_to_scripts", false, switch);
        if exposes { cookies.expose_token_to_scripts() } else { cookies }
    }

    fn changed(
        &mut self,
        cookies: CookieConfig,
        setting: &str,
        change: impl FnOnce(CookieConfig, &str) -> Result<CookieConfig, ConfigError>,
    ) -> CookieConfig {
        let unchanged = cookies.clone();
        self.or(setting, unchanged, |text| change(cookies, text))
    }
}

fn site_of(settings: &Settings, scopes: &[Scope]) -> Result<Site, ConfigError> {
    let variable = |name: &str| settings.variable(name);
    let (layer, clients) = if let [scope] = scopes {
        let (client, layer) = tower_euid::from_variables(variable)?;
        (layer, vec![(*scope, client)])
    } else {
        let chosen = |request: &axum::http::request::Parts| Some(request.extensions.get::<Asked>()?.scope);
        let (clients, layer) = tower_euid::both_from_variables(variable, chosen)?;
        (layer, scopes.iter().map(|scope| (*scope, clients.of(*scope).clone())).collect())
    };
    let default = |name: &str| (name == store("timeout_ms")).then(|| DEFAULT_STORE_TIMEOUT_MS.into());
    let layer = tower_euid_redis::from_variables(layer, |name| variable(name).or_else(|| default(name)))?;
    Ok(Site { layer, clients })
}

/// Replaces the variable `wrong`, if it is of this scope, and sets what is missing, so that further variables are read.
fn repair(settings: &mut Settings, scope: Scope, wrong: &str) -> Result<(), ConfigError> {
    for (setting, _) in crate::settings::OF_SCOPE {
        let name = of_scope(scope, setting);
        let good = match setting {
            "operator_url" => Some("production".to_owned()),
            // The sandbox's own is refused beside a real operator.
            "api_key" => Some(euid_sandbox::Sandbox::default_api_key(scope) + "x"),
            "client_secret" => Some(CookieKey::generate()?.expose_base64().to_string()),
            // A layer for both scopes has its keys from the variable of EUID.
            "cookie_keys" if scope == Scope::default() || settings.scopes().len() == 1 => {
                Some(CookieKey::generate()?.expose_base64().to_string())
            }
            _ => None,
        };
        if name == wrong || (good.is_some() && settings.get(&name).is_none()) {
            settings.replace(&name, good);
        }
    }
    Ok(())
}

fn level(text: &str) -> Result<LevelFilter, &'static str> {
    text.parse().map_err(|_| "none of `off`, `error`, `warn`, `info`, `debug`")
}

fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("neither `1` nor `0`"),
    }
}

fn same_site(text: &str) -> Result<SameSite, ConfigError> {
    match text {
        "strict" => Ok(SameSite::Strict),
        "lax" => Ok(SameSite::Lax),
        "none" => Ok(SameSite::None),
        "partitioned" => Ok(SameSite::Partitioned),
        _ => Err(ConfigError::new("none of `strict`, `lax`, `none`, `partitioned`")),
    }
}

fn headers(text: &str) -> Result<Option<HeaderConfig>, &'static str> {
    match text {
        "off" => Ok(None),
        "apps" => Ok(Some(HeaderConfig::default())),
        "web_views" => Ok(Some(HeaderConfig::default().web_views())),
        _ => Err("none of `off`, `apps`, `web_views`"),
    }
}

fn consent(text: &str) -> Result<bool, &'static str> {
    match text {
        "granted" => Ok(false),
        "tcf_cookie" => Ok(true),
        _ => Err("neither `granted` nor `tcf_cookie`"),
    }
}

fn workers(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|count| (1..=MOST_WORKERS).contains(count)).ok_or("not a number from 1 to 256")
}

fn refresh_mode(text: &str) -> Result<RefreshMode, &'static str> {
    match text {
        "concurrent" => Ok(RefreshMode::Concurrent),
        "blocking" => Ok(RefreshMode::Blocking),
        _ => Err("neither `concurrent` nor `blocking`"),
    }
}

const DEFAULT_API: &str = "/run/euid-sidecar/api.sock";
const DEFAULT_ADMIN_PORT: u16 = 9464;
const DEFAULT_LISTEN_PORT: u16 = 8079;
const MOST_WORKERS: usize = 256;
/// A client of the API waits 50 ms for its answer.
const DEFAULT_MAX_WAIT: Duration = Duration::from_millis(30);
/// A page reads the store once before it waits for a refresh.
const DEFAULT_STORE_TIMEOUT_MS: &str = "15";
const SHORTEST_TOKEN: usize = 16;
/// More variables than a scope has, with those of the store.
const MOST_VARIABLES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    const STORE_SECRET: &str = "lkuswubqGUe5OjjIUM+NkT+kSgUi83lIpuT/tsQk6aw=";
    const SECRET: &str = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
    const KEYS: &str = "gHQfqxmZxOfkd2oHczx9ZwNYfSQtoMFhSrbxXmG0eA4=";

    fn good(scope: Scope) -> Vec<(String, String)> {
        let api_key = format!("{scope}-C-T-124-key");
        let settings = [
            ("operator_url", "http://127.0.0.1:9"),
            ("api_key", &api_key),
            ("client_secret", SECRET),
            ("cookie_keys", KEYS),
        ];
        settings.map(|(setting, value)| (of_scope(scope, setting), value.to_owned())).into()
    }

    fn problems_of(changes: &[(&str, &str)], toml: &str, scopes: &[Scope]) -> Vec<String> {
        let mut variables: Vec<_> = scopes.iter().copied().flat_map(good).collect();
        variables.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        variables.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let variables = variables.into_iter().map(|(name, value)| (name, value.into())).collect();
        let mut problems = Vec::new();
        let settings = Settings::of(variables, toml, &mut problems);
        Config::of(&settings, problems).err().unwrap_or_default()
    }

    #[test]
    fn settings_of_the_operator_and_keys_are_enough_in_one_scope_and_in_both() {
        for scopes in [&[Scope::Euid][..], &[Scope::Uid2], &Scope::ALL] {
            assert_eq!(problems_of(&[], "", scopes), [""; 0]);
        }
    }

    #[test]
    fn every_setting_that_is_wrong_is_named_at_once_and_shows_no_value() {
        let changes = [
            ("EUID_OPERATOR_URL", "hunter2"),
            ("EUID_API_KEY", "UID2-C-T-124-hunter2"),
            ("EUID_CLIENT_SECRET", "hunter2"),
            ("EUID_COOKIE_KEYS", "hunter2"),
            ("EUID_OPTOUT_CHECK", "hunter2"),
            ("EUID_MAX_WAIT_MS", "hunter2"),
            ("EUID_EXPLAIN", "hunter2"),
            ("EUID_SIDECAR_ADMIN", "hunter2"),
            ("EUID_SIDECAR_API", "hunter2"),
            ("EUID_SIDECAR_API_TOKEN", "hunter2"),
            ("EUID_SIDECAR_CONSENT", "hunter2"),
            ("EUID_SIDECAR_COOKIE_DOMAIN", "a domain"),
            ("EUID_SIDECAR_COOKIE_INSECURE", "hunter2"),
            ("EUID_SIDECAR_COOKIE_SAME_SITE", "hunter2"),
            ("EUID_SIDECAR_EXPOSE_TOKEN_TO_SCRIPTS", "hunter2"),
            ("EUID_SIDECAR_H2C", "hunter2"),
            ("EUID_SIDECAR_HEADERS", "hunter2"),
            ("EUID_SIDECAR_LISTEN", "hunter2"),
            ("EUID_SIDECAR_LOG", "hunter2"),
            ("EUID_SIDECAR_MIGRATE_JS_SDK_COOKIE", "a domain"),
            ("EUID_SIDECAR_REFRESH_MODE", "hunter2"),
            ("EUID_SIDECAR_UPSTREAM", "http://hunter2"),
            ("EUID_SIDECAR_WORKERS", "0"),
            ("EUID_STORE_MODE", "hunter2"),
            ("EUID_STORE_SECRET", "hunter2"),
            ("EUID_STORE_TIMEOUT_MS", "hunter2"),
            ("EUID_STORE_URL", "redis://:hunter2@localhost:port"),
        ];
        let problems = problems_of(&changes, "", &[Scope::Euid]);
        for (name, _) in changes {
            assert_eq!(
                problems.iter().filter(|problem| problem.starts_with(&format!("{name}: "))).count(),
                1,
                "{name}: {problems:#?}"
            );
        }
        assert_eq!(problems.len(), changes.len(), "{problems:#?}");
        assert!(!problems.concat().contains("hunter2"), "{problems:#?}");
    }

    #[test]
    fn missing_settings_are_one_problem_beside_those_that_are_wrong() {
        let problems = problems_of(&[("EUID_OPERATOR_URL", "x"), ("EUID_COOKIE_KEYS", "x")], "", &[]);
        assert_eq!(problems.len(), 3, "{problems:#?}");
        assert_eq!(problems[0], "not set: EUID_API_KEY, EUID_CLIENT_SECRET");
    }

    #[test]
    fn problems_of_both_scopes_are_found_at_once() {
        let changes = [("EUID_API_KEY", "x y"), ("UID2_CLIENT_SECRET", "x"), ("UID2_COOKIE_KEYS", "x")];
        let problems = problems_of(&changes, "", &Scope::ALL);
        for (name, _) in changes {
            assert!(problems.iter().any(|problem| problem.starts_with(name)), "{name}: {problems:#?}");
        }
        assert_eq!(problems.len(), changes.len(), "{problems:#?}");
    }

    #[test]
    fn problem_of_a_setting_in_the_file_names_its_key() {
        let toml = "[euid]\noptout_check = 'x'\n[sidecar]\nlog = 'x'";
        let problems = problems_of(&[], toml, &[Scope::Euid]);
        assert!(problems.iter().any(|problem| problem.starts_with("euid.optout_check: ")), "{problems:#?}");
        assert!(problems.iter().any(|problem| problem.starts_with("sidecar.log: ")), "{problems:#?}");
    }

    #[test]
    fn proxy_serves_one_scope_and_no_store_by_user() {
        let upstream = &[("EUID_SIDECAR_UPSTREAM", "127.0.0.1:3000")];
        assert_eq!(problems_of(upstream, "", &[Scope::Uid2]), [""; 0]);
        let problems = problems_of(upstream, "", &Scope::ALL);
        assert!(matches!(&*problems, [problem] if problem.starts_with("EUID_SIDECAR_UPSTREAM: ")), "{problems:?}");
        let by_user = &[upstream[0], ("EUID_STORE_URL", "memory:"), ("EUID_STORE_SECRET", KEYS)];
        let problems = problems_of(by_user, "", &[Scope::Euid]);
        assert!(problems.iter().any(|problem| problem.starts_with("EUID_SIDECAR_UPSTREAM: ")), "{problems:?}");
    }

    #[test]
    fn store_is_the_one_of_the_settings_and_check_names_its_kind() {
        for scopes in [&[Scope::Euid][..], &[Scope::Uid2], &Scope::ALL] {
            for (store, kind) in [
                ("", "no store"),
                ("[store]\nurl = 'memory:'", "a store by login"),
                (&format!("[store]\nurl = 'redis://localhost:1'\nsecret = '{STORE_SECRET}'"), "a store by user"),
                ("[store]\nurl = 'rediss://localhost:1'\nmode = 'read_only'\ntimeout_ms = 9", "a store by login"),
            ] {
                let variables = scopes.iter().copied().flat_map(good).map(|(name, value)| (name, value.into()));
                let settings = Settings::of(variables.collect(), store, &mut Vec::new());
                let config = Config::of(&settings, Vec::new()).unwrap();
                assert!(config.summary().ends_with(kind), "{}", config.summary());
                let (layer, timeout) = (format!("{:?}", config.site.layer), if store.contains("= 9") { 9 } else { 15 });
                assert_eq!(layer.contains(&format!(" timeout: {timeout}ms")), !store.is_empty(), "{layer}");
            }
        }
        let shared = problems_of(&[], &format!("[store]\nurl = 'memory:'\nsecret = '{KEYS}'"), &[Scope::Euid]);
        assert!(shared.len() == 1 && shared[0].starts_with("store.secret: it is a cookie key"), "{shared:?}");
        let secret = problems_of(&[("EUID_STORE_SECRET", STORE_SECRET)], "", &[Scope::Euid]);
        assert_eq!(secret, ["EUID_STORE_URL: there is a secret for a store, and no store"]);
        for (variables, toml, name) in [
            (&[("EUID_STORE_SECRET", "")][..], "[store]\nurl = 'memory:'", "EUID_STORE_SECRET: empty"),
            (&[], "[store]\nurl = 'memory:'\nsecret_file = '/dev/null'", "store.secret: empty"),
        ] {
            let problems = problems_of(variables, toml, &[Scope::Euid]);
            assert!(problems.len() == 1 && problems[0].starts_with(name), "{problems:?}");
        }
        let user = problems_of(
            &[],
            &format!("[store]\nurl = 'x'\nsecret = '{STORE_SECRET}'\nmode = 'read_only'"),
            &[Scope::Euid],
        );
        assert!(user.iter().any(|problem| problem.starts_with("store.url: ")), "{user:?}");
        assert!(user.iter().any(|problem| problem.starts_with("store.mode: ")), "{user:?}");
        assert_eq!(user.len(), 2, "{user:?}");
    }

    #[test]
    fn api_over_tcp_needs_a_token_and_loopback() {
        let token = ("EUID_SIDECAR_API_TOKEN", "0123456789abcdef");
        for (changes, is_good) in [
            (&[("EUID_SIDECAR_API", "127.0.0.1:8080")][..], false),
            (&[("EUID_SIDECAR_API", "127.0.0.1:8080"), token], true),
            (&[("EUID_SIDECAR_API", "[::1]:8080"), token], true),
            (&[("EUID_SIDECAR_API", "0.0.0.0:8080"), token], false),
            (&[("EUID_SIDECAR_API", "192.168.0.1:8080"), token], false),
            (&[("EUID_SIDECAR_API", "unix:/run/api.sock")], true),
        ] {
            let problems = problems_of(changes, "", &[Scope::Euid]);
            assert_eq!(problems.is_empty(), is_good, "{changes:?} {problems:?}");
            assert!(problems.iter().all(|problem| problem.starts_with("EUID_SIDECAR_API: ")), "{problems:?}");
        }
    }

    #[test]
    fn token_is_compared_as_a_whole_and_not_shown() {
        let token: Token = "0123456789abcdef".parse().unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for other in [&b""[..], b"0123456789abcdeF", b"0123456789abcde", b"0123456789abcdef0"] {
            assert!(!token.is(other));
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
