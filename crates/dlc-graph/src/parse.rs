//! Reads what [`print`](mod@crate::print) writes. Comments, and with them origins, are skipped.

mod cursor;
mod index;

use crate::op::{
    Binary, Cast, Concat, Const, Contract, Extent, Fused, FusedKind, Gather, Grad, Hole, Iota, Op,
    Overwrite, Part, Random, Reduce, Reshape, Scan, ScatterAdd, Select, Source, SourceClass,
    StopGradient, Unary, View, fold_name,
};
use crate::{Graph, Operands, Role, Type, Value};
use cursor::Cursor;
use dlc_kernel::{BinaryOp, DType, FoldOp, Scalar, UnaryOp};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Where and why a text is no graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

type Parsed<T> = Result<T, ParseError>;

/// How deep bodies and parentheses may nest.
const MAX_DEPTH: usize = 64;

impl Graph {
    /// The graph that prints as `text`.
    pub fn parse(text: &str) -> Result<Graph, ParseError> {
        let mut cursor = Cursor::new(text);
        cursor.word("graph")?;
        let graph = Parser::new(&mut cursor, 0).graph()?;
        cursor.end()?;
        Ok(graph)
    }
}

struct Parser<'a, 't> {
    cursor: &'a mut Cursor<'t>,
    graph: Graph,
    /// By printed number.
    values: FxHashMap<u32, Value>,
    depth: usize,
}

impl<'a, 't> Parser<'a, 't> {
    fn new(cursor: &'a mut Cursor<'t>, depth: usize) -> Parser<'a, 't> {
        Parser { cursor, graph: Graph::new(), values: FxHashMap::default(), depth }
    }

    fn graph(mut self) -> Parsed<Graph> {
        self.cursor.expect("{")?;
        loop {
            if self.cursor.accept("}") {
                return Ok(self.graph);
            }
            if self.cursor.accept_word("return") {
                self.results()?;
                self.cursor.expect("}")?;
                return Ok(self.graph);
            }
            self.node()?;
        }
    }

    fn results(&mut self) -> Parsed<()> {
        loop {
            let role = if self.cursor.accept_word("update") {
                Role::Update
            } else if self.cursor.accept_word("check") {
                Role::Check
            } else {
                Role::Output
            };
            let name = self.cursor.name()?;
            self.cursor.expect("=")?;
            let value = self.value()?;
            self.graph.add_result(name, value, role);
            if !self.cursor.accept(",") {
                return Ok(());
            }
        }
    }

    /// `%2 name: f32[N] = op`.
    fn node(&mut self) -> Parsed<()> {
        let start = self.cursor.at();
        let number = self.number_of_value()?;
        let name = match self.cursor.peek(":") {
            true => None,
            false => Some(self.cursor.name()?),
        };
        self.cursor.expect(":")?;
        let ty = self.ty()?;
        self.cursor.expect("=")?;
        let (op, operands) = self.op(&ty, name)?;
        let added = self.graph.add(op, &operands, None);
        let value = added.map_err(|e| self.cursor.error_at(start, e.to_string()))?;
        if *self.graph.ty(value) != ty {
            let message = format!("this is of type {}, not {ty}", self.graph.ty(value));
            return Err(self.cursor.error_at(start, message));
        }
        if self.values.insert(number, value).is_some() {
            return Err(self.cursor.error_at(start, format!("%{number} is defined twice")));
        }
        Ok(())
    }

    fn ty(&mut self) -> Parsed<Type> {
        let at = self.cursor.at();
        let name = self.cursor.identifier()?;
        let Some(dtype) = DType::from_name(name) else {
            return Err(self.cursor.error_at(at, format!("`{name}` is no element type")));
        };
        self.cursor.expect("[")?;
        let shape = self.list("]", |p| p.size())?;
        Ok(Type::new(dtype, shape))
    }

    fn op(&mut self, ty: &Type, name: Option<String>) -> Parsed<(Op, Operands)> {
        let at = self.cursor.at();
        let word = self.cursor.identifier()?;
        if let Some(class) = SourceClass::ALL.into_iter().find(|c| c.name() == word) {
            let Some(name) = name else {
                return Err(self.cursor.error_at(at, format!("this {word} has no name")));
            };
            let default = self.cursor.accept_number()?.unwrap_or(0.0);
            let default = Scalar::new(ty.dtype, default);
            let source = Source { name: name.into(), class, ty: ty.clone(), default };
            return Ok((source.into(), Operands::new()));
        }
        if name.is_some() {
            return Err(self.cursor.error_at(at, "only inputs, parameters and state have names"));
        }
        match word {
            "view" => self.view(ty),
            "contract" => self.contract(ty),
            "fused" => self.fused(),
            "scan" => self.scan(),
            "hole" => {
                let number = self.cursor.count()?;
                Ok((Hole { number, ty: ty.clone() }.into(), Operands::new()))
            }
            "const" => {
                let value = self.cursor.number()?;
                Ok((Const(Scalar::new(ty.dtype, value)).into(), Operands::new()))
            }
            "extent" => {
                let size = self.size()?;
                Ok((Extent { size, dtype: ty.dtype }.into(), Operands::new()))
            }
            "iota" => match ty.shape.as_slice() {
                [extent] => Ok((Iota { extent: extent.clone() }.into(), Operands::new())),
                _ => Err(self.cursor.error_at(at, "`iota` has one dim")),
            },
            _ => {
                let op = self.plain(word, ty, at)?;
                Ok((op, self.operands()?))
            }
        }
    }

    /// The operations printed as `name{attributes}(operands)`.
    fn plain(&mut self, word: &str, ty: &Type, at: usize) -> Parsed<Op> {
        Ok(match word {
            "select" => Select.into(),
            "cast" => Cast(ty.dtype).into(),
            "stop_gradient" => StopGradient.into(),
            "reshape" => Reshape { shape: ty.shape.clone() }.into(),
            "grad" => Grad.into(),
            "random" => {
                let site = self.attributes(|p| p.attribute("site", |p| p.cursor.hex()))?;
                Random { site, shape: ty.shape.clone() }.into()
            }
            "concat" => Concat { axis: self.attributes(|p| p.count("axis"))? }.into(),
            "part" => Part(self.attributes(|p| p.count("index"))?).into(),
            "gather" => {
                let (axis, batch) =
                    self.attributes(|p| Ok((p.count("axis")?, p.count("batch")?)))?;
                Gather { axis, batch }.into()
            }
            "overwrite" => self
                .attributes(|p| {
                    let (axis, batch) = (p.count("axis")?, p.count("batch")?);
                    let in_place = p.count("in_place")? == 1;
                    Ok(Overwrite { axis, batch, in_place })
                })?
                .into(),
            "scatter_add" => self
                .attributes(|p| {
                    let (axis, batch) = (p.count("axis")?, p.count("batch")?);
                    let extent = p.attribute("extent", |p| p.size())?;
                    Ok(ScatterAdd { axis, batch, extent })
                })?
                .into(),
            _ => {
                if let Some(op) = UnaryOp::from_name(word) {
                    return Ok(Unary(op).into());
                }
                if let Some(op) = BinaryOp::from_name(word) {
                    return Ok(Binary(op).into());
                }
                let Some(&op) = FoldOp::ALL.iter().find(|op| fold_name(**op) == word) else {
                    return Err(self.cursor.error_at(at, format!("`{word}` is no operation")));
                };
                let axes = self.attributes(|p| {
                    p.attribute("axes", |p| {
                        p.cursor.expect("[")?;
                        p.list("]", |p| p.cursor.count())
                    })
                })?;
                Reduce { op, axes: axes.into_iter().collect() }.into()
            }
        })
    }

    fn attributes<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.cursor.expect("{")?;
        let value = read(self)?;
        self.cursor.expect("}")?;
        Ok(value)
    }

    fn attribute<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.cursor.accept(",");
        self.cursor.word(key)?;
        self.cursor.expect("=")?;
        read(self)
    }

    fn count(&mut self, key: &str) -> Parsed<u32> {
        self.attribute(key, |p| p.cursor.count())
    }

    fn operands(&mut self) -> Parsed<Operands> {
        self.cursor.expect("(")?;
        Ok(self.list(")", |p| p.value())?.into_iter().collect())
    }

    fn view(&mut self, ty: &Type) -> Parsed<(Op, Operands)> {
        let axes = self.axis_names()?;
        if axes.len() != ty.rank() {
            return Err(self.cursor.error(format!("{ty} has not {} axes", axes.len())));
        }
        let operand = self.value()?;
        let access = self.access(&axes)?;
        let fill = match self.cursor.accept_word("else") {
            true => self.cursor.number()?,
            false => 0.0,
        };
        let fill = Scalar::new(ty.dtype, fill);
        let view = View { axes: ty.shape.clone(), access, fill };
        Ok((view.into(), Operands::from_slice(&[operand])))
    }

    fn contract(&mut self, ty: &Type) -> Parsed<(Op, Operands)> {
        let mut axes = self.axis_names()?;
        if axes.len() != ty.rank() {
            return Err(self.cursor.error(format!("{ty} has not {} axes", axes.len())));
        }
        let mut reduce = crate::Shape::new();
        if self.cursor.accept_word("sum") {
            self.cursor.expect("[")?;
            for (name, extent) in self.list("]", |p| {
                let name = p.cursor.identifier()?.to_string();
                p.cursor.expect(":")?;
                Ok((name, p.size()?))
            })? {
                axes.push(name);
                reduce.push(extent);
            }
        }
        let (left, lhs) = (self.value()?, self.access(&axes)?);
        self.cursor.expect("*")?;
        let (right, rhs) = (self.value()?, self.access(&axes)?);
        let op = Contract { out: ty.shape.clone(), reduce, lhs, rhs };
        Ok((op.into(), Operands::from_slice(&[left, right])))
    }

    fn axis_names(&mut self) -> Parsed<Vec<String>> {
        self.cursor.expect("[")?;
        self.list("]", |p| Ok(p.cursor.identifier()?.to_string()))
    }

    fn fused(&mut self) -> Parsed<(Op, Operands)> {
        let word = self.cursor.identifier()?;
        let Some(kind) = FusedKind::ALL.into_iter().find(|k| k.name() == word) else {
            return Err(self.cursor.error(format!("`{word}` is no kind of fusion")));
        };
        let operands = self.operands()?;
        let body = self.body()?;
        Ok((Fused { kind, body: Arc::new(body) }.into(), operands))
    }

    fn scan(&mut self) -> Parsed<(Op, Operands)> {
        let steps = self.size()?;
        let mut operands = Operands::new();
        let mut counts = [0; 3];
        for (count, word) in counts.iter_mut().zip(["carry", "along", "with"]) {
            if self.cursor.accept_word(word) {
                let own = self.operands()?;
                *count = own.len() as u32;
                operands.extend(own);
            }
        }
        let body = Arc::new(self.body()?);
        let [carries, sequences, _] = counts;
        Ok((Scan { steps, carries, sequences, body }.into(), operands))
    }

    fn body(&mut self) -> Parsed<Graph> {
        if self.depth >= MAX_DEPTH {
            return Err(self.cursor.error(format!("bodies nest deeper than {MAX_DEPTH}")));
        }
        Parser::new(self.cursor, self.depth + 1).graph()
    }

    fn value(&mut self) -> Parsed<Value> {
        let at = self.cursor.at();
        let number = self.number_of_value()?;
        let known = self.values.get(&number).copied();
        known.ok_or_else(|| self.cursor.error_at(at, format!("%{number} is not defined here")))
    }

    fn number_of_value(&mut self) -> Parsed<u32> {
        self.cursor.expect("%")?;
        self.cursor.count()
    }

    /// Items with commas between, up to and with `end`.
    fn list<T>(
        &mut self,
        end: &str,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.cursor.accept(end) {
            if !items.is_empty() {
                self.cursor.expect(",")?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }
}
