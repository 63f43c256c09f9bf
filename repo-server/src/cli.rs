//! The command line of `astacus-server key`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use format_spec::SlotName;
use format_spec::keyring::{KeyCommand, Stretch};
use repo_server::clock::SystemClock;
use repo_server::durable::RealDisk;
use repo_server::keys::{
    self, Checked, Destination, Given, KeyError, Listed, NewSlot, PaperSource, Place, SlotState,
};
use repo_server::site::SiteUrl;
use serde::Serialize;

#[derive(Subcommand)]
pub(crate) enum KeyAction {
    /// Print the master key as a recovery sheet for paper.
    Export {
        /// Print a recovery sheet: lines that a person can type, with checks, and a QR code.
        #[arg(long, required = true)]
        paper: bool,
        /// Write the sheet to this new file (mode 0600) instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// File with the passphrase of a slot, to open the master key with.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Check that a recovery sheet, a copy of `master.key` or the slots open the repository. Changes nothing.
    Check(Secrets),
    /// Make `master.key` again in a data folder that lost it. Never replaces another key.
    Restore(Secrets),
    /// List all slots that open the master key.
    List(PlaceArguments),
    /// Add a slot, after a check that it opens.
    #[command(subcommand)]
    Add(AddAction),
    /// Remove a slot. Another slot must be shown to open without a person. `remove file` deletes `master.key`: the
    /// server then starts from another slot only, and a copy of the data folder no longer opens the repository.
    Remove {
        /// Name of the slot.
        slot: SlotName,
        #[command(flatten)]
        secrets: Secrets,
    },
}

#[derive(Subcommand)]
pub(crate) enum AddAction {
    /// Add a slot of a passphrase. The server starts from it with `--passphrase-file`.
    Passphrase {
        /// Name of the slot.
        #[arg(long, value_name = "NAME", default_value = "passphrase")]
        name: SlotName,
        /// File with the new passphrase: one line of at least 12 characters.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: PathBuf,
        /// Memory of Argon2id in MiB, from 19 to 1024.
        #[arg(long, value_name = "MIB", default_value_t = Stretch::DEFAULT.memory_kib >> 10)]
        memory_mib: u32,
        /// Passes of Argon2id, from 2 to 32.
        #[arg(long, value_name = "N", default_value_t = Stretch::DEFAULT.passes)]
        passes: u32,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Add a slot of a new random recovery key, and print its sheet once.
    Recovery {
        /// Name of the slot.
        #[arg(long, value_name = "NAME", default_value = "recovery")]
        name: SlotName,
        /// Write the sheet to this new file (mode 0600) instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Add a slot of a program that prints the master key as 64 hex digits, for example with a KMS or an HSM.
    Command {
        /// Name of the slot.
        #[arg(long, value_name = "NAME", default_value = "command")]
        name: SlotName,
        /// Time in seconds after which the program is ended.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        time_limit: u64,
        #[command(flatten)]
        secrets: Secrets,
        /// Absolute path of the program, and its arguments, which must hold no secret.
        #[arg(last = true, required = true, value_name = "PROGRAM")]
        program: Vec<String>,
    },
}

#[derive(Args)]
pub(crate) struct PlaceArguments {
    /// Data folder of the repository.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Site to read the description of the repository from [default: `repository.json` in the data folder].
    #[arg(long, value_name = "URL")]
    site: Option<SiteUrl>,
    /// Print one JSON document on standard output.
    #[arg(long)]
    json: bool,
}

/// Secrets that open the master key. Without any, the command uses slots that need none.
#[derive(Args)]
pub(crate) struct Secrets {
    /// File with a typed or scanned recovery sheet, or `-` for standard input.
    #[arg(long, value_name = "FILE", value_parser = paper)]
    paper: Option<PaperSource>,
    /// File with the passphrase of a slot.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Copy of `master.key`.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArguments,
}

/// Random bytes from the operating system. Without them no key is safe, so the process must end.
fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

fn paper(text: &str) -> Result<PaperSource, std::convert::Infallible> {
    Ok(if text == "-" { PaperSource::Stdin } else { PaperSource::File(text.into()) })
}

impl PlaceArguments {
    fn place<'a>(&self, clock: &'a SystemClock) -> Place<'a> {
        let (dir, site) = (self.data_dir.clone(), self.site.clone());
        Place { disk: &RealDisk, dir, site, clock, random: fill_random }
    }

    /// The place of a sheet. A sheet on standard output would stand in the document of `--json`.
    fn destination(&self, out: Option<PathBuf>) -> Result<Destination, KeyError> {
        match out {
            Some(path) => Ok(Destination::File(path)),
            None if self.json => Err(KeyError::SheetForPrograms),
            None => Ok(Destination::Screen),
        }
    }
}

impl Secrets {
    fn given(&self) -> Given {
        let Self { paper, passphrase_file, key_file, .. } = self;
        Given { passphrase_file: passphrase_file.clone(), paper: paper.clone(), key_file: key_file.clone() }
    }
}

/// Result of a command, for people and for programs.
pub(crate) struct Outcome {
    /// Text for people.
    people: String,
    /// Document for programs, if that was asked for.
    document: Option<serde_json::Value>,
    /// False if the command found a slot that does not open.
    pub(crate) is_sound: bool,
}

impl Outcome {
    fn new(place: &PlaceArguments, report: &impl Serialize, people: String) -> Self {
        let document = place.json.then(|| serde_json::to_value(report).expect("a report is plain JSON"));
        Self { people, document, is_sound: true }
    }

    /// Prints the result on standard output.
    ///
    /// # Errors
    /// The error of standard output.
    pub(crate) fn print(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        match &self.document {
            Some(document) => writeln!(out, "{document}"),
            None => write!(out, "{}", self.people),
        }?;
        out.flush()
    }
}

/// Runs the command.
///
/// # Errors
/// [`KeyError`].
pub(crate) async fn run(action: KeyAction) -> Result<Outcome, KeyError> {
    let clock = SystemClock::new();
    match action {
        KeyAction::Export { paper: _, out, passphrase_file, place } => {
            let given = Given { passphrase_file, ..Given::default() };
            let to = place.destination(out)?;
            keys::export(&place.place(&clock), &given, &to).await?;
            Ok(sheet_written(&place, &to))
        }
        KeyAction::Check(secrets) => {
            let checked = keys::check(&secrets.place.place(&clock), &secrets.given()).await?;
            let outcome = Outcome::new(&secrets.place, &checked, checked_text(&checked));
            Ok(Outcome { is_sound: checked.is_sound(), ..outcome })
        }
        KeyAction::Restore(secrets) => {
            let restored = keys::restore(&secrets.place.place(&clock), &secrets.given()).await?;
            let path = restored.path.display();
            let text = if restored.was_there {
                format!("{path} was there already, with this key\n")
            } else {
                format!("restored {path}\n")
            };
            Ok(Outcome::new(&secrets.place, &restored, text))
        }
        KeyAction::List(place) => {
            let slots = keys::list(&place.place(&clock)).await?;
            let document = serde_json::json!({ "slots": slots });
            Ok(Outcome::new(&place, &document, slots.iter().map(slot_line).collect()))
        }
        KeyAction::Add(action) => add(action, &clock).await,
        KeyAction::Remove { slot, secrets } => {
            let removed = keys::remove(&secrets.place.place(&clock), &secrets.given(), &slot).await?;
            let text = format!(
                "removed slot `{}`; slot `{}` opens the repository\n",
                removed.removed, removed.opens
            );
            Ok(Outcome::new(&secrets.place, &removed, text))
        }
    }
}

async fn add(action: AddAction, clock: &SystemClock) -> Result<Outcome, KeyError> {
    let (name, secrets, new) = match action {
        AddAction::Passphrase { name, new_passphrase_file, memory_mib, passes, secrets } => {
            let memory_kib = memory_mib.saturating_mul(1024);
            let stretch = Stretch { memory_kib, passes, lanes: Stretch::DEFAULT.lanes };
            (name, secrets, NewSlot::Passphrase { file: new_passphrase_file, stretch })
        }
        AddAction::Recovery { name, out, secrets } => {
            let to = secrets.place.destination(out)?;
            (name, secrets, NewSlot::Recovery(to))
        }
        AddAction::Command { name, time_limit, secrets, program } => {
            let mut words = program.into_iter();
            let program = words.next().unwrap_or_default();
            let command = KeyCommand { program, arguments: words.collect(), time_limit_s: time_limit };
            (name, secrets, NewSlot::Command(command))
        }
    };
    let added = keys::add(&secrets.place.place(clock), &secrets.given(), name, &new).await?;
    let text = format!("added {}", slot_line(&added.added));
    let mut outcome = Outcome::new(&secrets.place, &added, text);
    if matches!(new, NewSlot::Recovery(Destination::Screen)) {
        // The sheet may be piped to a printer: only the sheet is on standard output.
        outcome.people.clear();
    }
    Ok(outcome)
}

fn sheet_written(place: &PlaceArguments, to: &Destination) -> Outcome {
    match to {
        Destination::Screen => Outcome::new(place, &serde_json::Value::Null, String::new()),
        Destination::File(path) => {
            let document = serde_json::json!({ "sheet": path });
            Outcome::new(place, &document, format!("wrote the recovery sheet to {}\n", path.display()))
        }
    }
}

fn checked_text(checked: &Checked) -> String {
    let mut text = format!("repository {}\n", checked.repository);
    for kept in &checked.checked {
        let state = match kept.state {
            SlotState::Opens => "opens the repository",
            SlotState::Fails => "does NOT open the repository",
            SlotState::NotTried => "was not tried",
        };
        let why = kept.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        text.push_str(&format!("{} {state}{why}\n", kept.name));
    }
    text
}

fn slot_line(slot: &Listed) -> String {
    let created = slot.created.as_ref().map(|time| format!(", made {time}")).unwrap_or_default();
    let detail = slot.detail.as_ref().map(|detail| format!(", {detail}")).unwrap_or_default();
    format!("slot `{}` ({}{created}{detail})\n", slot.name, slot.kind)
}
