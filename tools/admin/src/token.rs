//! `token`: access of people and machines.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use format_spec::TokenName;
use format_spec::access::{NodeScope, Role};
use format_spec::wire::{NewToken, TokenCreated, TokenInfo, Tokens};
use node_client::error::ClientError;
use node_client::show::{Show, show, show_aside};
use serde::Serialize;

use crate::ask::{Verdict, ask};
use crate::cli::Arguments;
use crate::cli::tokens::{CreateToken, TokenCommand};
use crate::error::AdminError;
use crate::show::table;

/// Creates, lists or revokes tokens.
///
/// # Errors
/// [`AdminError::Client`].
pub(crate) fn run(arguments: &Arguments, command: &TokenCommand) -> Result<Verdict, AdminError> {
    match command {
        TokenCommand::Create(asked) => create(arguments, asked)?,
        TokenCommand::List => show(&List(ask(arguments, async |api| api.tokens().await)?), arguments.output)?,
        TokenCommand::Revoke { name } => {
            ask(arguments, async |api| api.revoke_token(name).await)?;
            show(&Revoked { revoked: name.clone() }, arguments.output)?;
        }
    }
    Ok(Verdict::Sound)
}

impl From<&CreateToken> for NewToken {
    fn from(asked: &CreateToken) -> Self {
        let cluster = asked.cluster.clone();
        Self {
            name: asked.name.clone(),
            roles: asked.roles.clone(),
            scope: cluster.map(|cluster| NodeScope { cluster, node: asked.node.clone() }),
            lasts_seconds: asked.expires.map(|span| span.0.as_secs()),
            from: asked.from.clone(),
        }
    }
}

fn create(arguments: &Arguments, asked: &CreateToken) -> Result<(), AdminError> {
    // The file comes first: a token that cannot be kept is not made.
    let file = asked.out.as_deref().map(SecretFile::create).transpose()?;
    let created = ask(arguments, async |api| api.create_token(&asked.into()).await);
    let Some(file) = file else {
        let created = created?;
        show_aside(&Described(&created.info), arguments.output);
        show(&Secret(created), arguments.output)?;
        return Ok(());
    };
    match created {
        Ok(created) => {
            file.fill(created.token.reveal())?;
            show(&Kept { info: created.info, file: file.path }, arguments.output)?;
            Ok(())
        }
        Err(error) => {
            file.discard();
            Err(error)
        }
    }
}

/// A new file that only its owner can read.
struct SecretFile {
    file: File,
    path: PathBuf,
}

impl SecretFile {
    /// Makes it, empty. A file that is there already is left as it is.
    fn create(path: &Path) -> Result<Self, AdminError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|source| disk("create", path, source))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Writes the secret. File and name are on stable storage when this returns.
    fn fill(&self, secret: &str) -> Result<(), AdminError> {
        let written = writeln!(&self.file, "{secret}").and_then(|()| self.file.sync_all()).and_then(|()| {
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
        written.map_err(|source| disk("write the token to", &self.path, source))
    }

    /// Removes it: nothing is in it.
    fn discard(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn disk(action: &'static str, path: &Path, source: io::Error) -> AdminError {
    ClientError::Disk { action, path: path.to_owned(), source }.into()
}

/// A new token on standard output: as text the secret alone.
#[derive(Debug, Serialize)]
struct Secret(TokenCreated);

impl Show for Secret {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.0.token.reveal())
    }

    fn is_news(&self) -> bool {
        true
    }
}

/// A new token for people, beside its secret.
#[derive(Debug, Serialize)]
struct Described<'a>(&'a TokenInfo);

impl Show for Described<'_> {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}: the server does not show its secret again", sentence(self.0))
    }

    fn is_news(&self) -> bool {
        false
    }
}

/// A new token whose secret is in a file.
#[derive(Debug, Serialize)]
struct Kept {
    #[serde(flatten)]
    info: TokenInfo,
    file: PathBuf,
}

impl Show for Kept {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}: its secret is in {}", sentence(&self.info), self.file.display())
    }

    fn is_news(&self) -> bool {
        false
    }
}

fn sentence(info: &TokenInfo) -> String {
    let ends = info.expires.as_ref().map(|expires| format!(", expires {expires}")).unwrap_or_default();
    format!("created token {} ({}){ends}", info.name, roles(info))
}

/// Roles with their scope: `node-push of orders/db1`.
fn roles(info: &TokenInfo) -> String {
    let roles: Vec<&str> = info.roles.iter().copied().map(Role::name).collect();
    let scope = info.scope.as_ref().map(|scope| match &scope.node {
        Some(node) => format!(" of {}/{node}", scope.cluster),
        None => format!(" of {}", scope.cluster),
    });
    format!("{}{}", roles.join(" and "), scope.unwrap_or_default())
}

#[derive(Debug, Serialize)]
struct List(Tokens);

impl Show for List {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = ["NAME", "ROLES", "FROM", "EXPIRES", "LAST USED", "CREATED BY"].map(str::to_owned);
        let row = |token: &TokenInfo| {
            let networks: Vec<String> = token.from.iter().map(ToString::to_string).collect();
            let from = if networks.is_empty() { "anywhere".to_owned() } else { networks.join(",") };
            let expires = match (&token.expires, token.is_expired) {
                (Some(expires), true) => format!("{expires} (expired)"),
                (Some(expires), false) => expires.clone(),
                (None, _) => "never".to_owned(),
            };
            let used = token.last_used.clone().unwrap_or_else(|| "never".to_owned());
            [token.name.to_string(), roles(token), from, expires, used, token.created_by.clone()]
        };
        let rows: Vec<_> = std::iter::once(head).chain(self.0.tokens.iter().map(row)).collect();
        table(out, &rows)
    }

    fn is_news(&self) -> bool {
        !self.0.tokens.is_empty()
    }
}

#[derive(Debug, Serialize)]
struct Revoked {
    revoked: TokenName,
}

impl Show for Revoked {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "revoked token {}: the server refuses it from the next request on", self.revoked)
    }

    fn is_news(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_secret_goes_into_a_new_file_of_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");

        let file = SecretFile::create(&path).unwrap();
        file.fill("0123").unwrap();

        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0123\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(SecretFile::create(&path).is_err(), "a file that is there is never replaced");
        file.discard();
        assert!(!path.exists());
    }

    #[test]
    fn roles_are_told_with_their_scope() {
        let info = TokenInfo {
            name: "n".parse().unwrap(),
            roles: vec![Role::NodePush, Role::NodeRestore],
            scope: Some(NodeScope { cluster: "orders".parse().unwrap(), node: Some("db1".parse().unwrap()) }),
            from: Vec::new(),
            created: String::new(),
            created_by: String::new(),
            expires: None,
            is_expired: false,
            last_used: None,
        };
        assert_eq!(sentence(&info), "created token n (node-push and node-restore of orders/db1)");
    }
}
