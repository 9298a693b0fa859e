//! Storage, calls and errors of a built program.

mod support;

use dlc_cpu::{CpuTarget, level::Level};
use dlc_kernel::{
    BinaryOp, BuildError, BuildOptions, Class, DType, Executable, Exprs, Form, OptLevel, Program,
    RunError, Size, Target, Tensor, UnaryOp,
};
use support::*;

/// `w -= lr * g`, after a check of `g`; gives the old sum of `w` and `g`.
fn update(n: i64) -> Program {
    let mut draft = Draft::default();
    let (g, w) = (draft.input(&[n]), draft.state(&[n]));
    let lr = draft.buffer(Class::Scalar, DType::F32, &[]);
    let (t, y) = (draft.temp(&[n]), draft.output(&[n]));
    let mut e = Exprs::new();
    let (a, b) = (load(&mut e, g, at(&[0])), load(&mut e, w, at(&[0])));
    let sum = binary(&mut e, BinaryOp::Add, a, b);
    draft.map(&[n], e, vec![store(t, &[0], sum), store(y, &[0], sum)]);
    draft.kernel(Form::Check { buffers: vec![t, g] });
    draft.commit();
    let mut e = Exprs::new();
    let (g, old) = (load(&mut e, g, at(&[0])), load(&mut e, w, at(&[0])));
    let lr = load(&mut e, lr, at(&[]));
    let step = binary(&mut e, BinaryOp::Mul, lr, g);
    let new = binary(&mut e, BinaryOp::Sub, old, step);
    draft.map(&[n], e, vec![store(w, &[0], new)]);
    let mut program = draft.program();
    program.buffers[2].default = 0.5;
    program
}

fn build(program: &Program) -> Box<dyn Executable> {
    CpuTarget::detect().unwrap().build(program, &options(OptLevel::O2, 2)).unwrap()
}

fn call(executable: &dyn Executable, g: &[f32]) -> Result<Vec<f32>, RunError> {
    let input = Tensor::f32([g.len()], g.to_vec());
    let mut outputs = empty_outputs(executable.program());
    executable.call(0, &[&input], &mut outputs)?;
    Ok(outputs[0].as_f32().unwrap().to_vec())
}

#[test]
fn state_is_read_written_and_updated() {
    let program = update(5);
    let executable = build(&program);
    assert_eq!(executable.read("t2").unwrap(), Tensor::f32([], vec![0.5]));
    executable.write("t1", &Tensor::f32([5], vec![1.0, 2.0, 3.0, 4.0, 5.0])).unwrap();
    assert_eq!(call(&*executable, &[2.0; 5]).unwrap(), [3.0, 4.0, 5.0, 6.0, 7.0]);
    assert_eq!(executable.read("t1").unwrap().as_f32().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0]);
    executable.write("t2", &Tensor::f32([], vec![0.0])).unwrap();
    assert_eq!(call(&*executable, &[1.0; 5]).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(executable.read("t1").unwrap().as_f32().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_failing_call_changes_nothing() {
    let program = update(1003);
    let executable = build(&program);
    for (at, bad) in [(0, f32::NAN), (1002, f32::INFINITY), (500, f32::NEG_INFINITY)] {
        let mut g = vec![1.0; 1003];
        g[at] = bad;
        let error = call(&*executable, &g).unwrap_err();
        assert_eq!(error, RunError::NotFinite { name: "t3".into() });
        assert_eq!(executable.read("t1").unwrap().as_f32().unwrap(), [0.0; 1003]);
    }
    assert!(call(&*executable, &[1.0; 1003]).is_ok());
    assert_eq!(executable.read("t1").unwrap().as_f32().unwrap(), [-0.5; 1003]);
}

#[test]
fn misuse_is_told() {
    let executable = build(&update(5));
    let usage = |error: RunError| match error {
        RunError::Usage(message) => message,
        other => panic!("{other}"),
    };
    let mut outputs = empty_outputs(executable.program());
    let error = executable.call(0, &[], &mut outputs).unwrap_err();
    assert_eq!(usage(error), "entry `run` has 1 inputs, 0 were given");
    let error = usage(call(&*executable, &[1.0; 6]).unwrap_err());
    assert_eq!(error, "`t0` is f32[5], but f32[6] was given");
    let input = Tensor::i32([5], vec![0; 5]);
    let error = usage(executable.call(0, &[&input], &mut outputs).unwrap_err());
    assert_eq!(error, "`t0` is f32[5], but i32[5] was given");
    let error = usage(executable.call(1, &[], &mut []).unwrap_err());
    assert_eq!(error, "there is no entry 1");
    let error = usage(executable.read("t0").unwrap_err());
    assert_eq!(error, "there is no parameter, state or scalar `t0`");
    let error = usage(executable.write("t1", &Tensor::f32([1], vec![0.0])).unwrap_err());
    assert_eq!(error, "`t1` is f32[5], but f32[1] was given");
}

#[test]
fn too_much_memory_is_refused_before_it_is_allocated() {
    let target = CpuTarget::detect().unwrap();
    let small = BuildOptions { memory_limit: Some(1000), ..options(OptLevel::O2, 1) };
    let error = target.build(&update(1000), &small).err().unwrap();
    assert!(
        matches!(error, BuildError::Memory { needed, limit: 1000 } if needed >= 8000),
        "{error}"
    );
    // 4 EiB, which nothing could hold.
    let error = target.build(&update(1 << 48), &BuildOptions::default()).err().unwrap();
    assert!(matches!(error, BuildError::Memory { needed, .. } if needed >= 1 << 51), "{error}");
    assert!(build(&update(1000)).peak_bytes() >= 8000);
}

#[test]
fn an_unbound_size_is_refused() {
    let mut program = update(4);
    for buffer in &mut program.buffers {
        buffer.shape.iter_mut().for_each(|s| *s = Size::symbol("N"));
    }
    let target = CpuTarget::detect().unwrap();
    let error = target.build(&program, &BuildOptions::default()).err().unwrap();
    assert!(
        matches!(&error, BuildError::Kernel { message, .. } if message.contains("bound")),
        "{error}"
    );
}

#[test]
fn a_level_the_machine_lacks_is_refused() {
    for level in Level::ALL.into_iter().filter(|l| !l.runs_here()) {
        let built = CpuTarget::new(level).build(&update(4), &BuildOptions::default());
        let error = built.err().unwrap().to_string();
        assert!(error.contains(level.name()), "{error}");
    }
}

#[test]
fn every_level_of_this_machine_computes() {
    for level in Level::ALL.into_iter().filter(|l| l.runs_here()) {
        let executable =
            CpuTarget::new(level).build(&update(9), &options(OptLevel::O2, 1)).unwrap();
        assert_eq!(call(&*executable, &[4.0; 9]).unwrap(), [4.0; 9]);
        assert_eq!(executable.read("t1").unwrap().as_f32().unwrap(), [-2.0; 9]);
    }
}

/// `y = exp(x)`: updates nothing.
fn pure(n: i64) -> Program {
    let mut draft = Draft::default();
    let (x, t, y) = (draft.input(&[n]), draft.temp(&[n]), draft.output(&[n]));
    for (from, to, op) in [(x, t, UnaryOp::Exp), (t, y, UnaryOp::Neg)] {
        let mut e = Exprs::new();
        let value = load(&mut e, from, at(&[0]));
        let value = unary(&mut e, op, value);
        draft.map(&[n], e, vec![store(to, &[0], value)]);
    }
    draft.program()
}

#[test]
fn calls_from_several_threads_do_not_meet() {
    let executable = build(&pure(50_000));
    std::thread::scope(|scope| {
        for i in 0..4 {
            let executable = &executable;
            scope.spawn(move || {
                let x = i as f32 / 4.0;
                let first = call(&**executable, &vec![x; 50_000]).unwrap();
                assert!((f64::from(first[0]) + f64::from(x).exp()).abs() < 1e-6);
                for _ in 0..20 {
                    assert_eq!(call(&**executable, &vec![x; 50_000]).unwrap(), first);
                }
            });
        }
    });
}

#[test]
fn updates_from_several_threads_all_count() {
    let executable = build(&update(10_000));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| _ = call(&*executable, &[2.0; 10_000]).unwrap()));
        }
    });
    assert_eq!(executable.read("t1").unwrap().as_f32().unwrap(), [-100.0; 10_000]);
}

#[test]
fn the_build_says_how_long_it_took() {
    let executable = build(&pure(10));
    let names: Vec<_> = executable.stage_times().iter().map(|t| t.name).collect();
    assert_eq!(names, ["arrange", "schedule", "codegen", "compile", "link", "allocate"]);
    assert!(executable.stage_times().iter().all(|t| t.ms >= 0.0));
}

/// The first buffer of the list is named, however the work is shared out.
#[test]
fn the_first_offender_is_named() {
    let mut draft = Draft::default();
    let inputs = [7, 40_000, 3, 90_000].map(|n| draft.input(&[n]));
    let integers = draft.buffer(Class::Input, DType::I32, &[5]);
    let [a, b, c, d] = inputs;
    draft.kernel(Form::Check { buffers: vec![c, integers, b, d, a] });
    let program = draft.program();
    let order = [2, 1, 3, 0];
    for threads in 1..4 {
        let target = CpuTarget::detect().unwrap();
        let executable = target.build(&program, &options(OptLevel::O2, threads)).unwrap();
        for first in 0..4 {
            let mut values = noise_inputs(&program, 1);
            for &at in &order[first..] {
                let dlc_kernel::Data::F32(v) = &mut values[at].data else { panic!("floats") };
                *v.last_mut().unwrap() = f32::NAN;
            }
            let inputs: Vec<&Tensor> = values.iter().collect();
            let error = executable.call(0, &inputs, &mut []).unwrap_err();
            assert_eq!(error, RunError::NotFinite { name: format!("t{}", order[first]) });
        }
        let values = noise_inputs(&program, 1);
        executable.call(0, &values.iter().collect::<Vec<_>>(), &mut []).unwrap();
    }
}
