// A login in a store, as one expression: the engine, and the calls that the response needs.
{
    use euid_core::engine::{Change, Finish, NewLogin, Pending};
    use euid_core::store::StoreMode;

    let (engine, identity, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    let engine = engine.with_store(StoreMode::ReadWrite);
    let login = Change::Begin(NewLogin { identity: identity.into(), subject: None }.into());
    let now = || euid_core::clock::UnixMillis::from_millis(0);
    let mut headers = http::HeaderMap::new();
    match engine.finish(Pending::default(), Some(&login), http::StatusCode::OK, &mut headers, now) {
        Finish::Save(save) => (engine, save),
        Finish::Done(report) => panic!("{report:?}"),
    }
}
