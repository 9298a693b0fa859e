//! Programs by model and sizes: what was bound before is not elaborated, transformed and lowered
//! again.
//!
//! What holds: an entry is made once, whoever asks for it; those who ask for the same one at the
//! same time wait for it, others do not. Failures are not kept. Storage is not either: every
//! network has its own.

use crate::Error;
use dlc_graph::Graph;
use dlc_kernel::{Bindings, Program};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A model whose sizes are bound.
pub(crate) struct Specialized {
    /// Its entry `run`.
    pub program: Program,
    /// The first values of its parameters and state.
    pub init: Graph,
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Cache {
    slots: Mutex<BTreeMap<Key, Arc<Slot>>>,
}

/// A model's name and the sizes of its dims.
type Key = (String, Bindings);

/// Locked while its program is made.
type Slot = Mutex<Option<Arc<Specialized>>>;

impl Cache {
    /// The entry of that key; `make` makes it if there is none.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<Specialized, Error>,
    ) -> Result<Arc<Specialized>, Error> {
        let slot = lock(&self.slots).entry(key).or_default().clone();
        let mut slot = lock(&slot);
        if let Some(known) = &*slot {
            return Ok(known.clone());
        }
        let made = Arc::new(make()?);
        *slot = Some(made.clone());
        Ok(made)
    }
}

/// Locks; what a panic left behind is whole, since slots are filled at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
