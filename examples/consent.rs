//! Consent from a TCF v2 string, which a consent banner stores in the cookie `euconsent-v2`.
//!
//! ```console
//! $ cargo run --example consent                   # EUID's sample strings
//! $ cargo run --example consent CPehNtW…          # your own strings
//! $ cargo run --example consent - <strings.txt    # one per line; prints only the verdicts
//! ```

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::io::{self, BufRead, Write};

use euid_sandbox::{Sandbox, VisitorState};
use http::header::COOKIE;
use http::{Request, Response, request};
use tower::{Layer, service_fn};
use tower_euid::{Consent, Euid, EuidLayer, tcf};

/// Configures the layer of a site with a consent banner.
fn by_banner(layer: EuidLayer) -> EuidLayer {
    layer.consent_from_tcf_cookie()
}

/// A custom hook. A TC string does not state that a visitor agreed to an EUID made from their address. This site asks at
/// login, and a layer further out puts the answer into the request.
fn by_banner_and_login(request: &request::Parts) -> Consent {
    match request.extensions.get::<AgreedToEuid>() {
        Some(AgreedToEuid(true)) => tcf::consent(&request.headers),
        Some(AgreedToEuid(false)) => Consent::Withdrawn,
        None => Consent::Withheld,
    }
}

#[derive(Clone, Copy)]
struct AgreedToEuid(bool);

const SAMPLES: [(&str, &str); 4] = [
    ("all that is needed", "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA"),
    ("the same, another day", "CPhJRpMPhJRpMABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA"),
    ("purpose 1 refused", "CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA"),
    ("no TC string", "invalid_consent_string"),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = env::args().skip(1).collect();
    if given == ["-"] {
        return Ok(verdicts(io::stdin().lock(), io::stdout().lock())?);
    }
    let strings = match given.as_slice() {
        [] => SAMPLES.to_vec(),
        given => given.iter().map(|tc_string| ("given", tc_string.as_str())).collect(),
    };
    for (name, tc_string) in strings {
        let verdict = format!("{:?}", tcf::judge(tc_string));
        let (state, cookies_left) = visit(by_banner, tc_string, None).await?;
        println!("{name:22} {verdict:12} the page sees {state:9} EUID cookies kept: {cookies_left}");
    }
    println!("\nwith the sample that has all that is needed, and the hook that asks for both:");
    let hook = |layer: EuidLayer| layer.consent(by_banner_and_login);
    for (answer, agreed) in [("not asked", None), ("refused", Some(false)), ("agreed", Some(true))] {
        let (state, cookies_left) = visit(hook, SAMPLES[0].1, agreed.map(AgreedToEuid)).await?;
        println!("{answer:22} {:12} the page sees {state:9} EUID cookies kept: {cookies_left}", "");
    }
    Ok(())
}

fn verdicts(strings: impl BufRead, mut verdicts: impl Write) -> io::Result<()> {
    strings.split(b'\n').try_for_each(|tc_string| writeln!(verdicts, "{:?}", tcf::judge(tc_string?)))
}

/// Sends a request of a logged-in visitor. Returns the state that the page sees, and the number of EUID cookies that
/// the visitor has afterwards.
async fn visit(
    configured: impl FnOnce(EuidLayer) -> EuidLayer,
    tc_string: &str,
    agreed: Option<AgreedToEuid>,
) -> Result<(&'static str, usize), Box<dyn Error>> {
    let sandbox = Sandbox::builder().build()?;
    let layer = configured(tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?.1);
    let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
    let page = service_fn(async |request: Request<()>| {
        Ok::<_, Infallible>(Response::new(request.extensions().get().map_or("no layer", Euid::state)))
    });
    let mut request = Request::builder().header(COOKIE, format!("euconsent-v2={tc_string}")).body(())?;
    if let Some(agreed) = agreed {
        request.extensions_mut().insert(agreed);
    }
    let state = visitor.send(&layer.layer(page), request).await?.into_body();
    Ok((state, visitor.cookie_header().split("; ").filter(|cookie| !cookie.is_empty()).count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn page_sees_the_token_only_with_sufficient_consent() {
        let expected = [("active", 2), ("active", 2), ("withheld", 0), ("withheld", 2)];
        for ((name, tc_string), expected) in SAMPLES.into_iter().zip(expected) {
            assert_eq!(visit(by_banner, tc_string, None).await.unwrap(), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn consent_hook_of_the_site_needs_the_banner_and_the_login() {
        let [(_, sufficient), _, (_, insufficient), _] = SAMPLES;
        let hook = |layer: EuidLayer| layer.consent(by_banner_and_login);
        for (tc_string, agreed, expected) in [
            (sufficient, Some(AgreedToEuid(true)), ("active", 2)),
            (sufficient, Some(AgreedToEuid(false)), ("withheld", 0)),
            (sufficient, None, ("withheld", 2)),
            (insufficient, Some(AgreedToEuid(true)), ("withheld", 0)),
        ] {
            assert_eq!(visit(hook, tc_string, agreed).await.unwrap(), expected);
        }
    }

    #[test]
    fn verdicts_are_printed_one_per_line() {
        let [(_, sufficient), _, (_, insufficient), _] = SAMPLES;
        let mut printed = Vec::new();
        verdicts(format!("{sufficient}\n{insufficient}\nB\nBA").as_bytes(), &mut printed).unwrap();
        assert_eq!(printed, b"Sufficient\nInsufficient\nInvalid\nVersion1\n");
    }
}
