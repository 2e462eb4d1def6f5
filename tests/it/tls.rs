//! Over TLS: whose certificates are believed, and what is said where none is.

use crate::support::external::{AUTHORITY, moto_with_tls};
use crate::support::program::User;
use crate::support::scene::{Scene, TO};
use crate::support::tree::Tree;

const CREATE: &str = "--create-bucket";

#[test]
fn an_authority_of_ones_own_is_believed_when_it_is_named() {
    let server = moto_with_tls();
    let tree = Tree::new(&[("a", b"A"), ("b", b"B")]);
    let source = tree.folder.path();
    let stranger = User::of(&server.reach);
    let said = stranger.sync(source, TO, &["--retry-for", "1s"], 5);
    assert!(said.stderr.contains("invalid peer certificate"), "{said:?}");
    assert!(said.stderr.contains("hint: the server's certificate"), "{said:?}");
    assert!(said.stderr.contains("AWS_CA_BUNDLE"), "{said:?}");

    let by_variable = User::of(&server.reach).with_variable("AWS_CA_BUNDLE", AUTHORITY);
    by_variable.sync(source, TO, &[CREATE], 0);

    let by_profile = User::of(&server.reach);
    let config = by_profile.home.path().join(".aws/config");
    std::fs::create_dir(config.parent().unwrap()).unwrap();
    std::fs::write(&config, format!("[default]\nca_bundle = {AUTHORITY}\n")).unwrap();
    let back = by_profile.home.path().join("back");
    let said = by_profile.run(&["restore", TO, back.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said:?}");
    for name in ["a", "b"] {
        assert_eq!(
            std::fs::read(back.join(name)).unwrap(),
            std::fs::read(source.join(name)).unwrap()
        );
    }
}

#[test]
fn a_file_of_authorities_that_cannot_be_used_is_named() {
    let scene = Scene::with_files(1);
    let user = User::of(&scene.server.reach);
    let file = user.home.path().join("bundle.pem");
    let user = user.with_variable("AWS_CA_BUNDLE", file.to_str().unwrap());
    let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, cause) in [
        (None, "No such file"),
        (Some("no certificate"), "there is no certificate in PEM format in it"),
        (Some(garbled), "invalid"),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let said = user.sync(scene.tree.folder.path(), TO, &[], 4);
        assert!(said.stderr.contains(&file.display().to_string()), "{said:?}");
        assert!(said.stderr.contains("AWS_CA_BUNDLE"), "{said:?}");
        assert!(said.stderr.contains(cause), "{cause}: {said:?}");
    }
}

#[test]
fn a_system_without_any_authority_can_still_do_without_tls() {
    let scene = Scene::with_files(1);
    let user = User::of(&scene.server.reach)
        .with_variable("SSL_CERT_FILE", "/not/there.pem")
        .with_variable("SSL_CERT_DIR", "/not/there");
    user.sync(scene.tree.folder.path(), TO, &[], 0);
    scene.is_kept();
}
