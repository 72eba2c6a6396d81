//! A checkpoint's metadata: typed values by key, and getters that say what was wrong.

use crate::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Metadata of a checkpoint, by key, such as `general.architecture`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(pub(super) BTreeMap<String, Value>);

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is the type's own name")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// A metadata array: all elements have one type.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is the type's own name")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    Strings(Strings),
    Arrays(Vec<Array>),
}

/// Many strings in one piece of memory: a vocabulary has hundreds of thousands.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Strings {
    text: String,
    /// Where each string ends in `text`.
    ends: Vec<u32>,
}

impl Strings {
    /// Room for `count` strings of `bytes` together.
    pub(super) fn with_capacity(count: usize, bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            ends: Vec::with_capacity(count),
        }
    }

    /// Appends a string; the caller keeps all of them under 4 GiB.
    pub(super) fn push(&mut self, string: &str) {
        self.text.push_str(string);
        self.ends.push(self.text.len() as u32);
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// String `i`.
    pub fn get(&self, i: usize) -> Option<&str> {
        let end = *self.ends.get(i)? as usize;
        let start = i.checked_sub(1).map_or(0, |last| self.ends[last] as usize);
        self.text.get(start..end)
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|i| self.get(i).unwrap_or_default())
    }
}

impl<S: AsRef<str>> FromIterator<S> for Strings {
    /// The caller keeps all of them under 4 GiB.
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Self::default();
        for string in strings {
            all.push(string.as_ref());
        }
        all
    }
}

impl std::fmt::Debug for Strings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Calls `$body` with the `Vec` or [`Strings`] of any array.
macro_rules! each_array {
    ($array:expr, $items:ident => $body:expr) => {
        match $array {
            Array::U8($items) => $body,
            Array::I8($items) => $body,
            Array::U16($items) => $body,
            Array::I16($items) => $body,
            Array::U32($items) => $body,
            Array::I32($items) => $body,
            Array::U64($items) => $body,
            Array::I64($items) => $body,
            Array::F32($items) => $body,
            Array::F64($items) => $body,
            Array::Bool($items) => $body,
            Array::Strings($items) => $body,
            Array::Arrays($items) => $body,
        }
    };
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each_array!(self, items => items.len())
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its elements are, in the plural.
    fn elements(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8 numbers",
            Self::I8(_) => "i8 numbers",
            Self::U16(_) => "u16 numbers",
            Self::I16(_) => "i16 numbers",
            Self::U32(_) => "u32 numbers",
            Self::I32(_) => "i32 numbers",
            Self::U64(_) => "u64 numbers",
            Self::I64(_) => "i64 numbers",
            Self::F32(_) => "f32 numbers",
            Self::F64(_) => "f64 numbers",
            Self::Bool(_) => "booleans",
            Self::Strings(_) => "strings",
            Self::Arrays(_) => "arrays",
        }
    }

    /// The elements as whole numbers of another type, if all fit.
    fn integers<T: TryFrom<i64> + TryFrom<u64>>(&self) -> Option<Vec<T>> {
        fn all<S: Copy, W: From<S>, T: TryFrom<W>>(items: &[S]) -> Option<Vec<T>> {
            items.iter().map(|&x| T::try_from(x.into()).ok()).collect()
        }
        match self {
            Self::U8(items) => all::<_, u64, _>(items),
            Self::I8(items) => all::<_, i64, _>(items),
            Self::U16(items) => all::<_, u64, _>(items),
            Self::I16(items) => all::<_, i64, _>(items),
            Self::U32(items) => all::<_, u64, _>(items),
            Self::I32(items) => all::<_, i64, _>(items),
            Self::U64(items) => all::<_, u64, _>(items),
            Self::I64(items) => all::<_, i64, _>(items),
            other => other.is_empty().then(Vec::new),
        }
    }
}

/// One line for people: the value if it is short, else what and how many.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 60;
        match self {
            Self::U8(x) => write!(f, "{x} (u8)"),
            Self::I8(x) => write!(f, "{x} (i8)"),
            Self::U16(x) => write!(f, "{x} (u16)"),
            Self::I16(x) => write!(f, "{x} (i16)"),
            Self::U32(x) => write!(f, "{x} (u32)"),
            Self::I32(x) => write!(f, "{x} (i32)"),
            Self::U64(x) => write!(f, "{x} (u64)"),
            Self::I64(x) => write!(f, "{x} (i64)"),
            Self::F32(x) => write!(f, "{x} (f32)"),
            Self::F64(x) => write!(f, "{x} (f64)"),
            Self::Bool(x) => write!(f, "{x}"),
            Self::String(text) => match text.char_indices().nth(SHOWN) {
                None => write!(f, "{text:?}"),
                Some((end, _)) => write!(f, "{:?}… ({} bytes)", &text[..end], text.len()),
            },
            Self::Array(array) => write!(f, "an array of {} {}", array.len(), array.elements()),
        }
    }
}

/// What a metadata value can be read as.
///
/// Whole numbers are read from every width and sign that holds them: converters differ there.
pub trait FromValue<'a>: Sized {
    /// What is wanted, as in "should be a string".
    const WANT: &'static str;
    /// The value, if it is of that kind.
    fn from_value(value: &'a Value) -> Option<Self>;
}

macro_rules! from_integer {
    ($($t:ty: $want:literal),*) => {$(
        impl FromValue<'_> for $t {
            const WANT: &'static str = $want;
            fn from_value(value: &Value) -> Option<Self> {
                match *value {
                    Value::U8(x) => Self::try_from(x).ok(),
                    Value::I8(x) => Self::try_from(x).ok(),
                    Value::U16(x) => Self::try_from(x).ok(),
                    Value::I16(x) => Self::try_from(x).ok(),
                    Value::U32(x) => Self::try_from(x).ok(),
                    Value::I32(x) => Self::try_from(x).ok(),
                    Value::U64(x) => Self::try_from(x).ok(),
                    Value::I64(x) => Self::try_from(x).ok(),
                    _ => None,
                }
            }
        }
    )*};
}

from_integer! {
    u32: "an unsigned 32-bit number",
    i32: "a signed 32-bit number",
    u64: "an unsigned 64-bit number",
    usize: "a size"
}

impl FromValue<'_> for f32 {
    const WANT: &'static str = "a floating-point number";
    fn from_value(value: &Value) -> Option<Self> {
        match *value {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as Self),
            _ => None,
        }
    }
}

impl FromValue<'_> for bool {
    const WANT: &'static str = "a boolean";
    fn from_value(value: &Value) -> Option<Self> {
        match *value {
            Value::Bool(x) => Some(x),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const WANT: &'static str = "a string";
    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a Strings {
    const WANT: &'static str = "an array of strings";
    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Array(Array::Strings(strings)) => Some(strings),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for Cow<'a, [i32]> {
    const WANT: &'static str = "an array of signed 32-bit numbers";
    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Array(Array::I32(items)) => Some(Cow::Borrowed(items)),
            Value::Array(array) => array.integers().map(Cow::Owned),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for Cow<'a, [u32]> {
    const WANT: &'static str = "an array of unsigned 32-bit numbers";
    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Array(Array::U32(items)) => Some(Cow::Borrowed(items)),
            Value::Array(array) => array.integers().map(Cow::Owned),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for Cow<'a, [f32]> {
    const WANT: &'static str = "an array of floating-point numbers";
    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Array(Array::F32(items)) => Some(Cow::Borrowed(items)),
            Value::Array(Array::F64(items)) => {
                Some(Cow::Owned(items.iter().map(|&x| x as f32).collect()))
            }
            Value::Array(array) if array.is_empty() => Some(Cow::Owned(Vec::new())),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for Cow<'a, [bool]> {
    const WANT: &'static str = "an array of booleans";
    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Array(Array::Bool(items)) => Some(Cow::Borrowed(items)),
            Value::Array(array) if array.is_empty() => Some(Cow::Owned(Vec::new())),
            _ => None,
        }
    }
}

impl Metadata {
    /// The value of a key as it is in the file.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Gives a key a value, whatever it had.
    pub fn set(&mut self, key: &str, value: Value) {
        self.0.insert(key.into(), value);
    }

    /// Takes a key away, if it is there.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// All keys and values, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A value that may be absent.
    ///
    /// # Errors
    /// [`Error::KeyType`] if it is there and of another type.
    pub fn find<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match T::from_value(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::KeyType {
                key: key.into(),
                want: T::WANT,
                got: value.to_string(),
            }),
        }
    }

    /// A value that must be there; the getters below are this one under shorter names.
    ///
    /// # Errors
    /// [`Error::MissingKey`], or [`Error::KeyType`] if it is of another type.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T> {
        self.find(key)?.ok_or_else(|| Error::MissingKey {
            key: key.into(),
            want: T::WANT,
        })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.get(key)
    }

    /// A whole number that fits 32 bits.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.get(key)
    }

    /// A whole number.
    pub fn u64(&self, key: &str) -> Result<u64> {
        self.get(key)
    }

    /// A number with a fraction.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.get(key)
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<bool> {
        self.get(key)
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<&Strings> {
        self.get(key)
    }

    /// An array of whole numbers, signed.
    pub fn i32s(&self, key: &str) -> Result<Cow<'_, [i32]>> {
        self.get(key)
    }

    /// An array of whole numbers, unsigned.
    pub fn u32s(&self, key: &str) -> Result<Cow<'_, [u32]>> {
        self.get(key)
    }

    /// An array of numbers with fractions.
    pub fn f32s(&self, key: &str) -> Result<Cow<'_, [f32]>> {
        self.get(key)
    }
}
