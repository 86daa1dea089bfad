pub mod cookies;
#[cfg(fuzzing)]
pub mod fuzzing;
