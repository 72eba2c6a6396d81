//! JSON as chat templates expect it: written the way Python's `json.dumps` writes it.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// One line, with a space after each `,` and `:`.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// The filter `tojson`: nothing is escaped but what JSON must. `indent` asks for several lines.
#[expect(clippy::needless_pass_by_value, reason = "as a filter takes it")]
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Only the default of these is known in templates.
    let _: Option<Value> = options.get("ensure_ascii")?;
    let _: Option<Value> = options.get("separators")?;
    let _: Option<Value> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(spaces) => {
            let pad = vec![b' '; spaces.min(16)];
            let pretty = PrettyFormatter::with_indent(&pad);
            value.serialize(&mut Serializer::with_formatter(&mut out, pretty))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)),
    };
    written
        .map_err(|e| e.to_string())
        .and_then(|()| String::from_utf8(out).map_err(|e| e.to_string()))
        .map_err(|e| Error::new(ErrorKind::BadSerialization, e))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn json_is_pythons() {
        let json = r#"{"b":[1,2.5,null],"a":"<é'\"\n>","c":{},"d":[]}"#;
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        let value = Value::from(minijinja::value::Serde(&value));
        assert_eq!(
            tojson(
                &value,
                Kwargs::from_iter([("ensure_ascii", Value::from(false))])
            )
            .unwrap(),
            r#"{"b": [1, 2.5, null], "a": "<é'\"\n>", "c": {}, "d": []}"#
        );
        let indent = Kwargs::from_iter([("indent", Value::from(2))]);
        assert_eq!(
            tojson(&Value::from(vec![1, 2]), indent).unwrap(),
            "[\n  1,\n  2\n]"
        );
    }
}
