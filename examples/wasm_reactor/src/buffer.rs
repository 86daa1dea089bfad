//! The boundary between host and module: one buffer, through which every message passes.
//!
//! 1. The host calls `buffer(length)`, writes its message at the address that this returns, and calls a function.
//! 2. The function returns the length of its reply. The host calls `buffer` with that length and reads there.
//! 3. Each call may grow or move the memory, so the host must use the address that the latest `buffer` returned.

use std::cell::RefCell;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::exchange::Failure;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn resize(length: usize) -> *mut u8 {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(length, 0);
        buffer.as_mut_ptr()
    })
}

/// Calls `function` with the message in the buffer and leaves the reply there, or `{"error": text}`.
pub(crate) fn call<M: DeserializeOwned, R: Serialize>(function: impl FnOnce(M) -> Result<R, Failure>) -> usize {
    BUFFER.with_borrow_mut(|buffer| {
        let message = serde_json::from_slice(buffer).map_err(Failure::from);
        let reply = message.and_then(function).and_then(|reply| Ok(serde_json::to_vec(&reply)?));
        *buffer = reply.unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string().into());
        buffer.len()
    })
}
