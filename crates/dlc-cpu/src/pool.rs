//! Threads for kernels: a pool whose workers spin for a moment after a region and then park.
//!
//! A region runs a function once for each worker; the caller is worker 0. A caller that is done with
//! its own part does those of workers that have not begun, so that a thread the system keeps waiting
//! holds nobody up. One caller at a time has the pool's threads: another one meanwhile runs its
//! regions alone, with the same results, as what a worker does never depends on who does it.

use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle worker looks for work before it parks.
const SPIN: Duration = Duration::from_micros(100);

/// Threads that run regions.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What a region runs: the function behind it and its worker's number.
type Task<'a> = &'a (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts regions in its upper bits; the lower 16 are the workers of the newest one. 0 workers
    /// tell the threads to end.
    region: AtomicU64,
    /// The newest region's [`Task`]: read by its workers only, and they all finish before the
    /// next one is written.
    task: AtomicPtr<Task<'static>>,
    /// Workers that have not finished, the caller left out.
    running: AtomicUsize,
    /// By worker: the newest region in which its part has begun.
    begun: Box<[AtomicU64]>,
    /// Whoever holds it is the pool's caller.
    caller: Mutex<()>,
    parked: Mutex<usize>,
    wake: Condvar,
}

impl Pool {
    /// The pool of that many threads (the caller's included), shared by all who ask for it.
    pub fn of(threads: usize) -> Arc<Pool> {
        static POOLS: Mutex<Vec<Weak<Pool>>> = Mutex::new(Vec::new());
        let threads = threads.clamp(1, 1 << 10);
        let mut pools = POOLS.lock().unwrap_or_else(|e| e.into_inner());
        pools.retain(|p| p.strong_count() > 0);
        let same = |p: &Weak<Pool>| p.upgrade().filter(|p| p.workers() == threads);
        if let Some(pool) = pools.iter().find_map(same) {
            return pool;
        }
        let pool = Arc::new(Pool::new(threads));
        pools.push(Arc::downgrade(&pool));
        pool
    }

    fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            region: AtomicU64::new(1),
            task: AtomicPtr::new(std::ptr::null_mut()),
            running: AtomicUsize::new(0),
            begun: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            caller: Mutex::new(()),
            parked: Mutex::new(0),
            wake: Condvar::new(),
        });
        // A machine that grants fewer threads than asked for runs with those it grants.
        let spawn = |worker| {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name(format!("dlc-{worker}"));
            builder.spawn(move || shared.work(worker)).ok()
        };
        let threads = (1..threads).map_while(spawn).collect();
        Pool { shared, threads }
    }

    /// Threads, the caller's included.
    pub fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    /// Runs `task(w)` for every `w` below `workers`, at the same time where threads are free.
    pub fn run(&self, workers: usize, task: Task) {
        let alone = workers <= 1 || workers > self.workers();
        let guard = if alone { None } else { self.shared.caller.try_lock().ok() };
        match guard {
            Some(_guard) => self.shared.lead(workers, task),
            None => (0..workers).for_each(task),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.announce(0);
        for thread in self.threads.drain(..) {
            // A worker that panicked has already printed why.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Runs a region as its worker 0; the caller holds `self.caller`.
    fn lead(&self, workers: usize, task: Task) {
        /// Waits for the other workers even if the caller's own share unwinds.
        struct Wait<'a>(&'a Shared);
        impl Drop for Wait<'_> {
            fn drop(&mut self) {
                let mut spins = 0u32;
                while self.0.running.load(Ordering::Acquire) > 0 {
                    spins += 1;
                    if spins < 10_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
                }
            }
        }
        // SAFETY: only the lifetime changes. Workers use the task between `announce` and their
        // decrement of `running`, and `Wait` keeps this frame alive until all have decremented it.
        let mut task: Task<'static> = unsafe { std::mem::transmute(task) };
        self.task.store(&raw mut task, Ordering::Relaxed);
        self.running.store(workers - 1, Ordering::Relaxed);
        let region = self.announce(workers);
        let wait = Wait(self);
        task(0);
        for worker in (1..workers).filter(|&w| self.begin(w, region)) {
            let done = Done(self);
            task(worker);
            drop(done);
        }
        drop(wait);
    }

    /// Whether the part of `worker` in a region has not begun; it has from now on.
    fn begin(&self, worker: usize, region: u64) -> bool {
        self.begun[worker].fetch_max(region, Ordering::AcqRel) < region
    }

    /// Starts the next region and wakes who is parked.
    fn announce(&self, workers: usize) -> u64 {
        let region = (self.region.load(Ordering::Relaxed) >> 16) + 1;
        let region = region << 16 | workers as u64;
        self.region.store(region, Ordering::SeqCst);
        let parked = self.parked.lock().unwrap_or_else(|e| e.into_inner());
        if *parked > 0 {
            self.wake.notify_all();
        }
        region
    }

    /// The life of a worker thread.
    fn work(&self, worker: usize) {
        let mut seen = 1;
        loop {
            seen = self.next_region(seen);
            let workers = (seen & 0xffff) as usize;
            if workers == 0 {
                return;
            }
            if worker < workers && self.begin(worker, seen) {
                let done = Done(self);
                // SAFETY: this worker has begun its part of the region, so `lead` waits for it and
                // the task it published, ordered before `region`, is still there.
                let task = unsafe { *self.task.load(Ordering::Relaxed) };
                task(worker);
                drop(done);
            }
        }
    }

    /// Waits until the region is not `seen`; returns it.
    fn next_region(&self, seen: u64) -> u64 {
        let changed = || Some(self.region.load(Ordering::SeqCst)).filter(|&r| r != seen);
        let start = Instant::now();
        while start.elapsed() < SPIN {
            for _ in 0..64 {
                if let Some(region) = changed() {
                    return region;
                }
                std::hint::spin_loop();
            }
        }
        let mut parked = self.parked.lock().unwrap_or_else(|e| e.into_inner());
        *parked += 1;
        let region = loop {
            if let Some(region) = changed() {
                break region;
            }
            parked = self.wake.wait(parked).unwrap_or_else(|e| e.into_inner());
        };
        *parked -= 1;
        region
    }
}

/// Counts a worker as finished, even if its task unwinds.
struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The threads this process may use: its affinity mask, cut to the quota of its cgroup.
pub fn available_threads() -> usize {
    // The standard library reads both, rounding the quota down.
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of_shares(pool: &Pool, workers: usize) -> usize {
        let sum = AtomicUsize::new(0);
        pool.run(workers, &|w| {
            sum.fetch_add(1 << (8 * w), Ordering::Relaxed);
        });
        sum.into_inner()
    }

    #[test]
    fn every_worker_runs_once() {
        let pool = Pool::of(3);
        for _ in 0..2000 {
            assert_eq!(sum_of_shares(&pool, 3), 0x0001_0101);
            assert_eq!(sum_of_shares(&pool, 2), 0x0000_0101);
            assert_eq!(sum_of_shares(&pool, 1), 1);
        }
        assert_eq!(sum_of_shares(&pool, 5), 0x01_0101_0101, "more workers than threads run alone");
    }

    #[test]
    fn workers_that_parked_wake_up() {
        let pool = Pool::of(2);
        for _ in 0..5 {
            std::thread::sleep(3 * SPIN);
            assert_eq!(sum_of_shares(&pool, 2), 0x0101);
        }
    }

    #[test]
    fn callers_at_the_same_time_do_not_disturb_each_other() {
        let pool = Pool::of(2);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..500).for_each(|_| assert_eq!(sum_of_shares(&pool, 2), 0x0101)));
            }
        });
    }

    /// All are dropped and made again meanwhile.
    #[test]
    fn callers_of_any_number_of_threads_do_not_disturb_each_other() {
        let whole = |workers: usize| (0..workers).map(|w| 1 << (8 * w)).sum::<usize>();
        std::thread::scope(|scope| {
            for caller in 0..6 {
                scope.spawn(move || {
                    for round in 0..300 {
                        let threads = 1 + (caller + round / 100) % 4;
                        let pool = Pool::of(threads);
                        let workers = 1 + round % 5;
                        assert_eq!(sum_of_shares(&pool, workers), whole(workers));
                    }
                });
            }
        });
    }

    #[test]
    fn regions_run_within_regions() {
        let (pool, other) = (Pool::of(2), Pool::of(3));
        for _ in 0..500 {
            let sum = AtomicUsize::new(0);
            pool.run(2, &|_| {
                sum.fetch_add(sum_of_shares(&pool, 2), Ordering::Relaxed);
                sum.fetch_add(sum_of_shares(&other, 3) << 32, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 0x0002_0202_0000_0202);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_keep_to_the_affinity_mask() {
        let in_mask = std::thread::spawn(|| {
            // SAFETY: a set of processors is plain bits; the call reads one of that size, and
            // changes where this thread runs, which then ends.
            let done = unsafe {
                let mut one: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(libc::sched_getcpu() as usize, &mut one);
                libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one)
            };
            (done, available_threads())
        });
        let (done, threads) = in_mask.join().unwrap();
        assert_eq!((done, threads), (0, 1));
    }
}
