//! The cases of `numpy/attention.npz`, which `numpy/make.py` writes and checks.

use attn_fixed::Mask;
use ndarray::Array3;
use npyz::{Deserialize, NpyFile};
use std::{collections::BTreeMap, fs::File, path::Path};
use zip::ZipArchive;

/// The parts of one case by name; int64 scalars and bool arrays become `f64`.
#[derive(Default)]
pub(crate) struct Case(BTreeMap<String, (Vec<usize>, Vec<f64>)>);

impl Case {
    pub(crate) fn values(&self, part: &str) -> &[f64] {
        &self.0[part].1
    }

    pub(crate) fn scalar(&self, part: &str) -> f64 {
        let [value] = *self.values(part) else {
            panic!("{part} is not a scalar");
        };
        value
    }

    pub(crate) fn heads(&self, part: &str) -> Array3<f64> {
        let (shape, values) = &self.0[part];
        let shape: [usize; 3] = shape.as_slice().try_into().expect("[heads, rows, dim]");
        Array3::from_shape_vec(shape, values.clone()).expect("as many values as the shape has")
    }

    /// The boolean mask and the number of keys in its rows.
    pub(crate) fn allowed(&self) -> Option<(Vec<bool>, usize)> {
        let (shape, values) = self.0.get("allowed")?;
        Some((values.iter().map(|&x| x > 0.0).collect(), shape[1]))
    }

    /// The mask of all parts that there are; `allowed` is [`Self::allowed`].
    pub(crate) fn mask<'a>(&self, allowed: Option<&'a (Vec<bool>, usize)>) -> Mask<'a> {
        let integer = |part: &str| self.0.contains_key(part).then(|| self.scalar(part) as usize);
        let mut mask = Mask::new();
        if let Some(keys) = integer("valid_keys") {
            mask = mask.valid_keys(keys);
        }
        if let Some(offset) = integer("causal") {
            mask = mask.causal(offset);
        }
        if let Some((allowed, keys)) = allowed {
            mask = mask.allowed(allowed, *keys);
        }
        mask
    }
}

/// The cases of the committed file by name.
pub(crate) fn cases() -> BTreeMap<String, Case> {
    fn read<T: Deserialize>(npy: NpyFile<impl std::io::Read>) -> Vec<T> {
        npy.into_vec().expect("values")
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/numpy/attention.npz");
    let mut archive = ZipArchive::new(File::open(path).expect("the committed file")).expect("an archive");
    let names: Vec<String> = archive.file_names().map(|name| name.expect("a name").into_owned()).collect();
    let mut cases = BTreeMap::<String, Case>::new();
    for name in names {
        let npy = NpyFile::new(archive.by_name(&name).expect("listed")).expect("readable");
        let name = name.strip_suffix(".npy").expect("an array");
        assert_eq!(npy.order(), npyz::Order::C, "{name}");
        let shape = npy.shape().iter().map(|&length| length as usize).collect();
        let values = match npy.dtype().descr().as_str() {
            "'<f8'" => read(npy),
            "'<i8'" => read::<i64>(npy).into_iter().map(|x| x as f64).collect(),
            "'|b1'" => read::<bool>(npy).into_iter().map(|x| f64::from(u8::from(x))).collect(),
            other => panic!("{name}: unexpected type {other}"),
        };
        let (case, part) = name.split_once('.').expect("CASE.PART");
        cases.entry(case.to_owned()).or_default().0.insert(part.to_owned(), (shape, values));
    }
    cases
}
