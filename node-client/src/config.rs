//! Where the settings come from: flags, then the environment, then the user's file, then the machine's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use format_spec::{ClusterName, Fingerprint, NodeName};
use serde::Deserialize;

use crate::credentials::{Credentials, Trust};
use crate::error::ClientError;

/// The server on the same machine.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:5515";
const SYSTEM_FILE: &str = "/etc/astacus/client.toml";
const DEFAULT_CLUSTER: &str = "default";

/// Settings from one place. What is not given there is looked for in the next.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of the server.
    pub server: Option<String>,
    /// File that holds the token.
    pub token_file: Option<PathBuf>,
    /// File with the CA of the server (PEM).
    pub ca: Option<PathBuf>,
    /// Fingerprint of the CA of the server.
    pub ca_sha256: Option<Fingerprint>,
    /// File with the key and the certificate of this node (PEM).
    pub identity: Option<PathBuf>,
    /// Cluster of this node.
    pub cluster: Option<ClusterName>,
    /// Name of this node.
    pub node: Option<NodeName>,
    /// Jobs by name, as a file has them: a job is read when it is asked for, so that a mistake in it is in the way of
    /// nothing else.
    #[serde(default)]
    pub job: BTreeMap<String, toml::Table>,
}

/// Lookup of an environment variable.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All settings, most important first.
pub struct Config {
    flags: Settings,
    token: Option<String>,
    env: Settings,
    files: Vec<(PathBuf, Settings)>,
}

impl Config {
    /// The settings in force, given those from `flags`.
    ///
    /// # Errors
    /// [`ClientError::Usage`], naming the variable or file that cannot be used.
    pub fn load(flags: Settings, env: Env<'_>) -> Result<Self, ClientError> {
        Self::with_system_file(flags, env, Path::new(SYSTEM_FILE))
    }

    fn with_system_file(flags: Settings, env: Env<'_>, system: &Path) -> Result<Self, ClientError> {
        let folder = |name| env(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
        let home = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
        let user = home.map(|home| home.join("astacus/client.toml"));
        let read = |path: &Path| read_file(path).map(|settings| (path.to_owned(), settings));
        let files = user.as_deref().into_iter().chain([system]).map(read);
        let files = files.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { flags, token: env("ASTACUS_TOKEN"), env: from_env(env)?, files })
    }

    fn find<T: Clone>(&self, field: impl Fn(&Settings) -> &Option<T>) -> Option<T> {
        self.places().find_map(|settings| field(settings).clone())
    }

    /// All places of settings, most important first.
    fn places(&self) -> impl Iterator<Item = &Settings> {
        [&self.flags, &self.env].into_iter().chain(self.files.iter().map(|(_, file)| file))
    }

    /// How to show who this is, and how to know the server. A certificate makes a token unnecessary.
    ///
    /// # Errors
    /// The errors of [`token`](Self::token), unless there is a certificate; [`ClientError::Usage`] if a CA is given twice in
    /// one place.
    pub fn credentials(&self) -> Result<Credentials, ClientError> {
        let identity = self.find(|place| &place.identity);
        let token = match &identity {
            Some(_) if !self.has_token() => None,
            _ => Some(self.token()?),
        };
        Ok(Credentials { token, trust: self.trust()?, identity })
    }

    /// The CA from the first place that names one.
    fn trust(&self) -> Result<Trust, ClientError> {
        let named = self.places().map(|place| (&place.ca, place.ca_sha256));
        let mut named = named.filter(|(file, pin)| file.is_some() || pin.is_some());
        match named.next() {
            None => Ok(Trust::System),
            Some((None, Some(pin))) => Ok(Trust::Pinned(pin)),
            Some((Some(file), None)) => Ok(Trust::File(file.clone())),
            Some(_) => Err(ClientError::Usage("`ca` and `ca_sha256`: give one of them".to_owned())),
        }
    }

    fn has_token(&self) -> bool {
        self.token.is_some() || self.find(|place| &place.token_file).is_some()
    }

    /// Address of the server.
    pub fn server(&self) -> String {
        self.find(|settings| &settings.server).unwrap_or_else(|| DEFAULT_SERVER.to_owned())
    }

    /// The cluster, if any place names one.
    pub fn chosen_cluster(&self) -> Option<ClusterName> {
        self.find(|settings| &settings.cluster)
    }

    /// The cluster that a flag names, and nothing else.
    pub fn named_cluster(&self) -> Option<ClusterName> {
        self.flags.cluster.clone()
    }

    /// The cluster to push to.
    pub fn cluster(&self) -> ClusterName {
        self.chosen_cluster().unwrap_or_else(|| DEFAULT_CLUSTER.parse().expect("it is a name"))
    }

    /// The node that any place names.
    pub fn chosen_node(&self) -> Option<NodeName> {
        self.find(|settings| &settings.node)
    }

    /// The node that a flag names, and nothing else.
    pub fn named_node(&self) -> Option<NodeName> {
        self.flags.node.clone()
    }

    /// The name of this node; `host` is the machine's.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if nothing names it and `host` does not do.
    pub fn node(&self, host: &str) -> Result<NodeName, ClientError> {
        match self.chosen_node() {
            Some(node) => Ok(node),
            None => host.parse().map_err(|error| {
                ClientError::Usage(format!(
                    "the host name is not a valid node name: {error}; choose a name with --node"
                ))
            }),
        }
    }

    /// Names of all jobs of the files.
    pub(crate) fn job_names(&self) -> BTreeSet<&str> {
        self.files.iter().flat_map(|(_, file)| file.job.keys()).map(String::as_str).collect()
    }

    /// The keys of the job of this name, and the file that they stand in. A job in the user's file hides one of the same
    /// name in the machine's.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], with the jobs that there are.
    pub(crate) fn job(&self, name: &str) -> Result<(&Path, &toml::Table), ClientError> {
        let found = self.files.iter().find_map(|(file, settings)| Some((&**file, settings.job.get(name)?)));
        found.ok_or_else(|| {
            let files: Vec<String> = self.files.iter().map(|(file, _)| file.display().to_string()).collect();
            let there = match self.job_names().into_iter().collect::<Vec<_>>().join(", ") {
                none if none.is_empty() => format!("no jobs in {}", files.join(" and ")),
                names => format!("known jobs: {names}"),
            };
            ClientError::NotFound(format!("no job `{name}`; {there}"))
        })
    }

    /// The token: from the file of a flag, from `ASTACUS_TOKEN`, or from a file named elsewhere.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if there is none or it is empty, [`ClientError::Disk`] if its file
    /// cannot be read.
    pub fn token(&self) -> Result<String, ClientError> {
        let file = match (&self.flags.token_file, &self.token) {
            (Some(file), _) => Some(file.clone()),
            (None, Some(token)) => return not_empty(token, "ASTACUS_TOKEN"),
            (None, None) => self.find(|settings| &settings.token_file),
        };
        let Some(file) = file else {
            let hint = "give --token-file FILE, or set ASTACUS_TOKEN_FILE or ASTACUS_TOKEN";
            return Err(ClientError::Usage(format!("no access token: {hint}")));
        };
        match fs::read_to_string(&file) {
            Ok(text) => {
                if let Some(warning) = open_to_others(&file) {
                    tracing::warn!("{warning}");
                }
                not_empty(&text, &file.display().to_string())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(ClientError::Usage(format!("the token file `{}` does not exist", file.display())))
            }
            Err(source) => Err(ClientError::Disk { action: "read", path: file, source }),
        }
    }
}

/// Problem with the permissions of a token file; `None` if only its owner and its group can read it, and only
/// its owner can write it.
fn open_to_others(file: &Path) -> Option<String> {
    const TOO_OPEN: u32 = 0o026;
    let mode = fs::metadata(file).ok()?.permissions().mode();
    let shown = file.display();
    (mode & TOO_OPEN != 0).then(|| {
        format!(
            "other users of this machine can read or replace the token file `{shown}`: chmod 600 `{shown}`"
        )
    })
}

fn not_empty(token: &str, place: &str) -> Result<String, ClientError> {
    match token.trim() {
        "" => Err(ClientError::Usage(format!("`{place}` is empty"))),
        token => Ok(token.to_owned()),
    }
}

fn from_env(env: Env<'_>) -> Result<Settings, ClientError> {
    // A variable that is set to nothing is as good as none.
    let get = |name: &str| env(name).filter(|value| !value.is_empty());
    Ok(Settings {
        server: get("ASTACUS_SERVER"),
        token_file: get("ASTACUS_TOKEN_FILE").map(PathBuf::from),
        ca: get("ASTACUS_CA").map(PathBuf::from),
        ca_sha256: parse("ASTACUS_CA_SHA256", get("ASTACUS_CA_SHA256"))?,
        identity: get("ASTACUS_IDENTITY").map(PathBuf::from),
        cluster: parse("ASTACUS_CLUSTER", get("ASTACUS_CLUSTER"))?,
        node: parse("ASTACUS_NODE", get("ASTACUS_NODE"))?,
        job: BTreeMap::new(),
    })
}

fn parse<T>(name: &str, value: Option<String>) -> Result<Option<T>, ClientError>
where
    T: std::str::FromStr<Err = format_spec::id::ParseIdError>,
{
    value
        .map(|value| value.parse().map_err(|error| ClientError::Usage(format!("{name}: {error}"))))
        .transpose()
}

/// The settings in a file; none if there is no file.
fn read_file(path: &Path) -> Result<Settings, ClientError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Settings::default());
        }
        Err(error) => {
            return Err(ClientError::Usage(format!("`{}` cannot be read: {error}", path.display())));
        }
    };
    toml::from_str(&text).map_err(|error| {
        let error = error.to_string();
        ClientError::Usage(format!("`{}` cannot be used: {}", path.display(), error.trim_end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A home with a user file, and a system file, with these texts.
    fn files(user: &str, system: &str) -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/astacus");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("client.toml"), user).unwrap();
        let system_file = home.path().join("system.toml");
        fs::write(&system_file, system).unwrap();
        (home, system_file)
    }

    #[test]
    fn flags_beat_the_environment_which_beats_the_users_file_which_beats_the_machines() {
        let (home, system) = files(
            "server = \"http://user:1\"\ncluster = \"user\"",
            "server = \"http://system:1\"\ncluster = \"system\"\nnode = \"system\"",
        );
        let env = |name: &str| match name {
            "HOME" => Some(home.path().display().to_string()),
            "ASTACUS_SERVER" => Some("http://env:1".to_owned()),
            _ => None,
        };
        let flags = Settings { server: Some("http://flag:1".to_owned()), ..Settings::default() };

        let all = Config::with_system_file(flags, &env, &system).unwrap();
        let no_flag = Config::with_system_file(Settings::default(), &env, &system).unwrap();

        assert_eq!((all.server(), no_flag.server()), ("http://flag:1".to_owned(), "http://env:1".to_owned()));
        assert_eq!(all.cluster().as_str(), "user");
        assert_eq!(all.node("host").unwrap().as_str(), "system");
        assert_eq!(all.named_node(), None);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_name_of_the_file() {
        let (home, system) = files("sever = \"http://user:1\"", "");
        let env = |name: &str| (name == "HOME").then(|| home.path().display().to_string());

        let Err(ClientError::Usage(text)) = Config::with_system_file(Settings::default(), &env, &system)
        else {
            panic!("an unknown key was taken")
        };

        assert!(text.contains("client.toml") && text.contains("sever"), "{text}");
    }

    #[test]
    fn a_token_comes_from_the_flag_then_the_variable_then_the_files() {
        let (home, system) = files("", "");
        let write = |name: &str| {
            let path = home.path().join(name);
            fs::write(&path, format!("{name}\n")).unwrap();
            path
        };
        let (flag, other) = (write("flag"), write("other"));
        let token = |flags: Option<&PathBuf>, token: Option<&str>| {
            let env = |name: &str| match name {
                "ASTACUS_TOKEN" => token.map(str::to_owned),
                "ASTACUS_TOKEN_FILE" => Some(other.display().to_string()),
                _ => None,
            };
            let flags = Settings { token_file: flags.cloned(), ..Settings::default() };
            Config::with_system_file(flags, &env, &system).unwrap().token()
        };

        assert_eq!(token(Some(&flag), Some("variable")).unwrap(), "flag");
        assert_eq!(token(None, Some("variable")).unwrap(), "variable");
        assert_eq!(token(None, None).unwrap(), "other");
        assert!(matches!(token(None, Some(" ")), Err(ClientError::Usage(_))));
        assert!(matches!(token(Some(&home.path().join("gone")), None), Err(ClientError::Usage(_))));
    }

    fn credentials(user: &str, system: &str, flags: Settings) -> Result<Credentials, ClientError> {
        let (home, system) = files(user, system);
        let env = |name: &str| match name {
            "HOME" => Some(home.path().display().to_string()),
            "ASTACUS_TOKEN" if user.contains("token") => Some("token".to_owned()),
            _ => None,
        };
        Config::with_system_file(flags, &env, &system).unwrap().credentials()
    }

    #[test]
    fn the_ca_comes_from_the_first_place_that_names_one() {
        let pin = "ab".repeat(32);
        let trust = |user: &str, system: &str, flags: Settings| {
            credentials(&format!("# token\n{user}"), system, flags).unwrap().trust
        };
        let (pinned, file) = (format!("ca_sha256 = '{pin}'"), "ca = '/system.pem'");
        let flags = Settings { ca: Some(PathBuf::from("/flag.pem")), ..Settings::default() };

        assert_eq!(trust("", "", Settings::default()), Trust::System);
        assert_eq!(trust("", file, Settings::default()), Trust::File("/system.pem".into()));
        assert_eq!(trust(&pinned, file, Settings::default()), Trust::Pinned(pin.parse().unwrap()));
        assert_eq!(trust(&pinned, file, flags), Trust::File("/flag.pem".into()));
        let both = credentials(&format!("# token\n{pinned}\n{file}"), "", Settings::default());
        assert!(matches!(both, Err(ClientError::Usage(text)) if text.contains("ca_sha256")));
    }

    #[test]
    fn a_certificate_makes_a_token_unnecessary() {
        let pair = "identity = '/node.pem'";

        let node = credentials(pair, "", Settings::default()).unwrap();
        let with_token = credentials(&format!("# token\n{pair}"), "", Settings::default()).unwrap();

        assert!(node.token.is_none() && node.identity.is_some());
        assert_eq!(with_token.token.as_deref(), Some("token"));
        assert!(credentials("", "", Settings::default()).is_err(), "neither token nor certificate");
    }

    #[test]
    fn a_token_file_that_others_can_read_or_replace_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, is_open) in
            [(0o600, false), (0o400, false), (0o640, false), (0o644, true), (0o660, true), (0o602, true)]
        {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();

            let warning = open_to_others(file.path());

            assert_eq!(warning.is_some(), is_open, "{mode:o}");
            assert!(warning.is_none_or(|text| text.contains(&file.path().display().to_string())));
        }
    }

    #[test]
    fn a_machine_name_that_is_no_node_name_is_refused_with_a_hint() {
        let config =
            Config::with_system_file(Settings::default(), &|_| None, Path::new("/nonexistent")).unwrap();

        assert_eq!(config.node("db-1").unwrap().as_str(), "db-1");
        let error = config.node("db 1").unwrap_err();
        assert!(matches!(&error, ClientError::Usage(text) if text.contains("--node")), "{error}");
    }
    #[test]
    fn a_configuration_folder_that_is_no_absolute_path_counts_as_not_set() {
        let (home, system) = files("cluster = \"user\"", "");
        let elsewhere = home.path().join("elsewhere");
        fs::create_dir_all(elsewhere.join("astacus")).unwrap();
        fs::write(elsewhere.join("astacus/client.toml"), "cluster = \"elsewhere\"").unwrap();
        let cluster = |xdg: &str| {
            let env = |name: &str| match name {
                "HOME" => Some(home.path().display().to_string()),
                "XDG_CONFIG_HOME" => Some(xdg.to_owned()),
                _ => None,
            };
            Config::with_system_file(Settings::default(), &env, &system).unwrap().cluster().to_string()
        };
        // A way to the same folder from the current one, which no test may change.
        let here = std::env::current_dir().unwrap();
        let up = "../".repeat(here.components().count() - 1);
        let relative = format!("{up}{}", elsewhere.display().to_string().trim_start_matches('/'));
        assert!(Path::new(&relative).join("astacus/client.toml").exists());

        assert_eq!(cluster(&elsewhere.display().to_string()), "elsewhere");
        assert_eq!(cluster(&relative), "user");
        assert_eq!(cluster(""), "user");
    }
}
