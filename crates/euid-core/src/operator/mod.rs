pub mod credentials;
pub mod endpoint;
/// In front of the API key in `Authorization`.
pub const BEARER: &str = "Bearer ";
