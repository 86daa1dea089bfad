//! The settings as text: from environment variables, from a TOML file, and from files that hold secrets.
//!
//! 1. Each setting has one name, that of its environment variable. In the file, `EUID_SIDECAR_API` is `api` in the
//!    table `[sidecar]`, `EUID_STORE_URL` is `url` in `[store]`, and a variable of a scope, such as `EUID_API_KEY`, is
//!    `api_key` in the table of the scope.
//! 2. A variable of the environment takes precedence over the file. An empty one counts as not set. But an empty
//!    secret of a store is an error, if nothing else sets that secret.
//! 3. A secret may be in a file of its own: `EUID_API_KEY_FILE`, or `api_key_file` in the TOML file, is the path.
//! 4. A name that does not exist is a problem, so that a misspelt setting does not go unnoticed.
//! 5. All problems are collected. None of them repeats a value.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use toml::{Table, Value};
use tower_euid::Scope;
use zeroize::Zeroizing;

/// The settings that are set, by the names of their variables.
#[derive(Clone, Default)]
pub(crate) struct Settings(BTreeMap<String, Set>);

#[derive(Clone)]
struct Set {
    text: Zeroizing<String>,
    /// Where it is set, if not in the environment.
    place: Option<String>,
}

/// A setting that exists.
struct Known {
    variable: String,
    table: &'static str,
    key: &'static str,
    is_secret: bool,
}

impl Settings {
    /// Reads the settings of the process and of `file`, and appends to `problems`.
    pub(crate) fn load(file: Option<&Path>, problems: &mut Vec<String>) -> Self {
        let environment: Vec<_> =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        let text = file.map(|path| {
            fs::read_to_string(path).unwrap_or_else(|error| {
                problems.push(format!("{}: {error}", path.display()));
                String::new()
            })
        });
        Self::of(environment, text.as_deref().unwrap_or_default(), problems)
    }

    /// Returns the settings of these variables and of this TOML text.
    pub(crate) fn of(environment: Vec<(String, OsString)>, toml: &str, problems: &mut Vec<String>) -> Self {
        let known = known();
        let mut settings = Self::default();
        settings.read_toml(toml, &known, problems);
        let environment: BTreeMap<String, OsString> = environment.into_iter().collect();
        let prefixes = [PREFIX.to_owned(), store("")];
        for name in environment.keys().filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))) {
            if !known.iter().any(|known| known.is_named(&known.variable, "_FILE", name)) {
                problems.push(format!("{name}: there is no such setting"));
            }
        }
        for known in &known {
            let value = |name: &str| environment.get(name).filter(|value| !value.is_empty());
            let path = format!("{}_FILE", known.variable);
            let path = value(&path).filter(|_| known.is_secret);
            let text = environment.get(&known.variable).filter(|text| !text.is_empty() || path.is_none());
            settings.read(known, text.map(OsString::as_os_str), path.map(Path::new), None, problems);
        }
        settings
    }

    fn read_toml(&mut self, toml: &str, known: &[Known], problems: &mut Vec<String>) {
        let tables: Table = match toml.parse() {
            Ok(tables) => tables,
            Err(error) => {
                // Its message without an excerpt, which could show a secret.
                let line = error.span().map_or(0, |span| toml.get(..span.start).unwrap_or_default().lines().count());
                return problems.push(format!("the file is not TOML: line {line}: {}", error.message()));
            }
        };
        for (table, value) in &tables {
            let of_table: Vec<&Known> = known.iter().filter(|known| known.table == table).collect();
            let Some(values) = value.as_table().filter(|_| !of_table.is_empty()) else {
                problems.push(format!("{table}: there is no such table"));
                continue;
            };
            for key in values.keys().filter(|key| !of_table.iter().any(|known| known.is_named(known.key, "_file", key)))
            {
                problems.push(format!("{table}.{key}: there is no such setting"));
            }
            for known in of_table {
                let text = |key: &str| {
                    Some(match values.get(key)? {
                        Value::String(text) => text.clone(),
                        Value::Integer(number) => number.to_string(),
                        Value::Boolean(switch) => switch.to_string(),
                        _ => String::new(),
                    })
                };
                let (value, path) = (text(known.key), text(&format!("{}_file", known.key)).filter(|_| known.is_secret));
                let place = Some(format!("{table}.{}", known.key));
                self.read(known, value.as_ref().map(AsRef::as_ref), path.as_ref().map(Path::new), place, problems);
            }
        }
    }

    /// Sets one setting, to its text or to that of the file at `path`.
    fn read(
        &mut self,
        known: &Known,
        text: Option<&OsStr>,
        path: Option<&Path>,
        place: Option<String>,
        problems: &mut Vec<String>,
    ) {
        let name = place.as_deref().unwrap_or(&known.variable);
        let text = match (text, path) {
            (None, None) => return,
            (Some(_), Some(_)) => return problems.push(format!("{name}: set itself, and as the path of a file")),
            (Some(text), None) => match text.to_str() {
                Some(text) => text.to_owned(),
                None => return problems.push(format!("{name}: not UTF-8")),
            },
            (None, Some(path)) => match fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) => return problems.push(format!("{name}: {}: {error}", path.display())),
            },
        };
        let text = Zeroizing::new(text);
        let text = Zeroizing::new(text.trim().to_owned());
        if !text.is_empty() || self.get(&known.variable).is_none() {
            self.0.insert(known.variable.clone(), Set { text, place });
        }
    }

    pub(crate) fn get(&self, variable: &str) -> Option<&str> {
        self.0.get(variable).map(|set| set.text.as_str()).filter(|text| !text.is_empty())
    }

    /// Returns the value of a setting of the sidecar.
    pub(crate) fn sidecar(&self, setting: &str) -> Option<&str> {
        self.get(&sidecar(setting))
    }

    /// Returns the value in the form that tower-euid takes, even an empty one: an empty secret of a store is an error.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        self.0.get(name).map(|set| OsString::from(set.text.as_str()))
    }

    /// Replaces a value, or removes it.
    pub(crate) fn replace(&mut self, variable: &str, text: Option<String>) {
        let text = text.map(|text| Set { text: text.into(), place: None });
        match text {
            Some(set) => self.0.insert(variable.to_owned(), set),
            None => self.0.remove(variable),
        };
    }

    /// Returns where the setting is, for a message: the key in the file, if it is there.
    pub(crate) fn place(&self, variable: &str) -> Option<&str> {
        self.0.get(variable)?.place.as_deref()
    }

    /// Returns the scopes of which anything is set; EUID, if there are none.
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        let is_set = |scope: &Scope| OF_SCOPE.iter().any(|(setting, _)| self.get(&of_scope(*scope, setting)).is_some());
        let set: Vec<Scope> = Scope::ALL.into_iter().filter(is_set).collect();
        if set.is_empty() { vec![Scope::default()] } else { set }
    }
}

impl Known {
    /// Whether `name` is its `own` name, or the one of the path of its file, which ends in `file`.
    fn is_named(&self, own: &str, file: &str, name: &str) -> bool {
        name == own || (self.is_secret && name.strip_suffix(file) == Some(own))
    }
}

fn known() -> Vec<Known> {
    let sidecar =
        SIDECAR.iter().map(|&(key, is_secret)| Known { variable: sidecar(key), table: "sidecar", key, is_secret });
    let store = STORE.iter().map(|&(key, is_secret)| Known { variable: store(key), table: "store", key, is_secret });
    let of_scopes = Scope::ALL.into_iter().flat_map(|scope| {
        OF_SCOPE.iter().map(move |&(key, is_secret)| Known {
            variable: of_scope(scope, key),
            table: scope.as_str(),
            key,
            is_secret,
        })
    });
    sidecar.chain(store).chain(of_scopes).collect()
}

/// Returns the name of the variable of a setting of the sidecar.
pub(crate) fn sidecar(setting: &str) -> String {
    format!("{PREFIX}{}", setting.to_ascii_uppercase())
}

/// Returns the name of the variable of a setting of the store. A store of both scopes has those of EUID.
pub(crate) fn store(setting: &str) -> String {
    of_scope(Scope::Euid, &format!("store_{setting}"))
}

/// Returns the name of the variable of a setting that each scope has.
pub(crate) fn of_scope(scope: Scope, setting: &str) -> String {
    format!("{}{}", scope.env_prefix(), setting.to_ascii_uppercase())
}

const PREFIX: &str = "EUID_SIDECAR_";

/// The settings of the sidecar, and whether they are secrets.
const SIDECAR: [(&str, bool); 16] = [
    ("admin", false),
    ("api", false),
    ("api_token", true),
    ("consent", false),
    ("cookie_domain", false),
    ("cookie_insecure", false),
    ("cookie_same_site", false),
    ("expose_token_to_scripts", false),
    ("h2c", false),
    ("headers", false),
    ("listen", false),
    ("log", false),
    ("migrate_js_sdk_cookie", false),
    ("refresh_mode", false),
    ("upstream", false),
    ("workers", false),
];

/// The settings of the store: those of `tower_euid_redis::from_env`. A URL may have a password in it.
const STORE: [(&str, bool); 4] = [("url", true), ("secret", true), ("mode", false), ("timeout_ms", false)];

/// The settings that each scope has: those of `tower_euid::from_env`.
pub(crate) const OF_SCOPE: [(&str, bool); 7] = [
    ("operator_url", false),
    ("api_key", true),
    ("client_secret", true),
    ("cookie_keys", true),
    ("optout_check", false),
    ("max_wait_ms", false),
    ("explain", false),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn load(environment: &[(&str, &str)], toml: &str) -> (Settings, Vec<String>) {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value)));
        let mut problems = Vec::new();
        (Settings::of(environment.collect(), toml, &mut problems), problems)
    }

    #[test]
    fn variable_of_the_environment_takes_precedence_over_the_file() {
        let toml =
            "[sidecar]\napi = 'unix:/file'\nadmin = '127.0.0.1:1'\n[uid2]\nmax_wait_ms = 20\noptout_check = true";
        let (settings, problems) = load(&[("EUID_SIDECAR_API", "unix:/variable"), ("EUID_SIDECAR_ADMIN", "")], toml);
        assert_eq!(problems, [""; 0]);
        assert_eq!(settings.sidecar("api"), Some("unix:/variable"));
        assert_eq!(settings.sidecar("admin"), Some("127.0.0.1:1"));
        assert_eq!(settings.variable("UID2_MAX_WAIT_MS"), Some("20".into()));
        assert_eq!(settings.get("UID2_OPTOUT_CHECK"), Some("true"));
        assert_eq!(settings.scopes(), [Scope::Uid2]);
    }

    #[test]
    fn secret_is_read_from_its_file_without_white_space() {
        let folder = std::env::temp_dir().join(format!("settings-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("secret");
        fs::write(&path, " secret \n").unwrap();
        let path = path.to_str().unwrap();
        let (by_variable, problems) = load(&[("EUID_API_KEY_FILE", path)], "");
        assert_eq!((by_variable.get("EUID_API_KEY"), problems.len()), (Some("secret"), 0));
        let (by_toml, problems) = load(&[], &format!("[euid]\napi_key_file = '{path}'"));
        assert_eq!((by_toml.get("EUID_API_KEY"), problems.len()), (Some("secret"), 0));
        let (stored, problems) = load(&[("EUID_STORE_URL_FILE", path)], &format!("[store]\nsecret_file = '{path}'"));
        let both = (stored.get("EUID_STORE_URL"), stored.get("EUID_STORE_SECRET"));
        assert_eq!((both, problems.len()), ((Some("secret"), Some("secret")), 0));
        assert_eq!(stored.scopes(), [Scope::default()], "a store names no scope");
        let (_, problems) = load(&[("EUID_API_KEY_FILE", path), ("EUID_API_KEY", "x")], "");
        assert_eq!(problems, ["EUID_API_KEY: set itself, and as the path of a file"]);
        fs::remove_dir_all(folder).unwrap();
        let (_, problems) = load(&[("EUID_API_KEY_FILE", path)], "");
        assert!(problems[0].starts_with("EUID_API_KEY: "), "{problems:?}");
    }

    #[test]
    fn readme_lists_every_setting_and_which_are_secrets() {
        let readme = include_str!("../README.md");
        let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `EUID_")).collect();
        let named: usize = rows.iter().map(|row| row.split('|').nth(1).unwrap().split('`').count() / 2).sum();
        assert_eq!(named, known().len());
        for known in known() {
            let row = rows.iter().find(|row| row.contains(&format!("`{}`", known.variable)));
            assert_eq!(row.map(|row| row.contains('†')), Some(known.is_secret), "{}", known.variable);
        }
    }

    #[test]
    fn example_of_a_file_has_known_names_only() {
        let (settings, problems) = load(&[], include_str!("../systemd/sidecar.toml"));
        assert_eq!(settings.sidecar("api"), None, "systemd opens the socket");
        // The files with the secrets are not there.
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems.iter().all(|problem| problem.contains(": /etc/euid-sidecar/")), "{problems:?}");
    }

    #[test]
    fn every_unknown_name_is_a_problem() {
        let toml = "[sidecar]\nap = 1\n[euid]\noperator_url_file = 'x'\n[store]\nuri = 'x'\n[stores]\nurl = 'x'";
        let environment = [("EUID_SIDECAR_APPI", "x"), ("EUID_STORE_URI", "x"), ("EUID_SANDBOX_SCOPE", "x")];
        let (_, problems) = load(&environment, toml);
        let names =
            ["euid.operator_url_file", "sidecar.ap", "store.uri", "stores", "EUID_SIDECAR_APPI", "EUID_STORE_URI"];
        assert_eq!(problems.len(), names.len(), "{problems:?}");
        for (problem, name) in problems.iter().zip(names) {
            assert!(problem.starts_with(&format!("{name}: there is no such ")), "{problem}");
        }
    }

    #[test]
    fn problem_of_a_broken_file_names_the_line_and_shows_no_value() {
        let (_, problems) = load(&[], "[euid]\napi_key = hunter2 hunter2");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("line 2") && !problems[0].contains("hunter2"), "{problems:?}");
    }
}
