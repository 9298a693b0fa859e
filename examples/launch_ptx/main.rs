//! Launches a model that `dlc compile --target sm_80 -o model.ptx` wrote, with the driver API alone:
//! nothing of dlc is used, only model.ptx and model.json (docs/ptx.md describes it).
//!
//!     cargo run -p dlc-ptx --features cuda --example launch_ptx -- model.json ENTRY [NAME=FILE ...]
//!
//! A FILE holds the elements of a parameter, state or input, little-endian, row-major, without a
//! header; what is not given is 0. The first elements of every output are printed.

use cudarc::driver::{DriverError, result, sys};
use serde_json::Value;
use std::error::Error;
use std::ffi::{CString, c_void};
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [manifest, entry, given @ ..] = args.as_slice() else {
        return Err("usage: launch_ptx model.json ENTRY [NAME=FILE ...]".into());
    };
    let folder = Path::new(manifest).parent().unwrap_or(Path::new(""));
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest)?)?;
    if manifest["version"] != 2 {
        return Err("this program reads version 2 of model.json".into());
    }
    let ptx = CString::new(std::fs::read(folder.join(text(&manifest["ptx"])))?)?;
    let named = |e: &&Value| e["name"] == entry.as_str();
    let entry = list(&manifest["entries"]).iter().find(named).ok_or("no such entry")?;
    let values = given.iter().map(|g| {
        let (name, file) = g.split_once('=').ok_or("expected NAME=FILE")?;
        Ok((name, std::fs::read(file)?))
    });
    let values: Vec<(&str, Vec<u8>)> = values.collect::<Result<_, Box<dyn Error>>>()?;
    // SAFETY: looking for the driver's library runs its initializers.
    if !unsafe { sys::is_culib_present() } {
        return Err("no NVIDIA driver is installed (libcuda is not found)".into());
    }
    launch(&manifest, entry, &ptx, &values)
}

/// One call of an entry. All that is taken from the driver goes with the process.
fn launch(
    manifest: &Value,
    entry: &Value,
    ptx: &CString,
    values: &[(&str, Vec<u8>)],
) -> Result<(), Box<dyn Error>> {
    let memory = &manifest["memory"];
    let buffers = list(&manifest["buffers"]);
    result::init()?;
    // SAFETY: handles are used as the driver gave them; all addresses are within the allocation.
    unsafe {
        let device = result::device::get(0)?;
        result::ctx::set_current(result::primary_ctx::retain(device)?)?;
        let module = result::module::load_data(ptx.as_ptr().cast())?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        let base = result::malloc_sync(number(&memory["bytes"]) as usize)?;
        result::memset_d8_async(base, 0, number(&memory["bytes"]) as usize, stream)?;
        for buffer in buffers {
            if let Some(bytes) = first_value(buffer, values)? {
                result::memcpy_htod_async(base + number(&buffer["offset"]), &bytes, stream)?;
            }
        }
        let driver = Driver { module, kernels: list(&manifest["kernels"]), base, stream };
        driver.all(list(&entry["launches"]), &mut Vec::new())?;
        let mut error = [0u32; 4];
        let at = base + number(&memory["error_offset"]);
        result::memcpy_dtoh_async(&mut error, at, stream)?;
        result::stream::synchronize(stream)?;
        if error[0] != 0 {
            let launch = &listed(list(&entry["launches"]))[error[0] as usize - 1];
            return Err(format!("kernel {} failed: {error:?}", launch["computes"]).into());
        }
        for position in list(&entry["outputs"]) {
            let buffer = &buffers[number(position) as usize];
            let mut bytes = vec![0u8; number(&buffer["bytes"]) as usize];
            result::memcpy_dtoh_async(&mut bytes, base + number(&buffer["offset"]), stream)?;
            result::stream::synchronize(stream)?;
            println!("{} = {}", text(&buffer["name"]), shown(buffer, &bytes));
        }
    }
    Ok(())
}

/// All launches, those of loops among the others, each once: errors name them by position here.
fn listed(launches: &[Value]) -> Vec<&Value> {
    let mut all = Vec::new();
    for one in launches {
        match one["launches"].as_array() {
            Some(inner) => all.extend(listed(inner)),
            None => all.push(one),
        }
    }
    all
}

/// What all launches need.
struct Driver<'m> {
    module: sys::CUmodule,
    kernels: &'m [Value],
    /// The address of the manifest's allocation.
    base: u64,
    stream: sys::CUstream,
}

impl Driver<'_> {
    /// Makes launches in order, those of a loop again and again; `steps` are those of the loops
    /// around.
    ///
    /// # Safety
    /// The module and the address are what the launches were written for.
    unsafe fn all(&self, launches: &[Value], steps: &mut Vec<u64>) -> Result<(), DriverError> {
        for one in launches {
            let Some(repeat) = one["repeat"].as_u64() else {
                // SAFETY: the caller's word.
                unsafe { self.one(one, steps)? };
                continue;
            };
            for step in 0..repeat {
                steps.push(step);
                // SAFETY: the caller's word.
                unsafe { self.all(list(&one["launches"]), steps)? };
                steps.pop();
            }
        }
        Ok(())
    }

    /// # Safety
    /// As of [`Driver::all`].
    unsafe fn one(&self, launch: &Value, steps: &[u64]) -> Result<(), DriverError> {
        let kernel = &self.kernels[number(&launch["kernel"]) as usize];
        let name = CString::new(text(&kernel["name"])).expect("names are ASCII");
        let threads = number(&kernel["threads"]) as u32;
        let shared = number(&kernel["dynamic_shared_bytes"]);
        let value = |arg: &Value| match (arg["address"].as_u64(), arg["step"].as_u64()) {
            (Some(offset), _) => self.base + offset,
            (_, Some(around)) => steps[around as usize],
            _ => number(&arg["word"]),
        };
        // A word is the first four bytes of its number: the machine is little-endian, as GPUs are.
        let mut args: Vec<u64> = list(&launch["args"]).iter().map(value).collect();
        let mut pointers: Vec<*mut c_void> =
            args.iter_mut().map(|arg| std::ptr::from_mut(arg).cast()).collect();
        let grid = list(&launch["grid"]).iter().map(|n| number(n) as u32).collect::<Vec<_>>();
        // SAFETY: the caller's word; arguments live until the driver has read them.
        unsafe {
            let function = result::module::get_function(self.module, name)?;
            if shared > 0 {
                let most =
                    sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                result::function::set_function_attribute(function, most, shared as i32)?;
            }
            let (grid, block) = ((grid[0], grid[1], grid[2]), (threads, 1, 1));
            let stream = self.stream;
            result::launch_kernel(function, grid, block, shared as u32, stream, &mut pointers)
        }
    }
}

/// The bytes that a buffer starts with, if they are not zeros.
fn first_value(buffer: &Value, values: &[(&str, Vec<u8>)]) -> Result<Option<Vec<u8>>, String> {
    let name = text(&buffer["name"]);
    let temporary = buffer["class"] == "temp" || buffer["class"] == "output";
    if let Some((_, bytes)) = values.iter().find(|(n, _)| *n == name && !temporary) {
        let wanted = number(&buffer["bytes"]);
        let fits = bytes.len() as u64 == wanted;
        return if fits {
            Ok(Some(bytes.clone()))
        } else {
            Err(format!("{name} has {wanted} bytes"))
        };
    }
    let default = buffer["default"].as_f64();
    Ok(default.map(|value| match text(&buffer["dtype"]) {
        "i32" => (value as i32).to_le_bytes().to_vec(),
        "f32" => (value as f32).to_le_bytes().to_vec(),
        _ => vec![value as u8],
    }))
}

fn shown(buffer: &Value, bytes: &[u8]) -> String {
    let words = bytes.chunks_exact(4).take(8).map(|w| [w[0], w[1], w[2], w[3]]);
    let first: Vec<String> = match text(&buffer["dtype"]) {
        "f32" => words.map(|w| f32::from_le_bytes(w).to_string()).collect(),
        "i32" => words.map(|w| i32::from_le_bytes(w).to_string()).collect(),
        _ => bytes.iter().take(8).map(u8::to_string).collect(),
    };
    format!("{}{} [{}, ..]", text(&buffer["dtype"]), buffer["shape"], first.join(", "))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}
