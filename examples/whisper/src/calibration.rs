//! What is known of the model's tensors before they are there: static scales, which a deployed NPU needs, for it cannot look at a
//! tensor before it quantises it; and by how much channels differ, which is evened out in the weights.

use std::{collections::BTreeMap, fs, path::Path};

use attn::file;
use attn_fixed::quantise::scale_of;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{
    attention::{Attention, Site, Stage},
    error::{Error, of_file},
    model::{DIM, HEADS, LAYERS},
};

/// The scales of one attention, one for each head.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scales {
    /// Of the queries.
    pub query: Vec<f32>,
    /// Of the keys.
    pub key: Vec<f32>,
    /// Of the values.
    pub value: Vec<f32>,
    /// Of the output.
    pub out: Vec<f32>,
}

/// Factors of every channel of one attention, head by head. They cancel: attention computes the same with them, but the channels of a
/// head, which share a scale, are more alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// Of the queries; the keys are divided by them.
    pub query: Vec<f32>,
    /// Of the output; the values are divided by them.
    pub out: Vec<f32>,
}

/// What is known of one attention.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibrated {
    /// Of tensors that are balanced.
    pub scales: Scales,
    /// The factors.
    pub balance: Balance,
}

/// What is known of every attention of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The names of the recordings that this is known from.
    pub recordings: Vec<String>,
    /// For each stage its layers.
    pub stages: BTreeMap<Stage, Vec<Calibrated>>,
}

impl Calibration {
    /// Reads a file, in JSON.
    ///
    /// # Errors
    /// A file that cannot be read, or that holds something else, or of another model, or numbers that are not positive and finite.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let error = |what: String| Error::File { file: path.to_owned(), what };
        let text = fs::read_to_string(path).map_err(|io| error(io.to_string()))?;
        let calibration: Self = serde_json::from_str(&text).map_err(|json| error(format!("no calibration: {json}")))?;
        calibration.check().map_err(error)?;
        Ok(calibration)
    }

    fn check(&self) -> Result<(), String> {
        for stage in Stage::ALL {
            let layers = self.stages.get(&stage).map_or(&[][..], Vec::as_slice);
            if layers.len() != LAYERS {
                return Err(format!("{stage}: got {} layers, expected {LAYERS}", layers.len()));
            }
            for (layer, Calibrated { scales, balance }) in layers.iter().enumerate() {
                let of_heads = [&scales.query, &scales.key, &scales.value, &scales.out].map(|numbers| (numbers, HEADS));
                let of_channels = [&balance.query, &balance.out].map(|numbers| (numbers, HEADS * DIM));
                for (numbers, expected) in of_heads.into_iter().chain(of_channels) {
                    let site = Site { stage, layer };
                    if numbers.len() != expected {
                        return Err(format!("{site}: got {} numbers, expected {expected}", numbers.len()));
                    }
                    if let Some(got) = numbers.iter().find(|&&number| !(number > 0.0 && number.is_finite())) {
                        return Err(format!("{site}: got {got}, expected a positive, finite number"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes a file, in place of one that is there.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string(self).map_err(of_file(path))? + "\n";
        file::replace(path, text.as_bytes()).map_err(of_file(path))
    }

    /// What is known of one attention.
    ///
    /// # Errors
    /// Nothing is.
    pub fn at(&self, site: Site) -> Result<&Calibrated, Error> {
        self.stages.get(&site.stage).and_then(|layers| layers.get(site.layer)).ok_or(Error::NotCalibrated { site })
    }
}

/// The largest magnitudes of every channel of one attention.
#[derive(Clone, Debug, Default)]
struct Largest {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    out: Vec<f32>,
}

/// Remembers the largest magnitudes of what goes through another attention, the float one.
pub struct Observer<'a> {
    attention: &'a mut dyn Attention,
    stages: BTreeMap<Stage, Vec<Largest>>,
}

impl<'a> Observer<'a> {
    /// Of this attention.
    pub fn new(attention: &'a mut dyn Attention) -> Self {
        Self { attention, stages: BTreeMap::new() }
    }

    /// What is known after these recordings.
    #[must_use]
    pub fn finish(self, recordings: Vec<String>) -> Calibration {
        let stages =
            self.stages.into_iter().map(|(stage, layers)| (stage, layers.iter().map(Largest::calibrated).collect()));
        Calibration { recordings, stages: stages.collect() }
    }
}

impl Largest {
    fn calibrated(&self) -> Calibrated {
        let Self { query, key, value, out } = self;
        // Queries and keys of equal size; values and output as close to 1 as one factor for both allows.
        let factors =
            |pairs: &mut dyn Iterator<Item = f32>| pairs.map(|factor| round(factor.sqrt())).collect::<Vec<_>>();
        let balance = Balance {
            query: factors(&mut query.iter().zip(key).map(|(query, key)| key / query)),
            out: factors(&mut value.iter().zip(out).map(|(value, out)| value * out)),
        };
        let scales = |largest: &[f32], factors: &[f32], power: i32| {
            let balanced: Vec<_> =
                largest.iter().zip(factors).map(|(largest, factor)| largest * factor.powi(power)).collect();
            balanced.chunks(DIM).map(|head| scale_of(head.iter().copied().fold(0.0, f32::max))).collect()
        };
        let scales = Scales {
            query: scales(query, &balance.query, 1),
            key: scales(key, &balance.query, -1),
            value: scales(value, &balance.out, -1),
            out: scales(out, &balance.out, -1),
        };
        Calibrated { scales, balance }
    }
}

/// Three digits, which make a small file; 1 for a channel that is always zero.
fn round(factor: f32) -> f32 {
    let rounded = format!("{factor:.2e}").parse().unwrap_or(1.0);
    if rounded > 0.0 && f32::is_finite(rounded) { rounded } else { 1.0 }
}

impl Attention for Observer<'_> {
    fn attend(&mut self, site: Site, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, Error> {
        let out = self.attention.attend(site, query, key, value)?;
        let layers = self.stages.entry(site.stage).or_default();
        if layers.len() <= site.layer {
            layers.resize(site.layer + 1, Largest::default());
        }
        let largest = &mut layers[site.layer];
        for (tensor, largest) in [
            (query, &mut largest.query),
            (key, &mut largest.key),
            (value, &mut largest.value),
            (&out, &mut largest.out),
        ] {
            let channels = Vec::<f32>::try_from(tensor.f_abs()?.f_amax([1], false)?.f_reshape([-1])?)?;
            largest.resize(channels.len(), 0.0);
            for (largest, channel) in largest.iter_mut().zip(channels) {
                *largest = largest.max(channel);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use attn_ref::torch::Method;

    use super::*;
    use crate::attention::Torch;

    #[test]
    fn channels_are_balanced_and_the_largest_becomes_127() {
        // One key: the output is its value.
        let tensor = |values: &[f32]| Tensor::from_slice(values).reshape([1, 1, 4]);
        let mut float = Torch(Method::Plain);
        let mut observer = Observer::new(&mut float);
        let site = Site { stage: Stage::DecoderSelf, layer: 1 };
        let (query, key, value) =
            (tensor(&[1.0, -2.0, 0.5, 0.0]), tensor(&[4.0, 2.0, -0.5, 3.0]), tensor(&[2.0, 0.0, 8.0, -1.0]));
        for factor in [0.5, 1.0] {
            let _ = observer.attend(site, &(&query * factor), &(&key * factor), &(&value * factor)).expect("computes");
        }
        let calibration = observer.finish(vec!["x".to_owned()]);
        let Calibrated { scales, balance } = calibration.at(site).expect("known");
        assert_eq!(balance.query, [2.0, 1.0, 1.0, 1.0]);
        assert_eq!(balance.out, [2.0, 1.0, 8.0, 1.0]);
        let of = |largest: f32| vec![largest / 127.0];
        assert_eq!(*scales, Scales { query: of(2.0), key: of(3.0), value: of(1.0), out: of(1.0) });
        assert!(calibration.at(Site { stage: Stage::Encoder, layer: 1 }).is_err());
        assert_eq!(calibration.check(), Err("encoder self-attention: got 0 layers, expected 6".to_owned()));
    }

    #[test]
    fn a_file_is_of_this_model_or_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("calibration.json");
        let ones = |len| vec![1.0; len];
        let scales = Scales { query: ones(HEADS), key: ones(HEADS), value: ones(HEADS), out: ones(HEADS) };
        let site = Calibrated { scales, balance: Balance { query: ones(HEADS * DIM), out: ones(HEADS * DIM) } };
        let stages = Stage::ALL.map(|stage| (stage, vec![site.clone(); LAYERS]));
        let mut calibration = Calibration { recordings: Vec::new(), stages: stages.into() };
        let mut written = |change: &dyn Fn(&mut Calibrated)| {
            let good = calibration.clone();
            change(&mut calibration.stages.get_mut(&Stage::DecoderCross).expect("there")[5]);
            calibration.write(&path).expect("writable");
            calibration = good;
            let read = Calibration::read(&path).map_err(|error| error.to_string());
            read.map_err(|error| error.split_once(".json: ").expect("the path").1.to_owned())
        };
        assert!(written(&|_| ()).is_ok());
        let of_site = |what| Err(format!("decoder cross-attention of layer 5: got {what}"));
        assert_eq!(written(&|site| site.scales.key[7] = 0.0), of_site("0, expected a positive, finite number"));
        assert_eq!(written(&|site| site.balance.out[9] = -1.0), of_site("-1, expected a positive, finite number"));
        assert_eq!(written(&|site| site.balance.query.truncate(3)), of_site("3 numbers, expected 512"));
        assert_eq!(written(&|site| site.scales.out.clear()), of_site("0 numbers, expected 8"));
        fs::write(&path, "{").expect("writable");
        assert!(Calibration::read(&path).is_err_and(|error| error.to_string().contains("no calibration: EOF")));
        assert!(Calibration::read(folder.path()).is_err());
    }
}
