//! Loads and the places they read, as dumps show them.

use super::{Body, Level, guards, subscript};
use crate::{Access, BufferId, Index, Lookup, Scalar};

impl Body<'_> {
    pub(super) fn load(
        &self,
        buffer: BufferId,
        access: &Access,
        lookups: &[Lookup],
        fill: &Scalar,
    ) -> (String, Level) {
        let place = self.place(buffer, access, lookups);
        if self.surely_inside(buffer, access, lookups) {
            return (place, Level::Atom);
        }
        let mut text = place;
        guards(&mut text, access).expect("a string takes any text");
        (format!("{text} else {fill}"), Level::Conditional)
    }

    fn surely_inside(&self, buffer: BufferId, access: &Access, lookups: &[Lookup]) -> bool {
        let shape = &self.program.buffer(buffer).shape;
        let dims = access.coords.iter().zip(shape).enumerate();
        access.guards.is_empty()
            && dims
                .filter(|(dim, _)| lookups.iter().all(|l| l.dim as usize != *dim))
                .all(|(_, (index, extent))| index.is_inside(self.axes, extent))
    }

    /// `b3[e5, i1]`: lookups stand in their dims.
    pub(super) fn place(&self, buffer: BufferId, access: &Access, lookups: &[Lookup]) -> String {
        let coord =
            |(dim, index): (usize, &Index)| match lookups.iter().find(|l| l.dim as usize == dim) {
                Some(lookup) => self.operand(lookup.index, Level::Conditional),
                None => index.to_string(),
            };
        format!("{buffer}{}", subscript(access.coords.iter().enumerate().map(coord)))
    }
}
