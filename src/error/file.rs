//! What can be wrong with a checkpoint file, each as the rest of a sentence that starts with the
//! file's name.

use crate::tensor::DType;

/// What is wrong with a checkpoint file. Names in it are shortened and escaped for printing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentences name the fields")]
pub enum FileProblem {
    /// It has no bytes.
    #[error("is empty; fetch it again")]
    Empty,
    /// It is a folder or a device.
    #[error("is not a file; give the path of a .gguf file")]
    NotAFile,
    /// A folder without a file that a model needs.
    #[error("has no {wanted}; give the folder of a whole model, or the path of a .gguf file")]
    NoFile { wanted: &'static str },
    /// A JSON file of a folder that does not say what it should.
    #[error("is not the description it should be ({reason}); fetch it again")]
    Json { reason: String },
    /// A safetensors file that is damaged, or of another model.
    #[error("cannot be used: {reason}; fetch the folder's safetensors files again")]
    Safetensors { reason: String },
    /// It is of another kind.
    #[error("is {found}, not a GGUF model; {advice}")]
    OtherKind {
        found: &'static str,
        advice: &'static str,
    },
    /// It is of no kind known here.
    #[error(
        "is not a GGUF model (its first bytes are {start:02x?}); give the path of a .gguf file"
    )]
    Unknown { start: [u8; 4] },
    /// A version of the format from before or after the ones read here.
    #[error(
        "is GGUF version {version}, and only versions 2 and 3 are read; \
         convert the model again with a current converter"
    )]
    Version { version: u32 },
    /// Numbers are stored highest byte first.
    #[error("is a big-endian GGUF file, and only little-endian ones are read; convert it again")]
    BigEndian,
    /// The file ends too early.
    #[error(
        "ends in the middle of {what} (it has {bytes} bytes and {want} are needed); \
         it is incomplete or damaged: fetch it again"
    )]
    Truncated { what: String, want: u64, bytes: u64 },
    /// A count that no real file has, or that this file has no room for.
    #[error("claims {count} {what}, and can have {limit} at most; it is damaged: fetch it again")]
    TooMany {
        what: &'static str,
        count: u64,
        limit: u64,
    },
    /// A string is not UTF-8.
    #[error("has {what} that is not UTF-8 text; it is damaged: fetch it again")]
    Text { what: String },
    /// A metadata value of a type that GGUF does not have.
    #[error(
        "gives the metadata key `{key}` the unknown value type {id}; it is damaged: fetch it again"
    )]
    ValueType { key: String, id: u32 },
    /// A boolean that is neither 0 nor 1.
    #[error("gives the metadata key `{key}` the boolean {value}; it is damaged: fetch it again")]
    Boolean { key: String, value: u8 },
    /// Arrays of arrays of arrays, without end.
    #[error(
        "nests arrays deeper than {limit} in the metadata key `{key}`; it is damaged: fetch it again"
    )]
    Nesting { key: String, limit: usize },
    /// A name that comes twice.
    #[error("has the {what} `{name}` twice; it is damaged: fetch it again")]
    Duplicate { what: &'static str, name: String },
    /// `general.alignment` is no power of two, or no number.
    #[error(
        "has a `general.alignment` of {got}, which must be a power of two; it is damaged: fetch it again"
    )]
    Alignment { got: String },
    /// A tensor type that is not read.
    #[error(
        "stores tensor `{tensor}` as {}, which OmniMini does not read; \
         choose a file of another quantisation, such as Q4_K_M or Q8_0",
        type_name(*id, *name)
    )]
    TensorType {
        tensor: String,
        id: u32,
        name: Option<&'static str>,
    },
    /// More than four dimensions.
    #[error(
        "gives tensor `{tensor}` {dims} dimensions, and 4 is the most; it is damaged: fetch it again"
    )]
    Dimensions { tensor: String, dims: u32 },
    /// A dimension of zero.
    #[error("gives tensor `{tensor}` a dimension of 0; it is damaged: fetch it again")]
    ZeroDimension { tensor: String },
    /// A row that does not divide into blocks.
    #[error(
        "stores tensor `{tensor}` with rows of {columns} elements as {dtype}, whose blocks have \
         {block}; it is damaged, or convert the model with another type"
    )]
    TensorColumns {
        tensor: String,
        dtype: DType,
        columns: u64,
        block: usize,
    },
    /// A size that overflows.
    #[error(
        "gives tensor `{tensor}` more elements than this machine can address; it is damaged, or too large"
    )]
    TensorSize { tensor: String },
    /// An offset off the file's alignment.
    #[error(
        "puts tensor `{tensor}` at offset {offset}, which is no multiple of its alignment of \
         {alignment}; it is damaged: fetch it again"
    )]
    Misaligned {
        tensor: String,
        offset: u64,
        alignment: u64,
    },
    /// Two tensors in one place.
    #[error(
        "puts tensors `{first}` and `{second}` in the same place; it is damaged: fetch it again"
    )]
    Overlap { first: String, second: String },
    /// One file of several, opened alone.
    #[error("is shard {no} of {count}; open all its shards together")]
    LoneShard { no: u64, count: u64 },
    /// One file of several under a name that does not lead to the others.
    #[error(
        "is shard {no} of {count}, but its name does not end in -{no:05}-of-{count:05}.gguf; \
         give all shards their original names"
    )]
    ShardName { no: u64, count: u64 },
    /// A shard that is not there.
    #[error(
        "is one of {count} shards, and shard {missing} (`{name}`) is not beside it; fetch all of them"
    )]
    MissingShard {
        missing: u64,
        count: u64,
        name: String,
    },
    /// A safetensors file that a folder's index names, and that is not there.
    #[error("names {count} safetensors files, and `{name}` is not beside it; fetch all of them")]
    MissingFile { name: String, count: u64 },
    /// A shard in another's place.
    #[error(
        "should be shard {no} of {count} but says it is shard {got_no} of {got_count}; \
         fetch the shards again and keep their names"
    )]
    ShardOrder {
        no: u64,
        count: u64,
        got_no: u64,
        got_count: u64,
    },
    /// Shards that do not belong together.
    #[error(
        "and its other shards have {got} tensors together, where {want} are announced; fetch all of them again"
    )]
    ShardTensors { want: u64, got: u64 },
}

fn type_name(id: u32, name: Option<&str>) -> String {
    name.map_or_else(|| format!("the unknown type {id}"), str::to_owned)
}
