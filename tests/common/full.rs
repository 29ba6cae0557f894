//! For tests that take long.

/// Whether tests do all that they can, as `scripts/test --full` asks for.
pub(crate) fn is_full() -> bool {
    std::env::var("GROK_WGPU_FULL").is_ok_and(|full| full == "true")
}
