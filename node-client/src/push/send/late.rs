//! Chunks that another node of the cluster was sending when we asked: it sent them, or we do.

use std::time::Duration;

use format_spec::ChunkId;
use format_spec::key::BlobKind;
use format_spec::wire::{Held, MAX_IDS};

use super::Uplink;
use super::session::Session;
use crate::api::Coming;
use crate::push::find::opener::Opener;
use crate::push::read::batch::Late;
use crate::push::read::{Compared, Layout, Reader, Reading, Unread};
use crate::push::stop::{Failure, Stop, Stopped};

/// Time between two questions, while nothing has come: doubled each time, up to a limit.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Time without any of the chunks after which they are sent from here, whoever promised them.
const PATIENCE: Duration = Duration::from_secs(120);

impl Uplink<'_> {
    /// Waits until the server has every chunk that was left to another node. One whose sender stops is
    /// read again and sent from here.
    pub(crate) fn settle(&self, mut opener: Opener<'_>, session: &Session) -> Result<(), Stopped> {
        let (mut wait, mut waited) = (FIRST_WAIT, Duration::ZERO);
        loop {
            let late = std::mem::take(&mut *self.late());
            if late.is_empty() {
                return Ok(());
            }
            let before = late.len();
            let coming = if waited < PATIENCE { Coming::Wait } else { Coming::Send };
            let (ours, theirs) = self.ask_late(late, coming)?;
            let progress = !ours.is_empty() || theirs.len() < before;
            *self.late() = theirs;
            if !ours.is_empty() {
                self.upload(BlobKind::Chunk, Coming::Send, |feeder| {
                    send(self.stop, &mut opener, self.reader(session, feeder), &ours)
                })?;
            }
            (wait, waited) = match progress {
                true => (FIRST_WAIT, Duration::ZERO),
                false => ((wait * 2).min(LONGEST_WAIT), waited + wait),
            };
            let left = self.late().len();
            if left > 0 {
                tracing::debug!(left, ?wait, ?waited, "waiting for chunks that another node is sending");
                self.wait(wait)?;
            }
        }
    }

    /// Which of the chunks are ours to send now, and which are still on their way.
    fn ask_late(&self, late: Vec<Late>, coming: Coming) -> Result<(Vec<Late>, Vec<Late>), Stopped> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut late = late.into_iter().peekable();
        while late.peek().is_some() {
            let some: Vec<Late> = late.by_ref().take(MAX_IDS).collect();
            let ids: Vec<ChunkId> = some.iter().map(|late| late.id).collect();
            let held = self.api.have(self.session, &ids, coming);
            for (late, held) in some.into_iter().zip(self.stop.wait_for(self.runtime, held)?) {
                match held {
                    Held::Here => {}
                    Held::Missing => ours.push(late),
                    Held::Coming => theirs.push(late),
                }
            }
        }
        Ok((ours, theirs))
    }
}

fn send(
    stop: &Stop,
    opener: &mut Opener<'_>,
    mut reader: Reader<'_>,
    chunks: &[Late],
) -> Result<(), Stopped> {
    for Late { id, len, whence } in chunks {
        // A page names this chunk already: if it cannot be read any more, the push starts again.
        let file = opener.open(&whence.found).map_err(|_| stop.fail(Failure::Lost))?;
        let reading = Reading { found: &whence.found, file: &file, layout: Layout::Dense };
        let len = u32::try_from(*len).expect("a chunk is at most 16 MiB");
        match reader.resend(&reading, whence.at, *id, len) {
            Ok(Compared::Same) => {}
            Err(Unread::Stopped) => return Err(Stopped),
            Ok(Compared::Differs) | Err(_) => return Err(stop.fail(Failure::Lost)),
        }
    }
    reader.feeder.finish()
}
