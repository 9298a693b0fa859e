//! The memories of a launch, with everything that can be wrong about an access.

use super::Counters;
use super::traffic::{Agent, Traffic};

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It leaves what the kernel was given.
    #[error("out of bounds: {at:#x} of {bytes}")]
    Bounds {
        /// Byte from the start of the buffer, or of shared memory.
        at: u64,
        /// How many there are.
        bytes: u64,
    },
    /// The address is no multiple of the width.
    #[error("misaligned: {at:#x} for {width} bytes")]
    Misaligned {
        /// The byte.
        at: u64,
        /// The width.
        width: u64,
    },
    /// Nobody has written there, or what was written has not arrived.
    #[error("uninitialized memory: {at:#x}")]
    Uninitialized {
        /// The byte.
        at: u64,
    },
    /// Two warps touch it without a barrier between them, and one of them writes.
    #[error("race on shared memory: {at:#x} with warp {with}")]
    Race {
        /// The byte.
        at: u64,
        /// The other warp.
        with: u32,
    },
    /// Two blocks, or two warps of a block without a barrier between them, touch it, and one of
    /// them writes.
    #[error("race on device memory: {at:#x}")]
    GlobalRace {
        /// The byte, from the start of the allocation.
        at: u64,
    },
    /// It is read as read-only and written in the same launch.
    #[error("read-only memory is written: {at:#x}")]
    ReadOnly {
        /// The byte, from the start of the allocation.
        at: u64,
    },
    /// Two lanes of one instruction store there.
    #[error("two lanes store to {at:#x}")]
    Collision {
        /// The byte.
        at: u64,
    },
}

/// Device memory.
#[derive(Clone, Debug)]
pub struct Global {
    bytes: Vec<u8>,
    written: Vec<bool>,
    traffic: Traffic,
}

/// The bits of an address that say which argument it is based on.
const WINDOW: u32 = 40;

/// A part of device memory that a kernel was given.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Its start.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

impl Window {
    /// The address of the window of that number.
    pub fn address(number: usize) -> u64 {
        (number as u64 + 1) << WINDOW
    }
}

impl Global {
    /// So many bytes, none of them written.
    pub fn new(bytes: u64) -> Global {
        let n = bytes as usize;
        Global { bytes: vec![0; n], written: vec![false; n], traffic: Traffic::new(bytes) }
    }

    /// A launch begins, which was given these windows.
    pub fn begin(&mut self, windows: &[Window]) {
        self.traffic.begin(windows);
    }

    /// A copy of some bytes.
    pub fn read(&self, offset: u64, bytes: u64) -> &[u8] {
        &self.bytes[offset as usize..(offset + bytes) as usize]
    }

    /// Whether all of some bytes have been written.
    pub fn is_written(&self, offset: u64, bytes: u64) -> bool {
        self.written[offset as usize..(offset + bytes) as usize].iter().all(|&w| w)
    }

    /// Writes bytes, between launches.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let range = offset as usize..offset as usize + bytes.len();
        self.bytes[range.clone()].copy_from_slice(bytes);
        self.written[range].fill(true);
    }

    /// Forgets that bytes have been written.
    pub fn forget(&mut self, offset: u64, bytes: u64) {
        self.written[offset as usize..(offset + bytes) as usize].fill(false);
    }

    /// Where an access of `width` bytes at an address of the windows goes.
    pub fn place(&self, windows: &[Window], address: u64, width: u64) -> Result<u64, Wrong> {
        let at = address & ((1 << WINDOW) - 1);
        let number = (address >> WINDOW).wrapping_sub(1) as usize;
        let window = windows.get(number).copied().unwrap_or(Window { offset: 0, bytes: 0 });
        if at + width > window.bytes {
            return Err(Wrong::Bounds { at, bytes: window.bytes });
        }
        let place = window.offset + at;
        if !place.is_multiple_of(width) {
            return Err(Wrong::Misaligned { at, width });
        }
        Ok(place)
    }

    /// Loads from a place; `constant` if as read-only.
    pub fn load(
        &mut self,
        agent: Agent,
        place: u64,
        width: u64,
        constant: bool,
    ) -> Result<&[u8], Wrong> {
        let range = place as usize..(place + width) as usize;
        self.traffic.read(agent, range.clone(), constant)?;
        self.known(range)
    }

    /// Stores to a place.
    pub fn store(&mut self, agent: Agent, place: u64, bytes: &[u8]) -> Result<(), Wrong> {
        self.traffic.write(agent, place as usize..place as usize + bytes.len())?;
        self.write(place, bytes);
        Ok(())
    }

    /// Changes a word; gives the old one.
    pub fn change(
        &mut self,
        agent: Agent,
        place: u64,
        change: impl FnOnce(u32) -> u32,
    ) -> Result<u32, Wrong> {
        self.traffic.change(agent, place)?;
        let bytes = self.known(place as usize..place as usize + 4)?;
        let old = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        self.write(place, &change(old).to_le_bytes());
        Ok(old)
    }

    /// Bytes that somebody has written.
    fn known(&self, range: std::ops::Range<usize>) -> Result<&[u8], Wrong> {
        let place = range.start as u64;
        match self.written[range.clone()].iter().position(|&w| !w) {
            Some(first) => Err(Wrong::Uninitialized { at: place + first as u64 }),
            None => Ok(&self.bytes[range]),
        }
    }
}

/// A block's shared memory.
#[derive(Clone, Debug)]
pub struct Shared {
    bytes: Vec<u8>,
    written: Vec<bool>,
    /// 1 + the warp that wrote each byte since the last barrier.
    writer: Vec<u8>,
    /// The warps that read each byte since the last barrier.
    readers: Vec<u32>,
}

impl Shared {
    /// So many bytes, none of them written.
    pub fn new(bytes: u32) -> Shared {
        let n = bytes as usize;
        Shared {
            bytes: vec![0; n],
            written: vec![false; n],
            writer: vec![0; n],
            readers: vec![0; n],
        }
    }

    /// All warps have met.
    pub fn barrier(&mut self) {
        self.writer.fill(0);
        self.readers.fill(0);
    }

    fn range(&self, at: u64, width: u64) -> Result<std::ops::Range<usize>, Wrong> {
        let bytes = self.bytes.len() as u64;
        if at + width > bytes {
            return Err(Wrong::Bounds { at, bytes });
        }
        if !at.is_multiple_of(width) {
            return Err(Wrong::Misaligned { at, width });
        }
        Ok(at as usize..(at + width) as usize)
    }

    /// Loads for a warp.
    pub fn load(&mut self, warp: u32, at: u64, width: u64) -> Result<&[u8], Wrong> {
        let range = self.range(at, width)?;
        for byte in range.clone() {
            let writer = u32::from(self.writer[byte]);
            if writer != 0 && writer != warp + 1 {
                return Err(Wrong::Race { at: byte as u64, with: writer - 1 });
            }
            if !self.written[byte] {
                return Err(Wrong::Uninitialized { at: byte as u64 });
            }
            self.readers[byte] |= 1 << warp;
        }
        Ok(&self.bytes[range])
    }

    /// Stores for a warp.
    pub fn store(&mut self, warp: u32, at: u64, value: &[u8]) -> Result<(), Wrong> {
        let range = self.range(at, value.len() as u64)?;
        self.claim(warp, range.clone())?;
        self.written[range.clone()].fill(true);
        self.bytes[range].copy_from_slice(value);
        Ok(())
    }

    /// Begins a copy that arrives later: what was there is gone.
    pub fn expect(&mut self, warp: u32, at: u64, width: u64) -> Result<(), Wrong> {
        let range = self.range(at, width)?;
        self.claim(warp, range.clone())?;
        self.written[range].fill(false);
        Ok(())
    }

    /// Ends such a copy.
    pub fn arrive(&mut self, at: u64, value: &[u8]) {
        let range = at as usize..at as usize + value.len();
        self.written[range.clone()].fill(true);
        self.bytes[range].copy_from_slice(value);
    }

    fn claim(&mut self, warp: u32, range: std::ops::Range<usize>) -> Result<(), Wrong> {
        for byte in range {
            let others = self.readers[byte] & !(1 << warp);
            let writer = u32::from(self.writer[byte]);
            let other = match (others, writer) {
                (0, 0) => None,
                (0, writer) => (writer != warp + 1).then(|| writer - 1),
                (others, _) => Some(others.trailing_zeros()),
            };
            if let Some(with) = other {
                return Err(Wrong::Race { at: byte as u64, with });
            }
            self.writer[byte] = warp as u8 + 1;
        }
        Ok(())
    }
}

/// Refuses stores of several lanes, `width` bytes each, to the same place.
pub fn apart(places: &[u64], width: u64) -> Result<(), Wrong> {
    let mut sorted = places.to_vec();
    sorted.sort_unstable();
    let met = sorted.windows(2).find(|pair| pair[1] - pair[0] < width);
    met.map_or(Ok(()), |pair| Err(Wrong::Collision { at: pair[1] }))
}

/// Counts the sectors of 32 bytes that a warp's access to global memory touches.
pub fn count_global(counters: &mut Counters, places: &[u64], width: u64, is_store: bool) {
    let mut sectors: Vec<u64> = places.iter().map(|p| p / 32).collect();
    sectors.sort_unstable();
    sectors.dedup();
    counters.sectors += sectors.len() as u64;
    let bytes = places.len() as u64 * width;
    *if is_store { &mut counters.stored } else { &mut counters.loaded } += bytes;
}

/// Counts how often a warp's access to shared memory must be repeated because several lanes want
/// different words of one of the 32 banks. Accesses of 8 or 16 bytes go by halves or quarters.
pub fn count_shared(counters: &mut Counters, places: &[u64], width: u64) {
    let lanes = (128 / width.max(4)) as usize;
    for part in places.chunks(lanes) {
        let mut words: Vec<u64> =
            part.iter().flat_map(|p| (p / 4)..(p / 4 + width.div_ceil(4))).collect();
        words.sort_unstable();
        words.dedup();
        let mut banks = [0u64; 32];
        words.iter().for_each(|w| banks[(w % 32) as usize] += 1);
        counters.conflicts += banks.iter().max().copied().unwrap_or(0).saturating_sub(1);
    }
}
