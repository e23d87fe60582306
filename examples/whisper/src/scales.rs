//! Static scales: what a deployed NPU needs, for it cannot look at a tensor before it quantises it.

use std::{collections::BTreeMap, fs, path::Path};

use attn_fixed::quantise::scale_of;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{
    attention::{Attention, Site, Stage},
    error::Error,
};

/// The scales of one attention, one for each head.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteScales {
    /// Of the queries.
    pub query: Vec<f32>,
    /// Of the keys.
    pub key: Vec<f32>,
    /// Of the values.
    pub value: Vec<f32>,
    /// Of the output.
    pub out: Vec<f32>,
}

/// The scales of every attention of the model, by stage and layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticScales {
    /// The names of the recordings that they are calibrated on.
    pub calibrated_on: Vec<String>,
    /// For each stage a list of layers.
    pub stages: BTreeMap<Stage, Vec<SiteScales>>,
}

impl StaticScales {
    /// Reads a file, in JSON.
    ///
    /// # Errors
    /// A file that cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let error = |what: String| Error::File { file: path.to_owned(), what };
        let text = fs::read_to_string(path).map_err(|io| error(io.to_string()))?;
        serde_json::from_str(&text).map_err(|json| error(format!("no static scales: {json}")))
    }

    /// Writes a file, in place of one that is there.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let error = |what: String| Error::File { file: path.to_owned(), what };
        let text = serde_json::to_string(self).map_err(|json| error(json.to_string()))?;
        fs::write(path, text + "\n").map_err(|io| error(io.to_string()))
    }

    /// Those of one attention.
    ///
    /// # Errors
    /// None are there, or those of another number of heads.
    pub fn at(&self, site: Site, heads: usize) -> Result<SiteScales, Error> {
        let scales =
            self.stages.get(&site.stage).and_then(|layers| layers.get(site.layer)).cloned().unwrap_or_default();
        for tensor in [&scales.query, &scales.key, &scales.value, &scales.out] {
            if tensor.len() != heads {
                return Err(Error::NoScales { site, got: tensor.len(), expected: heads });
            }
        }
        Ok(scales)
    }
}

/// Remembers the largest magnitudes of what goes through another attention, the float one.
pub struct Calibration<'a> {
    attention: &'a mut dyn Attention,
    /// The largest magnitudes until now, in place of scales.
    largest: BTreeMap<Stage, Vec<SiteScales>>,
}

impl<'a> Calibration<'a> {
    /// Of this attention.
    pub fn new(attention: &'a mut dyn Attention) -> Self {
        Self { attention, largest: BTreeMap::new() }
    }

    /// The scales with which the largest magnitudes become 127.
    #[must_use]
    pub fn finish(mut self, calibrated_on: Vec<String>) -> StaticScales {
        for scales in self.largest.values_mut().flatten() {
            for tensor in [&mut scales.query, &mut scales.key, &mut scales.value, &mut scales.out] {
                for scale in tensor {
                    *scale = scale_of(*scale);
                }
            }
        }
        StaticScales { calibrated_on, stages: self.largest }
    }
}

impl Attention for Calibration<'_> {
    fn attend(&mut self, site: Site, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, Error> {
        let out = self.attention.attend(site, query, key, value)?;
        let layers = self.largest.entry(site.stage).or_default();
        if layers.len() <= site.layer {
            layers.resize(site.layer + 1, SiteScales::default());
        }
        let largest = &mut layers[site.layer];
        for (tensor, largest) in [
            (query, &mut largest.query),
            (key, &mut largest.key),
            (value, &mut largest.value),
            (&out, &mut largest.out),
        ] {
            let heads = Vec::<f32>::try_from(tensor.f_abs()?.f_amax([1, 2], false)?)?;
            largest.resize(heads.len(), 0.0);
            for (largest, head) in largest.iter_mut().zip(heads) {
                *largest = largest.max(head);
            }
        }
        Ok(out)
    }
}
