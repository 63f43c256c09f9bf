//! `docs/openapi.json` tells what the server answers.

use std::fs;

use serde_json::{Value, json};
use tests::client::text;
use tests::http::Answer;
use tests::schema::OpenApi;
use tests::world::World;

/// One request, by the path of the documentation and what stands for its names.
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    names: &'a [(&'a str, &'a str)],
    query: &'a str,
    body: Value,
}

/// Sends it, and compares each document of the answer with the documentation.
#[track_caller]
fn check(world: &World, api: &OpenApi, asked: &Asked<'_>) -> Answer {
    let Asked { method, path, names, query, body } = asked;
    let real = names.iter().fold((*path).to_owned(), |real, (name, value)| real.replace(name, value));
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    let answer = world.wire().send(method, &format!("{real}{query}"), &body);
    let text = String::from_utf8(answer.body.clone()).unwrap();
    for line in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let line = line.unwrap();
        let wrong = api.misfits(path, &method.to_lowercase(), &answer.status.to_string(), &line);
        assert!(wrong.is_empty(), "{method} {path}: {wrong:#?} in {line:#}");
    }
    assert!(!text.is_empty(), "{method} {path} answered {} and nothing", answer.status);
    answer
}

#[test]
fn the_answers_of_a_server_fit_the_documentation() {
    let api = OpenApi::documented();
    let world = World::with_config("[gc]\nevery_minutes = 0\n");
    let (node, root) = (world.node("n"), world.dir("source"));
    fs::write(root.join("file"), "content").unwrap();
    node.push(&root);
    fs::remove_file(root.join("file")).unwrap();
    node.start_push(&root).wait().exits(3);
    let snapshot = text(&world.node("n").snapshots()[0], "id");
    let ask = |method: &str, path: &str, query: &str, body: Value| {
        let names = [("{snapshot}", snapshot.as_str())];
        let answer = check(&world, &api, &Asked { method, path, names: &names, query, body });
        assert_eq!(answer.status, 200, "{method} {path}");
    };

    ask("POST", "/v1/sessions", "", json!({"cluster": "c", "node": "m"}));
    for path in [
        "/v1/sessions",
        "/v1/snapshots",
        "/v1/snapshots/{snapshot}",
        "/v1/snapshots/{snapshot}/key",
        "/v1/snapshots/{snapshot}/detail",
        "/v1/stats",
        "/v1/status",
        "/v1/alarms",
        "/v1/freshness",
    ] {
        ask("GET", path, "", Value::Null);
    }
    ask("GET", "/v1/snapshots/{snapshot}/problems", "?node=n", Value::Null);
    ask("PUT", "/v1/snapshots/{snapshot}/protection", "", json!({"reason": "audit"}));
    ask("DELETE", "/v1/snapshots/{snapshot}/protection", "", Value::Null);
    ask("POST", "/v1/forget", "", json!({"mode": "plan", "policy": {"keep_last": 1}}));
    ask("POST", "/v1/gc", "", json!({"mode": "apply"}));
    ask("POST", "/v1/verify", "", json!({"level": "read"}));
    ask("POST", "/v1/audit", "", json!({}));
    ask("PUT", "/v1/freshness", "", json!({"cluster": "c", "node": "x", "expect": {"max_age_seconds": 9}}));
    let scope = json!({"cluster": "c", "node": "n"});
    let token =
        json!({"name": "t", "roles": ["node-push"], "scope": scope, "lasts_seconds": 60, "from": ["::1"]});
    ask("POST", "/v1/tokens", "", token);
    ask("GET", "/v1/tokens", "", Value::Null);
    ask("POST", "/v1/alarms/acknowledge", "", json!({"code": "overdue", "reason": "a test"}));

    let none = Asked {
        method: "GET",
        path: "/v1/snapshots/{snapshot}",
        names: &[("{snapshot}", "01890a5d-ac96-774b-bcce-b302099a8057")],
        query: "",
        body: Value::Null,
    };
    assert_eq!(check(&world, &api, &none).status, 404);
}
