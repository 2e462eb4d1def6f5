//! How much is left to do, published in CloudWatch: read back with boto3 from moto. And its
//! outages, which nothing waits for.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::bucket::Bucket;
use crate::support::external::{External, free_port, moto};
use crate::support::program::{Daemon, User};
use crate::support::server::{Embedded, Fault, Reach};
use crate::support::tree::Tree;
use crate::support::{tools, wait_for};

/// Prints all values of a metric in the order of time, once the last is the one waited for.
const READ: &str = r#"
import boto3, datetime, json, sys, time
endpoint, namespace, metric, wanted = sys.argv[1:]
client = boto3.client("cloudwatch", endpoint_url=endpoint, region_name="us-east-1",
                      aws_access_key_id="moto", aws_secret_access_key="moto")
now, hour = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(hours=1)
for attempt in range(600):
    points = client.get_metric_statistics(
        Namespace=namespace, MetricName=metric, StartTime=now - hour, EndTime=now + hour,
        Period=1, Statistics=["Maximum", "Minimum", "SampleCount"], Unit="Count")["Datapoints"]
    values = []
    for point in sorted(points, key=lambda point: point["Timestamp"]):
        values.append(int(point["Maximum"]))
        if point["SampleCount"] > 1:
            values.append(int(point["Minimum"]))
    if wanted == "" or [int(wanted)] == values[-1:]:
        break
    time.sleep(0.1)
print(json.dumps(values))
"#;

fn read(moto: &External, namespace: &str, metric: &str, wanted: &str) -> Vec<u64> {
    let python = tools::python_tool("python");
    let args = ["-c", READ, &moto.reach.endpoint, namespace, metric, wanted];
    let output = Command::new(python).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Values of a metric so far.
fn values(moto: &External, namespace: &str, metric: &str) -> Vec<u64> {
    read(moto, namespace, metric, "")
}

/// Waits until so many objects were said to be left.
fn left(moto: &External, namespace: &str, wanted: u64) -> Vec<u64> {
    let values = read(moto, namespace, "ObjectsToBackup", &wanted.to_string());
    assert_eq!(values.last(), Some(&wanted), "{values:?}");
    values
}

/// Everything is done, and 0 was the last word.
fn fell_to_0(values: &[u64]) {
    // Before it is known what is to do, nothing is.
    let begun = values.iter().position(|left| *left > 0).unwrap_or(values.len());
    let values = &values[begun..];
    assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
    assert_eq!(values.last(), Some(&0), "{values:?}");
}

fn configure(user: &User, text: &str) {
    let folder = user.home.path().join(".config/keepwatch");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("keepwatch.toml"), text).unwrap();
}

fn table(namespace: &str) -> String {
    format!("[cloudwatch]\nnamespace = \"{namespace}\"\nevery = \"1s\"\n")
}

/// Whose S3 is the embedded store, and whose CloudWatch is somewhere else.
fn user_of(reach: &Reach, cloudwatch: &str) -> User {
    User::of(reach).with_variable("AWS_ENDPOINT_URL_CLOUDWATCH", cloudwatch)
}

/// Holds requests for twelve objects back: four pass, four at each of two signs. A thirteenth is
/// refused.
struct Gates([Arc<AtomicBool>; 2]);

impl Gates {
    fn of(server: &Embedded, method: &'static str) -> Self {
        let gates: [Arc<AtomicBool>; 2] = Default::default();
        let held = gates.clone();
        server.rule(move |seen| {
            let name = seen.path.rsplit('/').next().unwrap_or_default();
            match name.parse::<usize>() {
                _ if seen.method != method => Fault::Pass,
                Ok(0..4) | Err(_) => Fault::Pass,
                Ok(4..8) => Fault::Until(held[0].clone()),
                Ok(8..12) => Fault::Until(held[1].clone()),
                Ok(_) => Fault::Error(403, "AccessDenied"),
            }
        });
        Self(gates)
    }

    /// Lets four more pass each time that this is what is left.
    fn open(&self, moto: &External, namespace: &str) {
        for (gate, number) in self.0.iter().zip([8, 4]) {
            left(moto, namespace, number);
            gate.store(true, Ordering::Relaxed);
        }
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:02}")).collect()
}

/// Runs a command whose requests are held back; what is left falls, and is 0 at the end.
fn falls(
    server: &Embedded,
    moto: &External,
    user: &User,
    namespace: &str,
    method: &'static str,
    args: &[&str],
) -> i32 {
    configure(user, &table(namespace));
    let gates = Gates::of(server, method);
    let running = user.spawn(user.command(args));
    gates.open(moto, namespace);
    let log = running.log();
    let code = running.wait();
    server.no_rule();
    let values = values(moto, namespace, "ObjectsToBackup");
    fell_to_0(&values);
    assert!(values.contains(&8) && values.contains(&4), "{values:?}: {log}");
    code
}

#[test]
fn what_is_left_of_a_mirror_and_of_restores_falls_to_0() {
    let (server, moto) = (Embedded::start(), moto());
    let user = user_of(&server.reach, &moto.reach.endpoint);
    let source = Bucket::create(&server.reach, "source");
    Bucket::create(&server.reach, "copies");
    Bucket::create(&server.reach, "again");
    names(13).iter().for_each(|name| source.put(&format!("k/{name}"), name.as_bytes()));

    let mirror = ["mirror", "s3://source", "s3://copies"];
    assert_eq!(falls(&server, &moto, &user, "test/mirror", "PUT", &mirror), 1);
    let failures = values(&moto, "test/mirror", "Failures");
    assert_eq!(failures.last(), Some(&1), "{failures:?}");
    assert_eq!(user.run(&["mirror", "s3://source", "s3://copies", "--json"]).number("copied"), 1);

    source.delete("k/12");
    let back = ["restore", "s3://source/k", "s3://again"];
    assert_eq!(falls(&server, &moto, &user, "test/back", "PUT", &back), 0);
    let target = user.home.path().join("back");
    let restore = ["restore", "s3://source", target.to_str().unwrap()];
    assert_eq!(falls(&server, &moto, &user, "test/restore", "GET", &restore), 0);
    assert_eq!(values(&moto, "test/restore", "Failures").last(), Some(&0));
    assert_eq!(std::fs::read(target.join("k/11")).unwrap(), b"11");
}

#[test]
fn what_is_left_of_a_sync_and_of_a_daemon_falls_to_0() {
    let (server, moto) = (Embedded::start(), moto());
    let user = user_of(&server.reach, &moto.reach.endpoint);
    let bucket = Bucket::create(&server.reach, "bucket");
    let tree = Tree::new(&[]);
    names(12).iter().for_each(|name| tree.write(name, name.as_bytes()));
    let source = tree.folder.path().to_str().unwrap();
    let sync = ["sync", source, "s3://bucket/once"];
    assert_eq!(falls(&server, &moto, &user, "test/sync", "PUT", &sync), 0);

    let backup = |namespace: &str| {
        let entry = format!(
            "[[backup]]\nname = \"b\"\nsource = \"{source}\"\ndestination = \"s3://bucket/kept\"\n\
             settle = \"100ms\"\n"
        );
        configure(&user, &(entry + &table(namespace)));
    };
    backup("test/daemon");
    let gates = Gates::of(&server, "PUT");
    let daemon = user.watch(&[]);
    gates.open(&moto, "test/daemon");
    daemon.flush();
    fell_to_0(&left(&moto, "test/daemon", 0));

    // The file says otherwise now.
    backup("test/reloaded");
    daemon.signal("HUP");
    left(&moto, "test/reloaded", 0);
    let before = values(&moto, "test/daemon", "ObjectsToBackup").len();
    server.rule(|seen| match seen.path.contains("new") {
        true => Fault::Error(500, "InternalError"),
        false => Fault::Pass,
    });
    tree.write("new", b"new");
    left(&moto, "test/reloaded", 1);
    assert_eq!(daemon.stop(), 0);
    let values_of = |namespace: &str| values(&moto, namespace, "ObjectsToBackup");
    assert_eq!(values_of("test/reloaded").last(), Some(&0), "its last word");
    assert_eq!(values_of("test/daemon").len(), before);
    assert_eq!(bucket.get("kept/11").unwrap().body, b"11");
}

#[test]
fn endpoints_are_found_as_the_aws_cli_finds_them() {
    let moto = moto();
    let bucket = Bucket::create(&moto.reach, "bucket");
    let tree = Tree::new(&[("a", b"a")]);
    let source = tree.folder.path().to_str().unwrap();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let sync = |user: &User, text: &str| {
        configure(user, text);
        let said = user.run(&["sync", source, "s3://bucket/x"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.stderr
    };
    // `AWS_ENDPOINT_URL` is that of moto for all services.
    let user = User::of(&moto.reach);
    sync(&user, &table("all"));
    assert_eq!(values(&moto, "all", "ObjectsToBackup"), [0]);
    sync(&user, "[cloudwatch]\nevery = \"1s\"\n");
    // Its own variable is stronger, and the table is the strongest.
    let user = user.with_variable("AWS_ENDPOINT_URL_CLOUDWATCH", &nowhere);
    let said = sync(&user, &table("own"));
    assert!(said.contains(&format!("cannot publish metrics at {nowhere}")), "{said}");
    assert_eq!(values(&moto, "own", "ObjectsToBackup"), [0_u64; 0]);
    let endpoint = &moto.reach.endpoint;
    sync(&user, &format!("{}endpoint_url = \"{endpoint}\"\n", table("set")));
    assert_eq!(values(&moto, "set", "ObjectsToBackup"), [0]);
    let said = user.run(&["sync", source, "s3://bucket/x", "--dry-run"]);
    assert_eq!((said.code, values(&moto, "set", "Failures").len()), (0, 1), "{said:?}");
    // An exposed file of keys is not used, and the work is done all the same.
    let keys = user.home.path().join("keys");
    std::fs::write(&keys, "[default]\naws_secret_access_key = x\n").unwrap();
    let exposed = format!("{}credentials_file = \"{}\"\n", table("set"), keys.display());
    tree.write("b", b"b");
    assert!(sync(&user, &exposed).contains("no metrics are published: others can read"));
    assert!(bucket.get("x/b").is_some());
    // One without keys is told of as such.
    crate::support::write_secret(&keys, "[other]\n");
    assert!(sync(&user, &exposed).contains("check the credentials"));
    // A run that comes to nothing is a failure.
    configure(&user, &format!("{}endpoint_url = \"{endpoint}\"\n", table("nothing")));
    let said = user.run(&["sync", source, "s3://no-such-bucket"]);
    assert_eq!((said.code, values(&moto, "nothing", "Failures")), (4, vec![1]), "{said:?}");
}

/// A backup of twenty files while CloudWatch is away. `meanwhile` is asked while the last file is
/// held back.
fn backs_up_all_the_same(cloudwatch: &str, meanwhile: &dyn Fn(&Daemon<'_>) -> bool) -> String {
    let server = Embedded::start();
    let user = user_of(&server.reach, cloudwatch);
    let bucket = Bucket::create(&server.reach, "bucket");
    let tree = Tree::new(&[]);
    names(20).iter().for_each(|name| tree.write(name, name.as_bytes()));
    configure(&user, &table("away"));
    let gate: Arc<AtomicBool> = Arc::default();
    let held = gate.clone();
    server.rule(move |seen| match seen.path.ends_with("/19") && seen.method == "PUT" {
        true => Fault::Until(held.clone()),
        false => Fault::Pass,
    });
    let source = tree.folder.path().to_str().unwrap();
    let running = user.spawn(user.command(&["sync", source, "s3://bucket/x"]));
    wait_for("all files but one to be there, and CloudWatch to be asked", || {
        bucket.listed().len() == 19 && meanwhile(&running)
    });
    gate.store(true, Ordering::Relaxed);
    wait_for("the last file", || bucket.get("x/19").is_some());
    let log = user.home.path().join("daemon.log");
    assert_eq!(running.wait(), 0);
    std::fs::read_to_string(log).unwrap()
}

#[test]
fn an_outage_is_told_and_nothing_waits_for_it() {
    let closed = format!("http://127.0.0.1:{}", free_port());
    let warning = format!("cannot publish metrics at {closed}");
    let log = backs_up_all_the_same(&closed, &|running| running.log().contains(&warning));
    assert_eq!(log.matches("WARN").count(), 2, "told once, and then counted: {log}");
    assert!(log.contains("times more)") && log.contains("the work goes on"), "{log}");

    // One that never answers: the files are there while the first request still waits.
    let (hanging, asked) = (Embedded::start(), Arc::new(AtomicUsize::new(0)));
    let counted = asked.clone();
    hanging.rule(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Fault::Hang
    });
    let endpoint = hanging.reach.endpoint.clone();
    let log = backs_up_all_the_same(&endpoint, &|_| asked.load(Ordering::Relaxed) > 0);
    assert_eq!(asked.load(Ordering::Relaxed), 2, "that, and the last word");
    assert!(log.contains("the last metrics were not published"), "{log}");
    assert!(!log.contains("no answer within"), "the first was not waited for: {log}");
}

#[test]
fn what_is_no_cloudwatch_is_told_from_one_that_refuses() {
    let (server, other) = (Embedded::start(), Embedded::start());
    Bucket::create(&server.reach, "bucket");
    let tree = Tree::new(&[("a", b"a")]);
    let user = user_of(&server.reach, &other.reach.endpoint);
    configure(&user, &table("x"));
    for (fault, words) in [
        (Fault::Html(404), "is that CloudWatch?"),
        (Fault::Error(403, "AccessDenied"), "allow cloudwatch:PutMetricData"),
    ] {
        other.rule(move |_| fault.clone());
        let said = user.run(&["sync", tree.folder.path().to_str().unwrap(), "s3://bucket/x"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
}

#[test]
fn the_tables_are_shown() {
    let user = User::new();
    let entry = "[[mirror]]\nname = \"m\"\nsource = \"s3://aaa\"\ndestination = \"s3://bbb\"\n";
    let status = "[status]\nlisten = \"127.0.0.1:8385\"\n";
    configure(&user, &format!("{entry}{status}{}region = \"eu-west-1\"\n", table("a b")));
    let shown = user.run(&["config", "show", "--profile", "p"]).stdout;
    let tables = "[status]\nlisten = \"127.0.0.1:8385\"\n\n[cloudwatch]\nnamespace = \"a b\"\n\
                  every = \"1s\"\nregion = \"eu-west-1\"\nprofile = \"p\"\n";
    assert!(shown.contains(tables), "{shown}");
    let json = user.run(&["config", "show", "--json"]).json();
    assert_eq!(json["status"]["listen"], "127.0.0.1:8385");
    assert_eq!(json["cloudwatch"]["namespace"], "a b");
    // What holds is a file that says the same.
    configure(&user, &shown);
    assert_eq!(user.run(&["config", "show"]).stdout, shown);
    configure(&user, entry);
    assert!(!user.run(&["config", "show"]).stdout.contains("[cloudwatch]"));
}
