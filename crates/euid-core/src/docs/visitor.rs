// The set-up of the engine's examples, as one expression: an engine, an identity, the headers of a request by a visitor
// who has logged in with it as the user 17, and the engine's key. The identity is due for a refresh after 10 s, its token
// expires after 20 s, its refresh token after 30 s.
{
    use euid_core::clock::UnixMillis;
    use euid_core::engine::{Change, Engine, NewLogin, Pending};
    use euid_core::identity::{Identity, IdentityTimes};
    use http::header::{COOKIE, SET_COOKIE};

    let at = UnixMillis::from_millis;
    let times = IdentityTimes { refresh_from: at(10_000), identity_expires: at(20_000), refresh_expires: at(30_000) };
    let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    let key = euid_core::CookieKey::generate()?;
    let engine = Engine::new(key.clone().into());
    let login = NewLogin { identity: identity.clone().into(), subject: Some(b"17"[..].into()) };
    let mut response = http::HeaderMap::new();
    engine.finish(
        Pending::default(),
        Some(&Change::Begin(login.into())),
        http::StatusCode::OK,
        &mut response,
        || at(0),
    );
    let mut request = http::HeaderMap::new();
    for cookie in response.get_all(SET_COOKIE) {
        let cookie = cookie.to_str()?.split(';').next().unwrap_or_default();
        request.append(COOKIE, cookie.parse()?);
    }
    (engine, identity, request, key)
}
