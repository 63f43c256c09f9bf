//! `alarms`: what is up, and an operator's word that it is known.

use std::io::{self, Write};

use format_spec::path::Printable;
use format_spec::wire::{AcknowledgeRequest, Alarm, Alarms};
use indicatif::HumanCount;
use node_client::show::{Show, show};
use serde::Serialize;

use crate::ask::{Verdict, ask};
use crate::cli::{AlarmsArguments, AlarmsCommand, Arguments};
use crate::error::AdminError;
use crate::show::wide;

/// Lists alarms, or takes one as known.
///
/// # Errors
/// [`AdminError::Client`]; an alarm that is not up is not found.
pub(crate) fn run(arguments: &Arguments, alarms: &AlarmsArguments) -> Result<Verdict, AdminError> {
    let told = match &alarms.command {
        None => ask(arguments, async |api| api.alarms().await)?,
        Some(AlarmsCommand::Ack { code, subject, reason, lasts }) => {
            let asked = AcknowledgeRequest {
                code: code.clone(),
                subject: subject.clone(),
                reason: reason.clone(),
                for_seconds: lasts.map(|span| span.0.as_secs()),
            };
            ask(arguments, async |api| api.acknowledge(&asked).await)?
        }
    };
    show(&Told(told), arguments.output)?;
    Ok(Verdict::Sound)
}

#[derive(Debug, Serialize)]
struct Told(Alarms);

impl Show for Told {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.0.alarms.is_empty() {
            return writeln!(out, "no active alarms");
        }
        show_alarms(&self.0.alarms, out)
    }

    fn is_news(&self) -> bool {
        !self.0.alarms.is_empty()
    }
}

/// True if one of them is not acknowledged.
pub(crate) fn need_a_look(alarms: &[Alarm]) -> bool {
    alarms.iter().any(|alarm| alarm.acknowledged.is_none())
}

/// Writes alarms, a line each, and one more for each that is acknowledged.
pub(crate) fn show_alarms(alarms: &[Alarm], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "ALARMS: {}", HumanCount(wide(alarms.len())))?;
    for Alarm { code, severity, subject, message, since, acknowledged } in alarms {
        let about = subject.as_ref().map(|subject| format!(" {}", Printable(subject.as_bytes())));
        let (about, severity) = (about.unwrap_or_default(), severity.name());
        let message = Printable(message.as_bytes());
        writeln!(out, "  {code}{about}, {severity}, since {since}: {message}")?;
        if let Some(known) = acknowledged {
            let until = known.until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
            let reason = Printable(known.reason.as_bytes());
            writeln!(out, "    acknowledged since {}{until}: {reason}", known.since)?;
        }
    }
    Ok(())
}
