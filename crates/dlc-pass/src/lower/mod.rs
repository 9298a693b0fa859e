//! From graphs to a kernel program.
//!
//! Each fused operation, and each operation that is in none, becomes one kernel; free values
//! ([`crate::class`]) are evaluated where they are read. What holds of the result:
//!
//! - Sources of one name are one buffer in all entries, but for inputs.
//! - A scan becomes one loop, whose kernels are those of its body ([`flatten`]); the histories of
//!   its carries are temporaries.
//! - Kernels run in the order of the graph; those that only serve the next parameters and state, or
//!   read what has been overwritten in place, run last, after the check ([`commit`]).

mod commit;
mod emit;
mod flatten;
mod form;
mod name;
mod nest;
mod place;

use crate::class::{Class, class, may_fail};
use crate::stored::stored_with;
use commit::Update;
use dlc_graph::op::{Fused, FusedKind, Lowering, Op, Overwrite, Part, Source, SourceClass};
use dlc_graph::{Graph, Role, Type, Value};
use dlc_kernel::{Buffer, BufferId, Class as BufferClass, Entry, Form, Kernel, Program, verify};
use flatten::{Flat, Nest, flatten};
use form::Unit;
use name::Names;
use place::Place;
use rustc_hash::FxHashMap;

/// Makes a program with one entry for each graph, by name. All sizes are bound.
///
/// # Panics
/// If a name is a parameter of one shape here and of another there, or a gradient is not expanded.
pub fn lower(entries: &[(&str, &Graph)]) -> Program {
    lower_named(entries).program
}

/// A program, and where its kernels come from.
pub struct Lowered {
    /// The program.
    pub program: Program,
    /// By entry: the operations that have kernels, with these kernels' names.
    pub kernels: Vec<FxHashMap<Value, String>>,
}

/// [`lower`], and which operation became which kernel.
///
/// # Panics
/// As [`lower`].
pub fn lower_named(entries: &[(&str, &Graph)]) -> Lowered {
    let (mut program, mut kernels) = (Program::default(), Vec::new());
    for &(name, graph) in entries {
        let flat = flatten(graph);
        let (entry, named) = EntryBuilder::new(&mut program, &flat).build(name);
        program.entries.push(entry);
        let of = |v: Value| Some((v, named.get(&flat.image[v.0 as usize])?.clone()));
        kernels.push(graph.values().filter_map(of).collect());
    }
    if cfg!(debug_assertions) {
        verify(&program).unwrap_or_else(|e| panic!("lowering made a bad program: {e}\n{program}"));
    }
    Lowered { program, kernels }
}

struct EntryBuilder<'a> {
    program: &'a mut Program,
    /// Flattened.
    graph: &'a Graph,
    nests: &'a [Nest],
    /// By value: the innermost loop that computes it.
    inside: &'a [Option<usize>],
    /// By value: whether it is in memory.
    stored: Vec<bool>,
    /// Where each value is in memory, as far as it has been computed.
    buffers: FxHashMap<Value, Place>,
    /// Where values go.
    homes: FxHashMap<Value, Place>,
    /// Those of the entry, then those of the loops that are open.
    kernels: Vec<Vec<Kernel>>,
    /// The kernel of an operation.
    named: FxHashMap<Value, String>,
    names: Names,
}

impl<'a> EntryBuilder<'a> {
    fn new(program: &'a mut Program, flat: &'a Flat) -> EntryBuilder<'a> {
        let carries = flat.nests.iter().flat_map(|n| &n.carries);
        let carried: Vec<Value> = carries.flat_map(|c| [c.first, c.next]).collect();
        EntryBuilder {
            program,
            graph: &flat.graph,
            nests: &flat.nests,
            inside: &flat.inside,
            stored: stored_with(&flat.graph, &carried),
            buffers: FxHashMap::default(),
            homes: FxHashMap::default(),
            kernels: vec![Vec::new()],
            named: FxHashMap::default(),
            names: Names::default(),
        }
    }

    fn build(mut self, name: &str) -> (Entry, FxHashMap<Value, String>) {
        let inputs = self.add_sources();
        self.claim_homes();
        self.add_kernels(0..self.graph.len() as u32, None);
        let outputs = self.add_outputs();
        let updates = self.updates();
        let checked = self.checked();
        let kernels = self.kernels.pop().expect("the entry is open");
        let plan = commit::Plan { updates, checked, outputs: outputs.clone() };
        let (kernels, commit) = commit::arrange(self.program, kernels, &plan, &mut self.names);
        (Entry { name: name.to_string(), inputs, outputs, kernels, commit }, self.named)
    }

    /// A buffer for each source, but for run-time scalars that nothing depends on; gives the inputs.
    fn add_sources(&mut self) -> Vec<BufferId> {
        let mut inputs = Vec::new();
        for (value, source) in self.graph.sources() {
            if source.class == SourceClass::Scalar && !self.is_read(value) {
                continue;
            }
            let buffer = self.source_buffer(source);
            if source.class == SourceClass::Input {
                inputs.push(buffer);
            }
            self.buffers.insert(value, Place::whole(buffer));
        }
        inputs
    }

    fn is_read(&self, value: Value) -> bool {
        let is_result = self.graph.results().iter().any(|result| result.value == value);
        is_result || !self.graph.users(value).is_empty()
    }

    fn source_buffer(&mut self, source: &Source) -> BufferId {
        let class = match source.class {
            SourceClass::Param => BufferClass::Param,
            SourceClass::State => BufferClass::State,
            SourceClass::Scalar => BufferClass::Scalar,
            SourceClass::Input => {
                return self.add_buffer(&source.name, &source.ty, BufferClass::Input);
            }
        };
        let known =
            self.program.buffers.iter().position(|b| b.class == class && *b.name == *source.name);
        let Some(known) = known else {
            let id = self.add_buffer(&source.name, &source.ty, class);
            if class == BufferClass::Scalar {
                self.program.buffers[id.0 as usize].default = source.default.value();
            }
            return id;
        };
        let shape = &self.program.buffers[known].shape;
        assert_eq!(*shape, source.ty.shape, "`{}` has another shape elsewhere", source.name);
        BufferId(known as u32)
    }

    fn add_buffer(&mut self, name: &str, ty: &Type, class: BufferClass) -> BufferId {
        add_buffer(self.program, name, ty, class)
    }

    /// Decides where results are written: an output to its own buffer, the next value of a
    /// parameter in place if a map makes it for nothing else.
    fn claim_homes(&mut self) {
        for result in self.graph.results() {
            let value = result.value;
            if class(self.graph, value) == Class::Source || self.homes.contains_key(&value) {
                continue;
            }
            let home = match result.role {
                Role::Output => {
                    let ty = self.graph.ty(value).clone();
                    self.add_buffer(&result.name, &ty, BufferClass::Output)
                }
                Role::Update if self.is_in_place(value) => self.target(&result.name),
                _ => continue,
            };
            self.homes.insert(value, Place::whole(home));
        }
    }

    /// Whether the kernel that makes `value` may write it over a parameter.
    fn is_in_place(&self, value: Value) -> bool {
        let results = self.graph.results().iter().filter(|r| r.value == value).count();
        let maker = match self.graph.op(value) {
            Op::Part(_) => self.graph.operands(value)[0],
            _ => value,
        };
        let is_map = match self.graph.op(maker) {
            Op::Overwrite(Overwrite { in_place: true, .. }) => return true,
            op if may_fail(op) => false,
            Op::Fused(fused) => fused.kind == FusedKind::Map,
            Op::Concat(_) => true,
            _ => matches!(class(self.graph, maker), Class::Point | Class::Free),
        };
        let looped = self.inside[value.0 as usize].is_some();
        is_map && !looped && results == 1 && self.graph.users(value).is_empty()
    }

    fn target(&self, name: &str) -> BufferId {
        let source = self.graph.source(name).expect("an update is named after a source");
        self.buffers[&source].buffer
    }

    fn add_kernel(&mut self, value: Value) {
        let graph = self.graph;
        let operands = graph.operands(value);
        let form = match graph.op(value).rules().lower() {
            Lowering::Source | Lowering::Part(_) => return,
            Lowering::Never => panic!("a gradient is expanded before lowering"),
            Lowering::Fused(fused) => return self.add_fused(value, fused),
            Lowering::Scan(_) => unreachable!("scans are flattened"),
            Lowering::Reshape => match self.inside[value.0 as usize] {
                Some(nest) => {
                    self.add_reshape(value, self.nests[nest].depth + 1);
                    self.settle(value);
                    return;
                }
                None => {
                    let src = self.whole(operands[0]);
                    Form::Reshape { src, dst: self.place(value).buffer }
                }
            },
            Lowering::ScatterAdd(scatter) => {
                let buffer = self.place(value).buffer;
                form::scatter_add(graph, value, scatter, buffer, &self.buffers)
            }
            Lowering::Overwrite(overwrite) => {
                let buffer = self.place(value).buffer;
                form::overwrite(graph, value, overwrite, buffer, &self.buffers)
            }
            Lowering::Fold(_) => self.single(value, FusedKind::Row),
            Lowering::Contract(_) => self.single(value, FusedKind::Contract),
            Lowering::Each(_) | Lowering::Point(_) | Lowering::Concat { .. } => {
                self.single(value, FusedKind::Map)
            }
        };
        self.push_kernel(value, form);
        self.settle(value);
    }

    /// `value` is in memory from now on.
    fn settle(&mut self, value: Value) {
        let home = self.homes[&value];
        self.buffers.insert(value, home);
    }

    /// The buffer that is `value`; a copy, if it is but a part of one.
    fn whole(&mut self, value: Value) -> BufferId {
        let place = self.buffers[&value];
        if place.next.is_none() {
            return place.buffer;
        }
        let ty = self.graph.ty(value).clone();
        let buffer = self.add_buffer("next", &ty, BufferClass::Temp);
        let (graph, kind) = (self.graph, FusedKind::Map);
        let (members, results) = (Vec::new(), vec![(value, Place::whole(buffer))]);
        let form = form::form(&Unit { graph, kind, members, results, buffers: &self.buffers });
        self.push_kernel(value, form);
        self.buffers.insert(value, Place::whole(buffer));
        buffer
    }

    fn single(&mut self, value: Value, kind: FusedKind) -> Form {
        let results = vec![(value, self.place(value))];
        form::form(&Unit {
            graph: self.graph,
            kind,
            members: vec![value],
            results,
            buffers: &self.buffers,
        })
    }

    fn add_fused(&mut self, value: Value, fused: &Fused) {
        let body = &*fused.body;
        let operands = self.graph.operands(value);
        let inputs =
            body.sources().map(|(v, source)| (v, self.buffers[&operands[source.position()]]));
        let buffers: FxHashMap<Value, Place> = inputs.collect();
        let parts = self.parts(value, body.results().len());
        let mut results = Vec::new();
        for (result, part) in body.results().iter().zip(&parts) {
            let Some(part) = *part else { continue };
            results.push((result.value, self.place(part)));
        }
        let members =
            body.values().filter(|&v| !matches!(class(body, v), Class::Free | Class::Source));
        let unit = Unit {
            graph: body,
            kind: fused.kind,
            members: members.collect(),
            results,
            buffers: &buffers,
        };
        let form = form::form(&unit);
        self.push_kernel(value, form);
        for part in parts.into_iter().flatten() {
            self.buffers.insert(part, self.homes[&part]);
        }
    }

    /// The values that stand for the results of a fused operation; `None` where nothing reads one.
    fn parts(&self, fused: Value, count: usize) -> Vec<Option<Value>> {
        if count == 1 {
            return vec![Some(fused)];
        }
        let mut parts = vec![None; count];
        for user in self.graph.users(fused) {
            if let Op::Part(Part(k)) = self.graph.op(user) {
                parts[*k as usize] = Some(user);
            }
        }
        parts
    }

    /// The buffer that `value` is written to.
    fn place(&mut self, value: Value) -> Place {
        if let Some(&home) = self.homes.get(&value) {
            return home;
        }
        let name = self.names.buffer(self.graph, value);
        let ty = self.graph.ty(value).clone();
        let place = Place::whole(self.add_buffer(&name, &ty, BufferClass::Temp));
        self.homes.insert(value, place);
        place
    }

    fn push_kernel(&mut self, value: Value, form: Form) {
        let (name, origin) = self.names.kernel(self.graph, value);
        self.named.insert(value, name.clone());
        self.kernels.last_mut().expect("the entry is open").push(Kernel { name, origin, form });
    }

    /// The buffers that the caller receives. What is no buffer of its own is copied.
    fn add_outputs(&mut self) -> Vec<BufferId> {
        let mut outputs: Vec<BufferId> = Vec::new();
        let mut copies = Vec::new();
        let graph = self.graph;
        for result in graph.results().iter().filter(|r| r.role == Role::Output) {
            let from = self.whole(result.value);
            let own = self.program.buffer(from).class == BufferClass::Output;
            if own && !outputs.contains(&from) {
                outputs.push(from);
                continue;
            }
            let ty = graph.ty(result.value).clone();
            let to = self.add_buffer(&result.name, &ty, BufferClass::Output);
            copies.push((from, to));
            outputs.push(to);
        }
        if !copies.is_empty() {
            let name = self.names.unique("copy_outputs");
            let form = commit::copies(self.program, &copies);
            self.kernels[0].push(Kernel { name, origin: None, form });
        }
        outputs
    }

    fn updates(&mut self) -> Vec<Update> {
        let updates = self.graph.results().iter().filter(|r| r.role == Role::Update);
        let mut update =
            |name: &str, value: &Value| Update { to: self.target(name), from: self.whole(*value) };
        updates.map(|r| update(&r.name, &r.value)).collect()
    }

    fn checked(&mut self) -> Vec<BufferId> {
        let mut checked: Vec<BufferId> = Vec::new();
        for result in self.graph.results().iter().filter(|r| r.role == Role::Check) {
            let buffer = self.whole(result.value);
            if !checked.contains(&buffer) {
                checked.push(buffer);
            }
        }
        checked
    }
}

/// Adds a buffer that only this entry uses.
fn add_buffer(program: &mut Program, name: &str, ty: &Type, class: BufferClass) -> BufferId {
    let id = BufferId(program.buffers.len() as u32);
    let (dtype, shape) = (ty.dtype, ty.shape.clone());
    program.buffers.push(Buffer { name: name.to_string(), dtype, shape, class, default: 0.0 });
    id
}
