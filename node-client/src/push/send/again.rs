//! Asks again for chunks that the server is not sure to have any more.

use std::collections::HashSet;

use format_spec::ChunkId;
use format_spec::wire::{BaseState, Held, MAX_IDS};

use super::Uplink;
use crate::api::Coming;
use crate::push::stop::Stopped;
use crate::state::{Known, Memory};

/// Chunks of one push that may be missing before it is cheaper to read everything: 32 MB of ids.
const MOST_MISSING: usize = 500_000;

impl Uplink<'_> {
    /// The chunks in `memory` that the server does not have. What lacks too many of them is forgotten.
    ///
    /// The last push is asked about unless it is pinned, a journal always is.
    pub(crate) fn ask_again(
        &self,
        memory: &mut Memory,
        base: BaseState,
    ) -> Result<HashSet<ChunkId>, Stopped> {
        let mut missing = HashSet::new();
        for (known, is_pinned) in
            [(&mut memory.journal, false), (&mut memory.last, base == BaseState::Pinned)]
        {
            let Some(asked) = known.as_mut().filter(|_| !is_pinned) else { continue };
            match self.ask_for(asked)? {
                Some(lacking) => missing.extend(lacking),
                None => *known = None,
            }
        }
        Ok(missing)
    }

    /// Chunks of `known` that the server lacks; `None` if there are too many.
    fn ask_for(&self, known: &mut Known) -> Result<Option<HashSet<ChunkId>>, Stopped> {
        let mut missing = HashSet::new();
        let mut ids: Vec<ChunkId> = Vec::new();
        loop {
            let page = self.stop.pass(known.next_chunks())?;
            let is_last = page.is_none();
            ids.extend(page.into_iter().flatten());
            while ids.len() >= MAX_IDS || (is_last && !ids.is_empty()) {
                let some = ids.split_off(ids.len().saturating_sub(MAX_IDS));
                let held = self.api.have(self.session, &some, Coming::Send);
                let held = self.stop.wait_for(self.runtime, held)?;
                missing.extend(
                    some.into_iter().zip(held).filter(|(_, held)| *held != Held::Here).map(|(id, _)| id),
                );
                if missing.len() > MOST_MISSING {
                    return Ok(None);
                }
            }
            if is_last {
                self.stop.pass(known.rewind())?;
                return Ok(Some(missing));
            }
        }
    }
}
