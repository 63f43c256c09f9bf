//! `sessions`: pushes that are open, and the end of one.

use std::io::{self, Write};

use format_spec::SessionId;
use format_spec::wire::OpenSessionInfo;
use indicatif::{HumanBytes, HumanDuration};
use node_client::show::{Show, show};
use serde::Serialize;

use crate::ask::{Verdict, ask};
use crate::cli::{Arguments, SessionsArguments, SessionsCommand};
use crate::error::AdminError;
use crate::show::table;

/// Lists the open sessions, or ends one.
///
/// # Errors
/// [`AdminError::Client`].
pub(crate) fn run(arguments: &Arguments, sessions: &SessionsArguments) -> Result<Verdict, AdminError> {
    match sessions.command {
        None => {
            let open = Sessions { sessions: ask(arguments, async |api| api.sessions().await)? };
            show(&open, arguments.output)?;
        }
        Some(SessionsCommand::End { session }) => {
            ask(arguments, async |api| api.abort(session).await)?;
            show(&Ended { ended: session }, arguments.output)?;
        }
    }
    Ok(Verdict::Sound)
}

#[derive(Debug, Serialize)]
struct Sessions {
    sessions: Vec<OpenSessionInfo>,
}

impl Show for Sessions {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = ["SESSION", "CLUSTER", "NODE", "AGE", "SENT"].map(str::to_owned);
        let row = |open: &OpenSessionInfo| {
            let age = HumanDuration(std::time::Duration::from_secs(open.age_seconds));
            let (age, sent) = (age.to_string(), HumanBytes(open.sent_bytes).to_string());
            [open.session.to_string(), open.cluster.to_string(), open.node.to_string(), age, sent]
        };
        let rows: Vec<_> = std::iter::once(head).chain(self.sessions.iter().map(row)).collect();
        table(out, &rows)
    }

    fn is_news(&self) -> bool {
        !self.sessions.is_empty()
    }
}

#[derive(Debug, Serialize)]
struct Ended {
    ended: SessionId,
}

impl Show for Ended {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "ended session {}: its push fails or starts again", self.ended)
    }

    fn is_news(&self) -> bool {
        false
    }
}
