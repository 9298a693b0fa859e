//! Room for recursion: threads with large stacks.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

/// The size of the stack that [`on_large_stack`] gives, in bytes.
pub const STACK_BYTES: usize = 64 << 20;

thread_local! {
    /// Whether this thread has [`STACK_BYTES`] of stack.
    static IS_LARGE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with [`STACK_BYTES`] of stack, so that recursion bounded by the language's nesting
/// limits cannot overflow: on a thread of its own, unless the caller's is such a one. Where the system
/// refuses a thread, `work` runs on the caller's stack. A panic inside continues in the caller.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if IS_LARGE.get() {
        return work();
    }
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

/// [`on_large_stack`] for each of some items, beside each other if the machine has the threads; what
/// becomes of them, in order.
pub fn each_on_large_stack<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let work_off = || {
        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let taken = numbers.map_while(|at| Some((at, items.get(at)?)));
        taken.map(|(at, item)| (at, work(item))).collect::<Vec<_>>()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).filter_map(|_| start(scope, work_off)).collect();
        let mut done = on_large_stack(work_off);
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, value)| value).collect()
}

fn start<'s, T: Send + 's>(
    scope: &'s Scope<'s, '_>,
    work: impl FnOnce() -> T + Send + 's,
) -> Option<ScopedJoinHandle<'s, T>> {
    let thread = std::thread::Builder::new().name("dlc".into()).stack_size(STACK_BYTES);
    let run = || {
        IS_LARGE.set(true);
        work()
    };
    thread.spawn_scoped(scope, run).ok()
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
        assert_eq!(each_on_large_stack(&[20_000, 3], |&n| depth(n)), [20_000, 3]);
    }
}
