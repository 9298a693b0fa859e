//! Room for recursion: a thread with a large stack.

/// The size of the stack that [`on_large_stack`] gives, in bytes.
pub const STACK_BYTES: usize = 64 << 20;

/// Runs `work` with [`STACK_BYTES`] of stack, so that recursion bounded by the language's nesting
/// limits cannot overflow. Where the system refuses such a thread, `work` runs on the caller's own
/// stack. A panic inside continues in the caller.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let mut work = Some(work);
    let outcome = std::thread::scope(|scope| {
        let run = || work.take().expect("the work is done once")();
        let thread = std::thread::Builder::new().name("dlc-front".into()).stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, run).ok().map(|handle| handle.join())
    });
    match outcome {
        Some(Ok(value)) => value,
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        None => work.take().expect("a refused thread did not run")(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_is_large() {
        fn depth(n: u32) -> u32 {
            let padding = std::hint::black_box([n; 256]);
            if n == 0 { 0 } else { depth(n - 1) + padding[0] / n }
        }
        assert_eq!(on_large_stack(|| depth(20_000)), 20_000);
    }
}
