//! Pictures.
pub fn soak(_: &str) -> String {
    String::new()
}
