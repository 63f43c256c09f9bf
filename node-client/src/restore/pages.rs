//! The pages of a manifest, one after another, fetched ahead by a thread of their own.

use std::collections::HashSet;

use crossbeam_channel::{Sender, bounded};
use format_spec::FormatError;
use format_spec::key::{BlobKind, DomainKey};
use format_spec::manifest::{Manifest, PageRef};
use format_spec::page::{self, MAX_PAGE_LEN, Record};
use format_spec::wire::Frame;

use super::fetch::{Fetcher, Opener};
use crate::api::Asked;
use crate::error::ClientError;

/// Bytes of pages in one request.
const REQUEST_LEN: u64 = 2 << 20;
/// Decoded pages that may wait: with those in a request, what this takes of memory.
const AHEAD: usize = 4;

/// A page, or why there is none.
type Read = (PageRef, Result<Vec<Record>, ClientError>);

/// Hands the records of each page to `visit`, in order. A page that cannot be had or used is
/// handed over as an error, and the next one follows.
///
/// # Errors
/// The first that `visit` returns; those that concern more than one page, such as an unreachable
/// server.
pub(super) fn for_each_page(
    fetcher: Fetcher<'_>,
    domain: &DomainKey,
    manifest: &Manifest,
    mut visit: impl FnMut(Read) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let (sender, receiver) = bounded(AHEAD);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || read_all(fetcher, domain, manifest, &sender));
        let visited = receiver.iter().try_for_each(&mut visit);
        drop(receiver);
        let read = reader.join().map_err(|_| ClientError::Worker("page reader"))?;
        visited.and(read)
    })
}

fn read_all(
    fetcher: Fetcher<'_>,
    domain: &DomainKey,
    manifest: &Manifest,
    out: &Sender<Read>,
) -> Result<(), ClientError> {
    let mut opener = Opener::new(domain)?;
    let mut rest = manifest.pages.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(request_of(rest));
        rest = later;
        let asked: Vec<_> = now.iter().map(|page| Asked { id: page.id, max_len: page.len }).collect();
        for (page, frame) in now.iter().zip(fetcher.each_frame(&asked)?) {
            let records = frame.and_then(|frame| decode(&mut opener, page, &frame));
            if out.send((*page, records)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// How many of the next pages one request asks for: at least one, and none twice.
fn request_of(pages: &[PageRef]) -> usize {
    let mut seen = HashSet::new();
    let mut len = 0;
    let fits = |page: &&PageRef| {
        len += u64::from(page.len);
        seen.insert(page.id) && (len <= REQUEST_LEN || seen.len() == 1)
    };
    pages.iter().take_while(fits).count()
}

fn decode(opener: &mut Opener<'_>, page: &PageRef, frame: &Frame) -> Result<Vec<Record>, ClientError> {
    let wrong = |source| ClientError::Format { what: format!("page {} is damaged", page.id), source };
    let limit = u32::try_from(MAX_PAGE_LEN).unwrap_or(u32::MAX);
    if page.len > limit {
        return Err(wrong(FormatError::TooLong { what: "page", len: page.len.into(), limit: limit.into() }));
    }
    let plain = opener.open(BlobKind::Page, frame, page.len).map_err(wrong)?;
    page::decode(plain).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use format_spec::ChunkId;

    fn page(n: u8, len: u32) -> PageRef {
        PageRef { id: ChunkId::from_bytes([n; 32]), len }
    }

    #[test]
    fn a_request_is_bounded_and_asks_for_no_page_twice() {
        let limit = u32::try_from(REQUEST_LEN).unwrap();

        assert_eq!(request_of(&[page(1, 10), page(2, 10)]), 2);
        assert_eq!(request_of(&[page(1, 10), page(1, 10)]), 1);
        assert_eq!(request_of(&[page(1, limit), page(2, 1)]), 1);
        assert_eq!(request_of(&[page(1, limit + 1), page(2, 1)]), 1);
    }
}
