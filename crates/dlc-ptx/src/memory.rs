//! Places in device memory.
//!
//! What lasts (parameters, state, run-time scalars) comes first, then what callers give and
//! receive, then the error record. The temporaries and workspaces of all entries share the rest.

use crate::device::{ALIGNMENT, DeviceBuffer, ErrorRecord};
use crate::group::{Grouped, Groups};
use crate::place::bound;
use dlc_kernel::plan::{self, Aliases, Block};
use dlc_kernel::{BufferId, BuildError, Class};

/// Where everything lies, in bytes from the start of the allocation.
#[derive(Clone, Debug)]
pub struct Memory {
    /// By buffer.
    pub buffers: Vec<DeviceBuffer>,
    /// The error record.
    pub error: u64,
    /// By entry, by group of kernels: the workspaces, in order.
    pub workspaces: Vec<Vec<Vec<u64>>>,
    /// Bytes of the allocation.
    pub bytes: u64,
}

impl Memory {
    /// Places all buffers of a program, but for temporaries that do not leave a group of kernels.
    /// `aliases` holds, by entry, buffers that live in others; `workspaces` by entry and group, the
    /// bytes of each.
    ///
    /// # Errors
    /// [`BuildError::Memory`] if 64 bits do not count the bytes.
    pub fn plan(
        grouped: &Grouped,
        aliases: &[Aliases],
        workspaces: &[Vec<Vec<u64>>],
    ) -> Result<Memory, BuildError> {
        let program = &grouped.program;
        let mut memory = Memory {
            buffers: program.buffers.iter().map(device_buffer).collect(),
            error: 0,
            workspaces: Vec::new(),
            bytes: 0,
        };
        for id in 0..program.buffers.len() {
            if program.buffers[id].class != Class::Temp {
                memory.buffers[id].offset = memory.reserve(memory.buffers[id].bytes)?;
            }
        }
        memory.error = memory.reserve(ErrorRecord::BYTES)?;
        let start = memory.bytes;
        for (entry, (aliases, workspaces)) in aliases.iter().zip(workspaces).enumerate() {
            let peak = memory.place_entry(grouped, entry, aliases, workspaces, start)?;
            memory.bytes = memory.bytes.max(peak);
        }
        Ok(memory)
    }

    fn reserve(&mut self, bytes: u64) -> Result<u64, BuildError> {
        let at = self.bytes;
        let room = bytes.max(1).checked_next_multiple_of(ALIGNMENT);
        self.bytes = room.and_then(|room| at.checked_add(room)).ok_or_else(too_large)?;
        Ok(at)
    }

    /// Places what one entry has for itself, from `start` on; gives the end.
    fn place_entry(
        &mut self,
        grouped: &Grouped,
        entry: usize,
        aliases: &Aliases,
        workspaces: &[Vec<u64>],
        start: u64,
    ) -> Result<u64, BuildError> {
        let Groups { ranges: groups, inner, .. } = &grouped.entries[entry];
        let entry = &grouped.program.entries[entry];
        let mut lives = plan::lifetimes(&grouped.program, entry, aliases);
        let group = |kernel: usize| groups.partition_point(|group| group.end <= kernel);
        lives.retain(|live| {
            let is_inner = inner.contains(&live.buffer);
            if is_inner {
                self.buffers[live.buffer.0 as usize].bytes = 0;
            }
            !is_inner
        });
        let of_buffer = |live: &plan::Lifetime| Block {
            bytes: self.buffers[live.buffer.0 as usize].bytes,
            first: group(live.first),
            last: group(live.last),
        };
        let mut blocks: Vec<Block> = lives.iter().map(of_buffer).collect();
        for (at, bytes) in workspaces.iter().enumerate() {
            blocks.extend(bytes.iter().map(|&bytes| Block { bytes, first: at, last: at }));
        }
        let plan = plan::place(&blocks, ALIGNMENT).map_err(|_| too_large())?;
        let end = start.checked_add(plan.peak).ok_or_else(too_large)?;
        let mut offsets = plan.offsets.iter().map(|offset| start + offset);
        for live in &lives {
            self.buffers[live.buffer.0 as usize].offset = offsets.next().expect("one for each");
        }
        let own = workspaces.iter().map(|w| offsets.by_ref().take(w.len()).collect()).collect();
        self.workspaces.push(own);
        for (&BufferId(alias), &BufferId(root)) in aliases {
            self.buffers[alias as usize].offset = self.buffers[root as usize].offset;
        }
        Ok(end)
    }
}

fn too_large() -> BuildError {
    BuildError::Memory { needed: u64::MAX, limit: u64::MAX }
}

fn device_buffer(buffer: &dlc_kernel::Buffer) -> DeviceBuffer {
    let elements = buffer.elements().expect("sizes are bound") as u64;
    DeviceBuffer {
        name: buffer.name.clone(),
        dtype: buffer.dtype,
        shape: buffer.shape.iter().map(|s| bound(s) as u64).collect(),
        class: buffer.class,
        default: buffer.default,
        offset: 0,
        bytes: elements * buffer.dtype.bytes() as u64,
    }
}
