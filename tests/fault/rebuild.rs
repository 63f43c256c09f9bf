//! A rebuild that ends at any of its writes: no server starts on what is there, and the next one is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use format_spec::PackId;
use repo_server::config::Config;
use repo_server::index::{Engine, Index, KeyRange, Table, open_existing};
use repo_server::rebuild::{self, Plan, RebuildError, RebuildReport};
use repo_server::rows::{ChunkRow, Epoch, PackNumber, PackRow};
use repo_server::site::StoreSite;
use repo_server::start::{CreateError, open_or_create};
use repo_server::store::OnHalt;
use tests::world::Folder;

use crate::process::{Process, Push, Stores};
use crate::switch::{Cut, CutIndex, Side, Switch};

/// A site with two snapshots, and the index that its server had.
pub(crate) struct Pushed {
    pub(crate) folder: Folder,
    pub(crate) stores: Stores,
}

impl Pushed {
    pub(crate) fn new() -> Self {
        let folder = Folder::new();
        let site = folder.dir("site");
        let stores = Stores { site: Arc::new(StoreSite::folder(&site).unwrap()), ..Stores::new() };
        let process = stores.serve();
        for push in [Push::of(&["alpha", "beta"]), Push::of(&["beta", "gamma", "delta"])] {
            let (session, domain) = Push::open(&process).unwrap();
            push.run(&process, session, &domain).unwrap();
        }
        drop(process);
        std::fs::create_dir_all(site.join("keyring")).unwrap();
        std::fs::write(site.join("keyring/repository"), Stores::descriptor().encode()).unwrap();
        std::fs::write(folder.path("key"), Stores::master().to_file_text()).unwrap();
        Self { folder, stores }
    }

    pub(crate) fn plan(&self, data: &str) -> Plan {
        Plan {
            data_dir: self.folder.path(data),
            site: self.folder.path("site"),
            key_file: self.folder.path("key"),
            engine: Engine::Fjall,
        }
    }
}

fn on_halt() -> OnHalt {
    Arc::new(|_| {})
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(work)
}

/// Rebuilds until the switch ends it.
pub(crate) fn run(plan: &Plan, switch: &Arc<Switch>) -> Result<RebuildReport, RebuildError> {
    let switch = Arc::clone(switch);
    let wrap = move |index| -> Arc<dyn Index> { Arc::new(CutIndex::new(index, switch)) };
    wait(rebuild::run(plan, on_halt(), wrap))
}

pub(crate) fn start(plan: &Plan) -> Result<(), CreateError> {
    let site = PathBuf::from(&plan.site).into();
    let settings = Config::default().settings().unwrap();
    wait(open_or_create(&plan.data_dir, Some(&site), settings, on_halt())).map(drop)
}

pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Chunks by pack id, packs, snapshots and manifests: all that does not depend on the numbers of packs.
pub(crate) type Rows = (BTreeMap<Vec<u8>, (PackId, ChunkRow)>, BTreeMap<PackId, PackRow>, Pairs, Pairs);

pub(crate) fn rows(index: &dyn Index) -> Rows {
    let scan = |table| -> Pairs {
        let found = index.scan(table, &KeyRange::all(), std::num::NonZeroUsize::MAX).unwrap();
        assert!(found.rest.is_none(), "a small index");
        found.rows.into_iter().map(|row| (row.key, row.value)).collect()
    };
    let packs: BTreeMap<PackNumber, PackRow> = scan(Table::Pack)
        .iter()
        .map(|(key, value)| (PackNumber::from_key(key).unwrap(), PackRow::decode(value).unwrap()))
        .collect();
    let chunk = |(key, value): (Vec<u8>, Vec<u8>)| {
        let row = ChunkRow::decode(&value).unwrap();
        let anywhere = ChunkRow { pack: PackNumber(0), idle_since: Epoch(0), ..row };
        (key, (packs[&row.pack].id, anywhere))
    };
    let chunks = scan(Table::Chunk).into_iter().map(chunk).collect();
    let by_id = packs.values().map(|row| (row.id, row.clone())).collect();
    (chunks, by_id, scan(Table::Snapshot), scan(Table::Manifest))
}

pub(crate) fn rows_in(data: &Path) -> Rows {
    rows(open_existing(Engine::Fjall, &data.join("index")).unwrap().as_ref())
}

/// X2, X8: wherever a rebuild is cut, nothing serves what is there, and the next one makes it whole.
#[test]
fn a_rebuild_that_is_cut_anywhere_is_started_again_and_whole() {
    let pushed = Pushed::new();
    let before = rows(pushed.stores.index.as_ref());
    let whole = Switch::at(None);
    run(&pushed.plan("whole"), &whole).unwrap();
    assert_eq!(rows_in(&pushed.folder.path("whole")), before);
    let writes = whole.writes().len();
    assert!(writes >= 5, "rows, snapshots, counts, packs and the end: {:?}", whole.writes());

    for at in 0..writes {
        for side in [Side::Before, Side::After] {
            let cut = Cut { at, side };
            let switch = Switch::at(Some(cut));
            let plan = pushed.plan(&format!("cut-{at}-{side:?}"));

            let cut_short = run(&plan, &switch);
            assert!(cut_short.is_err() && switch.is_cut(), "{cut:?} was not reached");
            let refused = start(&plan);
            assert!(matches!(refused, Err(CreateError::HalfBuilt { .. })), "{cut:?}: {refused:?}");

            let report = run(&plan, &Switch::at(None)).unwrap();
            assert!(report.is_sound(), "{cut:?}: {report:?}");
            assert_eq!(rows_in(&plan.data_dir), before, "{cut:?}");
            start(&plan).unwrap();
        }
    }
}

/// A rebuild goes over what another one left unfinished, and never over a whole index.
#[test]
fn a_whole_index_is_never_rebuilt_over() {
    let pushed = Pushed::new();
    let plan = pushed.plan("data");
    run(&plan, &Switch::at(None)).unwrap();
    let before = rows_in(&plan.data_dir);

    let again = run(&plan, &Switch::at(None));

    assert!(matches!(again, Err(RebuildError::HasIndex { .. })), "{again:?}");
    assert_eq!(rows_in(&plan.data_dir), before);
}

/// A rebuilt server serves the pushed snapshots.
#[test]
fn a_rebuilt_index_serves_what_was_pushed() {
    let pushed = Pushed::new();
    let plan = pushed.plan("data");
    run(&plan, &Switch::at(None)).unwrap();

    let index = open_existing(Engine::Fjall, &plan.data_dir.join("index")).unwrap();
    let process = Process::start(index, Arc::clone(&pushed.stores.site));
    let listed = process.wait(process.api.snapshots(None)).unwrap();

    assert_eq!(listed.len(), 2);
    let contents: Vec<Vec<u8>> =
        listed.iter().map(|info| crate::judge::content(&process, info.id).unwrap()).collect();
    assert_eq!(contents[0], Push::of(&["alpha", "beta"]).contents.concat());
    assert_eq!(contents[1], Push::of(&["beta", "gamma", "delta"]).contents.concat());
}
