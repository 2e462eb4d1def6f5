//! The configuration: what is read, what is refused, and that the words agree everywhere.

use std::path::Path;

use super::*;
use crate::plan::{Deletions, MaxDelete};

const HOME: Option<&str> = Some("/home/me");

fn load(text: &str) -> Result<Vec<BackupConfig>, Faults> {
    let file = read("keepwatch.toml", text)?;
    resolve(&file, &BackupOptions::default(), Defaults::DAEMON, HOME.map(Path::new))
}

fn faults(text: &str) -> Vec<String> {
    load(text).unwrap_err().faults.into_iter().map(|fault| fault.title).collect()
}

#[test]
fn the_example_loads() {
    let backups = load(EXAMPLE).unwrap();
    assert_eq!(backups.len(), 3);
    assert_eq!(backups[0].source, Path::new("/home/me/Documents"));
    assert_eq!(backups[0].exclude, ["*.tmp", "~$*", ".DS_Store"]);
    assert_eq!(backups[1].deletions, Deletions::Keep);
    assert_eq!(backups[0].max_delete, MaxDelete::Percent(25));
}

#[test]
fn the_example_shows_every_option_with_its_default() {
    // Every commented value is accepted when the comment sign is taken away.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && rest.contains(" = ") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let file = read("keepwatch.toml", &uncommented).unwrap();
    let set: Vec<&str> = file.defaults.shown().into_iter().map(|(name, _)| name).collect();
    assert_eq!(set, BackupOptions::NAMES, "the example names every option");
    load(&uncommented).unwrap();
    let shown = file.mirrors[0].options.shown();
    let mut set: Vec<&str> = shown.into_iter().map(|(name, _)| name).collect();
    let mut all = MirrorOptions::NAMES.to_vec();
    set.sort_unstable();
    all.sort_unstable();
    assert_eq!(set, all, "and every option of a mirror");
}

#[test]
fn mirrors_are_settled_with_defaults_of_their_own() {
    let text = "deletions = \"delete\"\n[[mirror]]\nname = \"m\"\nsource = \"s3://a-bucket/x\"\n\
        destination = \"b-bucket::y\"\nprocesses = 4\nthreads = 10\nprofile = \"p\"\n\
        source_profile = \"q\"\nendpoint_url = \"http://one\"\n";
    let file = read("keepwatch.toml", text).unwrap();
    let mirror = resolve_mirrors(&file, &MirrorOptions::default(), None).unwrap().remove(0);
    assert_eq!(mirror.deletions, Deletions::Tag, "the top level is for backups");
    assert_eq!((mirror.transfers, mirror.every), (40, units::Span::secs(21_600)));
    let flags = MirrorOptions { transfers: Some(units::Transfers(2)), ..Default::default() };
    assert_eq!(resolve_mirrors(&file, &flags, None).unwrap()[0].transfers, 2, "what is typed");
    let profiles = [&mirror.source, &mirror.destination].map(|side| side.profile.clone().unwrap());
    assert_eq!(profiles, ["q", "p"]);
    assert_eq!(mirror.source.endpoint_url, mirror.destination.endpoint_url);
    assert_eq!(mirror.destination.place.to_string(), "s3://b-bucket/y/");
}

#[test]
fn the_schema_knows_the_same_options() {
    let schema = schema();
    let names = |properties: &serde_json::Value| -> Vec<String> {
        properties.as_object().unwrap().keys().cloned().collect()
    };
    let mut expected: Vec<String> = BackupOptions::NAMES.iter().map(|n| (*n).to_owned()).collect();
    expected.extend(["backup", "mirror", "status", "cloudwatch"].map(str::to_owned));
    expected.sort();
    let mut top = names(&schema["properties"]);
    top.sort();
    assert_eq!(top, expected);
    let either = serde_json::json!([{ "required": ["backup"] }, { "required": ["mirror"] }]);
    assert_eq!((&schema["anyOf"], &schema["required"]), (&either, &serde_json::Value::Null));
}

#[test]
fn metrics_are_for_this_machine() {
    let listen = |text: &str| {
        let backup = "[[backup]]\nname = \"a\"\nsource = \"/a\"\ndestination = \"s3://bucket/c\"\n";
        let file = read("x", &format!("{backup}[status]\nlisten = \"{text}\"\n")).unwrap();
        let faults = resolve(&file, &BackupOptions::default(), Defaults::DAEMON, None).err();
        let help = faults.and_then(|faults| faults.faults[0].help.clone());
        (file.status.listen.map(|listen| listen.0.to_string()), help)
    };
    for own in ["127.0.0.1:8385", "[::1]:80", "127.9.9.9:1"] {
        assert_eq!(listen(own), (Some(own.to_owned()), None));
    }
    for (other, word) in [("0.0.0.0:1", "proxy"), ("[::]:1", "proxy"), ("10.0.0.1:1", "proxy")] {
        assert!(listen(other).1.unwrap().contains(word), "{other}");
    }
    for none in ["8385", "localhost:8385", "127.0.0.1", "127.0.0.1:0", ""] {
        assert!(listen(none).1.unwrap().contains("as 127.0.0.1:8385"), "{none}");
    }
    assert_eq!(listen("127.0.0.1:8385").0.unwrap(), "127.0.0.1:8385");
    assert!(read("x", "status = 1").unwrap().faults[0].title.contains("written as [status]"));
}

#[test]
fn numbers_go_where_the_table_says() {
    let resolved = |table: &str, session: &CloudWatchOptions| {
        let text = format!(
            "region = \"top\"\n[[backup]]\nname = \"a\"\nsource = \"/a\"\n\
                            destination = \"s3://bucket/c\"\n[cloudwatch]\n{table}\n"
        );
        let file = read("x", &text).unwrap();
        let faults = resolve(&file, &BackupOptions::default(), Defaults::DAEMON, None).err();
        let faults = faults.map(|faults| faults.faults).unwrap_or_default();
        let faults: Vec<String> = faults.into_iter().map(|fault| fault.title).collect();
        (resolve_cloudwatch(&file, session, None).ok().flatten(), faults)
    };
    let session = CloudWatchOptions {
        region: Some("r".parse().unwrap()),
        profile: Some("p".parse().unwrap()),
        ..CloudWatchOptions::default()
    };
    assert_eq!(resolved("region = \"eu\"", &session), (None, vec![]), "off unless set");
    let (plain, faults) = resolved("namespace = \"Back ups/x\"", &session);
    let plain = plain.unwrap();
    assert_eq!((plain.namespace.as_str(), plain.every), ("Back ups/x", units::Span::secs(60)));
    assert_eq!((plain.region.as_deref(), plain.profile.as_deref()), (Some("r"), Some("p")));
    assert_eq!((plain.endpoint_url, faults), (None, vec![]));
    let own = "namespace = \"n\"\nregion = \"eu\"\ncredentials_file = \"/keys\"";
    let own = resolved(own, &session).0.unwrap();
    assert_eq!((own.region.as_deref(), own.profile), (Some("eu"), None), "its own keys alone");
    assert_eq!(own.credentials_file.as_deref(), Some(Path::new("/keys")));
    for (table, title) in [
        ("namespace = \"AWS/S3\"", "namespace cannot be \"AWS/S3\""),
        ("namespace = \"\"", "namespace cannot be \"\""),
        ("namespace = \"a;b\"", "namespace cannot be \"a;b\""),
        ("namespace = \"n\"\nevery = \"500ms\"", "every must be at least 1s"),
        ("namespace = \"n\"\ncredentials_file = \"./keys\"", "\"./keys\" is not an absolute path"),
        ("namespce = \"n\"", "unknown key namespce"),
    ] {
        assert_eq!(resolved(table, &session).1, [title], "{table}");
    }
}

#[test]
fn layers_beat_each_other_in_order() {
    let text = r#"
        settle = "1s"
        rescan = "2h"
        [[backup]]
        name = "a"
        source = "/a"
        destination = "s3://bucket/a"
        settle = "3s"
    "#;
    let file = read("x", text).unwrap();
    let resolved = |flags: BackupOptions| resolve(&file, &flags, Defaults::ONE_SHOT, None).unwrap();
    let plain = resolved(BackupOptions::default()).remove(0);
    assert_eq!((plain.settle.millis(), plain.rescan.millis()), (3_000, 7_200_000));
    assert_eq!(plain.delete_delay.millis(), 0);
    let flags = BackupOptions { settle: Some("4s".parse().unwrap()), ..BackupOptions::default() };
    assert_eq!(resolved(flags).remove(0).settle.millis(), 4_000);
}

#[test]
fn all_faults_are_told_at_once_with_their_lines() {
    let text = r#"settel = "2s"
max_delete = "lots"
[[backup]]
name = "a"
source = "relative"
destination = "ftp://x"
transfers = "many"
[[backup]]
name = "b"
source = "/b"
"#;
    let error = load(text).unwrap_err();
    let titles: Vec<&str> = error.faults.iter().map(|fault| fault.title.as_str()).collect();
    assert_eq!(
        titles,
        [
            "unknown key settel",
            "max_delete cannot be \"lots\"",
            "\"relative\" is not an absolute path",
            "\"ftp://x\" is not a destination; write s3://bucket/prefix, bucket::prefix, \
             file:///folder, or default",
            "transfers cannot be \"many\"",
            "this entry has no destination",
        ]
    );
    let shown = error.to_string();
    for part in ["keepwatch.toml:1", "settle", "^", "25%", "keepwatch.toml:7"] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
}

#[test]
fn what_is_wrong_only_together_is_told_at_once_too() {
    let text = r#"
        max_wait = "1s"
        part_size = "1MiB"
        [[backup]]
        name = "a"
        source = "/a"
        destination = "s3://bucket/x"
        [[backup]]
        name = "a"
        source = "relative"
        destination = "s3://bucket/x/y"
        [[backup]]
        name = "c"
        source = "/c"
        destination = "file:///c/store"
    "#;
    let told = faults(text);
    for part in [
        "max_wait is shorter",
        "a part of 1MiB",
        "\"relative\"",
        "contain each other",
        "the name a is taken",
        "writes to the same place",
    ] {
        assert!(told.iter().any(|title| title.contains(part)), "{part} in {told:?}");
    }
}

#[test]
fn a_list_shows_which_of_its_values_is_wrong() {
    let text = r##"endpoint_url = "foo"
region = ""
storage_class = "very cold"
sse = "yes"
credentials_file = "./keys"
exclude = ["*.tmp", "{x", "[z-a]", "", "#recycle"]
[[backup]]
name = "a"
source = "/a"
destination = "s3://bucket/x/.keepwatch"
"##;
    let told = faults(text);
    assert_eq!(
        told,
        [
            "endpoint_url cannot be \"foo\"",
            "region cannot be \"\"",
            "storage_class cannot be \"very cold\"",
            "sse cannot be \"yes\"",
            "\"./keys\" is not an absolute path",
            "exclude cannot be \"[z-a]\"",
            "exclude cannot be \"\"",
            "exclude cannot be \"#recycle\"",
            "the prefix \"x/.keepwatch\" has a part that is empty, \".\", \"..\" or \".keepwatch\"",
        ]
    );
    let shown = load(text).unwrap_err().to_string();
    let expected = [":6:27", "write a-z", "^^^^^^^", ":1:16", "write a URL such as https", ":5:20"];
    for part in expected {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
}

#[test]
fn syntax_errors_have_lines_too() {
    let error = load("settle = \n[[backup]\n").unwrap_err();
    assert!(!error.faults.is_empty());
    assert!(error.to_string().contains("keepwatch.toml:"), "{error}");
    assert_eq!(faults(""), ["there is no backup in this file"]);
}

#[test]
fn destinations() {
    let parse = |text: &str| text.parse::<Destination>();
    for (text, shown) in [
        ("s3://my-bucket/a/b/", "s3://my-bucket/a/b/"),
        ("s3://my-bucket", "s3://my-bucket/"),
        ("my-bucket::photos", "s3://my-bucket/photos/"),
        ("file:///mnt/usb/", "file:///mnt/usb"),
        ("file:///mnt/usb#photos/2026", "file:///mnt/usb#photos/2026/"),
        ("default", "default"),
    ] {
        let destination = parse(text).unwrap();
        assert_eq!(destination.to_string(), shown);
        assert_eq!(parse(shown), Ok(destination));
    }
    for text in ["", "bucket", "s3://", "s3://a", "s3:///x", "file://x", "file:///", "/folder"] {
        assert!(parse(text).is_err(), "{text:?}");
    }
    assert!(parse(&format!("s3://bucket/{}", "x".repeat(901))).is_err());
}

#[test]
fn values_read_what_they_show() {
    use units::{Rate, Size, Span};
    for text in ["1h 30m", "7days", "2s", "250ms"] {
        let span: Span = text.parse().unwrap();
        assert_eq!(span.to_string().parse(), Ok(span));
    }
    for (text, bytes) in [("4096", 4096), ("16MiB", 16 << 20), ("1GB", 1_000_000_000), ("0", 0)] {
        let size: Size = text.parse().unwrap();
        assert_eq!(size, Size(bytes), "{text}");
        assert_eq!(size.to_string().parse(), Ok(size));
    }
    assert_eq!("2MiB/s".parse(), Ok(Rate(Some(2 << 20))));
    assert_eq!("off".parse(), Ok(Rate(None)));
    assert!("0".parse::<Rate>().is_err() && "fast".parse::<Rate>().is_err());
    for (text, value) in
        [("25%", MaxDelete::Percent(25)), ("off", MaxDelete::Off), ("500", MaxDelete::Files(500))]
    {
        assert_eq!(text.parse(), Ok(value));
        assert_eq!(value.to_string(), text);
    }
    assert!("101%".parse::<MaxDelete>().is_err() && "-1".parse::<MaxDelete>().is_err());
}
