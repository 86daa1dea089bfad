//! What the examples share: an operator for `main`, and a browser with one visit for the tests.

use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use euid_sandbox::{Fault, Lifetimes, Sandbox, Visitor, VisitorState};
use http::header::{CONTENT_TYPE, COOKIE};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::Service;
use tower_euid::{ConfigError, Dii, EuidClient, EuidLayer, from_service};

/// Returns a client and a layer on a stand-in operator in this process, in place of [`tower_euid::from_env`]. Its tokens are
/// due after ten seconds, so that you can watch a refresh.
///
/// # Errors
///
/// If the operating system gives no random bytes.
pub fn stand_in() -> Result<(EuidClient, EuidLayer), ConfigError> {
    let lifetimes = Lifetimes { refresh_from: Duration::from_secs(10), ..Lifetimes::default() };
    let sandbox = Sandbox::builder().lifetimes(lifetimes).build()?;
    from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())
}

/// The result of a test.
pub type Tested<T = ()> = Result<T, Box<dyn Error>>;

/// A person with a browser, and the site that they visit: `app` is any tower service.
#[derive(Clone, Debug)]
pub struct Browser<S> {
    /// The site.
    pub app: S,
    /// The operator of the site.
    pub sandbox: Sandbox,
    /// The client of the site.
    pub client: EuidClient,
    /// The cookies.
    pub visitor: Visitor,
    /// The cookie of a consent banner.
    pub tc_string: &'static str,
}

impl<S, B> Browser<S>
where
    S: Service<Request<String>, Response = Response<B>, Error: Display> + Clone,
    B: http_body::Body<Error: Error + 'static>,
{
    /// Returns a browser without cookies, and the site that `app` makes from client and layer.
    ///
    /// # Errors
    ///
    /// If the operating system gives no random bytes.
    pub fn new(app: impl FnOnce(EuidClient, EuidLayer) -> S) -> Tested<Self> {
        let sandbox = Sandbox::builder().build()?;
        let (client, layer) = from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
        let visitor = sandbox.visitor(&layer, VisitorState::Absent)?;
        Ok(Self { app: app(client.clone(), layer), sandbox, client, visitor, tc_string: TC_STRING })
    }

    /// Returns what the front page shows: the token, or the state if there is no token. The page is a text, or HTML with one
    /// paragraph.
    ///
    /// # Errors
    ///
    /// If the site fails.
    pub async fn look(&mut self) -> Tested<String> {
        let (_, page) = self.send(Request::get("/").body(String::new())?).await?;
        let paragraph = page.split_once("<p>").and_then(|(_, rest)| rest.split_once("</p>"));
        Ok(paragraph.map_or(page.clone(), |(text, _)| text.to_owned()))
    }

    /// Posts a form and returns the status.
    ///
    /// # Errors
    ///
    /// If the site fails.
    pub async fn submit(&mut self, path: &str, form: &str) -> Tested<u16> {
        let request = Request::post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        Ok(self.send(request.body(form.to_owned())?).await?.0)
    }

    /// Logs a person in, with their password and their agreement to an EUID, which some of the examples ask for.
    ///
    /// # Errors
    ///
    /// If the site fails.
    pub async fn login(&mut self, email: &str) -> Tested<u16> {
        self.submit("/login", &format!("email={email}&password=secret&agrees=on")).await
    }

    /// Whether the operator issued this token for this person.
    ///
    /// # Errors
    ///
    /// If it is not a token.
    pub async fn is_token_of(&self, token: &str, email: &str) -> Tested<bool> {
        Ok(self.client.validate(token, Dii::email(email)?).await?)
    }

    async fn send(&mut self, mut request: Request<String>) -> Tested<(u16, String)> {
        request.headers_mut().insert(COOKIE, format!("euconsent-v2={}", self.tc_string).parse()?);
        let response = self.visitor.send(&self.app, request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        Ok((status, String::from_utf8(response.into_body().collect().await?.to_bytes().into())?))
    }
}

/// The visit that every site here must pass. The site knows Ann and Bob.
///
/// # Errors
///
/// If the site fails.
///
/// # Panics
///
/// If the site shows a wrong token or a wrong state.
pub async fn visit<S, B>(mut browser: Browser<S>) -> Tested
where
    S: Service<Request<String>, Response = Response<B>, Error: Display> + Clone,
    B: http_body::Body<Error: Error + 'static>,
{
    assert_eq!(browser.look().await?, "absent");

    browser.login(ANN).await?;
    let first = browser.look().await?;
    assert!(browser.is_token_of(&first, ANN).await?);
    assert_eq!((browser.look().await?, browser.sandbox.refresh_calls()), (first.clone(), 0));

    browser.sandbox.advance(Duration::from_secs(20 * 60));
    let refreshed = browser.look().await?;
    assert!(refreshed != first && browser.is_token_of(&refreshed, ANN).await?);
    assert_eq!((browser.look().await?, browser.sandbox.refresh_calls()), (refreshed, 1));

    browser.submit("/logout", "").await?;
    assert_eq!(browser.look().await?, "absent");

    browser.login(BOB).await?;
    let of_bob = browser.look().await?;
    assert!(browser.is_token_of(&of_bob, BOB).await? && !browser.is_token_of(&of_bob, ANN).await?);

    // Ann logs in without a logout of Bob, while the operator is down.
    browser.sandbox.fault(Fault::Status(503));
    browser.login(ANN).await?;
    assert_eq!(browser.look().await?, "absent");
    browser.sandbox.fault(None);

    // The same with an operator that is up.
    browser.login(BOB).await?;
    browser.login(ANN).await?;
    let of_ann = browser.look().await?;
    assert!(browser.is_token_of(&of_ann, ANN).await?);
    Ok(())
}

/// A consent string that allows all that an EUID needs.
pub const TC_STRING: &str = "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA";
/// A person who has an account on each site.
pub const ANN: &str = "ann@example.com";
/// Another person with an account.
pub const BOB: &str = "bob@example.com";

#[cfg(test)]
mod tests {
    #[test]
    fn lines_of_the_readme_stand_in_the_examples() {
        let code = [
            include_str!("../examples/axum_login.rs"),
            include_str!("../examples/batch.rs"),
            include_str!("../examples/leptos_site.rs"),
            include_str!("../examples/poem.rs"),
            include_str!("../examples/salvo.rs"),
            include_str!("../examples/tonic_mux.rs"),
        ]
        .concat();
        let known: Vec<_> = code.lines().collect();
        let blocks =
            include_str!("../README.md").split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next());
        let lines: Vec<_> = blocks.flat_map(str::lines).filter(|line| !line.is_empty()).collect();
        assert!(lines.len() > 20);
        let unknown: Vec<_> = lines.into_iter().filter(|line| !known.contains(line)).collect();
        assert!(unknown.is_empty(), "{unknown:#?}");
    }
}
