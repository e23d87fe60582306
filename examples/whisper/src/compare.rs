//! How far integers are from floats, on the model: in one attention, and in what comes out of the encoder.

use std::collections::BTreeMap;

use attn_fixed::quantise::{fill, largest, scale_of};
use attn_ref::{Accumulator, Metrics, torch::Method};
use tch::{Kind, Tensor};

use crate::{
    attention::{Attention, Site, Stage, Torch},
    error::Error,
};

/// How two tensors of the same shape agree, gathered over as many as are [pushed](Self::push).
#[derive(Clone, Copy, Debug, Default)]
pub struct Agreement {
    got: f64,
    expected: f64,
    product: f64,
    error: f64,
}

impl Agreement {
    /// Adds a pair.
    ///
    /// # Errors
    /// Tensors of different shapes.
    pub fn push(&mut self, got: &Tensor, expected: &Tensor) -> Result<(), Error> {
        let [got, expected] = [got, expected].map(|tensor| tensor.f_to_kind(Kind::Double));
        let (got, expected) = (got?, expected?);
        let dot = |a: &Tensor, b: &Tensor| a.f_mul(b)?.f_sum(Kind::Double)?.f_double_value(&[]);
        let error = got.f_sub(&expected)?;
        self.got += dot(&got, &got)?;
        self.expected += dot(&expected, &expected)?;
        self.product += dot(&got, &expected)?;
        self.error += dot(&error, &error)?;
        Ok(())
    }

    /// The cosine of the angle between them, of all elements as one vector.
    #[must_use]
    pub fn cosine(&self) -> f64 {
        self.product / (self.got * self.expected).sqrt()
    }

    /// The length of the difference relative to that of the expected.
    #[must_use]
    pub fn relative_l2(&self) -> f64 {
        (self.error / self.expected).sqrt()
    }
}

/// Computes another attention, and how far it is from the float one on the same input.
///
/// In LSB: one is the largest magnitude of the float output of that head in that call, divided by 127.
pub struct Probe<'a> {
    attention: &'a mut dyn Attention,
    errors: BTreeMap<(Stage, usize), Accumulator>,
}

impl<'a> Probe<'a> {
    /// Of this attention.
    pub fn new(attention: &'a mut dyn Attention) -> Self {
        Self { attention, errors: BTreeMap::new() }
    }

    /// The errors at every layer of this stage, in order; none of a stage that was not computed.
    #[must_use]
    pub fn layers(&self, stage: Stage) -> Vec<Metrics> {
        let of_stage = self.errors.iter().filter(|((at, _), _)| *at == stage);
        of_stage.filter_map(|(_, errors)| errors.finish().ok()).collect()
    }

    /// The errors of all layers of this stage together.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> Option<Metrics> {
        let mut all = Accumulator::new();
        self.errors.iter().filter(|((at, _), _)| *at == stage).for_each(|(_, errors)| all.merge(errors));
        all.finish().ok()
    }
}

impl Attention for Probe<'_> {
    fn attend(&mut self, site: Site, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, Error> {
        let got = self.attention.attend(site, query, key, value)?;
        let expected = Torch(Method::Plain).attend(site, query, key, value)?;
        let errors = self.errors.entry((site.stage, site.layer)).or_default();
        let step =
            expected.f_abs()?.f_amax([1, 2], true)?.f_div_scalar(127.0)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
        let [got_steps, expected] = [&got, &expected].map(|out| floats(&out.f_div(&step)?));
        for (got, expected) in got_steps?.into_iter().zip(expected?) {
            errors.push(got.into(), expected.into());
        }
        Ok(got)
    }
}

/// Float attention on query, key and value that are quantised to int8 and back, each head by its own largest magnitude: what
/// integers of 8 bits cost by themselves, whatever computes with them.
pub struct Int8Inputs;

impl Attention for Int8Inputs {
    fn attend(&mut self, site: Site, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, Error> {
        let [query, key, value] = [query, key, value].map(|tensor| {
            let mut numbers = floats(tensor)?;
            let heads = tensor.size()[0] as usize;
            let len = numbers.len() / heads;
            let mut integers = vec![0; len];
            for head in numbers.chunks_exact_mut(len) {
                let scale = scale_of(largest(head).map_err(Error::NotFinite)?);
                fill(head, scale, &mut integers);
                head.iter_mut().zip(&integers).for_each(|(number, &integer)| *number = f32::from(integer) * scale);
            }
            Ok::<_, Error>(Tensor::f_from_slice(&numbers)?.f_reshape(tensor.size())?)
        });
        Torch(Method::Plain).attend(site, &query?, &key?, &value?)
    }
}

/// One attention at one layer of the encoder, float attention at the others.
pub struct OneLayer<'a> {
    /// The layer.
    pub layer: usize,
    /// What computes there.
    pub attention: &'a mut dyn Attention,
}

impl Attention for OneLayer<'_> {
    fn attend(&mut self, site: Site, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, Error> {
        if (site.stage, site.layer) == (Stage::Encoder, self.layer) {
            self.attention.attend(site, query, key, value)
        } else {
            Torch(Method::Plain).attend(site, query, key, value)
        }
    }
}

/// The elements in order.
fn floats(tensor: &Tensor) -> Result<Vec<f32>, Error> {
    Ok(Vec::try_from(tensor.f_reshape([-1])?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds this to what float attention gives.
    struct Off(f64);

    impl Attention for Off {
        fn attend(&mut self, site: Site, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, Error> {
            Ok(Torch(Method::Fused).attend(site, query, key, value)?.f_add_scalar(self.0)?)
        }
    }

    #[test]
    fn errors_are_counted_in_steps_of_each_head() {
        // One key: the output is its value.
        let tensor = |values: &[f32]| Tensor::from_slice(values).reshape([2, 1, 2]);
        let (query, value) = (tensor(&[1.0; 4]), tensor(&[127.0, 1.0, -254.0, 0.0]));
        let mut off = Off(1.0);
        let mut probe = Probe::new(&mut off);
        let site = |layer| Site { stage: Stage::DecoderCross, layer };
        for layer in [1, 0, 1] {
            let out = probe.attend(site(layer), &query, &query, &value).expect("computes");
            assert_eq!(floats(&out).expect("floats"), [128.0, 2.0, -253.0, 1.0]);
        }
        let layers = probe.layers(Stage::DecoderCross);
        assert_eq!(layers.iter().map(|layer| layer.count).collect::<Vec<_>>(), [4, 8]);
        // A step is 1 in the first head and 2 in the second one.
        assert!(layers.iter().all(|layer| (layer.mae - 0.75).abs() < 1e-6 && (layer.max_error - 1.0).abs() < 1e-6));
        assert_eq!(probe.stage(Stage::DecoderCross).map(|all| all.count), Some(12));
        assert!(probe.stage(Stage::Encoder).is_none());
    }

    #[test]
    fn agreement_is_of_all_that_was_pushed() {
        let mut agreement = Agreement::default();
        agreement.push(&Tensor::from_slice(&[3.0, 0.0]), &Tensor::from_slice(&[3.0, 4.0])).expect("same shape");
        assert!((agreement.cosine() - 0.6).abs() < 1e-12);
        assert!((agreement.relative_l2() - 0.8).abs() < 1e-12);
        agreement.push(&Tensor::from_slice(&[4.0]), &Tensor::from_slice(&[0.0])).expect("same shape");
        assert!((agreement.cosine() - 0.36).abs() < 1e-12);
        assert!(agreement.push(&Tensor::from_slice(&[1.0; 2]), &Tensor::from_slice(&[1.0; 3])).is_err());
    }

    #[test]
    fn int8_inputs_are_exact_where_they_are_integers() {
        let query = Tensor::zeros([1, 1, 4], (Kind::Float, tch::Device::Cpu));
        let site = Site { stage: Stage::Encoder, layer: 0 };
        let attend = |value: &[f32]| {
            let value = Tensor::from_slice(value).reshape([1, 1, 4]);
            floats(&Int8Inputs.attend(site, &query, &query, &value).expect("computes")).expect("floats")
        };
        assert_eq!(attend(&[254.0, -2.0, 0.0, 100.0]), [254.0, -2.0, 0.0, 100.0]);
        assert_eq!(attend(&[254.0, -2.9, 0.9, 101.1]), [254.0, -2.0, 0.0, 102.0]);
    }
}
