//! Choices among the ways to compute a contraction, where measurements know better than the estimate.
//!
//! A choice is kept by the *problem*: everything the estimate looks at, as text. A way is known by its
//! text too. What holds: a choice never changes a sum. A way that would make its stores elsewhere than
//! the estimate's own is no alternative, and neither is one that is not among the ways at all.

use super::tiling::{Offer, Plan, Problem, Tiling};
use super::{Sums, Supply};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Chosen ways by problem. Empty, the estimate decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Choices(BTreeMap<String, String>);

/// A problem and the ways that the estimate ranks close, its own first.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternatives {
    /// What choices are kept by.
    pub problem: String,
    /// What can be chosen.
    pub ways: Vec<String>,
}

/// By how much an alternative may be dearer, in the estimate.
const CLOSE: f64 = 1.3;
/// The most alternatives of a problem, the estimate's own way included.
const MOST: usize = 8;

impl Choices {
    /// No choice at all.
    pub fn none() -> &'static Choices {
        static NONE: Choices = Choices(BTreeMap::new());
        &NONE
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The way chosen for a problem.
    pub fn get(&self, problem: &str) -> Option<&str> {
        self.0.get(problem).map(String::as_str)
    }

    /// Chooses a way for a problem.
    pub fn set(&mut self, problem: impl Into<String>, way: impl Into<String>) {
        self.0.insert(problem.into(), way.into());
    }

    /// Leaves a problem to the estimate.
    pub fn forget(&mut self, problem: &str) {
        self.0.remove(problem);
    }
}

/// One way to compute a contraction.
pub(super) struct Way<'a> {
    /// Whether the right operand is the rows.
    pub is_swapped: bool,
    /// About how many cycles it takes.
    pub cycles: f64,
    problem: Problem<'a>,
    rows: &'a Offer,
    columns: &'a Offer,
    plan: Plan,
}

/// All ways to compute a contraction, the cheapest by the estimate first.
pub(super) struct Ways<'a>(Vec<Way<'a>>);

impl<'a> Ways<'a> {
    /// The ways with the left operand as rows, then with the right one, given what both offer.
    pub fn new(problems: [Problem<'a>; 2], offers: &'a [Offer; 2]) -> Ways<'a> {
        let with = |is_swapped: bool| {
            let side = usize::from(is_swapped);
            let (problem, rows, columns) = (problems[side], &offers[side], &offers[1 - side]);
            let ways = Tiling::ways(problem, rows, columns).into_iter();
            ways.map(move |(plan, cycles)| Way { is_swapped, cycles, problem, rows, columns, plan })
        };
        // The sums of a bundle are columns.
        let swapped = problems[0].bundle.is_none().then(|| with(true));
        let mut ways: Vec<Way> = with(false).chain(swapped.into_iter().flatten()).collect();
        ways.sort_by(|a, b| a.cycles.total_cmp(&b.cycles));
        Ways(ways)
    }

    /// The way that is chosen, or else the cheapest; and whether it is chosen.
    pub fn pick(mut self, choices: &Choices) -> (Way<'a>, bool) {
        let chosen = match choices.is_empty() {
            true => None,
            false => choices.get(&self.problem()).and_then(|way| self.position(way)),
        };
        (self.0.swap_remove(chosen.unwrap_or(0)), chosen.is_some())
    }

    fn position(&self, chosen: &str) -> Option<usize> {
        let cheapest = self.0.first()?.order();
        self.0.iter().position(|way| way.to_string() == chosen && way.order() == cheapest)
    }

    /// What can be measured instead of believed.
    pub fn alternatives(&self) -> Alternatives {
        let (cheapest, limit) = (self.0[0].order(), CLOSE * self.0[0].cycles);
        let close = self.0.iter().filter(|way| way.cycles <= limit && way.order() == cheapest);
        Alternatives {
            problem: self.problem(),
            ways: close.take(MOST).map(Way::to_string).collect(),
        }
    }

    /// What the estimate looks at. All ways have it in common but for how they end.
    fn problem(&self) -> String {
        let of = |is_swapped| self.0.iter().find(|w| w.is_swapped == is_swapped);
        let left = of(false).expect("packing is always possible");
        let Problem { batch, depth, .. } = left.problem;
        let results = match (of(true), left.problem.bundle) {
            (Some(right), _) => format!("{} or {}", left.problem.ending, right.problem.ending),
            (None, bundle) => format!("{bundle:?}"),
        };
        format!("{batch} of {depth}, {} by {}, into {results}", left.rows, left.columns)
    }
}

impl Way<'_> {
    /// The loops.
    pub fn tiling(&self) -> Tiling {
        self.plan.cut(self.problem, self.rows, self.columns)
    }

    /// What decides how results come about: whether columns that are used once are in tiles at all,
    /// and whether tiles make the stores.
    fn order(&self) -> (bool, bool) {
        (self.columns.fixed, matches!(self.tiling().sums, Sums::Registers(_)))
    }
}

impl fmt::Display for Way<'_> {
    /// `6x16, rows in place, columns packed`, `.., swapped`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |supply: &Supply| match supply {
            Supply::Direct(_) => "in place",
            Supply::AtLoad | Supply::PerCall | Supply::PerUnit => "packed",
        };
        let Plan { tile, supplies: (rows, columns) } = &self.plan;
        write!(f, "{}x{}, rows {}, ", tile.rows, tile.columns, word(rows))?;
        write!(f, "columns {}", word(columns))?;
        f.write_str(if self.is_swapped { ", swapped" } else { "" })
    }
}

impl fmt::Display for Offer {
    /// `64 of 2 axes, by 1 in runs of 8 and [512], cost 1.50`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} axes", self.points, self.axes)?;
        f.write_str(if self.fixed { ", fixed" } else { "" })?;
        f.write_str(if self.once { ", packed once" } else { "" })?;
        if let Some(steps) = &self.steps {
            write!(f, ", by {} in runs of {} and {:?}", steps.side, steps.run, &steps.depth[..])?;
        }
        write!(f, ", cost {:.2}", self.pack_cost)
    }
}
