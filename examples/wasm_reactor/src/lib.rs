//! The engine of `euid-core` as a WASI *reactor*: a WebAssembly module that a host in any language loads once and then
//! calls.
//!
//! 1. The module opens no socket and reads no clock. Between two calls, the host is free: it awaits the
//!    operator, runs the page, serves other visitors.
//! 2. A request and its response are one *exchange*, with a number. Many can be under way at once.
//! 3. Each exchange ends with `finish`, also after an error: nothing else frees it.
//! 4. Messages are JSON in a buffer of the module's memory. `buffer.rs` passes them between host and module, `messages.rs`
//!    defines them, and `exchange.rs` passes their content to the engine.

mod buffer;
mod exchange;
mod messages;

/// The functions that the host calls. Each function but `buffer` takes the message in the buffer, leaves its reply there,
/// and returns the length of the reply in bytes.
///
/// To export a name takes an `unsafe` attribute, because two functions of one name would be undefined behaviour. These six are
/// the only ones here, and no code is `unsafe`: the host writes into a `Vec` of this module.
#[expect(unsafe_code, reason = "an exported name")]
pub mod exports {
    use crate::{buffer, exchange};

    /// Returns the address of the buffer, made `length` bytes long. Its content up to that length stays.
    #[unsafe(no_mangle)]
    pub extern "C" fn buffer(length: usize) -> *mut u8 {
        buffer::resize(length)
    }

    /// Takes keys, operator and credentials, before all else. Replies with the headers to pass, and a limit.
    #[unsafe(no_mangle)]
    pub extern "C" fn configure() -> usize {
        buffer::call(exchange::configure)
    }

    /// Begins an exchange with a request. Replies with the state and token that the page may see, or with a call to the
    /// operator.
    #[unsafe(no_mangle)]
    pub extern "C" fn begin() -> usize {
        buffer::call(exchange::begin)
    }

    /// Logs a visitor in. Replies with a call to the operator.
    #[unsafe(no_mangle)]
    pub extern "C" fn login() -> usize {
        buffer::call(exchange::login)
    }

    /// Takes the operator's answer to the call of `begin` or `login`, or the lack of one. Replies with its outcome.
    #[unsafe(no_mangle)]
    pub extern "C" fn answered() -> usize {
        buffer::call(exchange::answered)
    }

    /// Ends an exchange with a response. Replies with the headers of the response.
    #[unsafe(no_mangle)]
    pub extern "C" fn finish() -> usize {
        buffer::call(exchange::finish)
    }
}
