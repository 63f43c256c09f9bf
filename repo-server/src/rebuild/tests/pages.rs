//! Packs of pages that cannot be read when chunks are lost.

use std::ops::Range;

use bytes::Bytes;

use super::*;
use crate::rows::PackRow;
use crate::site::layout::pack_object;
use crate::site::{Listed, Put, Site, SiteFuture};

/// A site that lists an object which is gone.
#[derive(Debug)]
struct Ghost {
    inner: Arc<dyn Site>,
    gone: Listed,
}

impl Site for Ghost {
    fn put_new<'a>(&'a self, name: &'a ObjectName, bytes: Bytes) -> SiteFuture<'a, Put> {
        self.inner.put_new(name, bytes)
    }

    fn get<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, Bytes> {
        self.inner.get(name)
    }

    fn get_ranges<'a>(
        &'a self,
        name: &'a ObjectName,
        ranges: &'a [Range<u64>],
    ) -> SiteFuture<'a, Vec<Bytes>> {
        self.inner.get_ranges(name, ranges)
    }

    fn len<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, u64> {
        self.inner.len(name)
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> SiteFuture<'a, Vec<Listed>> {
        Box::pin(async move {
            let mut listed = self.inner.list(prefix).await?;
            if *prefix == Prefix::area(Area::Packs) {
                listed.push(self.gone.clone());
            }
            Ok(listed)
        })
    }

    fn delete<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, ()> {
        self.inner.delete(name)
    }
}

/// Two pushes that a checkpoint covers, of which the chunks of the second are lost; and the pack of the pages of the
/// first.
async fn two_pushes_one_of_which_lost_chunks() -> (World, PackRow) {
    let world = World::new();
    world.push("n", &["alpha", "beta"]).await;
    let pages = world.packs().into_iter().find(|(_, row)| row.kind == BlobKind::Page).unwrap().1;
    world.push("m", &["gamma"]).await;
    checkpoint::run(&world.server, When::Now).await.unwrap();
    let lost = world.store.pack_row(world.row(world.chunk("gamma")).unwrap().pack).unwrap().id;
    world.site().delete(&pack_object(&lost)).await.unwrap();
    (world, pages)
}

fn named(report: &RebuildReport, pack: PackId) -> bool {
    report.findings.iter().any(|lost| lost.object == pack.to_string())
}

fn references(world: &World, content: &str) -> u64 {
    world.row(world.chunk(content)).unwrap().references
}

/// G11: pages whose pack has a damaged end keep their rows, as the checkpoint says what they refer to.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_pack_with_a_damaged_end_are_known_from_a_checkpoint_when_chunks_are_lost() {
    let (world, pages) = two_pushes_one_of_which_lost_chunks().await;
    flip_at(&world, &pack_object(&pages.id), usize::try_from(pages.len).unwrap() - 4).await;

    let (anew, report) = rebuilt(&world).await;

    assert!(named(&report, pages.id), "{report:?}");
    assert!(anew.packs().iter().any(|(_, row)| row.id == pages.id && row.live == pages.live));
    assert_eq!((references(&anew, "alpha"), references(&anew, "beta")), (1, 1));
    assert_eq!(anew.row(anew.chunk("gamma")), None);
}

/// X7: pages whose pack is gone when it is looked at get no rows, and count nothing; a push brings them back.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_pack_that_is_gone_count_nothing_when_chunks_are_lost() {
    let (world, pages) = two_pushes_one_of_which_lost_chunks().await;
    let name = pack_object(&pages.id);
    world.site().delete(&name).await.unwrap();
    let ghost = Ghost { inner: world.site(), gone: Listed { name, len: pages.len } };
    let anew = World::over(Arc::new(ghost));

    let report = anew.store.blocking(fill_from_site).await.unwrap();

    assert!(named(&report, pages.id), "{report:?}");
    assert!(anew.packs().iter().all(|(_, row)| row.kind == BlobKind::Chunk));
    assert_eq!((references(&anew, "alpha"), references(&anew, "beta")), (0, 0));
    let hurt = report.findings.iter().filter(|lost| lost.object.starts_with("manifest:")).count();
    assert_eq!(hurt, 2, "{report:?}");
    anew.push("n", &["alpha", "beta"]).await;
    assert_eq!((references(&anew, "alpha"), references(&anew, "beta")), (1, 1));
}

/// X7: what a checkpoint says of a pack with another length is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_says_nothing_of_a_pack_whose_length_has_changed() {
    let world = World::new();
    world.push("n", &["alpha"]).await;
    let pack = world.store.pack_row(world.row(world.chunk("alpha")).unwrap().pack).unwrap().id;
    checkpoint::run(&world.server, When::Now).await.unwrap();
    change(&world, &pack_object(&pack), |bytes| bytes.push(0)).await;

    let (anew, report) = rebuilt(&world).await;

    assert!(named(&report, pack), "{report:?}");
    assert_eq!((report.packs_of_checkpoints, anew.row(anew.chunk("alpha"))), (1, None));
}
