//! Who has touched device memory during a launch, and who must not have.
//!
//! Nothing orders blocks of a launch, nor warps of a block between two barriers. A byte that one of
//! two such writes, and the other reads or writes, is a race, unless both are atomic. What is read
//! as read-only must not be written by anybody in that launch.

use super::memory::{Window, Wrong};
use rustc_hash::FxHashMap;
use std::ops::Range;

/// A warp between two barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The block's position in the grid, as one number.
    pub block: u32,
    /// How many barriers the block has passed, modulo 2^16.
    pub epoch: u16,
    /// The warp.
    pub warp: u8,
}

/// Those that have touched a byte, as far as it takes to know whether one more meets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Touch {
    /// Nobody.
    #[default]
    None,
    /// One warp since the last barrier that others know of.
    One(Agent),
    /// Several warps of a block between two barriers.
    Warps { block: u32, epoch: u16 },
    /// Several blocks.
    Blocks,
}

/// The touches of a launch, by byte of device memory.
#[derive(Clone, Debug)]
pub struct Traffic {
    readers: Vec<Touch>,
    writers: Vec<Touch>,
    /// What has been read as read-only.
    constant: Vec<bool>,
    /// The atomic operations, by first byte; they are few.
    atomics: FxHashMap<u64, Touch>,
}

impl Touch {
    /// Whether somebody is among them whom nothing orders with `agent`.
    fn meets(self, agent: Agent) -> bool {
        match self {
            Touch::None => false,
            Touch::One(one) => {
                one.block != agent.block || one.epoch == agent.epoch && one.warp != agent.warp
            }
            Touch::Warps { block, epoch } => block != agent.block || epoch == agent.epoch,
            Touch::Blocks => true,
        }
    }

    /// With one more.
    fn and(self, agent: Agent) -> Touch {
        let Agent { block, epoch, .. } = agent;
        match self {
            Touch::One(one) if one.block != block => Touch::Blocks,
            Touch::Warps { block: other, .. } if other != block => Touch::Blocks,
            Touch::One(one) if one.epoch == epoch && one.warp != agent.warp => {
                Touch::Warps { block, epoch }
            }
            Touch::Warps { epoch: same, .. } if same == epoch => self,
            Touch::Blocks => Touch::Blocks,
            _ => Touch::One(agent),
        }
    }
}

impl Traffic {
    /// That of so many bytes.
    pub fn new(bytes: u64) -> Traffic {
        let n = bytes as usize;
        Traffic {
            readers: vec![Touch::None; n],
            writers: vec![Touch::None; n],
            constant: vec![false; n],
            atomics: FxHashMap::default(),
        }
    }

    /// A launch begins, which may touch these parts.
    pub fn begin(&mut self, windows: &[Window]) {
        for window in windows {
            let range = window.offset as usize..(window.offset + window.bytes) as usize;
            self.readers[range.clone()].fill(Touch::None);
            self.writers[range.clone()].fill(Touch::None);
            self.constant[range].fill(false);
        }
        self.atomics.clear();
    }

    /// A load; `constant` if as read-only.
    pub fn read(&mut self, agent: Agent, range: Range<usize>, constant: bool) -> Result<(), Wrong> {
        self.meets_no_atomic(agent, range.clone())?;
        for at in range {
            if constant && self.writers[at] != Touch::None {
                return Err(Wrong::ReadOnly { at: at as u64 });
            }
            if self.writers[at].meets(agent) {
                return Err(Wrong::GlobalRace { at: at as u64 });
            }
            self.readers[at] = self.readers[at].and(agent);
            self.constant[at] |= constant;
        }
        Ok(())
    }

    /// A store.
    pub fn write(&mut self, agent: Agent, range: Range<usize>) -> Result<(), Wrong> {
        self.meets_no_atomic(agent, range.clone())?;
        for at in range {
            if self.constant[at] {
                return Err(Wrong::ReadOnly { at: at as u64 });
            }
            if self.writers[at].meets(agent) || self.readers[at].meets(agent) {
                return Err(Wrong::GlobalRace { at: at as u64 });
            }
            self.writers[at] = self.writers[at].and(agent);
        }
        Ok(())
    }

    /// An atomic operation on a word.
    pub fn change(&mut self, agent: Agent, at: u64) -> Result<(), Wrong> {
        for byte in at as usize..at as usize + 4 {
            if self.constant[byte] {
                return Err(Wrong::ReadOnly { at });
            }
            if self.writers[byte].meets(agent) || self.readers[byte].meets(agent) {
                return Err(Wrong::GlobalRace { at });
            }
        }
        let touch = self.atomics.entry(at).or_default();
        *touch = touch.and(agent);
        Ok(())
    }

    fn meets_no_atomic(&self, agent: Agent, range: Range<usize>) -> Result<(), Wrong> {
        if self.atomics.is_empty() {
            return Ok(());
        }
        let mut words = (range.start as u64 / 4 * 4..range.end as u64).step_by(4);
        let met = |at: &u64| self.atomics.get(at).is_some_and(|touch| touch.meets(agent));
        words.find(met).map_or(Ok(()), |at| Err(Wrong::GlobalRace { at }))
    }
}
