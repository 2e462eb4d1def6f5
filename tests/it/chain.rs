//! The chain of the AWS CLI: every place where keys can be, and that those from there sign. The
//! store verifies each signature, and knows no keys but those and the test's own.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use crate::support::external::moto;
use crate::support::program::User;
use crate::support::scene::{Scene, TO};
use crate::support::scripted::{Scripted, whole};
use crate::support::server::Fault;
use crate::support::{wait_for, write_secret};

const KEY: &str = "AKIDCHAIN";
const SECRET: &str = "chain/secret+1";
const TOKEN: &str = "session/token+1";

fn keys_text(profile: &str) -> String {
    format!("[{profile}]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
}

/// A folder to keep, and who signed for it: access keys and session tokens.
struct Place {
    scene: Scene,
    signed: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl Place {
    fn new() -> Self {
        let scene = Scene::new(&[("a", b"1")]);
        scene.server.knows(&[(KEY, SECRET)]);
        let signed = Arc::new(Mutex::new(BTreeSet::new()));
        let (seen, own) = (signed.clone(), scene.server.reach.access_key.clone());
        scene.server.rule(move |request| {
            if request.key != own {
                seen.lock().unwrap().insert((request.key.clone(), request.token.to_owned()));
            }
            Fault::Pass
        });
        Self { scene, signed }
    }

    /// Who knows the store, and has no keys yet.
    fn user(&self) -> User {
        User::new()
            .with_variable("AWS_ENDPOINT_URL_S3", &self.scene.server.reach.endpoint)
            .with_variable("AWS_REGION", "us-east-1")
    }

    /// The folder is kept, signed by these keys alone.
    fn is_kept_by(&self, user: &User, more: &[&str], key: &str, token: &str) {
        user.sync(self.scene.tree.folder.path(), TO, more, 0);
        self.scene.is_kept();
        let signed = self.signed.lock().unwrap().clone();
        assert_eq!(signed, BTreeSet::from([(key.to_owned(), token.to_owned())]));
    }
}

/// Writes a file of `~/.aws`.
fn write_aws(user: &User, name: &str, text: &str) {
    let file = user.home.path().join(".aws").join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    write_secret(&file, text);
}

/// A program that prints keys.
fn helper(user: &User, says: &str) -> String {
    let file = user.home.path().join("helper");
    std::fs::write(&file, format!("#!/bin/sh\ncat <<END\n{says}\nEND\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    file.display().to_string()
}

/// Keys as processes, containers and instances tell them.
fn keys_json(token_name: &str) -> String {
    serde_json::json!({
        "Version": 1, "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
        "AccessKeyId": KEY, "SecretAccessKey": SECRET, token_name: TOKEN,
        "Expiration": "2099-01-01T00:00:00Z",
    })
    .to_string()
}

fn reply(status: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}"
    )
}

fn wrong(user: User) -> User {
    user.with_variable("AWS_ACCESS_KEY_ID", "AKIDOTHER")
        .with_variable("AWS_SECRET_ACCESS_KEY", "of another")
}

#[test]
fn the_environment() {
    let place = Place::new();
    let user = place
        .user()
        .with_variable("AWS_ACCESS_KEY_ID", KEY)
        .with_variable("AWS_SECRET_ACCESS_KEY", SECRET)
        .with_variable("AWS_SESSION_TOKEN", TOKEN)
        // A profile that is only set for the shell gives way, as in the AWS CLI.
        .with_variable("AWS_PROFILE", "work");
    write_aws(&user, "credentials", "[work]\naws_access_key_id=a\naws_secret_access_key=b\n");
    place.is_kept_by(&user, &[], KEY, TOKEN);
}

#[test]
fn profiles() {
    type Case = (
        &'static [(&'static str, &'static str)],
        &'static str,
        &'static str,
        &'static [&'static str],
    );
    let cases: [Case; 4] = [
        (&[], "credentials", "default", &[]),
        (&[("AWS_PROFILE", "work")], "credentials", "work", &[]),
        (&[("AWS_PROFILE", "work")], "config", "profile work", &[]),
        (&[("AWS_PROFILE", "other")], "config", "profile work", &["--profile", "work"]),
    ];
    for (variables, file, profile, more) in cases {
        let place = Place::new();
        let add = |user: User, (name, value): &(&str, &str)| user.with_variable(name, value);
        let user = variables.iter().fold(place.user(), add);
        // A profile that was asked for beats the environment.
        let user = if more.is_empty() { user } else { wrong(user) };
        write_aws(&user, file, &keys_text(profile));
        place.is_kept_by(&user, more, KEY, "");
    }
    // Files elsewhere.
    let place = Place::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let [config, keys] = ["c", "k"].map(|name| elsewhere.path().join(name));
    write_secret(&config, "[default]\nregion = eu-west-1\n");
    write_secret(&keys, &keys_text("default"));
    let user = place
        .user()
        .with_variable("AWS_CONFIG_FILE", config.to_str().unwrap())
        .with_variable("AWS_SHARED_CREDENTIALS_FILE", keys.to_str().unwrap());
    place.is_kept_by(&user, &[], KEY, "");
}

#[test]
fn each_backup_has_its_own_profile() {
    let place = Place::new();
    let pairs = [("key-a", "secret-a"), ("key-b", "secret-b"), ("key-c", "secret-c")];
    place.scene.server.knows(&pairs);
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let whose = seen.clone();
    place.scene.server.rule(move |request| {
        if let Some(rest) = request.path.strip_prefix("/bucket/to-") {
            whose.lock().unwrap().insert(format!("{} {}", &rest[..1], request.key));
        }
        Fault::Pass
    });
    let user = wrong(place.user());
    let named = |n: usize| {
        format!("aws_access_key_id={}\naws_secret_access_key={}\n", pairs[n].0, pairs[n].1)
    };
    write_aws(&user, "credentials", &format!("[a]\n{}[b]\n{}", named(0), named(1)));
    let file = user.home.path().join("keys-of-c");
    write_secret(&file, &format!("[default]\n{}", named(2)));
    let ways = ["profile = \"a\"", "profile = \"b\"", &format!("credentials_file = {file:?}")];
    let mut text = String::new();
    for (name, way) in ["a", "b", "c"].iter().zip(ways) {
        let source = place.scene.tree.folder.path();
        text += &format!(
            "[[backup]]\nname = \"{name}\"\nsource = {source:?}\n\
             destination = \"s3://bucket/to-{name}\"\n{way}\n"
        );
    }
    let config = user.home.path().join("keepwatch.toml");
    std::fs::write(&config, text).unwrap();
    let said = user.run(&["sync", "-c", config.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said:?}");
    let seen: Vec<String> = seen.lock().unwrap().iter().cloned().collect();
    assert_eq!(seen, ["a key-a", "b key-b", "c key-c"]);
}

#[test]
fn a_process() {
    for more in [&[][..], &["--profile", "tool"]] {
        let place = Place::new();
        let user = if more.is_empty() { place.user() } else { wrong(place.user()) };
        let profile = if more.is_empty() { "default" } else { "profile tool" };
        let program = helper(&user, &keys_json("SessionToken"));
        let text = format!("[{profile}]\ncredential_process = {program} --of me\n");
        write_aws(&user, "config", &text);
        place.is_kept_by(&user, more, KEY, TOKEN);
    }
}

/// What lies between two words.
fn between(text: &str, from: &str, to: &str) -> String {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from} in {text}"));
    rest.split_once(to).unwrap().0.to_owned()
}

/// moto's STS behind an ear: the store learns which keys it gave.
fn sts(place: &Place, given: &Arc<Mutex<Vec<(String, String)>>>, moto: &str) -> Scripted {
    let (introduce, given) = (place.scene.server.introducer(), given.clone());
    let moto = moto.replace("http://", "");
    Scripted::start(move |request| {
        let mut socket = TcpStream::connect(&moto).unwrap();
        let request = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        std::io::Write::write_all(&mut socket, request.as_bytes()).unwrap();
        let answer = whole(&mut socket);
        let key = between(&answer, "<AccessKeyId>", "</AccessKeyId>");
        let secret = between(&answer, "<SecretAccessKey>", "</SecretAccessKey>");
        let token = between(&answer, "<SessionToken>", "</SessionToken>");
        introduce(&key, &secret);
        given.lock().unwrap().push((key, token));
        answer
    })
}

#[test]
fn roles() {
    const ROLE: &str = "arn:aws:iam::123456789012:role/backup";
    let moto = moto();
    let base = format!(
        "{}[profile r]\nrole_arn = {ROLE}\nsource_profile = base\n",
        keys_text("profile base")
    );
    for way in ["source profile", "named profile", "web identity", "web identity of a profile"] {
        let place = Place::new();
        // The keys behind the role are no good at the store itself.
        place.scene.server.knows(&[]);
        let given = Arc::new(Mutex::new(vec![]));
        let sts = sts(&place, &given, &moto.reach.endpoint);
        let mut user = place.user().with_variable("AWS_ENDPOINT_URL_STS", &sts.reach.endpoint);
        let token = user.home.path().join("token");
        std::fs::write(&token, "the.web.identity").unwrap();
        let mut more = vec![];
        match way {
            "source profile" => {
                write_aws(&user, "config", &base);
                user = user.with_variable("AWS_PROFILE", "r");
            }
            "named profile" => {
                write_aws(&user, "config", &base);
                user = wrong(user);
                more = vec!["--profile", "r"];
            }
            "web identity" => {
                let token = token.to_str().unwrap();
                user = user.with_variable("AWS_WEB_IDENTITY_TOKEN_FILE", token);
                user = user.with_variable("AWS_ROLE_ARN", ROLE);
            }
            _ => {
                let token = token.display();
                let text = format!("[default]\nrole_arn={ROLE}\nweb_identity_token_file={token}\n");
                write_aws(&user, "config", &text);
            }
        }
        let source = place.scene.tree.folder.path();
        user.sync(source, TO, &more, 0);
        place.scene.is_kept();
        let signed: Vec<_> = place.signed.lock().unwrap().iter().cloned().collect();
        assert!(!signed.is_empty(), "{way}");
        assert!(
            signed.iter().all(|pair| given.lock().unwrap().contains(pair)),
            "{way}: {signed:?}"
        );
        let asked = sts.requests.lock().unwrap()[0].clone();
        let words = match way {
            "source profile" | "named profile" => {
                ["Action=AssumeRole&", &format!("Credential={KEY}/")]
            }
            _ => ["Action=AssumeRoleWithWebIdentity&", "WebIdentityToken=the.web.identity"],
        };
        words.iter().for_each(|word| assert!(asked.contains(word), "{way}: {word}: {asked}"));
        assert!(asked.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fbackup"));
    }
}

fn container() -> Scripted {
    Scripted::start(|request| {
        let may = request.to_lowercase().contains("\r\nauthorization: of-this-container\r\n");
        match request.starts_with("GET /keys HTTP") && may {
            true => reply("200 OK", "content-type: application/json\r\n", &keys_json("Token")),
            false => reply("403 Forbidden", "", "{}"),
        }
    })
}

#[test]
fn a_container() {
    let (place, container) = (Place::new(), container());
    let uri = format!("{}/keys", container.reach.endpoint);
    let user = place
        .user()
        .with_variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)
        .with_variable("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of-this-container");
    place.is_kept_by(&user, &[], KEY, TOKEN);
    // From a file, as on EKS.
    let place = Place::new();
    let user = place.user();
    let file = user.home.path().join("token");
    std::fs::write(&file, "of-this-container").unwrap();
    let user = user
        .with_variable("AWS_ENDPOINT_URL_S3", &place.scene.server.reach.endpoint)
        .with_variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)
        .with_variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap());
    place.is_kept_by(&user, &[], KEY, TOKEN);
}

#[test]
fn an_instance() {
    const LIST: &str = "/latest/meta-data/iam/security-credentials/";
    let place = Place::new();
    let metadata = Scripted::start(|request| {
        let head = request.to_lowercase();
        let line = request.lines().next().unwrap_or_default();
        if line.starts_with("PUT /latest/api/token ") {
            let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n";
            return reply("200 OK", ttl, "imds-token");
        }
        if !head.contains("\r\nx-aws-ec2-metadata-token: imds-token\r\n") {
            return reply("401 Unauthorized", "", "");
        }
        match line.split(' ').nth(1).and_then(|path| path.strip_prefix(LIST)) {
            Some("") => reply("200 OK", "", "the-role"),
            Some("the-role") => reply("200 OK", "", &keys_json("Token")),
            _ => reply("404 Not Found", "", ""),
        }
    });
    let user = place
        .user()
        .with_variable("AWS_EC2_METADATA_DISABLED", "false")
        .with_variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.reach.endpoint);
    place.is_kept_by(&user, &[], KEY, TOKEN);
}

fn portal() -> Scripted {
    Scripted::start(|request| {
        let line = request.lines().next().unwrap_or_default();
        let asked = ["GET /federation/credentials?", "role_name=Backup", "account_id=123456789012"];
        let may = request.to_lowercase().contains("\r\nx-amz-sso_bearer_token: signed-in\r\n");
        if !may || !asked.iter().all(|word| line.contains(word)) {
            return reply(
                "401 Unauthorized",
                "",
                "{\"message\":\"Session token not found or invalid\"}",
            );
        }
        let keys = serde_json::json!({ "roleCredentials": {
            "accessKeyId": KEY, "secretAccessKey": SECRET, "sessionToken": TOKEN,
            "expiration": 4_070_908_800_000_u64,
        }});
        reply("200 OK", "content-type: application/json\r\n", &keys.to_string())
    })
}

/// What `aws sso login` leaves behind, under the SHA-1 of the session's name or of the URL.
fn sign_in(user: &User, name: &str, until: &str) {
    let token = serde_json::json!({
        "accessToken": "signed-in", "expiresAt": until, "region": "us-east-1",
        "startUrl": "https://kw.awsapps.com/start",
    });
    std::fs::create_dir_all(user.home.path().join(".aws/sso/cache")).unwrap();
    write_aws(user, &format!("sso/cache/{name}.json"), &token.to_string());
}

/// `kw`, and `https://kw.awsapps.com/start`.
const OF_SESSION: &str = "5f1c0be89013f8fde969a8dcb2fa1d522e94ee00";
const OF_URL: &str = "0bb7705a887bdecefd750911f925148aac9cd822";
const SSO_ROLE: &str = "sso_account_id = 123456789012\nsso_role_name = Backup\n";
const SSO_PLACE: &str = "sso_start_url = https://kw.awsapps.com/start\nsso_region = us-east-1\n";

#[test]
fn single_sign_on() {
    let portal = portal();
    let session = format!("[default]\nsso_session = kw\n{SSO_ROLE}[sso-session kw]\n{SSO_PLACE}");
    let old = format!("[default]\n{SSO_PLACE}{SSO_ROLE}");
    for (text, name) in [(session, OF_SESSION), (old, OF_URL)] {
        let place = Place::new();
        let user = place.user().with_variable("AWS_ENDPOINT_URL_SSO", &portal.reach.endpoint);
        write_aws(&user, "config", &text);
        sign_in(&user, name, "2099-01-01T00:00:00Z");
        place.is_kept_by(&user, &[], KEY, TOKEN);
    }
}

/// Whoever signed in long ago signs in again, and the daemon goes on.
#[test]
fn a_daemon_waits_until_somebody_signs_in() {
    let (place, portal) = (Place::new(), portal());
    let user = place.user().with_variable("AWS_ENDPOINT_URL_SSO", &portal.reach.endpoint);
    let text = format!("[default]\nsso_session = kw\n{SSO_ROLE}[sso-session kw]\n{SSO_PLACE}");
    write_aws(&user, "config", &text);
    sign_in(&user, OF_SESSION, "2020-01-01T00:00:00Z");
    let daemon = user.watch(&place.scene.quick(&[]));
    let waiting = || daemon.backup()["waiting_for"].to_string();
    wait_for("the wait to be told", || waiting().contains("no usable credentials"));
    sign_in(&user, OF_SESSION, "2099-01-01T00:00:00Z");
    place.scene.comes_right(&daemon);
    wait_for("the wait to be over", || daemon.backup()["waiting_for"].is_null());
    assert_eq!(daemon.stop(), 0);
}
