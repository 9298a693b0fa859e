//! Where a value is in memory.

use dlc_kernel::{Access, BufferId, Guard, Index, Size};

/// A buffer, or the part of a carry's history that is the next values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The buffer.
    pub buffer: BufferId,
    /// The dim of the steps in a history: element 0 is the first value, so the value of step `t` is
    /// at `t + 1`.
    pub next: Option<usize>,
}

impl Place {
    /// A whole buffer.
    pub fn whole(buffer: BufferId) -> Place {
        Place { buffer, next: None }
    }

    /// Where a value that has a dim's element at `access` has it in the buffer; outside wherever
    /// `access` is outside a value of shape `shape`, over `axes`.
    pub fn access(&self, access: &Access, shape: &[Size], axes: &[Size]) -> Access {
        let Some(dim) = self.next else { return access.clone() };
        let mut moved = access.clone();
        let coord = &mut moved.coords[dim];
        if !coord.is_inside(axes, &shape[dim]) {
            moved.guards.push(Guard { index: coord.clone(), extent: shape[dim].clone() });
        }
        *coord = Index { offset: coord.offset.clone() + Size::from(coord.div), ..coord.clone() };
        moved
    }

    /// The shape of the buffer that holds a value of shape `shape`.
    pub fn shape(&self, shape: &[Size]) -> Vec<Size> {
        let mut shape = shape.to_vec();
        if let Some(dim) = self.next {
            shape[dim] = shape[dim].clone() + Size::ONE;
        }
        shape
    }
}
