// The set-up of examples with a refresh that is due, as one expression: the candidate of the visitor's request after 15 s,
// and its identity.
{
    let (engine, identity, request, _) = include!("visitor.rs");
    let context = euid_core::engine::RequestContext::UNRESTRICTED;
    let now = || euid_core::clock::UnixMillis::from_millis(15_000);
    match engine.begin(&http::Method::GET, &request, &context, now) {
        euid_core::engine::Step::Refresh(candidate) => (candidate, identity),
        step => panic!("{step:?}"),
    }
}
