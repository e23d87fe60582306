//! The section `EMBEDDED_METADATA`: what can be run, and what it is given.

use super::{
    XclbinError, named,
    xml::{Tag, Tags},
};

/// What can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Kernel {
    /// Its name, which a host program opens it by.
    pub name: String,
    /// What runs it: `dpu` for an NPU.
    #[cfg_attr(feature = "serde", serde(rename = "type"))]
    pub kind: String,
    /// The number that CDO groups know it by.
    pub dpu_kernel_id: Option<u64>,
    /// Its instances.
    pub instances: Vec<String>,
    /// What it is given.
    pub arguments: Vec<Argument>,
}

/// What a kernel is given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Argument {
    /// Its number, if a host program sets it.
    pub id: Option<u64>,
    /// Its name.
    pub name: String,
    /// Its type in C.
    #[cfg_attr(feature = "serde", serde(rename = "type"))]
    pub kind: String,
    /// Where it lives.
    pub address_qualifier: AddressQualifier,
    /// Where it stands in the register map, in bytes.
    pub offset: u64,
    /// Its bytes there.
    pub size: u64,
}

named! {
    /// Where an argument lives.
    AddressQualifier: "scalar", "global", "constant", "local", "stream"
}

/// What stands around the kernels, and what is not read of them, may be anything.
pub(super) fn read(section: &[u8]) -> Result<Vec<Kernel>, XclbinError> {
    let mut kernels: Vec<Kernel> = Vec::new();
    // The last kernel has not ended.
    let mut open = false;
    for tag in Tags::of(section)? {
        let tag = tag?;
        match (tag.name, kernels.last_mut().filter(|_| open)) {
            ("kernel", None) => {
                kernels.push(Kernel {
                    name: tag.required("name", "a kernel's name")?,
                    kind: tag.text("type")?.unwrap_or_default(),
                    dpu_kernel_id: None,
                    instances: Vec::new(),
                    arguments: Vec::new(),
                });
                open = !tag.is_empty;
            }
            ("/kernel", Some(_)) => open = false,
            ("kernel", Some(_)) => return Err(tag.error("</kernel> before the next kernel")),
            ("extended-data", Some(kernel)) => kernel.dpu_kernel_id = tag.number("dpu_kernel_id")?,
            ("instance", Some(kernel)) => kernel.instances.push(tag.required("name", "an instance's name")?),
            ("arg", Some(kernel)) => kernel.arguments.push(argument(&tag)?),
            _ => {}
        }
    }
    if open {
        return Err(XclbinError::Kernels { offset: section.len(), got: String::new(), expected: "</kernel>" });
    }
    Ok(kernels)
}

fn argument(tag: &Tag<'_>) -> Result<Argument, XclbinError> {
    let number = |name, expected| tag.number(name)?.ok_or_else(|| tag.error(expected));
    let qualifier = "an argument's addressQualifier, 0 to 4";
    Ok(Argument {
        id: tag.number("id")?,
        name: tag.required("name", "an argument's name")?,
        kind: tag.text("type")?.unwrap_or_default(),
        address_qualifier: AddressQualifier(
            number("addressQualifier", qualifier)?.try_into().map_err(|_| tag.error(qualifier))?,
        ),
        offset: number("offset", "an argument's offset")?,
        size: number("size", "an argument's size")?,
    })
}
