//! The visitors of a site under test.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use cookie::{Cookie, time};
use euid_core::clock::{Clock, UnixMillis};
use euid_core::engine::{Change, Finish, NewLogin, RequestContext, Site, Step};
use euid_core::{ConfigError, Dii, Identity};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde::Deserialize;
use tower::Service;

use super::{Sandbox, VisitorState, random};

impl Sandbox {
    /// Makes a visitor of a site behind `layer`: a person of their own, and a browser with the cookies of a past login
    /// that fits this state. The sandbox issued the identity, so it can refresh it, and the identity is sealed as that
    /// layer seals: pass a clone of the site's own layer, with all its settings. A host without tower passes its own
    /// [`Site`]: its engine and its clock. If the layer serves both scopes, the cookies are of the sandbox's scope.
    ///
    /// ```
    /// use tower_euid::CookieConfig;
    /// use euid_sandbox::{Sandbox, VisitorState};
    ///
    /// let sandbox = Sandbox::builder().build()?;
    /// let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let layer = layer.cookie(CookieConfig::insecure());
    /// let visitor = sandbox.visitor(&layer, VisitorState::Due)?;
    /// assert!(visitor.cookie_header().starts_with("euid-login="));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the clocks of layer and sandbox show different times, if the layer does not serve the sandbox's scope, if the
    /// sandbox's [`Lifetimes`](super::Lifetimes) leave no time for this state, or if the operating system gives no random
    /// bytes.
    pub fn visitor(&self, layer: &impl Site, state: VisitorState) -> Result<Visitor, ConfigError> {
        self.mint(layer, state, None)
    }

    /// As [`visitor`](Self::visitor), logged in by the user that `EuidLayer::subject` knows by this
    /// `subject`.
    ///
    /// ```
    /// # use tower::{Layer, service_fn};
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let layer = layer.subject(|request| request.headers.get("x-user").cloned()); // as a test signs in
    /// let app = layer.layer(page);
    /// for (user, state) in [("17", "active"), ("18", "absent")] {
    ///     let mut visitor = sandbox.bound_visitor(&layer, VisitorState::Fresh, "17")?;
    ///     let request = http::Request::builder().header("x-user", user).body(())?;
    ///     assert_eq!(visitor.send(&app, request).await?.into_body(), state);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`visitor`](Self::visitor).
    pub fn bound_visitor(
        &self,
        layer: &impl Site,
        state: VisitorState,
        subject: impl AsRef<[u8]>,
    ) -> Result<Visitor, ConfigError> {
        self.mint(layer, state, Some(subject.as_ref()))
    }

    fn mint(&self, site: &impl Site, state: VisitorState, subject: Option<&[u8]>) -> Result<Visitor, ConfigError> {
        let (now, sites) = (self.0.clock.now(), site.now());
        if now.saturating_since(sites).max(sites.saturating_since(now)) > SAME_CLOCK {
            return Err(ConfigError::new("the layer goes by another clock: give it `.clock(sandbox.clock())`"));
        }
        if let Some(scope) = site.engine().scope().filter(|scope| *scope != self.scope()) {
            return Err(ConfigError::new(format!("the layer serves {scope}, and the sandbox plays {}", self.scope())));
        }
        let number = u128::from_ne_bytes(random().map_err(unminted)?);
        let dii = Dii::email(&format!("visitor-{number}@example.com")).map_err(unminted)?;
        let mut visitor = Visitor { dii, cookies: BTreeMap::new() };
        let change = match state.age(&self.0.operator.lifetimes, site.engine().expiry_margin())? {
            Some(age) => {
                let identity = Arc::new(self.issue(dii, now.saturating_sub(age))?);
                Change::Begin(Arc::new(NewLogin { identity, subject: subject.map(Into::into) }))
            }
            None if state == VisitorState::Absent => return Ok(visitor),
            None => {
                self.opt_out(dii);
                let opt_out = Change::opt_out();
                subject.iter().fold(opt_out, |opt_out, subject| opt_out.subject(subject))
            }
        };
        let context = RequestContext { scope: Some(self.scope()), ..RequestContext::UNRESTRICTED };
        let Step::Ready(decision) = site.engine().begin(&Method::POST, &HeaderMap::new(), &context, || now) else {
            return Err(unminted("an identity is due before the login"));
        };
        let (_, pending) = decision.start();
        let mut headers = HeaderMap::new();
        let report = match site.engine().finish(pending, Some(&change), StatusCode::OK, &mut headers, || now) {
            Finish::Done(report) => report,
            // As if the site's store were down: the visitor brings a sealed identity, which every node takes.
            Finish::Save(save) => site.engine().saved(save, &mut headers, || now),
        };
        if let Some(reason) = report.unwritten {
            return Err(unminted(format_args!("{reason:?}")));
        }
        visitor.keep_cookies(&headers);
        Ok(visitor)
    }

    /// The identity that generate would have returned at `then`.
    fn issue(&self, dii: Dii, then: UnixMillis) -> Result<Identity, ConfigError> {
        let json = self.0.operator.issue(dii.into(), then, then).map_err(unminted)?;
        let answer: Success = serde_json::from_slice(&json).map_err(unminted)?;
        Ok(answer.body)
    }
}

/// The JSON of an issued identity.
#[derive(Deserialize)]
struct Success {
    body: Identity,
}

/// A person with a browser, which sends requests with its cookies and keeps the cookies of the responses. From
/// [`Sandbox::visitor`].
///
/// It knows names, values and `Max-Age=0`; it ignores paths, domains and the time.
///
/// ```
/// # use tower::{Layer, service_fn};
/// use euid_sandbox::{Sandbox, VisitorState};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
/// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
/// # let sandbox = Sandbox::builder().build()?;
/// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
/// # let app = layer.layer(page);
/// let mut visitor = sandbox.visitor(&layer, VisitorState::Due)?;
/// let mut other_tab = visitor.clone(); // with the cookies of now
/// visitor.send(&app, http::Request::new(())).await?;
/// other_tab.send(&app, http::Request::new(())).await?;
/// assert_eq!(sandbox.refresh_calls(), 1); // the answer is remembered for a while
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Visitor {
    dii: Dii,
    cookies: BTreeMap<String, String>,
}

impl Visitor {
    /// The person, as the operator knows them; for [`Sandbox::opt_out`].
    ///
    /// ```
    /// # use tower::{Layer, service_fn};
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// # let app = layer.layer(page);
    /// let mut visitor = sandbox.visitor(&layer, VisitorState::Due)?;
    /// sandbox.opt_out(visitor.dii());
    /// assert_eq!(visitor.send(&app, http::Request::new(())).await?.into_body(), "opted_out");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn dii(&self) -> Dii {
        self.dii
    }

    /// Sends a request with the visitor's cookies to `app`, a router or any other service, and keeps
    /// the cookies of its response.
    ///
    /// ```
    /// # #[cfg(feature = "axum")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// use axum::{Router, body::Body, http::Request, routing::get};
    /// use tower_euid::Euid;
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    ///
    /// let app: Router = Router::new().route("/", get(|euid: Euid| async move { euid.state() })).layer(layer.clone());
    /// let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
    /// let response = visitor.send(&app, Request::get("/").body(Body::empty())?).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the service.
    pub async fn send<S, B, R>(&mut self, app: &S, mut request: Request<B>) -> Result<Response<R>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
    {
        if let Ok(cookies) = HeaderValue::try_from(self.cookie_header())
            && !cookies.is_empty()
        {
            request.headers_mut().append(COOKIE, cookies);
        }
        let mut app = app.clone();
        poll_fn(|context| app.poll_ready(context)).await?;
        let response = app.call(request).await?;
        self.keep_cookies(response.headers());
        Ok(response)
    }

    /// The value of the `Cookie` header of the visitor's next request, for one that is not sent with
    /// [`send`](Self::send). Empty if there are no cookies.
    ///
    /// ```
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
    /// assert!(visitor.cookie_header().starts_with("__Host-euid-login="));
    /// assert!(visitor.cookie_header().contains("; __Host-euid."));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn cookie_header(&self) -> String {
        let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    /// Keeps the cookies that a response sets, and drops those that it removes.
    ///
    /// ```
    /// # use http::HeaderMap;
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let mut visitor = sandbox.visitor(&layer, VisitorState::Absent)?;
    /// let mut response = HeaderMap::new();
    /// response.append("set-cookie", "theme=dark; Path=/".parse()?);
    /// visitor.keep_cookies(&response);
    /// assert_eq!(visitor.cookie_header(), "theme=dark");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep_cookies(&mut self, response: &HeaderMap) {
        let lines = response.get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok());
        for cookie in lines.filter_map(|line| Cookie::parse(line).ok()) {
            if cookie.max_age().is_some_and(|max_age| max_age <= time::Duration::ZERO) {
                self.cookies.remove(cookie.name());
            } else {
                self.cookies.insert(cookie.name().to_owned(), cookie.value().to_owned());
            }
        }
    }
}

/// Names no values.
impl fmt::Debug for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cookies: Vec<_> = self.cookies.keys().collect();
        f.debug_struct("Visitor").field("dii", &self.dii).field("cookies", &cookies).finish()
    }
}

fn unminted(why: impl fmt::Display) -> ConfigError {
    ConfigError::new(format!("no visitor can be made: {why}"))
}

/// The most that two readings of one clock differ by on a busy machine.
const SAME_CLOCK: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use euid_core::clock::ManualClock;
    use euid_core::engine::{Engine, RequestContext, Step};
    use euid_core::{CookieKey, Scope};
    use http::Method;

    use super::*;

    struct Host {
        engine: Engine,
        clock: ManualClock,
    }

    impl Site for Host {
        fn engine(&self) -> &Engine {
            &self.engine
        }

        fn now(&self) -> UnixMillis {
            self.clock.now()
        }
    }

    #[test]
    fn visitor_of_a_site_with_both_scopes_has_the_scope_of_the_sandbox() {
        for scope in Scope::ALL {
            let sandbox = Sandbox::builder().scope(scope).build().unwrap();
            let engine = Engine::new(CookieKey::generate().unwrap().into()).with_both_scopes();
            let host = Host { engine, clock: sandbox.clock() };
            for (state, sees) in [(VisitorState::Fresh, "active"), (VisitorState::OptedOut, "opted_out")] {
                let visitor = sandbox.visitor(&host, state).unwrap();
                let headers = HeaderMap::from_iter([(COOKIE, visitor.cookie_header().parse().unwrap())]);
                for (region, sees) in [(scope, sees), (scope.other(), "absent")] {
                    let context = RequestContext { scope: Some(region), ..RequestContext::UNRESTRICTED };
                    let step = host.engine.begin(&Method::GET, &headers, &context, || host.now());
                    let Step::Ready(decision) = step else { panic!("{step:?}") };
                    assert_eq!(decision.euid().state(), sees, "{scope} {state:?}, {region}");
                }
            }
        }
    }
}
