//! Names and attributes of the cookies. A combination that browsers refuse can't be built.

use std::borrow::Cow;

use crate::error::{ConfigError, Setting};
use crate::scope::Scope;

/// Names and attributes of the cookies.
///
/// | | identity | anchor | record of an opt-out |
/// | --- | --- | --- | --- |
/// | [`default`](Self::default) | `__Host-euid.TAG` | `__Host-euid-login` | `__Host-euid-optout.TAG` |
/// | [`domain`](Self::domain) | `__Secure-euid.TAG` | `__Secure-euid-login` | `__Secure-euid-optout.TAG` |
/// | [`insecure`](Self::insecure) | `euid.TAG` | `euid-login` | `euid-optout.TAG` |
///
/// These are the names in the scope EUID; in UID2 they have `uid2` where these have `euid`.
///
/// The *anchor* names the login that counts. `TAG` is four characters of base64url, which differ from login to login, or
/// `sdk` for an identity that was [migrated](Self::migrate_js_sdk_cookie) from the JS SDK's cookie. So a late response
/// of one login changes no cookie of another. Two logins of a browser have the same tag once in 2^24.
///
/// All are `HttpOnly; Path=/`, and unless set otherwise `Secure; SameSite=Lax`.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::{CookieConfig, SameSite, Scope};
///
/// let config = CookieConfig::default();
/// assert_eq!(config.identity_prefix(Scope::Euid), "__Host-euid.");
/// assert_eq!(config.anchor_name(Scope::Uid2), "__Host-uid2-login");
///
/// // One login for www.example.com and shop.example.com, by which other sites may frame us:
/// let config = CookieConfig::default().domain("example.com")?.same_site(SameSite::None)?;
/// assert_eq!(config.identity_prefix(Scope::Euid), "__Secure-euid.");
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieConfig {
    insecure: bool,
    domain: Option<Box<str>>,
    same_site: SameSite,
    expose_token: bool,
    migrate: Option<JsSdkCookie>,
}

/// The cookie of EUID's JavaScript SDK, by the `cookieDomain` with which the SDK set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsSdkCookie {
    /// The `Domain` attribute, if any.
    pub domain: Option<Box<str>>,
}

/// The attribute `SameSite`: which requests from other sites bring the cookies.
///
/// More may be added, as browsers invent them.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::{CookieConfig, SameSite};
///
/// // For a site that other sites show in a frame:
/// let cookies = CookieConfig::default().same_site(SameSite::Partitioned)?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// No request from another site, not even that of a visitor who follows a link here: the first page of a visit sees
    /// [`Euid::Absent`](crate::Euid::Absent).
    Strict,
    /// The request of a visitor who follows a link here.
    #[default]
    Lax,
    /// All requests, including those from a frame in another site. Needs `Secure`.
    None,
    /// As [`None`](Self::None), but the browser keeps separate cookies for each site that frames this one
    /// (`SameSite=None; Partitioned`): a login made there counts there only.
    Partitioned,
}

/// State in headers, for apps and TV sets, beside the cookies of browsers.
///
/// | | identity | login that counts | record of an opt-out |
/// | --- | --- | --- | --- |
/// | EUID | `Euid-Identity-TAG` | `Euid-Login` | `Euid-Opt-Out-TAG` |
/// | UID2 | `Uid2-Identity-TAG` | `Uid2-Login` | `Uid2-Opt-Out-TAG` |
///
/// `TAG` is six hexadecimal digits, which differ from login to login. A value has at most 4096 bytes; that of a usual
/// identity has 771.
///
/// The client keeps every response header whose name begins with `Euid-` or `Uid2-` under its name, deletes it if its
/// value is empty, and sends all of them with every request. It always sends `Euid-Login`, with an empty value while it has
/// none: that says that it wants headers. It saves them before it reports a login, an opt-out or a logout as done:
/// otherwise a restart brings the previous state back.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::{CookieKey, HeaderConfig, engine::Engine};
///
/// let engine = Engine::new(CookieKey::generate()?.into()).with_headers(HeaderConfig::default());
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderConfig {
    web_views: bool,
}

impl HeaderConfig {
    /// Also takes and writes headers for requests that a browser's script makes, such as one in an app's web view. Without
    /// it a request with `Sec-Fetch-Site` is one from a browser, and its state is in cookies: otherwise any script of a page
    /// could ask for the sealed pair and keep it.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieKey, HeaderConfig, engine::Engine};
    /// # let engine = Engine::new(CookieKey::generate()?.into());
    /// // All pages of this site are shown in the app only.
    /// let engine = engine.with_headers(HeaderConfig::default().web_views());
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn web_views(self) -> Self {
        Self { web_views: true }
    }

    /// Whether requests from scripts get headers, too.
    pub(crate) const fn has_web_views(self) -> bool {
        self.web_views
    }
}

impl CookieConfig {
    /// Cookies without `Secure` and prefix, for plain http on a host other than this machine.
    /// Anyone on the network can take them. Chromium, Firefox and curl do not need this for `http://localhost`
    /// and `http://127.0.0.1`, where they accept secure cookies; Safari does not accept them, and needs it.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieConfig, Scope};
    /// let config = CookieConfig::insecure();
    /// assert_eq!(config.identity_prefix(Scope::Euid), "euid."); // browsers take `__Host-…` with `Secure` only
    /// ```
    #[must_use]
    pub const fn insecure() -> Self {
        Self { insecure: true, domain: None, same_site: SameSite::Lax, expose_token: false, migrate: None }
    }

    /// Cookies for `domain` and all its sub-domains, for a site that spreads over several. Browsers then send
    /// the cookies to each of them, and each can replace them, which `__Host-` forbids: trust each as much
    /// as this one.
    ///
    /// Another host of the domain can put the cookies of its own visitor into the browser, and pages then use that
    /// visitor's advertising identity. The hook `EuidLayer::subject` prevents this for logins that name their user. A
    /// layer without it logs a warning when it is first applied.
    ///
    /// The cookies get other names, so no visitor is logged in any more; the old cookies expire by
    /// themselves. From one domain to another the names stay: browsers then send both cookies, no logout
    /// removes the older ones, and a visitor who logs in again is [`Absent`](crate::Euid::Absent) until they
    /// expire. So choose the domain once.
    ///
    /// # Errors
    ///
    /// If it is not the name of a domain with a dot in it: browsers keep no cookie for a single label or
    /// for an address. Public suffixes, such as `co.uk`, are not refused.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::CookieConfig;
    /// for wrong in ["https://example.com", "example.com:443", ".example.com", "localhost", "192.0.2.1"] {
    ///     assert!(CookieConfig::default().domain(wrong).is_err(), "{wrong}");
    /// }
    /// ```
    pub fn domain(self, domain: &str) -> Result<Self, ConfigError> {
        Ok(Self { domain: Some(checked(domain)?), ..self })
    }

    /// Which requests from other sites bring the cookies. Default: [`SameSite::Lax`].
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieConfig, SameSite};
    /// assert!(CookieConfig::default().same_site(SameSite::None).is_ok());
    /// assert!(CookieConfig::insecure().same_site(SameSite::None).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// For [`SameSite::None`] and [`SameSite::Partitioned`] on [`insecure`](Self::insecure) cookies:
    /// browsers keep no such cookie without `Secure`.
    pub fn same_site(self, same_site: SameSite) -> Result<Self, ConfigError> {
        if self.insecure && matches!(same_site, SameSite::None | SameSite::Partitioned) {
            return Err(refused("cookies for other sites' frames (SameSite=None) need Secure"));
        }
        Ok(Self { same_site, ..self })
    }

    /// Takes over the identities in the cookie of EUID's JavaScript SDK: `__euid`, percent-encoded JSON (in the scope UID2:
    /// `__uid_2`). An identity of the other scope is ignored. If a request
    /// brings it, and neither an anchor nor an identity that was taken over before, the first response that may write
    /// cookies seals its identity and deletes the cookie. A login, a logout and an opt-out delete it too. If the SDK
    /// has noted an opt-out there, pages see that until it expires.
    ///
    /// `cookie_domain` is the SDK's `cookieDomain`, if it has one: a cookie can only be deleted with the domain
    /// that it was set with. A cookie that stays keeps its refresh token readable for scripts. So give the right
    /// domain, and remove the SDK from the pages before you turn this on. The SDK's `cookiePath` must be `/`,
    /// its default. No server can see what the SDK keeps in `localStorage`.
    ///
    /// No handler returns such an identity, so no anchor names it: it counts only while the browser sends none. A login
    /// replaces it. A logout leaves an anchor that names no login, for 400 days. So a late response that takes an identity
    /// over neither undoes a logout nor replaces another login. Migrated visitors keep their identity only while the site
    /// migrates, or until they log in again.
    ///
    /// The cookie names no user: with the hook `EuidLayer::subject` the identity counts for the first user who is signed
    /// in, and from then on for that user only.
    ///
    /// A cookie that scripts can write proves nothing about its sender. It brings an advertising identity, not a
    /// login to the site. Of several such cookies in a request only the first counts. It is ignored if its value is
    /// longer than 4096 bytes, or if its tokens are not base64 or longer than an identity cookie can hold. Its
    /// refreshes use at most a quarter of `EuidLayer::max_concurrent_refreshes`, and the breaker does not count their
    /// outcome, so forged cookies do not stop the refreshes of others.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::CookieConfig;
    /// // On the pages it said: `cookieDomain: "example.com"`.
    /// let cookies = CookieConfig::default().migrate_js_sdk_cookie(Some("example.com"))?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`domain`](Self::domain).
    pub fn migrate_js_sdk_cookie(self, cookie_domain: Option<&str>) -> Result<Self, ConfigError> {
        let domain = cookie_domain.map(checked).transpose()?;
        Ok(Self { migrate: Some(JsSdkCookie { domain }), ..self })
    }

    /// Hands the advertising token to scripts in the browser, in the cookie `__euid_advertising_token`
    /// (in the scope UID2: `__uid2_advertising_token`), from which Prebid's module takes it. *Every* script on the page
    /// can read it, on purpose; the refresh token and the response key stay sealed.
    ///
    /// The cookie is set, replaced and cleared with the identity. If it does not match, the next page
    /// corrects it. It expires with the token, at `identity_expires`, or earlier. The promises for tokens in
    /// handlers do not hold for this cookie: a late response can bring the token of an ended login back until the
    /// visitor's next page. A token with characters that no cookie can hold is not handed over.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::CookieConfig;
    /// // For a page with Prebid, and one login for all sub-domains:
    /// let cookies = CookieConfig::default().domain("example.com")?.expose_token_to_scripts();
    /// # Ok::<_, tower_euid::error::ConfigError>(())
    /// ```
    #[must_use]
    pub fn expose_token_to_scripts(self) -> Self {
        Self { expose_token: true, ..self }
    }

    /// The beginning of the name of the cookie that holds the sealed identity. The tag of its login follows.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieConfig, Scope};
    /// assert_eq!(CookieConfig::default().identity_prefix(Scope::Euid), "__Host-euid.");
    /// ```
    #[must_use]
    pub fn identity_prefix(&self, scope: Scope) -> String {
        self.name(scope, ".")
    }

    /// The name of the cookie that names the login that counts: the *anchor*.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieConfig, Scope};
    /// assert_eq!(CookieConfig::default().anchor_name(Scope::Euid), "__Host-euid-login");
    /// ```
    #[must_use]
    pub fn anchor_name(&self, scope: Scope) -> String {
        self.name(scope, "-login")
    }

    /// The beginning of the name of the cookie that records an opt-out. The tag of its login follows.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieConfig, Scope};
    /// assert_eq!(CookieConfig::default().opt_out_prefix(Scope::Euid), "__Host-euid-optout.");
    /// ```
    #[must_use]
    pub fn opt_out_prefix(&self, scope: Scope) -> String {
        self.name(scope, "-optout.")
    }

    fn name(&self, scope: Scope, end: &str) -> String {
        let prefix = match self {
            Self { insecure: true, .. } => "",
            Self { domain: Some(_), .. } => "__Secure-",
            Self { domain: None, .. } => "__Host-",
        };
        format!("{prefix}{}{end}", scope.literals().stem)
    }

    /// Whether the cookies are for a [`domain`](Self::domain) and its sub-domains.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::CookieConfig;
    /// assert!(!CookieConfig::default().has_domain());
    /// assert!(CookieConfig::default().domain("example.com")?.has_domain());
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn has_domain(&self) -> bool {
        self.domain.is_some()
    }

    /// Whether the token is handed to scripts.
    pub(crate) const fn exposes_token(&self) -> bool {
        self.expose_token
    }

    /// Whether the site reads or writes one of the cookies that scripts know.
    pub(crate) const fn knows_script_cookies(&self) -> bool {
        self.expose_token || self.migrate.is_some()
    }

    /// The cookie of the JavaScript SDK, if its identities are taken over.
    pub(crate) const fn js_sdk_cookie(&self) -> Option<&JsSdkCookie> {
        self.migrate.as_ref()
    }

    /// The attributes that overwrite a cookie which a script has set for `domain`.
    pub(crate) fn as_scripts_set_it(&self, domain: Option<Box<str>>) -> Self {
        Self { insecure: self.insecure, domain, ..Self::default() }
    }

    /// Whether the cookies are `Secure`.
    pub(crate) const fn is_secure(&self) -> bool {
        !self.insecure
    }

    /// The value of `Domain`, if the cookies have one.
    pub(crate) fn domain_attribute(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// The value of `SameSite`.
    pub(crate) const fn same_site_attribute(&self) -> SameSite {
        self.same_site
    }
}

fn refused(what: impl Into<Cow<'static, str>>) -> ConfigError {
    ConfigError::new(what).about(Setting::Cookies)
}

/// `domain` in lower case, if browsers keep cookies for it.
fn checked(domain: &str) -> Result<Box<str>, ConfigError> {
    let is_label = |label: &str| {
        let fits = (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
        fits && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_address = domain.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if domain.len() > 253 || !domain.contains('.') || is_address || !domain.split('.').all(is_label) {
        return Err(refused(format!("{domain:?} is no domain that cookies can be for, as example.com is")));
    }
    Ok(domain.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_domain_must_be_a_name_with_a_dot() {
        let (label, name) = (format!("{}.com", "a".repeat(63)), format!("{}d", "abc.".repeat(63)));
        for right in
            ["example.com", "Example.COM", "a.b.co.uk", "xn--bcher-kva.example", "1und1.de", "127.0.0.x", &label, &name]
        {
            let config = CookieConfig::default().domain(right).unwrap();
            assert_eq!(config.domain_attribute(), Some(right.to_ascii_lowercase().as_str()));
        }
        let long = format!("{}.com", "a".repeat(64));
        let longer = format!("{}de", "abc.".repeat(63));
        for wrong in [
            "",
            ".",
            "com",
            "localhost",
            "example.com.",
            ".example.com",
            "a..b",
            "-a.com",
            "a-.com",
            "a b.com",
            "a_b.com",
            "bücher.example",
            "example.com/",
            "example.com:80",
            "http://example.com",
            "127.0.0.1",
            "[::1]",
            "a.com; b",
            &long,
            &longer,
        ] {
            let error = CookieConfig::default().domain(wrong).unwrap_err().to_string();
            assert!(error.contains("is no domain"), "{wrong}: {error}");
        }
    }

    #[test]
    fn cookies_for_cross_site_frames_must_be_secure() {
        for same_site in [SameSite::None, SameSite::Partitioned] {
            assert!(CookieConfig::default().same_site(same_site).is_ok());
            let error = CookieConfig::insecure().same_site(same_site).unwrap_err().to_string();
            assert!(error.contains("need Secure"), "{error}");
        }
        assert!(CookieConfig::insecure().same_site(SameSite::Strict).is_ok());
    }
}
