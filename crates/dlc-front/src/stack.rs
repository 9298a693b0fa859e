//! Room for recursion: threads with large stacks.

use std::panic::resume_unwind;
use std::thread::{Scope, ScopedJoinHandle};

/// The size of the stack that [`on_large_stack`] gives, in bytes.
pub const STACK_BYTES: usize = 64 << 20;

/// Runs `work` with [`STACK_BYTES`] of stack, so that recursion bounded by the language's nesting
/// limits cannot overflow. Where the system refuses such a thread, `work` runs on the caller's own
/// stack. A panic inside continues in the caller.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let mut work = Some(work);
    let outcome = std::thread::scope(|scope| {
        let run = || work.take().expect("the work is done once")();
        start(scope, run).map(ScopedJoinHandle::join)
    });
    match outcome {
        Some(Ok(value)) => value,
        Some(Err(panic)) => resume_unwind(panic),
        None => work.take().expect("a refused thread did not run")(),
    }
}

/// [`on_large_stack`] for each of some items, beside each other; what becomes of them, in order.
pub fn each_on_large_stack<I: Copy + Send, T: Send>(
    items: &[I],
    work: impl Fn(I) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let started: Vec<_> =
            items.iter().map(|&item| (item, start(scope, move || work(item)))).collect();
        let finish = |(item, thread): (I, Option<ScopedJoinHandle<T>>)| match thread {
            Some(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            None => work(item),
        };
        started.into_iter().map(finish).collect()
    })
}

fn start<'s, T: Send + 's>(
    scope: &'s Scope<'s, '_>,
    work: impl FnOnce() -> T + Send + 's,
) -> Option<ScopedJoinHandle<'s, T>> {
    let thread = std::thread::Builder::new().name("dlc-front".into()).stack_size(STACK_BYTES);
    thread.spawn_scoped(scope, work).ok()
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
        assert_eq!(each_on_large_stack(&[20_000, 3], depth), [20_000, 3]);
    }
}
