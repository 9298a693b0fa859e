//! The schedule of a scatter: elements of the destination are updated in the order that its meaning fixes.
//!
//! Where updates are whole lines of the destination (rows of a table), a leaf makes a line at once, and
//! units are columns: all see the same lines, in the same order.

use super::contract::div_ceil;
use super::domain::{Domain, Linear, Place, extents};
use super::map::loaded;
use super::row::RowFold;
use super::stretch::{Kept, Stretch, Task, vectors_at_once};
use super::{Config, Site, lanes};
use dlc_kernel::{Axis, BufferId, DType, ExprId, FoldOp, Form, OptLevel, ScatterMode};
use std::fmt;

/// The fewest columns of a unit: to find its place costs a line as much as some of them.
const COLUMNS: i64 = 128;
/// What the columns of a unit are a multiple of, so that no two have a line of the cache.
const WHOLE: i64 = 16;
/// The most units of a scatter.
const MOST_UNITS: i64 = 8;

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
    /// Steps of the loops around.
    pub steps: i64,
    /// Where updates go.
    pub place: Place,
    /// What is added or written.
    pub value: ExprId,
    /// How lines are updated, if that is what it does.
    pub lines: Option<Lines>,
}

/// Updates of whole lines, along the last axis.
#[derive(Clone, Debug)]
pub struct Lines {
    /// The leaf, to which the scratch room is the destination.
    pub leaf: Stretch,
    /// Elements of a line.
    pub length: i64,
    /// Elements of a unit's part of each line.
    pub columns: i64,
}

impl Lines {
    /// Units of a step.
    pub fn units(&self) -> i64 {
        div_ceil(self.length, self.columns)
    }
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
        let steps = domain.extents[..site.steps].iter().product();
        let dtype = destination.dtype;
        let (config, mode, buffer, value) = (site.config, *mode, *buffer, *value);
        let lines = None;
        let mut schedule = ScatterSchedule {
            config,
            mode,
            domain,
            buffer,
            dtype,
            elements,
            steps,
            place,
            value,
            lines,
        };
        if site.config.opt_level > OptLevel::O0 && schedule.domain.extents.len() > site.steps {
            let line = extents(&destination.shape)?.last().copied();
            schedule.lines = schedule.find_lines(line.unwrap_or(1));
        }
        Ok(schedule)
    }

    /// How lines of `length` elements of the destination are updated, if that is what it does.
    fn find_lines(&self, length: i64) -> Option<Lines> {
        let axis = self.axes().pop()?;
        let Place { linear, quotients, checks, found } = &self.place;
        let stands = |id: ExprId| !self.domain.uses[id.0 as usize].contains(axis);
        let is_line = self.domain.extents[axis.0 as usize] == length
            && linear.coef(axis) == 1
            && quotients.iter().all(|q| q.index.coef(axis) == 0)
            && checks.iter().all(|c| c.index.coef(axis) == 0)
            && found.iter().all(|f| stands(f.index));
        // What a leaf stores is in no stream that it loads.
        let is_read = loaded(&self.domain, &[self.value]).contains(&self.buffer);
        let is_typed = self.domain.exprs.dtype(self.value) == self.dtype;
        if !is_line || is_read || !is_typed {
            return None;
        }
        let place = Place { linear: Linear::axis(axis), ..Place::default() };
        let added = RowFold { step: 0, op: FoldOp::Sum, value: self.value };
        let written = Kept { id: self.value, place: place.clone() };
        let (folds, states, leaves) = match self.mode {
            ScatterMode::Add => (vec![added], vec![place], Vec::new()),
            ScatterMode::Overwrite => (Vec::new(), Vec::new(), vec![written]),
        };
        let task = Task {
            folds: &folds,
            states: &states,
            leaves: &leaves,
            anywhere: true,
            ..Task::default()
        };
        let leaf = Stretch::new(&self.domain, axis, None, task)?;
        let units = (length / COLUMNS).clamp(1, MOST_UNITS);
        let columns = div_ceil(div_ceil(length, units), WHOLE) * WHOLE;
        Some(Lines { leaf, length, columns })
    }

    /// How many units there are.
    pub fn units(&self) -> i64 {
        self.steps * self.lines.as_ref().map_or(1, Lines::units)
    }

    /// What a unit takes, in nanoseconds.
    pub fn unit_cost(&self) -> f64 {
        let points = self.domain.points() as f64 / self.steps.max(1) as f64;
        let Some(lines) = &self.lines else {
            let each = lanes::vector_cost(&self.domain, &self.roots(), &[], None);
            return lanes::nanoseconds(points * (each + 5.0));
        };
        let vector =
            lanes::vector_cost(&self.domain, &[self.value], &[], Some(lines.leaf.axis)) + 2.0;
        let vectors = lines.columns as f64 / 4.0 / vectors_at_once(self.config.level);
        lanes::nanoseconds(points / lines.length.max(1) as f64 * (vectors * vector + 40.0))
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
        let units = self.units();
        write!(f, "{mode} {axes:?} into b{buffer} [{}], ", self.elements)?;
        match &self.lines {
            Some(lines) => write!(f, "lines by {}, by a leaf; {units} units", lines.columns),
            None => write!(f, "serial"),
        }
    }
}
