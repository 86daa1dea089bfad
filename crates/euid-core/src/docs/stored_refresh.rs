// The refresh of an identity that moves from the client into a store, as one expression: the engine, and the refresh.
{
    use euid_core::engine::{RequestContext, Step};
    use euid_core::store::StoreMode;

    let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    let engine = engine.with_store(StoreMode::ReadWrite);
    let due = || euid_core::clock::UnixMillis::from_millis(11_000);
    match engine.begin(&http::Method::GET, &request, &RequestContext::UNRESTRICTED, due) {
        Step::Refresh(candidate) => (engine, candidate.stored().ok_or("the engine has a store")?.clone()),
        step => panic!("{step:?}"),
    }
}
