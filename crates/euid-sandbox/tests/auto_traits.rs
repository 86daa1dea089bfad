//! Asserts that every public type is `Send`, `Sync` and `Unpin`. The recorded public API does not list these traits.
//! If a type loses one, this file does not compile.

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
