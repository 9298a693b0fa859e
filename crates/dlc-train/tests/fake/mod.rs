//! An executable written by hand: logistic regression on three features, trained with momentum on
//! noisy inputs, in plain Rust. Its running mean is state that evaluation reads, its momentum
//! state that only training reads; the noise depends on the scalars `seed` and `step`.
#![allow(dead_code, reason = "no test file uses all of it")]

use dlc_kernel::philox::uniform;
use dlc_kernel::{
    Buffer, BufferId, Class, DType, Entry, Executable, Form, Kernel, Program, RunError, Size,
    StageTime, Tensor,
};
use dlc_train::{BoxError, Dataset, Field, Rebuild};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub const FEATURES: usize = 3;

/// What differs between two fakes.
#[derive(Clone, Debug)]
pub struct Options {
    pub batch: usize,
    /// The step (from 0) in which the loss is NaN.
    pub nan_at: Option<i32>,
    /// The name of the momentum's buffer.
    pub momentum: &'static str,
    /// The name of the weights' buffer.
    pub weight: &'static str,
    /// Whether the learning rate falls to 0 at the end of the plan.
    pub scheduled: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            batch: 8,
            nan_at: None,
            momentum: "momentum.weight",
            weight: "weight",
            scheduled: false,
        }
    }
}

pub struct Logistic {
    program: Program,
    options: Options,
    values: Mutex<Values>,
}

impl Logistic {
    pub fn executable(options: Options) -> Arc<dyn Executable> {
        let program = program(&options);
        let persistent = program
            .buffers
            .iter()
            .filter(|b| matches!(b.class, Class::Param | Class::State | Class::Scalar));
        let value = |b: &Buffer| {
            let shape: Vec<usize> =
                b.shape.iter().map(|s| s.as_const().unwrap() as usize).collect();
            let tensor = match (b.class, b.dtype) {
                (Class::Scalar, DType::F32) => Tensor::f32([], vec![b.default as f32]),
                _ => Tensor::zeros(b.dtype, shape),
            };
            (b.name.clone(), tensor)
        };
        let values = Mutex::new(persistent.map(value).collect());
        Arc::new(Logistic { program, options, values })
    }
}

fn program(options: &Options) -> Program {
    let n = options.batch as i64;
    let features = FEATURES as i64;
    let buffer = |name: &str, dtype, shape: &[i64], class, default| Buffer {
        name: name.into(),
        dtype,
        shape: shape.iter().map(|&d| Size::from(d)).collect(),
        class,
        default,
    };
    let mut buffers = vec![
        buffer(options.weight, DType::F32, &[features], Class::Param, 0.0),
        buffer("bias", DType::F32, &[], Class::Param, 0.0),
        buffer(options.momentum, DType::F32, &[features], Class::State, 0.0),
        buffer("running_mean", DType::F32, &[features], Class::State, 0.0),
        buffer("lr", DType::F32, &[], Class::Scalar, 0.5),
        buffer("seed", DType::I32, &[], Class::Scalar, 0.0),
        buffer("step", DType::I32, &[], Class::Scalar, 0.0),
        buffer("x", DType::F32, &[n, features], Class::Input, 0.0),
        buffer("label", DType::I32, &[n], Class::Input, 0.0),
        buffer("loss", DType::F32, &[], Class::Output, 0.0),
        buffer("accuracy", DType::F32, &[], Class::Output, 0.0),
        buffer("centered", DType::F32, &[features], Class::Temp, 0.0),
    ];
    if options.scheduled {
        buffers.push(buffer("steps", DType::I32, &[], Class::Scalar, 1.0));
    }
    let copy = |src, dst| Kernel {
        name: "copy".into(),
        origin: None,
        form: Form::Reshape { src: BufferId(src), dst: BufferId(dst) },
    };
    let entry = |name: &str, inputs: &[u32], outputs: &[u32], kernels| Entry {
        name: name.into(),
        inputs: inputs.iter().map(|&b| BufferId(b)).collect(),
        outputs: outputs.iter().map(|&b| BufferId(b)).collect(),
        kernels,
        commit: 0,
    };
    let entries = vec![
        entry("init", &[], &[], vec![]),
        entry("train", &[7, 8], &[9, 10], vec![copy(2, 11)]),
        entry("eval", &[7, 8], &[9, 10], vec![copy(3, 11)]),
    ];
    Program { buffers, entries }
}

type Values = BTreeMap<String, Tensor>;

impl Logistic {
    /// Loss and accuracy of a batch; a step too when training with that seed and step number.
    fn compute(
        &self,
        values: &mut Values,
        x: &[f32],
        label: &[i32],
        training: Option<(i32, i32)>,
    ) -> [f32; 2] {
        let f32s = |n: &str| values[n].as_f32().unwrap().to_vec();
        let (mut w, mut b) = (f32s(self.options.weight), f32s("bias")[0]);
        let (mut momentum, mut mean) = (f32s(self.options.momentum), f32s("running_mean"));
        let count = |n: &str| values[n].as_i32().unwrap()[0] as f32;
        let done = if self.options.scheduled { count("step") / count("steps") } else { 0.0 };
        let lr = f32s("lr")[0] * (1.0 - done);
        let n = label.len() as f32;
        let (mut loss, mut right, mut gw, mut gb) = (0.0, 0.0, [0.0; FEATURES], 0.0);
        for (i, (row, &y)) in x.chunks(FEATURES).zip(label).enumerate() {
            let noise = |k: usize| match training {
                Some((seed, step)) => {
                    0.1 * uniform(seed, step, 1, (i * FEATURES + k) as i32) - 0.05
                }
                None => 0.0,
            };
            let row: Vec<f32> = (0..FEATURES).map(|k| row[k] + noise(k) - mean[k]).collect();
            let z = b + row.iter().zip(&w).map(|(x, w)| x * w).sum::<f32>();
            let p = 1.0 / (1.0 + (-z).exp());
            let error = p - y as f32;
            loss -= if y == 1 { p.max(1e-7).ln() } else { (1.0 - p).max(1e-7).ln() } / n;
            right += f32::from(u8::from((p > 0.5) == (y == 1))) / n;
            gw.iter_mut().zip(&row).for_each(|(g, x)| *g += error * x / n);
            gb += error / n;
        }
        if training.is_some() {
            for k in 0..FEATURES {
                momentum[k] = 0.9 * momentum[k] + gw[k];
                w[k] -= lr * momentum[k];
                let column: f32 = x.iter().skip(k).step_by(FEATURES).sum();
                mean[k] = 0.9 * mean[k] + 0.1 * column / n;
            }
            b -= lr * gb;
            let vector = |v: Vec<f32>| Tensor::f32([FEATURES], v);
            values.insert(self.options.weight.into(), vector(w));
            values.insert("bias".into(), Tensor::f32([], vec![b]));
            values.insert(self.options.momentum.into(), vector(momentum));
            values.insert("running_mean".into(), vector(mean));
        }
        [loss, right]
    }
}

impl Executable for Logistic {
    fn program(&self) -> &Program {
        &self.program
    }

    fn profile(
        &self,
        entry: usize,
        inputs: &[&Tensor],
        outputs: &mut [Tensor],
        seconds: &mut [f64],
    ) -> Result<(), RunError> {
        let start = std::time::Instant::now();
        self.call(entry, inputs, outputs)?;
        seconds.iter_mut().take(1).for_each(|s| *s += start.elapsed().as_secs_f64());
        Ok(())
    }

    fn call(
        &self,
        entry: usize,
        inputs: &[&Tensor],
        outputs: &mut [Tensor],
    ) -> Result<(), RunError> {
        let mut values = self.values.lock().unwrap();
        let int = |values: &Values, n: &str| values[n].as_i32().unwrap()[0];
        let (seed, step) = (int(&values, "seed"), int(&values, "step"));
        let name = self.program.entries[entry].name.as_str();
        if name == "init" {
            let w = (0..FEATURES as i32).map(|i| uniform(seed, 0, 9, i) - 0.5).collect();
            values.insert(self.options.weight.into(), Tensor::f32([FEATURES], w));
            return Ok(());
        }
        let train = name == "train";
        let (x, label) = (inputs[0].as_f32().unwrap(), inputs[1].as_i32().unwrap());
        if let Some(row) = label.iter().position(|&l| !(0..2).contains(&l)) {
            let index = i64::from(label[row]);
            return Err(RunError::Index { place: "label".into(), index, extent: 2 });
        }
        if train && self.options.nan_at == Some(step) {
            return Err(RunError::NotFinite { name: "loss".into() });
        }
        let measured = self.compute(&mut values, x, label, train.then_some((seed, step)));
        outputs.iter_mut().zip(measured).for_each(|(o, m)| *o = Tensor::f32([], vec![m]));
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Tensor, RunError> {
        let values = self.values.lock().unwrap();
        values.get(name).cloned().ok_or_else(|| RunError::Usage(format!("no `{name}`")))
    }

    fn write(&self, name: &str, value: &Tensor) -> Result<(), RunError> {
        let mut values = self.values.lock().unwrap();
        let slot = values.get_mut(name).ok_or_else(|| RunError::Usage(format!("no `{name}`")))?;
        assert_eq!((slot.dtype(), &slot.shape), (value.dtype(), &value.shape), "`{name}`");
        *slot = value.clone();
        Ok(())
    }

    fn peak_bytes(&self) -> u64 {
        0
    }

    fn stage_times(&self) -> &[StageTime] {
        &[]
    }
}

/// `n` points, labelled by the side of a plane they lie on.
pub fn points(n: usize) -> Dataset {
    let x: Vec<f32> = (0..(n * FEATURES) as i32).map(|i| 2.0 * uniform(5, 0, 0, i) - 1.0).collect();
    let side = |p: &[f32]| i32::from(p[0] + 0.5 * p[1] - 0.25 * p[2] > 0.1);
    let label = x.chunks(FEATURES).map(side).collect();
    let x = Field::new("x", Tensor::f32([n, FEATURES], x));
    Dataset::new(vec![x, Field::new("label", Tensor::i32([n], label))]).unwrap()
}

/// Builds fakes of other batch sizes.
pub fn rebuild() -> Rebuild<'static> {
    Rebuild::new(|batch| {
        Ok::<_, BoxError>(Logistic::executable(Options { batch, ..Options::default() }))
    })
}
