//! Every public type can be sent to another thread, shared between threads and moved: a type that loses one of these
//! traits does not compile. The text of the public API does not list them.

use euid_sandbox::{Calls, Fault, Lifetimes, Sandbox, SandboxBuilder, SandboxServer, Visitor, VisitorState};

const fn value<T: Send + Sync + Unpin + 'static>() {}

const _: () = {
    value::<Calls>();
    value::<Fault>();
    value::<Lifetimes>();
    value::<Sandbox>();
    value::<SandboxBuilder>();
    value::<SandboxServer>();
    value::<Visitor>();
    value::<VisitorState>();
};
