//! What a configuration is put together from: a file's tables, and keys that are set one by one, in a variable or a flag.

use super::ConfigError;
use std::path::Path;
use toml::{Table, Value};

/// One key that is set outside the file.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    key: String,
    value: String,
    /// Where it was set, for messages.
    origin: String,
}

impl Setting {
    pub(crate) fn new(key: &str, value: &str, origin: &str) -> Self {
        Self {
            key: key.to_owned(),
            value: value.to_owned(),
            origin: origin.to_owned(),
        }
    }

    /// The data folder, as a flag of this name gives it.
    pub(crate) fn data_dir(dir: &Path, flag: &str) -> Result<Self, ConfigError> {
        let text = dir.to_str().ok_or_else(|| ConfigError::value(flag, "must be UTF-8"))?;
        Ok(Self::new("data_dir", text, flag))
    }
}

/// What is wrong with a TOML file, and where, without the line itself: it may hold a password.
pub(super) fn syntax(origin: &str, text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{origin}, line {line}, column {column}: {}", error.message())
}

/// The variables that are configuration. Those of the tests, and the file's own, are not.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with("EDGEWEIR_") && name != "EDGEWEIR_CONFIG" && !name.starts_with("EDGEWEIR_TEST_")
}

/// Puts `given` over `known`, which has every key that there is.
pub(super) fn merge(known: &mut Table, given: Table, above: &str, origin: &str) -> Result<(), ConfigError> {
    for (name, value) in given {
        let key = format!("{above}{name}");
        let problem = |text: &str| ConfigError(format!("{origin}: {key} {text}"));
        match (known.get_mut(&name), value) {
            (Some(Value::Table(known)), Value::Table(given)) => merge(known, given, &format!("{key}."), origin)?,
            (Some(Value::Table(_)), _) => return Err(problem("is a section")),
            (Some(place), value) => *place = value,
            (None, _) => return Err(unknown(known, &key, &name, above, origin)),
        }
    }
    Ok(())
}

fn unknown(known: &Table, key: &str, name: &str, above: &str, origin: &str) -> ConfigError {
    let nearest = known
        .keys()
        .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    let hint = nearest.map_or(String::new(), |nearest| format!("; did you mean {above}{nearest}?"));
    ConfigError(format!("{origin}: unknown key {key}{hint}"))
}

/// Sets one key from text, in the type that its default has.
pub(super) fn set(table: &mut Table, setting: &Setting) -> Result<(), ConfigError> {
    let Setting { key, value, origin } = setting;
    let (path, name) = key
        .rsplit_once('.')
        .map_or(("", key.as_str()), |(path, name)| (path, name));
    let mut section = table;
    let mut above = String::new();
    for part in path.split('.').filter(|p| !p.is_empty()) {
        if !matches!(section.get(part), Some(Value::Table(_))) {
            return Err(unknown(section, key, part, &above, origin));
        }
        above = format!("{above}{part}.");
        let Some(Value::Table(inner)) = section.get_mut(part) else {
            unreachable!("just looked at")
        };
        section = inner;
    }
    let Some(place) = section.get_mut(name) else {
        return Err(unknown(section, key, name, &above, origin));
    };
    let problem = |text: &str| ConfigError(format!("{origin}: {key} {text}"));
    *place = match place {
        Value::String(_) => Value::String(value.clone()),
        Value::Table(_) => return Err(problem("is a section")),
        Value::Array(_) if !value.starts_with('[') => {
            let items = value.split(',').map(str::trim).filter(|v| !v.is_empty());
            Value::Array(items.map(|v| Value::String(v.to_owned())).collect())
        }
        _ => {
            let line: Table =
                toml::from_str(&format!("v = {value}")).map_err(|_| problem(&format!("cannot be {value:?}")))?;
            line.into_iter().next().expect("one key").1
        }
    };
    Ok(())
}
