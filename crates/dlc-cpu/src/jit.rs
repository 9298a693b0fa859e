//! Functions to machine code in memory.
//!
//! Equal functions are compiled once; the rest are compiled in parallel and then entered, with the
//! leaves they call, into one module. Its pages are writable first and executable afterwards,
//! never both, and are unmapped when the [`Module`] is dropped.

use crate::abi::{ALIGNMENT, KernelFn, LeafFn};
use crate::codegen::{Code, Part};
use crate::leaf::Leaf;
use crate::leaf::portable::{self, Multiply};
use crate::leaf::wide;
use crate::level::{Effort, Level};
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Function, UserFuncName};
use cranelift_codegen::isa::{OwnedTargetIsa, TargetFrontendConfig, TargetIsa};
use cranelift_codegen::{CompiledCode, Context, FinalizedRelocTarget, ir};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module as _, ModuleReloc, ModuleRelocTarget};
use dlc_kernel::{BuildError, OptLevel};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use std::hash::{Hash, Hasher};

/// Compiled functions in executable memory.
pub struct Module {
    /// `None` only while it is dropped.
    module: Option<JITModule>,
    functions: Vec<FuncId>,
    leaves: Vec<FuncId>,
    bytes: usize,
}

/// A function's machine code before it has an address.
pub struct Compiled {
    /// Code, then its constants.
    pub bytes: Vec<u8>,
    /// What each call in it goes to, by position in `bytes`.
    pub calls: Vec<Call>,
}

/// A place in code that waits for the address of a leaf.
pub struct Call {
    /// The leaf.
    pub leaf: Leaf,
    reloc: cranelift_codegen::FinalizedMachReloc,
}

impl Call {
    /// Where in the code the address goes.
    pub fn offset(&self) -> u32 {
        self.reloc.offset
    }
}

/// Functions without repetition.
pub struct Unique<'c> {
    /// Each function once, as part of the first kernel it is for.
    pub parts: Vec<&'c Part>,
    /// For every part that was given, the position of its function in `parts`.
    pub index: Vec<usize>,
}

/// The code generators for the functions of a program.
pub struct Isas {
    /// For functions that calls hardly spend time in, but for their leaves.
    cold: OwnedTargetIsa,
    /// For the others.
    hot: OwnedTargetIsa,
}

impl Isas {
    /// Those of a level.
    ///
    /// # Errors
    /// As [`Level::isa`].
    pub fn new(level: Level, opt_level: OptLevel) -> Result<Isas, BuildError> {
        Ok(Isas { cold: level.isa(Effort::Least)?, hot: level.isa(Effort::of(opt_level))? })
    }

    /// The one for a part.
    pub fn of(&self, part: &Part) -> &dyn TargetIsa {
        if part.is_hot() { &*self.hot } else { &*self.cold }
    }

    /// What functions and their callers agree on.
    pub fn frontend_config(&self) -> TargetFrontendConfig {
        self.hot.frontend_config()
    }
}

/// Finds equal functions.
pub fn deduplicate<'c>(parts: &[&'c Part]) -> Unique<'c> {
    let hash = |part: &&Part| {
        let mut hasher = FxHasher::default();
        part.code.function.stencil.hash(&mut hasher);
        part.code.leaves.hash(&mut hasher);
        hasher.finish()
    };
    let hashes: Vec<u64> = parts.par_iter().map(hash).collect();
    let mut unique = Unique { parts: Vec::new(), index: Vec::new() };
    let mut by_hash: FxHashMap<u64, Vec<usize>> = FxHashMap::default();
    for (&part, hash) in parts.iter().zip(hashes) {
        let code = &part.code;
        let same_hash = by_hash.entry(hash).or_default();
        let equal = |&&at: &&usize| {
            let known: &Part = unique.parts[at];
            known.is_hot() == part.is_hot()
                && known.code.leaves == code.leaves
                && known.code.function.stencil == code.function.stencil
        };
        let at = same_hash.iter().find(equal).copied().unwrap_or_else(|| {
            same_hash.push(unique.parts.len());
            unique.parts.push(part);
            unique.parts.len() - 1
        });
        unique.index.push(at);
    }
    unique
}

/// The leaves that functions call, each once.
fn leaves(parts: &[&Part]) -> Vec<Leaf> {
    let mut known = FxHashSet::default();
    let called = parts.iter().flat_map(|part| &part.code.leaves);
    called.filter(|leaf| known.insert(*leaf)).cloned().collect()
}

/// Compiles one function.
///
/// # Errors
/// What the code generator has to say against it.
pub fn compile(isa: &dyn TargetIsa, code: &Code) -> Result<Compiled, String> {
    compile_in(&mut Context::new(), isa, code)
}

/// [`compile`] with the memory of functions compiled before.
fn compile_in(context: &mut Context, isa: &dyn TargetIsa, code: &Code) -> Result<Compiled, String> {
    context.clear();
    context.func = code.function.clone();
    let compiled =
        context.compile(isa, &mut ControlPlane::default()).map_err(|e| format!("{:?}", e.inner))?;
    finish(compiled, &code.leaves, &code.function)
}

/// Compiles a leaf, as wide as the level has vectors.
///
/// # Errors
/// As [`compile`], and if there is no code generator for the level.
pub fn compile_leaf(level: Level, leaf: &Leaf) -> Result<Compiled, String> {
    let Some(widest) = wide::Width::of(level) else { return compile_portable_leaf(level, leaf) };
    let bytes = match leaf {
        Leaf::Gemm(tile, epilogue) => {
            let width = wide::gemm::width(widest, *tile);
            wide::gemm::assemble(width, *tile, epilogue.as_deref())
        }
        Leaf::Loop(code) => wide::assemble(widest, code),
    };
    Ok(Compiled { bytes: bytes.map_err(|e| e.to_string())?, calls: Vec::new() })
}

/// Compiles a leaf in vectors that every level has. Its order of instructions is chosen by hand:
/// the optimizer would hoist loads out of it and spill.
///
/// # Errors
/// As [`compile_leaf`].
pub fn compile_portable_leaf(level: Level, leaf: &Leaf) -> Result<Compiled, String> {
    let isa = level.isa(Effort::Registers).map_err(|e| e.to_string())?;
    let frontend = isa.frontend_config();
    let signature = Leaf::signature(frontend.default_call_conv);
    let mut function = Function::with_name_signature(UserFuncName::default(), signature);
    let mut context = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut function, &mut context);
    portable::emit(&mut builder, leaf, Multiply::of(level));
    builder.seal_all_blocks();
    builder.finalize(frontend);
    compile(&*isa, &Code { function, leaves: Vec::new(), is_control: false })
}

fn finish(
    compiled: &CompiledCode,
    leaves: &[Leaf],
    function: &Function,
) -> Result<Compiled, String> {
    let call = |reloc: &cranelift_codegen::FinalizedMachReloc| match &reloc.target {
        FinalizedRelocTarget::ExternalName(ir::ExternalName::User(name)) => {
            let name = &function.params.user_named_funcs()[*name];
            Ok(Call { leaf: leaves[name.index as usize].clone(), reloc: reloc.clone() })
        }
        other => Err(format!("code needs `{other:?}`, which there is not")),
    };
    let calls = compiled.buffer.relocs().iter().map(call).collect::<Result<_, _>>()?;
    Ok(Compiled { bytes: compiled.buffer.data().to_vec(), calls })
}

impl Module {
    /// Compiles the functions of `parts` and the leaves they call.
    ///
    /// # Errors
    /// [`BuildError::Kernel`] if the code generator refuses a function, [`BuildError::Machine`] if
    /// there is no executable memory.
    pub fn new(level: Level, isas: Isas, parts: &[&Part]) -> Result<Module, BuildError> {
        let leaves = leaves(parts);
        let refuse = |message| BuildError::Kernel { kernel: "code".into(), message };
        let (compiled, compiled_leaves) = rayon::join(
            || {
                let one = |context: &mut Context, part: &&Part| {
                    compile_in(context, isas.of(part), &part.code)
                };
                let all = parts.par_iter().with_max_len(1).map_init(Context::new, one);
                all.collect::<Result<Vec<_>, _>>()
            },
            || leaves.par_iter().map(|l| compile_leaf(level, l)).collect::<Result<Vec<_>, _>>(),
        );
        let (compiled, compiled_leaves) =
            (compiled.map_err(refuse)?, compiled_leaves.map_err(refuse)?);
        link(isas.hot, &compiled, (&leaves, &compiled_leaves))
    }

    /// Compiles leaves that no kernel calls.
    ///
    /// # Errors
    /// As [`Module::new`].
    pub fn of_leaves(level: Level, leaves: &[Leaf]) -> Result<Module, BuildError> {
        let refuse = |message| BuildError::Kernel { kernel: "leaf".into(), message };
        let compiled = leaves.iter().map(|l| compile_leaf(level, l));
        let compiled = compiled.collect::<Result<Vec<_>, _>>().map_err(refuse)?;
        link(level.isa(Effort::Least)?, &[], (leaves, &compiled))
    }

    /// The function that was given at position `at`.
    pub fn function(&self, at: usize) -> KernelFn {
        let module = self.module.as_ref().expect("the module lives as long as its owner");
        let address = module.get_finalized_function(self.functions[at]);
        // SAFETY: the function was declared with the signature of a `KernelFn` and is finalized.
        unsafe { std::mem::transmute::<*const u8, KernelFn>(address) }
    }

    /// The leaf that was given at position `at`.
    pub fn leaf(&self, at: usize) -> LeafFn {
        let module = self.module.as_ref().expect("the module lives as long as its owner");
        let address = module.get_finalized_function(self.leaves[at]);
        // SAFETY: the function was declared with the signature of a `LeafFn` and is finalized.
        unsafe { std::mem::transmute::<*const u8, LeafFn>(address) }
    }

    /// Bytes of machine code.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: function pointers are handed out by borrowing owners of this module only,
            // and none of them runs while it is dropped.
            unsafe { module.free_memory() };
        }
    }
}

fn link(
    isa: OwnedTargetIsa,
    kernels: &[Compiled],
    (leaves, compiled_leaves): (&[Leaf], &[Compiled]),
) -> Result<Module, BuildError> {
    place(isa, kernels, (leaves, compiled_leaves))
        .map_err(|e| BuildError::Machine(format!("code does not fit into memory: {e}")))
}

fn place(
    isa: OwnedTargetIsa,
    kernels: &[Compiled],
    (leaves, compiled_leaves): (&[Leaf], &[Compiled]),
) -> Result<Module, Box<dyn std::error::Error>> {
    let all = || compiled_leaves.iter().chain(kernels);
    let bytes = all().map(|c| c.bytes.len()).sum();
    let reserve = all().map(|c| c.bytes.len().next_multiple_of(4096)).sum::<usize>() + (64 << 10);
    let signature = crate::abi::kernel_signature(isa.default_call_conv());
    let leaf_signature = Leaf::signature(isa.default_call_conv());
    let mut builder = JITBuilder::with_isa(isa, cranelift_module::default_libcall_names());
    builder.memory_provider(Box::new(ArenaMemoryProvider::new_with_size(reserve)?));
    let mut module = JITModule::new(builder);
    let mut leaf_ids = FxHashMap::default();
    for (leaf, compiled) in leaves.iter().zip(compiled_leaves) {
        let id = module.declare_function(&leaf.to_string(), Linkage::Local, &leaf_signature)?;
        define(&mut module, id, compiled, &FxHashMap::default())?;
        leaf_ids.insert(leaf.clone(), id);
    }
    let mut functions = Vec::with_capacity(kernels.len());
    for compiled in kernels {
        let id = module.declare_anonymous_function(&signature)?;
        define(&mut module, id, compiled, &leaf_ids)?;
        functions.push(id);
    }
    module.finalize_definitions()?;
    let leaves = leaves.iter().map(|leaf| leaf_ids[leaf]).collect();
    Ok(Module { module: Some(module), functions, leaves, bytes })
}

fn define(
    module: &mut JITModule,
    id: FuncId,
    compiled: &Compiled,
    leaves: &FxHashMap<Leaf, FuncId>,
) -> Result<(), Box<cranelift_module::ModuleError>> {
    let relocs: Vec<ModuleReloc> = compiled
        .calls
        .iter()
        .map(|call| ModuleReloc {
            offset: call.reloc.offset,
            kind: call.reloc.kind,
            name: ModuleRelocTarget::from(leaves[&call.leaf]),
            addend: call.reloc.addend,
        })
        .collect();
    Ok(module.define_function_bytes(id, ALIGNMENT as u64, &compiled.bytes, &relocs)?)
}
