//! Symbolic sizes: integer polynomials over named dims, in a normal form.
//!
//! Two sizes that are equal as polynomials are equal values, so `N*4 == 4*N` and
//! `(N + 1) - 1 == N` hold by construction. Divisions stay atoms unless they come out exactly, or a
//! product takes them back: `A * (D/A) == D`.
//! Arithmetic saturates at the ends of `i64`: whoever makes a tensor of a size checks it against
//! [`MAX_DIM`], which no saturated value passes.

use smallvec::{SmallVec, smallvec};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The largest extent an axis may have.
pub const MAX_DIM: i64 = 1 << 48;

/// Values of named dims.
pub type Bindings = BTreeMap<String, i64>;

/// An integer that is known now or once its dims are bound.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Const(i64),
    /// At least one term has an atom. Sorted by monomial; no zero coefficient.
    Poly(Arc<Vec<Term>>),
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Term {
    /// Sorted; empty for the constant term.
    atoms: SmallVec<[Atom; 2]>,
    coef: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Atom {
    Symbol(Arc<str>),
    /// `floor(a / b)`.
    FloorDiv(Size, Size),
    /// `a / b`, which whoever wrote it promised to be exact.
    ExactDiv(Size, Size),
}

/// Why a size has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// A dim has no value yet.
    #[error("dim `{0}` is not bound")]
    Unbound(String),
    /// `a / b` leaves a remainder.
    #[error("{0} is not divisible by {1}")]
    Inexact(i64, i64),
    /// Division by zero.
    #[error("division of {0} by zero")]
    ByZero(i64),
}

impl Size {
    /// The size 0.
    pub const ZERO: Size = Size(Repr::Const(0));
    /// The size 1.
    pub const ONE: Size = Size(Repr::Const(1));

    /// A named dim.
    pub fn symbol(name: &str) -> Size {
        Size::of_atom(Atom::Symbol(name.into()))
    }

    /// The value, if no dim occurs in it.
    pub fn as_const(&self) -> Option<i64> {
        match &self.0 {
            Repr::Const(c) => Some(*c),
            Repr::Poly(_) => None,
        }
    }

    /// The name, if it is just one dim.
    pub fn as_symbol(&self) -> Option<&str> {
        match &self.0 {
            Repr::Poly(terms) => match terms.as_slice() {
                [Term { atoms, coef: 1 }] => match atoms.as_slice() {
                    [Atom::Symbol(s)] => Some(s),
                    _ => None,
                },
                _ => None,
            },
            Repr::Const(_) => None,
        }
    }

    /// `self / other`, floored; stays symbolic where it cannot be computed.
    pub fn floor_div(&self, other: &Size) -> Size {
        match (self.as_const(), other.as_const()) {
            (Some(a), Some(b)) if b != 0 => return floor_quotient(a, b).into(),
            _ => {}
        }
        self.exact_quotient(other)
            .unwrap_or_else(|| Size::of_atom(Atom::FloorDiv(self.clone(), other.clone())))
    }

    /// `ceil(self / other)`.
    pub fn ceil_div(&self, other: &Size) -> Size {
        (self.clone() + other.clone() - Size::ONE).floor_div(other)
    }

    /// `self / other`, exact: the caller keeps the condition that it is.
    pub fn exact_div(&self, other: &Size) -> Size {
        self.exact_quotient(other)
            .unwrap_or_else(|| Size::of_atom(Atom::ExactDiv(self.clone(), other.clone())))
    }

    /// The quotient if every term divides, so that the division is exact for all bindings.
    pub fn exact_quotient(&self, other: &Size) -> Option<Size> {
        if self == other && other.as_const() != Some(0) {
            return Some(Size::ONE);
        }
        let divisor = other.single_term()?;
        let quotients = self.terms().into_iter().map(|t| divide_term(&t, &divisor));
        quotients.collect::<Option<Vec<_>>>().map(Size::from_terms)
    }

    /// The value under `bindings`.
    pub fn eval(&self, bindings: &Bindings) -> Result<i64, SizeError> {
        let mut sum = 0i64;
        for term in self.terms() {
            let mut product = term.coef;
            for atom in &term.atoms {
                product = product.saturating_mul(atom.eval(bindings)?);
            }
            sum = sum.saturating_add(product);
        }
        Ok(sum)
    }

    /// Replaces the dims that `value` knows.
    pub fn substitute(&self, value: &dyn Fn(&str) -> Option<Size>) -> Size {
        if self.as_const().is_some() {
            return self.clone();
        }
        let mut sum = Size::ZERO;
        for term in self.terms() {
            let product =
                term.atoms.iter().fold(Size::from(term.coef), |p, a| p * a.substitute(value));
            sum = sum + product;
        }
        sum
    }

    /// Replaces the dims that have a value; the others stay.
    pub fn bind(&self, bindings: &Bindings) -> Size {
        self.substitute(&|name| bindings.get(name).map(|&v| v.into()))
    }

    /// Adds the names of all dims in it to `names`.
    pub fn collect_symbols(&self, names: &mut std::collections::BTreeSet<String>) {
        for term in self.terms() {
            for atom in &term.atoms {
                match atom {
                    Atom::Symbol(s) => {
                        names.insert(s.to_string());
                    }
                    Atom::FloorDiv(a, b) | Atom::ExactDiv(a, b) => {
                        a.collect_symbols(names);
                        b.collect_symbols(names);
                    }
                }
            }
        }
    }

    fn of_atom(atom: Atom) -> Size {
        Size(Repr::Poly(Arc::new(vec![Term { atoms: smallvec![atom], coef: 1 }])))
    }

    /// The term, if it is just one.
    fn single_term(&self) -> Option<Term> {
        let mut terms = self.terms();
        if terms.len() == 1 { terms.pop() } else { None }
    }

    fn terms(&self) -> Vec<Term> {
        match &self.0 {
            Repr::Const(0) => Vec::new(),
            Repr::Const(c) => vec![Term { atoms: smallvec![], coef: *c }],
            Repr::Poly(terms) => terms.to_vec(),
        }
    }

    fn from_terms(terms: Vec<Term>) -> Size {
        let mut merged = merge(terms);
        while let Some((at, product)) = find_undone(&merged) {
            merged.swap_remove(at);
            merged.extend(product.terms());
            merged = merge(merged);
        }
        match merged.as_slice() {
            [] => Size::ZERO,
            [only] if only.atoms.is_empty() => only.coef.into(),
            _ => Size(Repr::Poly(Arc::new(merged))),
        }
    }
}

/// Sorted terms, one for each monomial, none with coefficient 0.
fn merge(mut terms: Vec<Term>) -> Vec<Term> {
    terms.sort_by(|a, b| a.atoms.cmp(&b.atoms));
    let mut merged: Vec<Term> = Vec::with_capacity(terms.len());
    for term in terms {
        match merged.last_mut() {
            Some(last) if last.atoms == term.atoms => {
                last.coef = last.coef.saturating_add(term.coef);
            }
            _ => merged.push(term),
        }
    }
    merged.retain(|t| t.coef != 0);
    merged
}

/// A term whose other factors take an exact division back, by position, and what it is then.
fn find_undone(terms: &[Term]) -> Option<(usize, Size)> {
    terms.iter().enumerate().find_map(|(at, term)| Some((at, undo_division(term)?)))
}

fn undo_division(term: &Term) -> Option<Size> {
    term.atoms.iter().enumerate().find_map(|(at, atom)| {
        let Atom::ExactDiv(a, b) = atom else { return None };
        let mut others = term.clone();
        others.atoms.remove(at);
        let rest = divide_term(&others, &b.single_term()?)?;
        Some(Size::from_terms(vec![rest]) * a.clone())
    })
}

/// `floor(a / b)`, `b` not 0.
fn floor_quotient(a: i64, b: i64) -> i64 {
    let truncated = a.saturating_div(b);
    truncated - i64::from(a.wrapping_rem(b) != 0 && (a < 0) != (b < 0))
}

fn divide_term(term: &Term, divisor: &Term) -> Option<Term> {
    if term.coef.checked_rem(divisor.coef)? != 0 {
        return None;
    }
    let mut atoms = term.atoms.clone();
    for atom in &divisor.atoms {
        let at = atoms.iter().position(|a| a == atom)?;
        atoms.remove(at);
    }
    Some(Term { atoms, coef: term.coef / divisor.coef })
}

impl Atom {
    fn eval(&self, bindings: &Bindings) -> Result<i64, SizeError> {
        match self {
            Atom::Symbol(s) => {
                bindings.get(&**s).copied().ok_or_else(|| SizeError::Unbound(s.to_string()))
            }
            Atom::FloorDiv(a, b) | Atom::ExactDiv(a, b) => {
                let (a, b) = (a.eval(bindings)?, b.eval(bindings)?);
                if b == 0 {
                    return Err(SizeError::ByZero(a));
                }
                if matches!(self, Atom::ExactDiv(..)) && a.wrapping_rem(b) != 0 {
                    return Err(SizeError::Inexact(a, b));
                }
                Ok(floor_quotient(a, b))
            }
        }
    }

    fn substitute(&self, value: &dyn Fn(&str) -> Option<Size>) -> Size {
        match self {
            Atom::Symbol(s) => value(s).unwrap_or_else(|| Size::of_atom(self.clone())),
            Atom::FloorDiv(a, b) => a.substitute(value).floor_div(&b.substitute(value)),
            Atom::ExactDiv(a, b) => a.substitute(value).exact_div(&b.substitute(value)),
        }
    }
}

impl From<i64> for Size {
    fn from(value: i64) -> Size {
        Size(Repr::Const(value))
    }
}

impl From<usize> for Size {
    fn from(value: usize) -> Size {
        Size(Repr::Const(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

impl std::ops::Add for Size {
    type Output = Size;
    fn add(self, other: Size) -> Size {
        match (self.as_const(), other.as_const()) {
            (Some(a), Some(b)) => a.saturating_add(b).into(),
            _ => Size::from_terms([self.terms(), other.terms()].concat()),
        }
    }
}

impl std::ops::Sub for Size {
    type Output = Size;
    fn sub(self, other: Size) -> Size {
        self + other * Size::from(-1i64)
    }
}

impl std::ops::Mul for Size {
    type Output = Size;
    fn mul(self, other: Size) -> Size {
        if let (Some(a), Some(b)) = (self.as_const(), other.as_const()) {
            return a.saturating_mul(b).into();
        }
        let mut terms = Vec::new();
        for a in self.terms() {
            for b in other.terms() {
                let mut atoms = a.atoms.clone();
                atoms.extend(b.atoms.iter().cloned());
                atoms.sort();
                terms.push(Term { atoms, coef: a.coef.saturating_mul(b.coef) });
            }
        }
        Size::from_terms(terms)
    }
}

impl std::iter::Product for Size {
    fn product<I: Iterator<Item = Size>>(iter: I) -> Size {
        iter.fold(Size::ONE, |a, b| a * b)
    }
}

impl fmt::Display for Size {
    /// `2*N*M + N - 1`: products first, the constant last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = match &self.0 {
            Repr::Const(c) => return write!(f, "{c}"),
            Repr::Poly(terms) => terms,
        };
        let ordered = terms.iter().filter(|t| !t.atoms.is_empty());
        let ordered = ordered.chain(terms.iter().filter(|t| t.atoms.is_empty()));
        for (i, term) in ordered.enumerate() {
            match (i, term.coef < 0) {
                (0, true) => write!(f, "-")?,
                (0, false) => {}
                (_, true) => write!(f, " - ")?,
                (_, false) => write!(f, " + ")?,
            }
            let magnitude = term.coef.unsigned_abs();
            if magnitude != 1 || term.atoms.is_empty() {
                write!(f, "{magnitude}")?;
                write!(f, "{}", if term.atoms.is_empty() { "" } else { "*" })?;
            }
            let alone = magnitude == 1 && term.atoms.len() == 1;
            for (k, atom) in term.atoms.iter().enumerate() {
                f.write_str(if k > 0 { "*" } else { "" })?;
                match atom {
                    Atom::Symbol(_) => write!(f, "{atom}")?,
                    _ if alone => write!(f, "{atom}")?,
                    _ => write!(f, "({atom})")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(s) => write!(f, "{s}"),
            Atom::FloorDiv(a, b) => write!(f, "{}//{}", a.as_operand(), b.as_operand()),
            Atom::ExactDiv(a, b) => write!(f, "{}/{}", a.as_operand(), b.as_operand()),
        }
    }
}

impl Size {
    /// The text beside a division sign.
    fn as_operand(&self) -> String {
        let plain = self.as_symbol().is_some() || self.as_const().is_some_and(|c| c >= 0);
        if plain { self.to_string() } else { format!("({self})") }
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
