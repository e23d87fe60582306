//! Whisper's weights from a `model.bin` of `CTranslate2`: version 6 of the format, `WhisperSpec`.
//!
//! A version, the name of the specification and its revision; then variables, each a name, dimensions, a type and bytes; then
//! aliases. Numbers are little-endian, names have a length and end with a zero.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use tch::{Kind, TchError, Tensor};

/// The version of the format.
const VERSION: u32 = 6;
/// The specification that the weights are for, with its zero.
const SPECIFICATION: &[u8] = b"WhisperSpec\0";
/// No variable of any Whisper is larger: its vocabulary times its width, in bytes.
const MOST_BYTES: u32 = 1 << 28;
/// Variables have three dimensions at most.
const MOST_DIMENSIONS: u8 = 3;

/// The types of variables: the number in the file is the place here.
const KINDS: [(Kind, usize); 6] =
    [(Kind::Float, 4), (Kind::Int8, 1), (Kind::Int16, 2), (Kind::Int, 4), (Kind::Half, 2), (Kind::BFloat16, 2)];

/// The variables of a file, in float32, by name.
#[derive(Debug)]
pub struct Weights {
    file: PathBuf,
    variables: HashMap<String, Tensor>,
}

/// Why there are no weights.
#[derive(Debug)]
pub struct WeightsError {
    file: PathBuf,
    problem: Problem,
}

/// What is wrong with a file of weights.
#[derive(Debug)]
enum Problem {
    Read(io::Error),
    Version(u32),
    Specification(Vec<u8>),
    Variable { name: String, what: String },
    Missing(String),
    Shape { name: String, got: Vec<i64>, expected: Vec<i64> },
    Torch(TchError),
}

impl Weights {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, ends early, or is of another format, version or specification.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let read = || {
            let mut reader = BufReader::new(File::open(path).map_err(Problem::Read)?);
            variables(&mut reader)
        };
        let file = path.to_owned();
        match read() {
            Ok(variables) => Ok(Self { file, variables }),
            Err(problem) => Err(WeightsError { file, problem }),
        }
    }

    /// The variable of this name.
    ///
    /// # Errors
    /// There is none, or it has another shape.
    pub fn get(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let error = |problem| WeightsError { file: self.file.clone(), problem };
        let variable = self.variables.get(name).ok_or_else(|| error(Problem::Missing(name.to_owned())))?;
        if variable.size() != shape {
            let (got, expected) = (variable.size(), shape.to_vec());
            return Err(error(Problem::Shape { name: name.to_owned(), got, expected }));
        }
        Ok(variable.shallow_clone())
    }
}

fn variables(reader: &mut impl Read) -> Result<HashMap<String, Tensor>, Problem> {
    let version = u32(reader)?;
    if version != VERSION {
        return Err(Problem::Version(version));
    }
    let specification = bytes(reader)?;
    if specification != SPECIFICATION {
        return Err(Problem::Specification(specification));
    }
    // Its revision differs in what is beside the weights.
    u32(reader)?;
    let count = u32(reader)?;
    (0..count).map(|_| variable(reader)).collect()
}

fn variable(reader: &mut impl Read) -> Result<(String, Tensor), Problem> {
    let name = String::from_utf8_lossy(&bytes(reader)?).trim_end_matches('\0').to_owned();
    let wrong = |what: String| Problem::Variable { name: name.clone(), what };
    let [rank] = array(reader)?;
    if rank > MOST_DIMENSIONS {
        return Err(wrong(format!("{rank} dimensions, expected at most {MOST_DIMENSIONS}")));
    }
    let shape = (0..rank).map(|_| u32(reader).map(i64::from)).collect::<Result<Vec<_>, _>>()?;
    let [kind] = array(reader)?;
    let &(kind, size) = KINDS.get(usize::from(kind)).ok_or_else(|| wrong(format!("a type numbered {kind}")))?;
    let len = u32(reader)?;
    let elements = shape.iter().try_fold(size as i64, |product, &length| product.checked_mul(length));
    if len > MOST_BYTES || elements != Some(len.into()) {
        return Err(wrong(format!("{len} bytes for {shape:?} of {size} bytes each, at most {MOST_BYTES}")));
    }
    let mut data = vec![0; len as usize];
    reader.read_exact(&mut data).map_err(Problem::Read)?;
    let tensor = Tensor::f_from_data_size(&data, &shape, kind).and_then(|tensor| tensor.f_to_kind(Kind::Float));
    Ok((name, tensor.map_err(Problem::Torch)?))
}

fn array<const N: usize>(reader: &mut impl Read) -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).map_err(Problem::Read)?;
    Ok(bytes)
}

fn u32(reader: &mut impl Read) -> Result<u32, Problem> {
    array(reader).map(u32::from_le_bytes)
}

/// As many bytes as a length of 16 bits before them says.
fn bytes(reader: &mut impl Read) -> Result<Vec<u8>, Problem> {
    let mut bytes = vec![0; u16::from_le_bytes(array(reader)?).into()];
    reader.read_exact(&mut bytes).map_err(Problem::Read)?;
    Ok(bytes)
}

impl fmt::Display for WeightsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        match &self.problem {
            Problem::Read(error) => error.fmt(f),
            Problem::Version(got) => write!(f, "got version {got} of CTranslate2's format, expected {VERSION}"),
            Problem::Specification(got) => {
                let expected = String::from_utf8_lossy(SPECIFICATION);
                write!(f, "got a model {:?}, expected {expected:?}", String::from_utf8_lossy(got))
            }
            Problem::Variable { name, what } => write!(f, "variable {name}: got {what}"),
            Problem::Missing(name) => write!(f, "got no variable {name}"),
            Problem::Shape { name, got, expected } => {
                write!(f, "variable {name}: got shape {got:?}, expected {expected:?} (of Whisper-base)")
            }
            Problem::Torch(error) => error.fmt(f),
        }
    }
}

impl Error for WeightsError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one variable `x` of this type and shape, with this many bytes.
    fn file(version: u32, specification: &[u8], kind: u8, shape: &[u32], data: &[u8]) -> Vec<u8> {
        let mut file = version.to_le_bytes().to_vec();
        let name = |file: &mut Vec<u8>, name: &[u8]| {
            file.extend((name.len() as u16).to_le_bytes());
            file.extend(name);
        };
        name(&mut file, specification);
        file.extend([3_u32, 1].map(u32::to_le_bytes).concat());
        name(&mut file, b"x\0");
        file.push(shape.len() as u8);
        file.extend(shape.iter().flat_map(|length| length.to_le_bytes()));
        file.push(kind);
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(data);
        file
    }

    fn read(mut file: &[u8]) -> Result<Weights, String> {
        let error = |problem| WeightsError { file: "model.bin".into(), problem }.to_string();
        let variables = variables(&mut file).map_err(error)?;
        Ok(Weights { file: "model.bin".into(), variables })
    }

    #[test]
    fn variables_become_float32() {
        let good = file(VERSION, SPECIFICATION, 4, &[1, 2], &[0x00, 0x3c, 0x00, 0xc1]);
        let weights = read(&good).expect("valid");
        let x = weights.get("x", &[1, 2]).expect("there");
        assert_eq!(Vec::<f32>::try_from(x.reshape([-1])).expect("floats"), [1.0, -2.5]);
        let missing = weights.get("y", &[1, 2]).expect_err("not there").to_string();
        assert_eq!(missing, "model.bin: got no variable y");
        let shape = weights.get("x", &[2]).expect_err("another shape").to_string();
        assert_eq!(shape, "model.bin: variable x: got shape [1, 2], expected [2] (of Whisper-base)");
        for len in 0..good.len() {
            assert!(read(&good[..len]).is_err_and(|error| error.contains("fill whole buffer")), "{len}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        let data = [0; 4];
        for (file, expected) in [
            (file(5, SPECIFICATION, 4, &[2], &data), "got version 5 of CTranslate2's format, expected 6"),
            (file(VERSION, b"x", 4, &[2], &data), "got a model \"x\", expected \"WhisperSpec\\0\""),
            (file(VERSION, SPECIFICATION, 6, &[2], &data), "variable x: got a type numbered 6"),
            (file(VERSION, SPECIFICATION, 4, &[1; 4], &data), "variable x: got 4 dimensions, expected at most 3"),
            (
                file(VERSION, SPECIFICATION, 4, &[3], &data),
                "variable x: got 4 bytes for [3] of 2 bytes each, at most 268435456",
            ),
            (
                file(VERSION, SPECIFICATION, 4, &[u32::MAX; 3], &data),
                "variable x: got 4 bytes for [4294967295, 4294967295, 4294967295] of 2 bytes each, at most 268435456",
            ),
        ] {
            assert_eq!(read(&file).err(), Some(format!("model.bin: {expected}")));
        }
    }
}
