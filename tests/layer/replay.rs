//! Updates that arrive more than once, because a cache inside the layer replays a response: a login counts once, a
//! logout and an opt-out count each time, and the layer warns once.

use std::convert::Infallible;
use std::future::ready;

use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::EuidUpdate;

use crate::support::{LOGIN_WRITTEN, Log, Site, identity, writes};

const WARNING: &str = "WARN tower_euid: an EuidUpdate arrived a second time: a cache inside the EuidLayer replays \
                       responses, or a handler attaches clones of one update";

/// Replays a response with `update` to three browsers without cookies. Returns what each response writes.
async fn replayed(update: EuidUpdate) -> Vec<String> {
    let mut stored = Response::new(());
    update.attach(&mut stored);
    let mut written = Vec::new();
    for _ in 0..3 {
        let cache = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(stored.clone())));
        let Ok(response) = Site::offline().layer.layer(cache).oneshot(Request::new(())).await;
        written.push(writes(response.headers()));
    }
    written
}

#[tokio::test]
async fn replayed_login_counts_for_the_first_browser_only_with_one_warning() {
    let log = Log::default();
    let _logging = log.start();
    assert_eq!(replayed(EuidUpdate::login(identity("x"))).await, [LOGIN_WRITTEN, "", ""]);
    assert_eq!(log.take(), [WARNING]);
}

#[tokio::test]
async fn replayed_logout_and_opt_out_count_each_time_with_one_warning() {
    for (update, writes) in
        [(EuidUpdate::logout(), "anchor cleared"), (EuidUpdate::opt_out(), "anchor set, opt-out set")]
    {
        let log = Log::default();
        let _logging = log.start();
        assert_eq!(replayed(update).await, [writes; 3]);
        assert_eq!(log.take(), [WARNING]);
    }
}

#[tokio::test]
async fn login_clone_with_a_subject_is_an_update_of_its_own() {
    let update = EuidUpdate::login(identity("x"));
    for _ in 0..2 {
        let visit = Site::offline().update(update.clone().subject("ann")).await;
        assert_eq!(visit.writes(), LOGIN_WRITTEN);
    }
}
