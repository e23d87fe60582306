//! Keeps what the encoder's attention was given, and writes it for other programs to attend to.

use std::{
    io::{self, Cursor},
    path::Path,
};

use attn::file;
use half::f16;
use npyz::WriterBuilder;
use tch::{Kind, Tensor};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use crate::{
    attention::{Attention, Site, Stage},
    error::{Error, of_file},
};

/// Another attention, and query, key and value of every layer of the encoder, of the first window that it encodes.
pub struct Capture<'a> {
    attention: &'a mut dyn Attention,
    layers: Vec<[Tensor; 3]>,
}

impl<'a> Capture<'a> {
    /// Around this one.
    pub fn new(attention: &'a mut dyn Attention) -> Self {
        Self { attention, layers: Vec::new() }
    }

    /// Query, key and value, `[heads, frames, dim]`, of the layers in order.
    pub fn layers(&self) -> &[[Tensor; 3]] {
        &self.layers
    }
}

impl Attention for Capture<'_> {
    fn attend(&mut self, site: Site, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, Error> {
        // In the windows after the first one no layer is the next.
        if site.stage == Stage::Encoder && site.layer == self.layers.len() {
            self.layers.push([query, key, value].map(Tensor::shallow_clone));
        }
        self.attention.attend(site, query, key, value)
    }
}

/// Writes the layers as an `.npz` that `numpy.load` and `attn` read: `q`, `k` and `v`, float16, `[layers, heads, frames, dim]`,
/// not scaled. The same layers give the same bytes.
///
/// # Errors
/// No layers, or of different shapes; a number that float16 has not; a file that cannot be written.
pub fn write(layers: &[[Tensor; 3]], path: &Path) -> Result<(), Error> {
    let array = |index: usize, name: &'static str| {
        let layers: Vec<_> = layers.iter().map(|tensors| &tensors[index]).collect();
        let tensor = Tensor::f_stack(&layers, 0)?.f_to_kind(Kind::Half)?;
        if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            let what = format!("{name}: got a number that is not finite in float16");
            return Err(Error::File { file: path.to_owned(), what });
        }
        let shape: Vec<_> = tensor.size().into_iter().map(|length| length as u64).collect();
        Ok((name, shape, Vec::<f16>::try_from(tensor.f_reshape([-1])?)?))
    };
    let arrays = [array(0, "q")?, array(1, "k")?, array(2, "v")?];
    let archive = || -> io::Result<_> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::DEFAULT);
        for (name, shape, elements) in arrays {
            archive.start_file(format!("{name}.npy"), options)?;
            let options = npyz::WriteOptions::new().default_dtype().shape(&shape);
            let mut array = options.writer(&mut archive).begin_nd()?;
            array.extend(elements)?;
            array.finish()?;
        }
        Ok(archive.finish()?.into_inner())
    };
    let archive = archive().map_err(of_file(path))?;
    file::replace(path, &archive).map_err(of_file(path))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use attn_ref::torch::Method;
    use npyz::NpyFile;
    use tch::Device;
    use tempfile::tempdir;
    use zip::ZipArchive;

    use super::*;
    use crate::attention::Torch;

    #[test]
    fn the_first_window_of_the_encoder_is_kept() {
        let tensor = |value: f64| Tensor::full([1, 2, 3], value, (Kind::Float, Device::Cpu));
        let mut torch = Torch(Method::Plain);
        let mut capture = Capture::new(&mut torch);
        let mut attend = |stage, layer, value| {
            let [query, key, value] = [value, value + 0.25, value + 0.5].map(tensor);
            let out = capture.attend(Site { stage, layer }, &query, &key, &value).expect("computes");
            assert!(out.allclose(&value, 1e-6, 0.0, false));
        };
        attend(Stage::Encoder, 0, 1.0);
        attend(Stage::Encoder, 1, 2.0);
        attend(Stage::DecoderSelf, 2, 3.0);
        attend(Stage::DecoderCross, 2, 3.0);
        attend(Stage::Encoder, 0, 4.0);
        attend(Stage::Encoder, 1, 5.0);
        let kept: Vec<_> = capture.layers().iter().flatten().map(|tensor| tensor.double_value(&[0, 1, 2])).collect();
        assert_eq!(kept, [1.0, 1.25, 1.5, 2.0, 2.25, 2.5]);
    }

    #[test]
    fn an_archive_has_every_element_in_its_place() {
        let count = |from: i64| Tensor::arange_start(from, from + 24, (Kind::Float, Device::Cpu)).reshape([2, 3, 4]);
        // As heads come from the model: transposed.
        let layer = |from: i64| [0, 100, 200].map(|tensor| count(from + tensor).transpose(1, 2));
        let layers = [layer(0), layer(24)];
        let folder = tempdir().expect("writable");
        let [path, again] = ["a.npz", "b.npz"].map(|name| folder.path().join(name));
        write(&layers, &path).expect("writes");
        write(&layers, &again).expect("writes");
        assert_eq!(fs::read(&path).expect("there"), fs::read(&again).expect("there"));
        let mut archive = ZipArchive::new(File::open(&path).expect("there")).expect("an archive");
        for (tensor, name) in ["q", "k", "v"].into_iter().enumerate() {
            let array = NpyFile::new(archive.by_name(&format!("{name}.npy")).expect("there")).expect("an array");
            assert_eq!(array.shape(), [2, 2, 4, 3]);
            let got = array.into_vec::<f16>().expect("float16");
            let expected =
                layers.iter().flat_map(|layer| Vec::<f32>::try_from(layer[tensor].reshape([-1])).expect("floats"));
            assert_eq!(got, expected.map(f16::from_f32).collect::<Vec<_>>(), "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 2);
    }

    #[test]
    fn what_float16_has_not_is_refused() {
        let tensor = |value: f64| Tensor::full([1, 2, 3], value, (Kind::Float, Device::Cpu));
        let folder = tempdir().expect("writable");
        let path = folder.path().join("a.npz");
        let error = write(&[[1.0, 1e5, 1.0].map(tensor)], &path).expect_err("too large").to_string();
        assert_eq!(error, format!("{}: k: got a number that is not finite in float16", path.display()));
        assert!(write(&[], &path).is_err());
        assert!(!path.exists());
    }
}
