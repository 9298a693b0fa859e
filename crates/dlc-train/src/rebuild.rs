//! Programs beside a trainer's own: for batches of other sizes, and for checking a failed step.

use crate::trainer::{Calls, no_eval};
use crate::{BoxError, Checking, Error};
use dlc_kernel::Executable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Makes executables of the same program for other batch sizes, so that evaluation counts every
/// sample, the last ones of an incomplete batch too, and such that check a step. What it made for
/// batch sizes is kept.
pub struct Rebuild<'a> {
    build: Box<Build<'a>>,
    check: Option<Box<Check<'a>>>,
    calls: BTreeMap<usize, Calls>,
}

type Build<'a> = dyn FnMut(usize) -> Result<Arc<dyn Executable>, BoxError> + 'a;
type Check<'a> = dyn FnMut(&str) -> Result<Checking, BoxError> + 'a;

impl<'a> Rebuild<'a> {
    /// `build(n)` compiles the program for batches of `n` samples with whole sequences; only its
    /// `eval` entry is used.
    pub fn new(
        build: impl FnMut(usize) -> Result<Arc<dyn Executable>, BoxError> + 'a,
    ) -> Rebuild<'a> {
        Rebuild { build: Box::new(build), check: None, calls: BTreeMap::new() }
    }

    /// `check(name)` compiles what finds out where the numbers of the entry of that name stop being
    /// finite.
    #[must_use]
    pub fn checking(
        self,
        check: impl FnMut(&str) -> Result<Checking, BoxError> + 'a,
    ) -> Rebuild<'a> {
        Rebuild { check: Some(Box::new(check)), ..self }
    }

    pub(crate) fn calls(&mut self, size: usize) -> Result<&mut Calls, Error> {
        if !self.calls.contains_key(&size) {
            let executable = (self.build)(size).map_err(Error::Build)?;
            let calls = Calls::find(&executable, "eval")?.ok_or_else(no_eval)?;
            self.calls.insert(size, calls);
        }
        Ok(self.calls.get_mut(&size).expect("it was just inserted"))
    }

    /// What finds out where the numbers of the entry of that name stop being finite, if it can be
    /// made.
    pub(crate) fn check(&mut self, entry: &str) -> Option<Checking> {
        (self.check.as_mut()?)(entry).ok()
    }
}
