//! The keys as a JSON Schema, for editors that read one for TOML.
//!
//! It says draft-07, which all of them know, and has only keywords that mean the same in every draft since. What depends on
//! two keys, or on files, is for `portcullis check`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Keys;
use crate::config::shape::{Asked, Form, Shape};

/// The schema, indented.
pub fn schema(keys: &Keys) -> String {
    let mut root = Branch::default();
    for (path, asked) in keys.asked() {
        let mut branch = &mut root;
        for step in path.split('.') {
            branch = branch.below.entry(step.trim_end_matches("[]").to_owned()).or_default();
        }
        branch.said = Some((path.clone(), asked));
    }
    let mut schema = root.table(keys);
    schema.insert("$schema".into(), "http://json-schema.org/draft-07/schema#".into());
    schema.insert("title".into(), keys.title.into());
    let made = "Made from the code: UPDATE_REFERENCE=1 cargo test --quiet --test it -- reference";
    schema.insert("$comment".into(), made.into());
    // Values of strings and numbers cannot fail to be written.
    format!("{:#}\n", Value::Object(schema))
}

/// A key and those below it.
#[derive(Default)]
struct Branch<'k> {
    said: Option<(String, &'k Asked)>,
    below: BTreeMap<String, Branch<'k>>,
}

impl Branch<'_> {
    fn schema(&self, keys: &Keys) -> Value {
        let Some((path, asked)) = &self.said else { return json!({}) };
        let mut schema = asked.shape.as_ref().map(|shape| self.of(shape, keys)).unwrap_or_default();
        // An array of tables has its words above the header of one of them.
        if let Some(about) = keys.about(path).or_else(|| keys.about(&format!("{path}[]"))) {
            let restart = if keys.is_fixed(path) { " A change needs a restart." } else { "" };
            schema.insert("description".into(), format!("{}{restart}", about.replace('\n', " ")).into());
        }
        // What TOML has for texts, numbers and truths is JSON as well.
        if let Some(Ok(usual)) = asked.usual.as_ref().map(|usual| serde_json::from_str::<Value>(usual)) {
            schema.insert("default".into(), usual);
        }
        Value::Object(schema)
    }

    fn table(&self, keys: &Keys) -> Map<String, Value> {
        let mut schema = object(json!({ "type": "object", "additionalProperties": false }));
        let named = self.below.iter().filter(|(name, _)| *name != "*");
        let properties: Map<_, _> = named.map(|(name, branch)| (name.clone(), branch.schema(keys))).collect();
        if !properties.is_empty() {
            schema.insert("properties".into(), properties.into());
        }
        if let Some(any) = self.below.get("*") {
            // The keys of a table of conditions are JSON pointers.
            schema.insert("patternProperties".into(), json!({ Form::Pointer.pattern(): any.schema(keys) }));
        }
        let needed = |branch: &Branch<'_>| branch.said.as_ref().is_some_and(|(_, asked)| asked.needed);
        let required: Vec<_> = self.below.iter().filter(|(_, branch)| needed(branch)).map(|(name, _)| name).collect();
        if !required.is_empty() {
            schema.insert("required".into(), json!(required));
        }
        schema
    }

    fn of(&self, shape: &Shape, keys: &Keys) -> Map<String, Value> {
        let schema = match shape {
            Shape::Text => json!({ "type": "string" }),
            Shape::Form(form) => json!({ "type": "string", "pattern": form.pattern() }),
            Shape::Word(words) => json!({ "type": "string", "enum": words }),
            Shape::Boolean => json!({ "type": "boolean" }),
            Shape::Integer(range) => whole(*range.start(), *range.end()),
            Shape::Duration { zero } => {
                let seconds = json!({ "type": "integer", "minimum": i64::from(!zero), "maximum": 3_153_600_000_u64 });
                json!({ "anyOf": [{ "type": "string", "pattern": "^0*[1-9][0-9]*(ms|s|m|h|d)$" }, seconds] })
            }
            Shape::Bytes(range) => {
                let mut bytes = json!({ "type": "integer", "minimum": range.start() });
                if *range.end() < u64::MAX {
                    bytes["maximum"] = (*range.end()).into();
                }
                json!({ "anyOf": [{ "type": "string", "pattern": "^[0-9]+(kB|KiB|MB|MiB|GB|GiB)$" }, bytes] })
            }
            Shape::Percentage => {
                let pattern = r"^0*(100(\.0{1,4})?|[0-9]{1,2}(\.[0-9]{1,4})?)%$";
                json!({ "type": "string", "pattern": pattern })
            }
            Shape::Pair(range) => {
                let one = whole(*range.start(), *range.end());
                json!({ "type": "array", "items": one, "minItems": 2, "maxItems": 2 })
            }
            Shape::Secret => {
                let place = json!({ "type": "string" });
                let places = json!({ "env": place, "file": place });
                json!({
                    "type": "object",
                    "properties": places,
                    "additionalProperties": false,
                    "minProperties": 1,
                    "maxProperties": 1,
                })
            }
            Shape::Table => return self.table(keys),
            Shape::Many(one) => json!({ "type": "array", "items": self.of(one, keys) }),
            Shape::OneOrMany(one) => {
                let item = self.of(one, keys);
                let mut many = json!({ "type": "array", "items": item });
                if **one == Shape::Secret {
                    many["minItems"] = 1.into();
                }
                json!({ "anyOf": [item, many] })
            }
            Shape::Either(several) => {
                let several: Vec<_> = several.iter().map(|one| self.of(one, keys)).collect();
                json!({ "anyOf": several })
            }
        };
        object(schema)
    }
}

impl Form {
    fn pattern(self) -> &'static str {
        match self {
            Form::Address => r"^.+:\+?[0-9]+$",
            Form::BasePath => "^(/[A-Za-z0-9._~-]+)+$",
            Form::PublicUrl => "^https?://[^/?# ]+$",
            Form::Store => "^rediss?://[^@]+$",
            Form::Place => r"^(header:[!#$%&'*+.^_`|~0-9A-Za-z-]+|query:.+|json:(/.*)?)$",
            Form::PlaceOrSignature => r"^(signature|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+|query:.+|json:(/.*)?)$",
            Form::Pointer => "^(/.*)?$",
            Form::Route => r"^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) /[^?#; %\\]*$",
        }
    }
}

/// Without bounds that every integer of TOML is within.
fn whole(least: i64, most: i64) -> Value {
    match (least, most) {
        (i64::MIN, i64::MAX) => json!({ "type": "integer" }),
        _ => json!({ "type": "integer", "minimum": least, "maximum": most }),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
