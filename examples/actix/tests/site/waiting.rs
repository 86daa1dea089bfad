//! Tests of pages that wait for the operator. Tokio's clock is paused, so they need no real time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use euid_actix_site::client::PAGE_WAITS;
use euid_sandbox::{Fault, VisitorState};

use crate::IDENTITY;
use crate::support::*;

#[actix_web::test]
async fn page_waits_no_longer_than_its_deadline() -> Tested {
    let (sandbox, host) = host()?;
    let app = app(&host).await;
    let mut visitor = sandbox.visitor(&host, VisitorState::Due)?;
    sandbox.fault(Fault::Delay(PAGE_WAITS + Duration::from_millis(1)));
    tokio::time::pause();
    let page = send(&app, &mut visitor, get("/")).await?;
    assert!(page.text.contains("<b>active</b>"));
    assert_eq!((page.cookies().len(), sandbox.refresh_calls()), (0, 1));
    Ok(())
}

#[actix_web::test]
async fn requests_of_one_login_share_a_call_if_the_first_is_dropped_too() -> Tested {
    let (sandbox, host) = host()?;
    let app = app(&host).await;
    let mut tabs = [(); 3].map(|()| sandbox.visitor(&host, VisitorState::Due));
    let [Ok(first), Ok(second), Ok(third)] = &mut tabs else { return Err("no visitors".into()) };
    (*second, *third) = (first.clone(), first.clone());
    sandbox.fault(Fault::Delay(PAGE_WAITS / 2));
    tokio::time::pause();

    let mut dropped = Box::pin(send(&app, first, get("/")));
    let (mut second, mut third) = (Box::pin(send(&app, second, get("/"))), Box::pin(send(&app, third, get("/"))));
    begin(&mut dropped).await;
    begin(&mut second).await;
    begin(&mut third).await;
    assert_eq!(sandbox.refresh_calls(), 1);
    drop(dropped);
    let (second, third) = (second.await?, third.await?);
    assert_eq!((second.cookies(), third.cookies()), (vec![IDENTITY], vec![IDENTITY]));
    assert_eq!((second.text == third.text, sandbox.refresh_calls()), (true, 2));
    Ok(())
}

#[actix_web::test]
async fn older_identity_of_a_login_is_refreshed_by_its_own_call() -> Tested {
    let (sandbox, host) = host()?;
    let app = app(&host).await;
    let mut visitor = sandbox.visitor(&host, VisitorState::Due)?;
    let mut old = visitor.clone();
    send(&app, &mut visitor, get("/")).await?;
    sandbox.advance(Duration::from_secs(20 * 60));
    sandbox.fault(Fault::Delay(PAGE_WAITS / 2));
    tokio::time::pause();

    let mut of_old = Box::pin(send(&app, &mut old, get("/")));
    begin(&mut of_old).await;
    send(&app, &mut visitor, get("/")).await?;
    of_old.await?;
    assert_eq!(sandbox.refresh_calls(), 3);
    Ok(())
}

/// Lets a request run until it waits for the operator.
async fn begin<T>(request: &mut Pin<Box<impl Future<Output = T>>>) {
    poll_fn(|context| {
        assert!(request.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}
