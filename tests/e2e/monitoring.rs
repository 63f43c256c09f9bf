//! Prometheus reads the figures of a server, and the rules in `docs/monitoring` are such as it takes.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tests::client::run_to_end;
use tests::gear;
use tests::wait;
use tests::world::World;

fn documented(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring").join(name)
}

fn promtool(words: &[&str], file: &Path) -> Command {
    let mut command = Command::new("promtool");
    command.args(words).arg(file);
    command
}

#[test]
fn the_rules_in_the_documentation_are_taken_and_fire_as_they_should() {
    if !gear::has("promtool") {
        return;
    }
    run_to_end(promtool(&["check", "rules"], &documented("astacus.rules.yml"))).exits(0);
    run_to_end(promtool(&["test", "rules"], &documented("astacus.rules.test.yml"))).exits(0);
    // The file with the token need not be there.
    run_to_end(promtool(&["check", "config", "--syntax-only"], &documented("prometheus.yml"))).exits(0);
}

/// Every name in the documentation is told by the server, and the other way round.
#[test]
fn every_figure_is_documented_and_such_as_prometheus_takes() {
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("file"), "content").unwrap();
    world.node("n").push(&root);
    let answer = world.wire().send("GET", "/metrics", b"");
    let figures = String::from_utf8(answer.body).unwrap();

    let page = fs::read_to_string(documented("README.md")).unwrap();
    let documented: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let told: Vec<&str> =
        figures.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let lacks = |all: &[&str], of: &[&str]| {
        all.iter().filter(|name| !of.contains(name)).map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!((lacks(&told, &documented), lacks(&documented, &told)), (Vec::new(), Vec::new()));

    if gear::has("promtool") {
        let file = world.path("figures");
        fs::write(&file, &figures).unwrap();
        let mut check = Command::new("sh");
        check.args(["-c", "promtool check metrics < \"$0\" 2>&1"]).arg(&file);
        let checked = run_to_end(check).exits(0);
        assert_eq!(checked.stdout, "", "{figures}");
    }
}

/// A Prometheus of our own, which is killed when it is dropped.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Starts one that scrapes `target` ten times a second, as the documented configuration says otherwise.
    fn start(folder: &Path, target: &str, token_file: &Path) -> Self {
        let config = fs::read_to_string(documented("prometheus.yml")).unwrap();
        let config = config
            .replace("127.0.0.1:5515", target)
            .replace("/etc/prometheus/astacus.token", token_file.to_str().unwrap())
            .replace("astacus.rules.yml", documented("astacus.rules.yml").to_str().unwrap())
            .replace("scrape_interval: 1m", "scrape_interval: 100ms");
        fs::write(folder.join("prometheus.yml"), config).unwrap();
        // It takes no port of the kernel's choice and tells it: so one that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), port }
    }

    /// Value of a query, once the answer has one.
    fn value(&self, question: &str) -> Value {
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            let request = format!("GET /api/v1/query?query={question} HTTP/1.0\r\n\r\n");
            stream.write_all(request.as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            let (_, body) = answer.split_once("\r\n\r\n")?;
            let document: Value = serde_json::from_str(body).ok()?;
            document["data"]["result"].get(0).cloned()
        };
        wait::for_state(question, ask)
    }
}

#[test]
fn a_real_prometheus_scrapes_the_figures_of_a_push() {
    if !gear::has("prometheus") {
        return;
    }
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("file"), "content").unwrap();
    world.node("n").push(&root);

    let token = world.server.token_file();
    let prometheus = Prometheus::start(&world.dir("prometheus"), world.server.host(), &token);

    let found = prometheus.value("astacus_series_snapshots");
    assert_eq!(found["metric"]["cluster"], "c", "{found}");
    assert_eq!(found["metric"]["series"], root.to_str().unwrap(), "{found}");
    assert_eq!(found["value"][1], "1", "{found}");
    assert_eq!(prometheus.value("up")["value"][1], "1");
}
