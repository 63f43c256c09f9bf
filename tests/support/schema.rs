//! Compares a JSON document with a schema of `docs/openapi.json`, for the parts of the standard that the file
//! uses.

use std::path::Path;

use serde_json::Value;

/// The documentation of the HTTP interface.
pub struct OpenApi(Value);

impl OpenApi {
    /// The one in `docs`.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn documented() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        let text = std::fs::read_to_string(path).expect("it is in the repository");
        Self(serde_json::from_str(&text).expect("it is JSON"))
    }

    /// The document as it is.
    pub fn document(&self) -> &Value {
        &self.0
    }

    /// Mismatches of an answer to a request, by its status and its media type; empty if it fits.
    pub fn misfits(&self, path: &str, method: &str, status: &str, answer: &Value) -> Vec<String> {
        let responses = ["paths", path, method, "responses"].into_iter().fold(&self.0, get);
        let response = responses.get(status).unwrap_or(get(responses, "default"));
        let media = get(response, "content").as_object().and_then(|content| content.values().next());
        let Some(schema) = media.and_then(|media| media.get("schema")) else {
            return vec![format!("{method} {path} has no schema of {status}")];
        };
        let mut wrong = Vec::new();
        self.look(schema, answer, "answer", &mut wrong);
        wrong
    }

    fn look(&self, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        if let Some(name) = schema["$ref"].as_str().and_then(|to| to.strip_prefix("#/components/schemas/")) {
            return match get(get(&self.0, "components"), "schemas").get(name) {
                Some(schema) => self.look(schema, value, at, wrong),
                None => wrong.push(format!("{at}: there is no schema `{name}`")),
            };
        }
        if value.is_null() && get(schema, "nullable") == true {
            return;
        }
        for part in parts(schema, "allOf") {
            self.look(part, value, at, wrong);
        }
        let choices = parts(schema, "oneOf");
        let fits = |choice: &Value| {
            let mut wrong = Vec::new();
            self.look(choice, value, at, &mut wrong);
            wrong.is_empty()
        };
        if !choices.is_empty() && !choices.iter().any(fits) {
            wrong.push(format!("{at}: {value} is none of what it may be"));
        }
        if let Some(kind) = get(schema, "type").as_str().filter(|kind| !is_of(kind, value)) {
            wrong.push(format!("{at}: {value} is no {kind}"));
        }
        let allowed = parts(schema, "enum");
        if !allowed.is_empty() && !allowed.contains(value) {
            wrong.push(format!("{at}: {value} is none of {allowed:?}"));
        }
        self.look_inside(schema, value, at, wrong);
    }

    fn look_inside(&self, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        for name in parts(schema, "required").iter().filter_map(Value::as_str) {
            if value.get(name).is_none() {
                wrong.push(format!("{at}: there is no `{name}`"));
            }
        }
        for (name, schema) in get(schema, "properties").as_object().into_iter().flatten() {
            if let Some(value) = value.get(name) {
                self.look(schema, value, &format!("{at}.{name}"), wrong);
            }
        }
        for item in value.as_array().into_iter().flatten().filter(|_| schema.get("items").is_some()) {
            self.look(get(schema, "items"), item, &format!("{at}[]"), wrong);
        }
    }
}

/// A value by its name, or null.
fn get<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

fn parts<'a>(schema: &'a Value, name: &str) -> &'a [Value] {
    get(schema, name).as_array().map(Vec::as_slice).unwrap_or_default()
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The check would notice an answer that does not fit.
    #[test]
    fn what_does_not_fit_is_told() {
        let api = OpenApi::documented();
        let misfits = |answer: Value| api.misfits("/v1/alarms", "get", "200", &answer).len();
        let alarm = json!({"code": "x", "severity": "warning", "message": "m", "since": "s"});

        assert_eq!(misfits(json!({"alarms": [alarm]})), 0);
        assert_eq!(misfits(json!({"alarms": [{"code": 1, "severity": "loud", "message": "m"}]})), 3);
        assert_eq!(misfits(json!([])), 2);
        assert_eq!(api.misfits("/v1/nowhere", "get", "200", &json!({})).len(), 1);
    }
}
