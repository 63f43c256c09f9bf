//! Tests of the routes, of the rights on them, and of their documentation.

use std::collections::BTreeSet;

use axum::extract::Request;
use axum::response::Response;
use format_spec::access::{NodeScope, Role};
use format_spec::key::BlobKind;
use format_spec::wire::{ErrorBody, NewToken};
use format_spec::{ChunkId, SnapshotId};
use hyper::StatusCode;
use hyper::header::AUTHORIZATION;
use tower_service::Service;

use super::principal::{Cell, TABLE};
use super::*;
use crate::access::{Kind, NodeRights, Source};
use crate::session;
use crate::store::Parts;
use crate::testing::{World, tree};

/// Routes that need no credential.
const OPEN: [&str; 3] = ["get /healthz", "get /readyz", "post /v1/enroll"];

/// Each `method path` of the `.route(…)` lines of the module.
fn served() -> BTreeSet<String> {
    let source = include_str!("mod.rs").split("#[cfg(test)]").next().unwrap();
    let mut served = BTreeSet::new();
    for route in source.split(".route(\"").skip(1) {
        let (path, methods) = route.split_once('"').unwrap();
        let methods = methods.lines().next().unwrap();
        for method in ["get", "post", "put", "delete"] {
            if methods.contains(&format!(" {method}(")) || methods.contains(&format!(".{method}(")) {
                served.insert(format!("{method} {path}"));
            }
        }
    }
    served
}

fn named(row: &principal::Row) -> String {
    format!("{} {}", row.method.as_str().to_lowercase(), row.path)
}

async fn body_of(answer: Response) -> (StatusCode, String) {
    let status = answer.status();
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

/// The answer to a request with this secret.
async fn ask(
    router: &mut Router,
    secret: &str,
    method: &str,
    path: &str,
    body: &str,
) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(AUTHORIZATION, format!("Bearer {secret}"));
    body_of(router.call(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap()).await
}

fn scope(cluster: &str, node: &str) -> NodeScope {
    NodeScope { cluster: cluster.parse().unwrap(), node: Some(node.parse().unwrap()) }
}

/// A token with these roles; those of nodes are of node `n` of cluster `c`.
fn token(app: &App, name: &str, roles: &[Role]) -> String {
    let of_nodes = roles.iter().any(|role| role.is_of_nodes()).then(|| scope("c", "n"));
    let asked = NewToken {
        name: name.parse().unwrap(),
        roles: roles.to_vec(),
        scope: of_nodes,
        lasts_seconds: None,
        from: Vec::new(),
    };
    let mut secret = [0; 32];
    secret.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    let created = crate::access::create(&app.access, asked, &Source::FirstToken, &secret, 0).unwrap();
    created.token.reveal().to_owned()
}

fn app() -> (App, Router) {
    let app = App::over(Parts::default().serve());
    let router = routes(Arc::clone(&app.server), Arc::clone(&app.access), None);
    (app, router)
}

#[test]
fn each_route_has_one_row_of_rights_and_no_other_has() {
    let rows: Vec<String> = TABLE.iter().map(named).collect();
    let unique: BTreeSet<String> = rows.iter().cloned().chain(OPEN.map(str::to_owned)).collect();

    assert_eq!(unique, served());
    assert_eq!(rows.len() + OPEN.len(), unique.len(), "a route has two rows");
}

/// A request that came past the check of credentials does nothing, whatever its route.
#[tokio::test]
async fn no_route_answers_a_request_without_a_caller() {
    let mut router = guarded().with_state(App::over(Parts::default().serve()));
    for row in TABLE {
        let request = Request::builder().method(row.method.clone()).uri(row.path);

        let answer = router.call(request.body(Body::empty()).unwrap()).await.unwrap();

        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR, "{row:?}");
    }
}

/// R1: each cell of the table, over HTTP. A route that a role has no right on answers like one that does not exist.
#[tokio::test]
async fn each_role_reaches_the_routes_of_its_column_and_no_other() {
    let (app, mut router) = app();
    let node = |rights| Kind::Node { scope: scope("c", "n"), rights };
    let callers = [
        ("monitor", vec![Role::Monitor], Kind::Monitor),
        ("push", vec![Role::NodePush], node(NodeRights::Push)),
        ("restore", vec![Role::NodeRestore], node(NodeRights::Restore)),
        ("both", vec![Role::NodePush, Role::NodeRestore], node(NodeRights::PushAndRestore)),
        ("operator", vec![Role::Operator], Kind::Operator),
        ("admin", vec![Role::Admin], Kind::Administrator),
    ];
    for (name, roles, kind) in callers {
        let secret = token(&app, name, &roles);
        let nowhere = ask(&mut router, &secret, "GET", "/v1/nowhere", "").await;
        assert_eq!(nowhere.0, StatusCode::NOT_FOUND);
        for row in TABLE {
            let path = row
                .path
                .replace("{session}", "01890a5d-ac96-774b-bcce-b302099a8057")
                .replace("{snapshot}", "01890a5d-ac96-774b-bcce-b302099a8057")
                .replace("{node}", "n")
                .replace("{token}", "none")
                .replace("{chunk}", "chunk:114c062e4fcce8b028088484850de36c6fac93446cbbea723523d5f1af40be15");

            let answer = ask(&mut router, &secret, row.method.as_str(), &path, "").await;

            assert_eq!(answer == nowhere, row.of(&kind) == Cell::No, "{name}: {row:?}: {answer:?}");
            assert_ne!(answer.0, StatusCode::UNAUTHORIZED, "{name}: {row:?}");
        }
    }
}

/// R1: a role with the right on both of two cells has the right of each.
#[test]
fn a_push_and_a_restore_together_have_the_rights_of_both() {
    let of = |row: &principal::Row, rights| row.of(&Kind::Node { scope: scope("c", "n"), rights });
    for row in TABLE {
        let [push, restore] = [NodeRights::Push, NodeRights::Restore].map(|rights| of(row, rights));
        let both = of(row, NodeRights::PushAndRestore);
        assert_eq!(both == Cell::No, push == Cell::No && restore == Cell::No, "{row:?}");
    }
}

/// R5: all refusals look alike, are counted, and close the connection.
#[tokio::test]
async fn a_refused_sign_in_does_not_tell_its_reason() {
    let (app, mut router) = app();
    let used = token(&app, "used", &[Role::Operator]);
    crate::access::revoke(&app.access, &"used".parse().unwrap()).unwrap();

    let mut answers = BTreeSet::new();
    for secret in ["", "t ", "tt", "wrong", &used] {
        let (status, body) = ask(&mut router, secret, "GET", "/v1/status", "").await;
        answers.insert((status.as_u16(), body));
    }
    let none = Request::builder().uri("/v1/nowhere").body(Body::empty()).unwrap();
    let (status, body) = body_of(router.call(none).await.unwrap()).await;
    answers.insert((status.as_u16(), body));

    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers.first().unwrap().0, 401);
    let counted = app.server.done().refused_sign_ins.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counted, 6);
}

/// R4: what weakens a protection needs an administrator, also on a route that an operator may use.
#[tokio::test]
async fn an_operator_weakens_no_protection() {
    let (app, mut router) = app();
    let (operator, admin) = (token(&app, "o", &[Role::Operator]), token(&app, "a", &[Role::Admin]));
    let requests = [
        ("/v1/gc", r#"{"delays":"skip"}"#),
        ("/v1/gc", r#"{"large":"allow"}"#),
        ("/v1/forget", r#"{"last_complete":"may_go"}"#),
        ("/v1/forget", r#"{"accept_clock":true}"#),
        ("/v1/audit", r#"{"repair":"yes"}"#),
        ("/v1/verify", r#"{"level":"index","accept_loss":true}"#),
    ];
    for (path, body) in requests {
        let (status, text) = ask(&mut router, &operator, "POST", path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path} {body} {text}");
        let refusal: ErrorBody = serde_json::from_str(&text).unwrap();
        assert_eq!(refusal.code, "forbidden");
        let (status, text) = ask(&mut router, &admin, "POST", path, body).await;
        assert_eq!(status, StatusCode::OK, "{path} {body} {text}");
    }
    for (path, body) in [("/v1/gc", "{}"), ("/v1/forget", "{}"), ("/v1/audit", "{}")] {
        let (status, text) = ask(&mut router, &operator, "POST", path, body).await;
        assert_eq!(status, StatusCode::OK, "{path} {text}");
    }
}

/// R1: a token that an administrator revokes opens nothing from the next request on.
#[tokio::test]
async fn tokens_are_made_listed_and_revoked_over_http() {
    let (_, mut router) = app();
    let asked = r#"{"name":"grafana","roles":["monitor"],"lasts_seconds":3600,"from":["10.0.0.0/8"]}"#;
    let (status, text) = ask(&mut router, "t", "POST", "/v1/tokens", asked).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let near: wire::TokenCreated = serde_json::from_str(&text).unwrap();
    let anywhere = r#"{"name":"zabbix","roles":["monitor"]}"#;
    let (_, text) = ask(&mut router, "t", "POST", "/v1/tokens", anywhere).await;
    let anywhere: wire::TokenCreated = serde_json::from_str(&text).unwrap();
    let mut status_of = async |secret: &str, address: &str| {
        let request = Request::builder().uri("/v1/status").header(AUTHORIZATION, format!("Bearer {secret}"));
        let peer = Peer { address: address.parse().unwrap(), certificate: None };
        let request = request.extension(peer).body(Body::empty()).unwrap();
        router.call(request).await.unwrap().status().as_u16()
    };
    assert_eq!(status_of(near.token.reveal(), "10.1.2.3:40000").await, 200);
    assert_eq!(status_of(near.token.reveal(), "11.1.2.3:40000").await, 401);
    assert_eq!(status_of(anywhere.token.reveal(), "11.1.2.3:40000").await, 200);

    let (_, text) = ask(&mut router, "t", "GET", "/v1/tokens", "").await;
    let listed: wire::Tokens = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = listed.tokens.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["grafana", "zabbix"]);
    assert!(listed.tokens.iter().all(|token| token.last_used.is_some()));
    assert!(!text.contains(near.token.reveal()) && !text.contains(anywhere.token.reveal()));

    let revoked = ask(&mut router, "t", "DELETE", "/v1/tokens/zabbix", "").await;
    assert_eq!(revoked.0, StatusCode::NO_CONTENT);
    let after = ask(&mut router, anywhere.token.reveal(), "GET", "/v1/status", "").await;
    assert_eq!(after.0, StatusCode::UNAUTHORIZED);
}

/// A repository with a snapshot of node `n` and one of node `m`, and tokens `n` and `m` of these two.
struct TwoNodes {
    world: World,
    router: Router,
    /// The snapshot of each node, and the id of its one page.
    n: (SnapshotId, ChunkId),
    m: (SnapshotId, ChunkId),
    tokens: [String; 2],
}

fn pushed(world: &World, node: &str) -> (SnapshotId, ChunkId) {
    let content = tree(&[&format!("content of {node}")]);
    let client = world.begin(node);
    for chunk in content.values().flatten() {
        world.send(&client, BlobKind::Chunk, chunk).unwrap();
    }
    let bytes = world.page(&content);
    let page = world.send(&client, BlobKind::Page, &bytes).unwrap();
    (world.commit(&client, &[(page, bytes.len())]).unwrap(), page)
}

fn two_nodes() -> TwoNodes {
    let world = World::new();
    let (n, m) = (pushed(&world, "n"), pushed(&world, "m"));
    let app = App::over(Arc::clone(&world.server));
    let both = [Role::NodePush, Role::NodeRestore];
    let tokens = ["n", "m"].map(|node| {
        let asked = NewToken {
            name: node.parse().unwrap(),
            roles: both.to_vec(),
            scope: Some(scope("c", node)),
            lasts_seconds: None,
            from: Vec::new(),
        };
        let secret = [node.as_bytes()[0]; 32];
        let created = crate::access::create(&app.access, asked, &Source::FirstToken, &secret, 0).unwrap();
        created.token.reveal().to_owned()
    });
    let router = routes(Arc::clone(&app.server), Arc::clone(&app.access), None);
    TwoNodes { world, router, n, m, tokens }
}

impl TwoNodes {
    fn ask(&mut self, secret: &str, method: &str, path: &str, body: &[u8]) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(AUTHORIZATION, format!("Bearer {secret}"));
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let answers = self.router.call(request);
        self.world.wait(async { body_of(answers.await.unwrap()).await })
    }
}

/// R2: a snapshot of another node answers byte for byte like one that does not exist.
#[test]
fn a_snapshot_of_another_node_is_as_if_it_were_not_there() {
    let mut nodes = two_nodes();
    let (own, foreign) = (nodes.n.0.to_string(), nodes.m.0.to_string());
    let none = "01890a5d-ac96-774b-bcce-b302099a8057";
    let [token, _] = nodes.tokens.clone();
    let ids = wire::encode_ids(&[nodes.n.1]);
    let requests: [(&str, &str, &[u8]); 5] = [
        ("GET", "/v1/snapshots/{id}", b""),
        ("GET", "/v1/snapshots/{id}/key", b""),
        ("GET", "/v1/snapshots/{id}/manifests/n", b""),
        ("GET", "/v1/snapshots/{id}/problems?node=n", b""),
        ("POST", "/v1/snapshots/{id}/blobs", &ids),
    ];
    for (method, path, body) in requests {
        let mut answer = |id: &str| {
            let (status, text) = nodes.ask(&token, method, &path.replace("{id}", id), body);
            (status, text.replace(id, "ID"))
        };
        let (there, missing, foreign) = (answer(&own), answer(none), answer(&foreign));
        assert_eq!(there.0, StatusCode::OK, "{path}");
        assert_eq!(missing.0, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(foreign, missing, "{path}");
    }
    let answer = |nodes: &mut TwoNodes, node: &str| {
        let (status, text) = nodes.ask(&token, "GET", &format!("/v1/snapshots/{own}/manifests/{node}"), b"");
        (status, text.replace(&format!("`{node}`"), "NODE"))
    };
    assert_eq!(answer(&mut nodes, "m"), answer(&mut nodes, "nobody"));
    let (_, listed) = nodes.ask(&token, "GET", "/v1/snapshots", b"");
    let listed: wire::SnapshotList = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.snapshots.iter().map(|info| info.id).collect::<Vec<_>>(), [nodes.n.0]);
}

/// R2: a snapshot of several nodes shows a node its own share alone.
#[test]
fn a_snapshot_of_several_nodes_shows_the_own_share() {
    let nodes = two_nodes();
    let [n, m] = [nodes.n.0, nodes.m.0].map(|id| crate::snapshot::get(&nodes.world.store, id).unwrap());
    let mut joint = n.clone();
    joint.manifests.extend(m.manifests);
    let caller = |scope| Principal {
        kind: Kind::Node { scope, rights: NodeRights::Restore },
        source: Source::FirstToken,
    };

    assert_eq!(caller(scope("c", "n")).part_of(joint.clone()).unwrap(), n);
    assert_eq!(caller(scope("c", "other")).part_of(joint.clone()), None);
    assert_eq!(caller(scope("d", "n")).part_of(joint.clone()), None);
    let of_cluster = NodeScope { cluster: "c".parse().unwrap(), node: None };
    assert_eq!(caller(of_cluster).part_of(joint.clone()).unwrap(), joint);
}

/// R3: pages of other nodes are not read through a snapshot of one's own.
#[test]
fn a_node_reads_no_page_that_its_own_manifest_does_not_name() {
    let mut nodes = two_nodes();
    let (path, [token, _]) = (format!("/v1/snapshots/{}/blobs", nodes.n.0), nodes.tokens.clone());
    let (own, foreign, none) = (nodes.n.1, nodes.m.1, ChunkId::from_bytes([9; 32]));
    let mut read = |token: &str, id: ChunkId| {
        let (status, text) = nodes.ask(token, "POST", &path, &wire::encode_ids(&[id]));
        (status, text.replace(&id.to_string(), "ID"))
    };

    assert_eq!(read(&token, own).0, StatusCode::OK);
    assert_eq!(read(&token, own).0, StatusCode::OK, "from memory");
    assert_eq!(read(&token, foreign), read(&token, none));
    assert_eq!(read(&token, foreign).0, StatusCode::NOT_FOUND);
    assert_eq!(read("t", foreign).0, StatusCode::OK, "an administrator reads all of the domain");
}

/// R2, L2: a session of another node answers like one that never was, and stays as it is.
#[test]
fn a_session_of_another_node_is_as_if_it_were_not_there() {
    let mut nodes = two_nodes();
    let [token, other] = nodes.tokens.clone();
    let (open, done) = (nodes.world.begin("m"), nodes.world.begin("m"));
    nodes.world.commit(&done, &[]).unwrap();
    let none = "01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
    let manifest = nodes.world.manifest(&done, &[]);
    for call in ["renew", "have", "blobs", "commit"] {
        let mut answer = |token: &str, id: &str| {
            let body: &[u8] = if call == "commit" { &manifest } else { b"" };
            let (status, text) = nodes.ask(token, "POST", &format!("/v1/sessions/{id}/{call}"), body);
            (status, text.replace(id, "ID"))
        };
        let missing = answer(&token, &none);
        assert_eq!(missing.0, StatusCode::CONFLICT, "{call}");
        assert_eq!(answer(&token, &open.id.to_string()), missing, "{call}");
        assert_eq!(answer(&token, &done.id.to_string()), missing, "{call}");
        if call == "commit" {
            assert_eq!(answer(&other, &done.id.to_string()).0, StatusCode::OK, "its owner asks again");
        }
    }
    let ended = nodes.ask(&token, "DELETE", &format!("/v1/sessions/{}", open.id), b"");
    assert_eq!(ended, nodes.ask(&token, "DELETE", &format!("/v1/sessions/{none}"), b""));
    assert!(session::renew(&nodes.world.server.sessions, open.id).is_ok(), "it is still open");
}

/// R2: a node opens sessions for itself, adopts its own, and builds on its own manifests.
#[test]
fn a_node_pushes_for_itself_alone() {
    let mut nodes = two_nodes();
    let [token, _] = nodes.tokens.clone();
    let manifest_of =
        |nodes: &TwoNodes, id| crate::snapshot::get(&nodes.world.store, id).unwrap().manifests[0].id;
    let (own, foreign) = (manifest_of(&nodes, nodes.n.0), manifest_of(&nodes, nodes.m.0));
    let mut open = |cluster: &str, node: &str, base: format_spec::ManifestId| {
        let body = serde_json::json!({"cluster": cluster, "node": node, "base": base}).to_string();
        nodes.ask(&token, "POST", "/v1/sessions", body.as_bytes())
    };
    let refusal = |(status, text): (StatusCode, String), cluster: &str, node: &str| {
        (status, text.replace(&format!("`{cluster}`"), "CLUSTER").replace(&format!("`{node}`"), "NODE"))
    };

    let there = refusal(open("c", "m", own), "c", "m");
    assert_eq!(there.0, StatusCode::FORBIDDEN);
    assert_eq!(refusal(open("elsewhere", "n", own), "elsewhere", "n"), there);
    assert_eq!(refusal(open("c", "nobody", own), "c", "nobody"), there);
    let mut base = |id| serde_json::from_str::<wire::SessionOpened>(&open("c", "n", id).1).unwrap().base;
    assert_eq!([base(own), base(foreign)], [wire::BaseState::Pinned, wire::BaseState::Unknown]);
}

#[test]
fn the_documentation_has_each_route_and_no_other() {
    let document: serde_json::Value =
        serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        documented.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }

    assert_eq!(served(), documented);
    assert!(documented.len() > 30, "{documented:?}");
}
