//! The schedule of a scatter: a serial loop, in the order that its meaning fixes.

use super::domain::{Domain, Place, extents};
use super::map::loaded;
use super::{Config, Site};
use dlc_kernel::{Axis, BufferId, DType, ExprId, Form, ScatterMode};
use std::fmt;

/// How a scatter is computed.
#[derive(Clone, Debug)]
pub struct ScatterSchedule<'k> {
    /// What it is made for.
    pub config: Config,
    /// What happens at an element.
    pub mode: ScatterMode,
    /// Its axes, and its expressions.
    pub domain: Domain<'k>,
    /// The destination.
    pub buffer: BufferId,
    /// Its type.
    pub dtype: DType,
    /// Its elements, in one step of the loops around.
    pub elements: i64,
    /// Steps of the loops around; a unit is one.
    pub units: i64,
    /// Where updates go.
    pub place: Place,
    /// What is added or written.
    pub value: ExprId,
}

impl<'k> ScatterSchedule<'k> {
    /// The schedule of a scatter with all sizes bound.
    ///
    /// # Errors
    /// If a size is not bound or there are too many axes.
    ///
    /// # Panics
    /// If `form` is of another kind.
    pub fn new(site: Site<'k>, form: &'k Form) -> Result<ScatterSchedule<'k>, String> {
        let Form::Scatter { mode, axes, exprs, buffer, access, lookups, value } = form else {
            panic!("a scatter's schedule is asked of `{}`", form.name())
        };
        let domain = Domain::new(site, exprs, extents(axes)?)?;
        let destination = site.program.buffer(*buffer);
        let place = domain.resolve(site, *buffer, access, lookups)?;
        let elements = extents(&destination.shape)?[site.steps..].iter().product();
        let units = domain.extents[..site.steps].iter().product();
        let dtype = destination.dtype;
        let (config, mode, buffer, value) = (site.config, *mode, *buffer, *value);
        Ok(ScatterSchedule { config, mode, domain, buffer, dtype, elements, units, place, value })
    }

    /// The lookups' indices and the value.
    pub fn roots(&self) -> Vec<ExprId> {
        self.place.found.iter().map(|f| f.index).chain([self.value]).collect()
    }

    /// The buffers it touches, the destination first.
    pub fn operands(&self) -> Vec<BufferId> {
        let loads = loaded(&self.domain, &self.roots());
        std::iter::once(self.buffer)
            .chain(loads.into_iter().filter(|&b| b != self.buffer))
            .collect()
    }

    /// All axes, outermost first.
    pub fn axes(&self) -> Vec<Axis> {
        (0..self.domain.extents.len() as u32).map(Axis).collect()
    }
}

impl fmt::Display for ScatterSchedule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes = &self.domain.extents[..];
        let (mode, buffer) = (self.mode.name(), self.buffer.0);
        write!(f, "{mode} {axes:?} into b{buffer} [{}], serial", self.elements)
    }
}
