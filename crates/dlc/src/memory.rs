//! Memory that dlc no longer needs.

use std::sync::OnceLock;

static HOOK: OnceLock<fn()> = OnceLock::new();

/// Has `hook` called when much memory has just been freed: a program is built, its first values are drawn. An
/// allocator that keeps what it gets back may hand it on to the system then, before that program takes its
/// own. The first hook stays.
pub fn when_freed(hook: fn()) {
    let _ = HOOK.set(hook);
}

/// Much memory has just been freed.
pub(crate) fn freed() {
    if let Some(hook) = HOOK.get() {
        hook();
    }
}
