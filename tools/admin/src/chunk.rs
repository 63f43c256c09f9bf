//! `chunk locate`: the place of a chunk or page.

use std::io::{self, Write};

use format_spec::ChunkId;
use format_spec::key::BlobKind;
use format_spec::wire::ChunkLocation;
use indicatif::HumanCount;
use node_client::show::{Show, show};
use serde::Serialize;

use crate::ask::{Verdict, ask};
use crate::cli::Arguments;
use crate::error::AdminError;
use crate::show::table;

/// Prints the place of a chunk or page.
///
/// # Errors
/// [`AdminError::Client`].
pub(crate) fn locate(arguments: &Arguments, id: ChunkId) -> Result<Verdict, AdminError> {
    let located = Located(ask(arguments, async |api| api.locate_chunk(id).await)?);
    show(&located, arguments.output)?;
    Ok(located.verdict())
}

#[derive(Debug, Serialize)]
struct Located(ChunkLocation);

impl Located {
    fn verdict(&self) -> Verdict {
        if self.0.damaged.is_some() { Verdict::Damaged } else { Verdict::Sound }
    }
}

impl Show for Located {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let place = &self.0;
        let kind = match place.kind {
            BlobKind::Chunk => "chunk",
            BlobKind::Page => "page",
        };
        let referrers = match place.kind {
            BlobKind::Chunk => "pages",
            BlobKind::Page => "manifests",
        };
        let (offset, stored, plain) = (place.offset, place.stored_bytes, place.plain_bytes);
        let mut rows = vec![
            [kind, &place.id.to_string()].map(str::to_owned),
            ["cluster", place.cluster.as_str()].map(str::to_owned),
            ["pack", &place.pack.to_string()].map(str::to_owned),
            ["object", &place.object].map(str::to_owned),
            ["place", &format!("{stored} bytes at {offset}")].map(str::to_owned),
            ["plaintext", &format!("{plain} bytes")].map(str::to_owned),
            ["referred to by", &format!("{} {referrers}", HumanCount(place.references))].map(str::to_owned),
        ];
        let idle = place.idle_since.iter();
        rows.extend(
            idle.map(|epoch| ["idle since", &format!("epoch {epoch} of the collector")].map(str::to_owned)),
        );
        rows.extend(place.damaged.iter().map(|problem| ["DAMAGED", problem].map(str::to_owned)));
        table(out, &rows)
    }

    fn is_news(&self) -> bool {
        true
    }
}
