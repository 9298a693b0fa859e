//! Conditions on sizes: proved where possible, else kept until sizes are bound.

use std::fmt;

use dlc_kernel::{Bindings, Size, SizeError};

use crate::Code;
use crate::diagnostic::Diagnostic;

/// How two sizes are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
}

impl Comparison {
    fn symbol(self) -> &'static str {
        match self {
            Comparison::Eq => "==",
            Comparison::Ne => "!=",
            Comparison::Lt => "<",
            Comparison::Le => "<=",
        }
    }

    fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Comparison::Eq => left == right,
            Comparison::Ne => left != right,
            Comparison::Lt => left < right,
            Comparison::Le => left <= right,
        }
    }
}

/// A comparison of two sizes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Relation {
    /// The left side.
    pub left: Size,
    /// How they are compared.
    pub comparison: Comparison,
    /// The right side.
    pub right: Size,
}

impl Relation {
    /// Whether it holds whatever the dims are, if that can be told.
    pub(crate) fn decide(&self) -> Option<bool> {
        let difference = (self.left.clone() - self.right.clone()).as_const()?;
        Some(self.comparison.holds(difference, 0))
    }

    /// The opposite relation.
    pub(crate) fn negate(&self) -> Relation {
        let (left, right) = (self.left.clone(), self.right.clone());
        let (left, comparison, right) = match self.comparison {
            Comparison::Eq => (left, Comparison::Ne, right),
            Comparison::Ne => (left, Comparison::Eq, right),
            Comparison::Lt => (right, Comparison::Le, left),
            Comparison::Le => (right, Comparison::Lt, left),
        };
        Relation { left, comparison, right }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.comparison.symbol(), self.right)
    }
}

/// A condition that could not be decided while sizes were symbolic.
#[derive(Clone, Debug)]
pub struct Constraint {
    /// What must hold.
    pub relation: Relation,
    /// What to report if it does not.
    pub diagnostic: Diagnostic,
}

impl Constraint {
    /// Checks it under `bindings`; dims without a value leave it undecided, which is no error.
    ///
    /// # Errors
    /// The diagnostic, with the values, if the condition is false.
    pub fn check(&self, bindings: &Bindings) -> Result<(), Box<Diagnostic>> {
        let Relation { left, comparison, right } = &self.relation;
        let (left, right) = match (left.eval(bindings), right.eval(bindings)) {
            (Ok(left), Ok(right)) => (left, right),
            (Err(SizeError::Unbound(_)), _) | (_, Err(SizeError::Unbound(_))) => return Ok(()),
            (Err(error), _) | (_, Err(error)) => {
                let note = format!("{}: {error}", self.relation);
                return Err(Box::new(self.diagnostic.clone().note(note)));
            }
        };
        if comparison.holds(left, right) {
            return Ok(());
        }
        let note = format!(
            "`{}` is `{left} {} {right}` for these sizes",
            self.relation,
            comparison.symbol()
        );
        Err(Box::new(self.diagnostic.clone().note(note)))
    }
}

/// The code of all of them.
pub(crate) const CODE: Code = Code::Constraint;
