//! Whisper-base: the encoder, and the decoder a token at a time, in libtorch and float32; attention is the caller's.

use tch::Tensor;

use crate::{
    attention::{Attention, Site, Stage},
    calibration::{Balance, Calibration},
    error::Error,
    mel::{BANDS, FRAMES},
    weights::{Weights, WeightsError},
};

/// Layers of the encoder, and of the decoder.
pub const LAYERS: usize = 6;
/// Attention heads of every layer.
pub const HEADS: usize = 8;
/// Width of a head.
pub const DIM: usize = 64;
/// Frames of the encoder's output, 20 ms each: the queries and keys of its attention.
pub const POSITIONS: usize = 1500;
/// Tokens that the decoder takes at most.
pub const CONTEXT: usize = 448;
/// Tokens of the vocabulary.
pub const VOCABULARY: usize = 51_865;

/// Width of what is between layers.
pub const WIDTH: i64 = (HEADS * DIM) as i64;
/// Of the layers between two attentions.
const INNER: i64 = 4 * WIDTH;

/// The model.
#[derive(Debug)]
pub struct Whisper {
    conv1: Affine,
    conv2: Affine,
    encoder_positions: Tensor,
    encoder: Vec<EncoderLayer>,
    encoder_norm: Norm,
    /// Of tokens; also the projection to them.
    embeddings: Tensor,
    decoder_positions: Tensor,
    decoder: Vec<DecoderLayer>,
    decoder_norm: Norm,
}

/// A weight and a bias.
#[derive(Debug)]
struct Affine {
    weight: Tensor,
    bias: Tensor,
}

/// A layer norm.
#[derive(Debug)]
struct Norm {
    gamma: Tensor,
    beta: Tensor,
}

/// Two linear layers with a GELU between them, and the norm before.
#[derive(Debug)]
struct FeedForward {
    norm: Norm,
    linears: [Affine; 2],
}

/// Query, key and value of one input, and the norm before.
#[derive(Debug)]
struct SelfAttention {
    norm: Norm,
    qkv: Affine,
    out: Affine,
}

/// Query of one input, key and value of another.
#[derive(Debug)]
struct CrossAttention {
    norm: Norm,
    query: Affine,
    key_value: Affine,
    out: Affine,
}

#[derive(Debug)]
struct EncoderLayer {
    attention: SelfAttention,
    feed_forward: FeedForward,
}

#[derive(Debug)]
struct DecoderLayer {
    attention: SelfAttention,
    cross: CrossAttention,
    feed_forward: FeedForward,
}

/// What the encoder gives.
#[derive(Debug)]
pub struct Encoded {
    /// What each layer adds up to, `[1500, 512]`.
    pub layers: Vec<Tensor>,
    /// The last of them, normalised: what the decoder attends to.
    pub output: Tensor,
}

impl Whisper {
    /// The model of these weights.
    ///
    /// # Errors
    /// Weights of another model.
    pub fn new(weights: &Weights) -> Result<Self, WeightsError> {
        let at = |name: &str| Reader { weights, name: name.to_owned() };
        let (encoder, decoder) = (at("encoder"), at("decoder"));
        let layers = 0..LAYERS;
        Ok(Self {
            conv1: encoder.at("conv1").affine(&[WIDTH, BANDS as i64, 3])?,
            conv2: encoder.at("conv2").affine(&[WIDTH, WIDTH, 3])?,
            encoder_positions: encoder.get("position_encodings/encodings", &[POSITIONS as i64, WIDTH])?,
            encoder: layers
                .clone()
                .map(|layer| {
                    let layer = encoder.at(&format!("layer_{layer}"));
                    let attention = layer.at("self_attention").self_attention()?;
                    Ok(EncoderLayer { attention, feed_forward: layer.at("ffn").feed_forward()? })
                })
                .collect::<Result<_, _>>()?,
            encoder_norm: encoder.at("layer_norm").norm()?,
            embeddings: decoder.get("embeddings/weight", &[VOCABULARY as i64, WIDTH])?,
            decoder_positions: decoder.get("position_encodings/encodings", &[CONTEXT as i64, WIDTH])?,
            decoder: layers
                .map(|layer| {
                    let layer = decoder.at(&format!("layer_{layer}"));
                    Ok(DecoderLayer {
                        attention: layer.at("self_attention").self_attention()?,
                        cross: layer.at("attention").cross_attention()?,
                        feed_forward: layer.at("ffn").feed_forward()?,
                    })
                })
                .collect::<Result<_, _>>()?,
            decoder_norm: decoder.at("layer_norm").norm()?,
        })
    }

    /// The same model, with channels balanced for integers: what goes into an attention is multiplied by factors that cancel, in the
    /// weights before it and behind it.
    ///
    /// # Errors
    /// A calibration of another model.
    pub fn balanced(mut self, calibration: &Calibration) -> Result<Self, Error> {
        let at = |stage, layer| Ok::<_, Error>(&calibration.at(Site { stage, layer })?.balance);
        for (layer, EncoderLayer { attention, .. }) in self.encoder.iter_mut().enumerate() {
            attention.balance(at(Stage::Encoder, layer)?)?;
        }
        for (layer, DecoderLayer { attention, cross, .. }) in self.decoder.iter_mut().enumerate() {
            attention.balance(at(Stage::DecoderSelf, layer)?)?;
            cross.balance(at(Stage::DecoderCross, layer)?)?;
        }
        Ok(self)
    }

    /// Encodes a log-mel spectrogram, `[80, 3000]`.
    ///
    /// # Errors
    /// What attention says; a spectrogram of another shape.
    pub fn encode(&self, mel: &Tensor, attention: &mut dyn Attention) -> Result<Encoded, Error> {
        let mel = mel.f_reshape([1, BANDS as i64, FRAMES as i64])?;
        let x = self.conv1.convolve(&mel, 1)?.f_gelu("none")?;
        let x = self.conv2.convolve(&x, 2)?.f_gelu("none")?;
        let mut x = x.f_squeeze_dim(0)?.f_transpose(0, 1)?.f_add(&self.encoder_positions)?;
        let mut layers = Vec::with_capacity(LAYERS);
        for (layer, EncoderLayer { attention: own, feed_forward }) in self.encoder.iter().enumerate() {
            let [query, key, value] = own.project(&x)?;
            let site = Site { stage: Stage::Encoder, layer };
            x = own.out.join(&attention.attend(site, &query, &key, &value)?, &x)?;
            x = feed_forward.apply(&x)?;
            layers.push(x.shallow_clone());
        }
        Ok(Encoded { layers, output: self.encoder_norm.apply(&x)? })
    }

    /// Starts to decode what the encoder gave.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn decoder(&self, encoded: &Encoded) -> Result<Decoder<'_>, Error> {
        let caches = self.decoder.iter().map(|layer| {
            let [key, value] = heads(&layer.cross.key_value.linear(&encoded.output)?)?;
            Ok(Cache { own: None, cross: [key.f_contiguous()?, value.f_contiguous()?] })
        });
        Ok(Decoder { model: self, caches: caches.collect::<Result<_, Error>>()?, len: 0 })
    }
}

/// The decoder, and what it has seen.
#[derive(Debug)]
pub struct Decoder<'a> {
    model: &'a Whisper,
    caches: Vec<Cache>,
    len: usize,
}

/// Keys and values of one layer.
#[derive(Debug)]
struct Cache {
    /// Those of the tokens until now.
    own: Option<[Tensor; 2]>,
    /// Those of the encoder's output.
    cross: [Tensor; 2],
}

impl Decoder<'_> {
    /// How many tokens it has seen, at most [`CONTEXT`].
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has seen none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The logits of the token after this one, `[vocabulary]`.
    ///
    /// # Errors
    /// What attention says; a token that there is not; more than [`CONTEXT`] of them.
    pub fn step(&mut self, token: u32, attention: &mut dyn Attention) -> Result<Tensor, Error> {
        let model = self.model;
        let embedding = model.embeddings.f_narrow(0, token.into(), 1)?;
        let mut x = embedding.f_add(&model.decoder_positions.f_narrow(0, self.len as i64, 1)?)?;
        for ((layer, DecoderLayer { attention: own, cross, feed_forward }), cache) in
            model.decoder.iter().enumerate().zip(&mut self.caches)
        {
            let [query, key, value] = own.project(&x)?;
            let [key, value] = match cache.own.take() {
                None => [key, value],
                Some([keys, values]) => [Tensor::f_cat(&[keys, key], 1)?, Tensor::f_cat(&[values, value], 1)?],
            };
            let site = Site { stage: Stage::DecoderSelf, layer };
            x = own.out.join(&attention.attend(site, &query, &key, &value)?, &x)?;
            cache.own = Some([key, value]);

            let [query] = heads(&cross.query.linear(&cross.norm.apply(&x)?)?)?;
            let [key, value] = &cache.cross;
            let site = Site { stage: Stage::DecoderCross, layer };
            x = cross.out.join(&attention.attend(site, &query, key, value)?, &x)?;
            x = feed_forward.apply(&x)?;
        }
        self.len += 1;
        let x = model.decoder_norm.apply(&x)?;
        Ok(model.embeddings.f_matmul(&x.f_reshape([WIDTH])?)?)
    }
}

/// Splits rows of `N` tensors side by side, `[rows, N · 512]`, into heads, `[8, rows, 64]` each.
fn heads<const N: usize>(x: &Tensor) -> Result<[Tensor; N], Error> {
    let heads = x.f_reshape([-1, N as i64, HEADS as i64, DIM as i64])?.f_permute([1, 2, 0, 3])?;
    let parts = (0..N as i64).map(|part| heads.f_select(0, part)).collect::<Result<Vec<_>, _>>()?;
    Ok(parts.try_into().expect("one of each of N"))
}

impl Affine {
    fn linear(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(x.f_linear(&self.weight, Some(&self.bias))?)
    }

    fn convolve(&self, x: &Tensor, stride: i64) -> Result<Tensor, Error> {
        Ok(x.f_conv1d(&self.weight, Some(&self.bias), stride, 1, 1, 1)?)
    }

    /// Joins the heads of attention's output, `[8, rows, 64]`, projects them, and adds `x`, `[rows, 512]`.
    fn join(&self, out: &Tensor, x: &Tensor) -> Result<Tensor, Error> {
        Ok(self.linear(&out.f_transpose(0, 1)?.f_reshape([-1, WIDTH])?)?.f_add(x)?)
    }
}

impl Affine {
    /// Multiplies what comes out.
    fn scale_rows(&mut self, factors: &Tensor) -> Result<(), Error> {
        self.weight = self.weight.f_mul(&factors.f_unsqueeze(1)?)?;
        self.bias = self.bias.f_mul(factors)?;
        Ok(())
    }

    /// The same as multiplying what goes in.
    fn scale_columns(&mut self, factors: &Tensor) -> Result<(), Error> {
        self.weight = self.weight.f_mul(factors)?;
        Ok(())
    }
}

/// The factors of query, key, value and what goes into the output's projection.
fn factors(balance: &Balance) -> Result<[Tensor; 4], Error> {
    let (query, out) = (Tensor::f_from_slice(&balance.query)?, Tensor::f_from_slice(&balance.out)?);
    Ok([query.shallow_clone(), query.f_reciprocal()?, out.f_reciprocal()?, out])
}

impl Norm {
    fn apply(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(x.f_layer_norm([WIDTH], Some(&self.gamma), Some(&self.beta), 1e-5, false)?)
    }
}

impl SelfAttention {
    /// Query, key and value, `[8, rows, 64]`.
    fn project(&self, x: &Tensor) -> Result<[Tensor; 3], Error> {
        heads(&self.qkv.linear(&self.norm.apply(x)?)?)
    }

    fn balance(&mut self, balance: &Balance) -> Result<(), Error> {
        let [query, key, value, out] = factors(balance)?;
        self.qkv.scale_rows(&Tensor::f_cat(&[query, key, value], 0)?)?;
        self.out.scale_columns(&out)
    }
}

impl CrossAttention {
    fn balance(&mut self, balance: &Balance) -> Result<(), Error> {
        let [query, key, value, out] = factors(balance)?;
        self.query.scale_rows(&query)?;
        self.key_value.scale_rows(&Tensor::f_cat(&[key, value], 0)?)?;
        self.out.scale_columns(&out)
    }
}

impl FeedForward {
    fn apply(&self, x: &Tensor) -> Result<Tensor, Error> {
        let [first, second] = &self.linears;
        Ok(second.linear(&first.linear(&self.norm.apply(x)?)?.f_gelu("none")?)?.f_add(x)?)
    }
}

/// Weights below a name.
struct Reader<'a> {
    weights: &'a Weights,
    name: String,
}

impl Reader<'_> {
    fn at(&self, name: &str) -> Reader<'_> {
        Reader { weights: self.weights, name: format!("{}/{name}", self.name) }
    }

    fn get(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        self.weights.get(&format!("{}/{name}", self.name), shape)
    }

    fn affine(&self, shape: &[i64]) -> Result<Affine, WeightsError> {
        Ok(Affine { weight: self.get("weight", shape)?, bias: self.get("bias", &shape[..1])? })
    }

    fn norm(&self) -> Result<Norm, WeightsError> {
        Ok(Norm { gamma: self.get("gamma", &[WIDTH])?, beta: self.get("beta", &[WIDTH])? })
    }

    fn feed_forward(&self) -> Result<FeedForward, WeightsError> {
        let linears = [self.at("linear_0").affine(&[INNER, WIDTH])?, self.at("linear_1").affine(&[WIDTH, INNER])?];
        Ok(FeedForward { norm: self.at("layer_norm").norm()?, linears })
    }

    fn self_attention(&self) -> Result<SelfAttention, WeightsError> {
        let qkv = self.at("linear_0").affine(&[3 * WIDTH, WIDTH])?;
        Ok(SelfAttention {
            norm: self.at("layer_norm").norm()?,
            qkv,
            out: self.at("linear_1").affine(&[WIDTH, WIDTH])?,
        })
    }

    fn cross_attention(&self) -> Result<CrossAttention, WeightsError> {
        Ok(CrossAttention {
            norm: self.at("layer_norm").norm()?,
            query: self.at("linear_0").affine(&[WIDTH, WIDTH])?,
            key_value: self.at("linear_1").affine(&[2 * WIDTH, WIDTH])?,
            out: self.at("linear_2").affine(&[WIDTH, WIDTH])?,
        })
    }
}
