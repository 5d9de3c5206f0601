//! Holds answers of the API against the schemas of its description, as far as that one uses JSON Schema.

use serde_json::Value;

/// Whether a value is as a schema says; where not, what is wrong.
pub fn check(schema: &Value, value: &Value, all: &Value, place: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target =
            all.pointer(reference.trim_start_matches('#')).ok_or_else(|| format!("no {reference}"))?;
        return check(target, value, all, place);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let outcomes: Vec<_> = any.iter().map(|s| check(s, value, all, place)).collect();
        return outcomes.iter().find(|o| o.is_ok()).unwrap_or(&outcomes[0]).clone();
    }
    let actual = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    if !types.iter().any(|t| t == actual || (t == "number" && actual == "integer")) {
        return Err(format!("{place}: {value} is no {types:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{place}: {value} is none of {allowed:?}"));
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        check(&schema["items"], item, all, &format!("{place}[{i}]"))?;
    }
    if let (Some(object), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(key) {
                return Err(format!("{place}.{key} is missing"));
            }
        }
        for (key, inner) in object {
            match properties.get(key) {
                Some(schema) => check(schema, inner, all, &format!("{place}.{key}"))?,
                None if schema["additionalProperties"] == true => {}
                None => return Err(format!("{place}.{key} is not described")),
            }
        }
    }
    Ok(())
}
