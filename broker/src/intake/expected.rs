//! What a task's result must be: text, or JSON that matches a schema.
//!
//! Of JSON Schema the words are checked that say what a value is. A schema that uses others is refused when the task
//! is given out: a word that nobody checks would promise what nobody keeps.
//! Invariant: what is wrong is said by the schema's word, never by what the result says.

use bytes::Bytes;
use serde_json::Value;

use broker_proto::{Message, Part, ResultType, convert::InvalidField};

/// Bytes of one schema.
const LARGEST: usize = 64 * 1024;
/// Words that say something to a reader and nothing to a check.
const IGNORED: [&str; 11] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "format",
    "deprecated",
    "readOnly",
    "writeOnly",
];
const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "integer", "string"];

/// What a result is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    Text,
    Json { schema: Option<Value> },
}

impl Expected {
    /// What a task asks for.
    ///
    /// # Errors
    /// [`InvalidField`] when its schema is none, or uses a word that is not checked.
    pub fn of(result: &ResultType) -> Result<Self, InvalidField> {
        let invalid = |problem: String| InvalidField::new("task.result_schema", problem);
        let schema = match result {
            ResultType::Text => return Ok(Self::Text),
            ResultType::Json { schema: None } => return Ok(Self::Json { schema: None }),
            ResultType::Json { schema: Some(schema) } => schema,
        };
        if schema.len() > LARGEST {
            return Err(invalid(format!("is over {LARGEST} bytes")));
        }
        let schema: Value =
            serde_json::from_slice(schema).map_err(|_| invalid("is no JSON".into()))?;
        readable(&schema).map_err(invalid)?;
        Ok(Self::Json { schema: Some(schema) })
    }

    /// What the result of a message must be. Whatever was accepted is a task that can be read.
    #[must_use]
    pub fn of_message(message: &Message) -> Self {
        let task = message.payload.task.as_ref();
        task.and_then(|task| Self::of(&task.result).ok()).unwrap_or(Self::Text)
    }

    /// The JSON of a result, where JSON is expected.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that starts with the result.
    pub fn check(&self, parts: &[Part]) -> Result<Option<Bytes>, String> {
        let Self::Json { schema } = self else { return Ok(None) };
        let text = text(parts);
        let value: Value =
            serde_json::from_str(text.trim()).map_err(|_| "is not one JSON value".to_owned())?;
        match schema.as_ref().map_or(Ok(()), |schema| matches(schema, &value)) {
            Ok(()) => Ok(Some(text.trim().to_owned().into())),
            Err(word) => Err(format!("does not match its schema (`{word}`)")),
        }
    }
}

fn text(parts: &[Part]) -> String {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// Whether every word of a schema is one that is checked, and has the form it must have.
fn readable(schema: &Value) -> Result<(), String> {
    let words = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(words) => words,
        _ => return Err("holds a schema that is no JSON object".into()),
    };
    for (word, value) in words {
        let is_count = || value.as_u64().is_some();
        let is_well = match word.as_str() {
            "type" => types(value).is_some_and(|types| types.iter().all(|t| TYPES.contains(t))),
            "enum" => value.is_array(),
            "const" => true,
            "required" => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties"
            | "maxProperties" => is_count(),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
            "items" | "additionalProperties" | "not" => {
                readable(value)?;
                true
            }
            "properties" => {
                let Some(all) = value.as_object() else {
                    return Err("has `properties` that are no JSON object".into());
                };
                all.values().try_for_each(readable)?;
                true
            }
            "allOf" | "anyOf" | "oneOf" => {
                let Some(all) = value.as_array() else {
                    return Err(format!("has a `{word}` that is no list"));
                };
                all.iter().try_for_each(readable)?;
                true
            }
            word if IGNORED.contains(&word) => true,
            _ => return Err(format!("uses `{}`, which is not checked here", short(word))),
        };
        if !is_well {
            return Err(format!("has a `{word}` that cannot be read"));
        }
    }
    Ok(())
}

fn short(word: &str) -> String {
    word.chars().take(32).collect()
}

fn types(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(all) => all.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Whether `value` is what `schema` says; else the word that it is not.
fn matches<'s>(schema: &'s Value, value: &Value) -> Result<(), &'s str> {
    let words = match schema {
        Value::Bool(false) => return Err("false"),
        Value::Object(words) => words,
        _ => return Ok(()),
    };
    for (word, wanted) in words {
        holds(word, wanted, value, words)?.then_some(()).ok_or(word.as_str())?;
    }
    Ok(())
}

fn holds<'s>(
    word: &str,
    wanted: &'s Value,
    value: &Value,
    words: &'s serde_json::Map<String, Value>,
) -> Result<bool, &'s str> {
    let compare = |test: fn(f64, f64) -> bool| match (value.as_f64(), wanted.as_f64()) {
        (Some(is), Some(wanted)) if value.is_number() => test(is, wanted),
        _ => true,
    };
    let count = |size: Option<usize>, test: fn(u64, u64) -> bool| match (size, wanted.as_u64()) {
        (Some(size), Some(wanted)) => test(size as u64, wanted),
        _ => true,
    };
    let items = value.as_array().map(Vec::len);
    let chars = value.as_str().map(|text| text.chars().count());
    let members = value.as_object().map(serde_json::Map::len);
    let each = |all: &'s Value| all.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(match word {
        "type" => types(wanted).is_none_or(|types| types.iter().any(|name| is_a(value, name))),
        "enum" => each(wanted).contains(value),
        "const" => wanted == value,
        "minimum" => compare(|is, wanted| is >= wanted),
        "maximum" => compare(|is, wanted| is <= wanted),
        "exclusiveMinimum" => compare(|is, wanted| is > wanted),
        "exclusiveMaximum" => compare(|is, wanted| is < wanted),
        "minItems" => count(items, |is, wanted| is >= wanted),
        "maxItems" => count(items, |is, wanted| is <= wanted),
        "minLength" => count(chars, |is, wanted| is >= wanted),
        "maxLength" => count(chars, |is, wanted| is <= wanted),
        "minProperties" => count(members, |is, wanted| is >= wanted),
        "maxProperties" => count(members, |is, wanted| is <= wanted),
        "required" => value.as_object().is_none_or(|object| {
            each(wanted).iter().filter_map(Value::as_str).all(|name| object.contains_key(name))
        }),
        "items" => {
            value.as_array().into_iter().flatten().try_for_each(|item| matches(wanted, item))?;
            true
        }
        "properties" => {
            for (name, schema) in wanted.as_object().into_iter().flatten() {
                value.get(name).map_or(Ok(()), |member| matches(schema, member))?;
            }
            true
        }
        "additionalProperties" => {
            let known = words.get("properties").and_then(Value::as_object);
            let is_known = |name: &str| known.is_some_and(|known| known.contains_key(name));
            for (name, member) in value.as_object().into_iter().flatten() {
                if !is_known(name) && matches(wanted, member).is_err() {
                    return Ok(false);
                }
            }
            true
        }
        "allOf" => {
            each(wanted).iter().try_for_each(|schema| matches(schema, value))?;
            true
        }
        "anyOf" => each(wanted).iter().any(|schema| matches(schema, value).is_ok()),
        "oneOf" => each(wanted).iter().filter(|schema| matches(schema, value).is_ok()).count() == 1,
        "not" => matches(wanted, value).is_err(),
        _ => true,
    })
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        // 2.0 is an integer too.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(schema: &str) -> Result<Expected, InvalidField> {
        Expected::of(&ResultType::Json { schema: Some(schema.to_owned().into()) })
    }

    #[track_caller]
    fn check(schema: &str, result: &str, want: Result<(), &str>) {
        let checked = expected(schema).unwrap().check(&[Part::text(result)]);
        let word = |said: String| said.split('`').nth(1).map(str::to_owned).unwrap_or(said);
        assert_eq!(
            checked.map(drop).map_err(word),
            want.map_err(str::to_owned),
            "{schema} {result}"
        );
    }

    #[test]
    fn text_is_whatever_it_is() {
        let expected = Expected::of(&ResultType::Text).unwrap();
        assert_eq!(expected.check(&[Part::text("{")]), Ok(None));
    }

    #[test]
    fn json_is_one_value_in_all_text_parts_together() {
        let json = Expected::of(&ResultType::Json { schema: None }).unwrap();
        let parts = [Part::text(" {\"a\":"), Part::text("1}\n")];
        assert_eq!(json.check(&parts), Ok(Some(Bytes::from_static(b"{\"a\":1}"))));
        for bad in ["", "{", "{} {}", "yes"] {
            assert!(json.check(&[Part::text(bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_result_is_what_each_word_of_its_schema_says() {
        for (schema, good, bad) in [
            (r#"{"type": "object"}"#, "{}", "[]"),
            (r#"{"type": ["string", "null"]}"#, "null", "1"),
            (r#"{"type": "integer"}"#, "2.0", "2.5"),
            (r#"{"enum": [1, "a"]}"#, "\"a\"", "\"b\""),
            (r#"{"const": {"a": 1}}"#, "{\"a\":1}", "{}"),
            (r#"{"required": ["a"]}"#, "{\"a\":null}", "{\"b\":1}"),
            (r#"{"minimum": 1}"#, "1", "0.5"),
            (r#"{"maximum": 1}"#, "1", "1.5"),
            (r#"{"exclusiveMinimum": 1}"#, "2", "1"),
            (r#"{"exclusiveMaximum": 1}"#, "0", "1"),
            (r#"{"minItems": 1}"#, "[0]", "[]"),
            (r#"{"maxItems": 1}"#, "[0]", "[0,0]"),
            (r#"{"minLength": 2}"#, "\"äö\"", "\"ä\""),
            (r#"{"maxLength": 1}"#, "\"ä\"", "\"äö\""),
            (r#"{"minProperties": 1}"#, "{\"a\":0}", "{}"),
            (r#"{"maxProperties": 0}"#, "{}", "{\"a\":0}"),
            (r#"{"anyOf": [{"type": "null"}, {"type": "string"}]}"#, "null", "1"),
            (r#"{"oneOf": [{"type": "number"}, {"type": "integer"}]}"#, "0.5", "1"),
            (r#"{"not": {"type": "null"}}"#, "1", "null"),
            (
                r#"{"properties": {"a": true}, "additionalProperties": false}"#,
                "{\"a\":0}",
                "{\"b\":0}",
            ),
        ] {
            check(schema, good, Ok(()));
            let word = schema.split('"').find(|w| !w.is_empty() && *w != "{").unwrap();
            let word = if word == "properties" { "additionalProperties" } else { word };
            check(schema, bad, Err(word));
        }
        check(r#"{"items": {"type": "string"}}"#, "[\"a\", 1]", Err("type"));
        check(r#"{"properties": {"a": {"minimum": 3}}}"#, "{\"a\": 2}", Err("minimum"));
        check(r#"{"allOf": [{"type": "null"}, {"const": 1}]}"#, "null", Err("const"));
    }

    #[test]
    fn a_schema_is_refused_that_is_none_or_says_what_is_not_checked() {
        for bad in [
            "nonsense",
            "[]",
            r##"{"$ref": "#/a"}"##,
            r#"{"pattern": "a+"}"#,
            r#"{"type": "float"}"#,
            r#"{"type": 1}"#,
            r#"{"required": "a"}"#,
            r#"{"minItems": -1}"#,
            r#"{"properties": {"a": {"patternProperties": {}}}}"#,
            r#"{"anyOf": {}}"#,
            r#"{"items": [1]}"#,
        ] {
            assert_eq!(expected(bad).unwrap_err().field, "task.result_schema", "{bad}");
        }
        let long = format!(r#"{{"title": "{}"}}"#, "x".repeat(LARGEST));
        assert!(expected(&long).is_err());
        assert!(expected(r#"{"$schema": "x", "title": "y", "format": "date"}"#).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_result() {
        let wrong = expected(r#"{"additionalProperties": false}"#).unwrap();
        let said = wrong.check(&[Part::text("{\"secret\": 1}")]).unwrap_err();
        assert!(!said.contains("secret"), "{said}");
    }
}
