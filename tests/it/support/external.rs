//! Real servers as programs of their own: moto, Garage, and `keepwatch serve`.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::server::Reach;
use super::{tools, wait_for};

/// A server in a process of its own.
pub struct External {
    pub reach: Reach,
    /// What it keeps, and its configuration.
    pub folder: TempDir,
    child: Child,
}

impl Drop for External {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// `keepwatch serve`, with objects that thaw in no time.
pub fn served() -> External {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let reach = Reach {
        endpoint: format!("http://127.0.0.1:{port}"),
        access_key: "served".to_owned(),
        secret_key: "secret".to_owned(),
        region: "us-east-1".to_owned(),
    };
    let child = Command::new(env!("CARGO_BIN_EXE_keepwatch"))
        .args(["serve", "--no-sync", "--thaw-after", "100ms", "--listen"])
        .arg(format!("127.0.0.1:{port}"))
        .arg(format!("file://{}", folder.path().display()))
        .env("AWS_ACCESS_KEY_ID", &reach.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &reach.secret_key)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = External { reach, child, folder };
    wait_for("keepwatch to serve", || is_listening(port));
    server
}

/// A port that is free, and that nobody else picks meanwhile: it is below those that the system
/// gives to who asks for any, and tests that run at the same time look at other ones.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    const OF_ONE_TEST: u32 = 16;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports = std::iter::from_fn(|| {
        let one = std::process::id() * OF_ONE_TEST + NEXT.fetch_add(1, Ordering::Relaxed);
        u16::try_from(PORTS.start + one % (PORTS.end - PORTS.start)).ok()
    });
    ports.take(1_000).find(is_free).expect("one port is free")
}

fn is_listening(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// moto: versions, tags, Glacier, conditional writes; checks neither bodies nor signatures.
pub fn moto() -> External {
    moto_with("http", &[])
}

/// The authority of [`moto_with_tls`]: its own certificate, for localhost.
pub const AUTHORITY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/tls/certificate.pem");

/// moto over HTTPS, with a certificate that no system trusts.
pub fn moto_with_tls() -> External {
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/tls/key-of-tests.pem");
    moto_with("https", &["--ssl-cert", AUTHORITY, "--ssl-key", key])
}

fn moto_with(scheme: &str, options: &[&str]) -> External {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let child = Command::new(tools::python_tool("moto_server"))
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .args(options)
        .env("S3_IGNORE_SUBDOMAIN_BUCKETNAME", "true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let reach = Reach {
        endpoint: format!("{scheme}://127.0.0.1:{port}"),
        access_key: "moto".to_owned(),
        secret_key: "moto".to_owned(),
        region: "us-east-1".to_owned(),
    };
    let server = External { reach, child, folder };
    wait_for("moto to listen", || is_listening(port));
    server
}

/// Garage: real signatures, verified checksums; no versions, tags or conditions.
pub fn garage() -> External {
    let folder = tempfile::tempdir().unwrap();
    let (api, rpc) = (free_port(), free_port());
    let config = folder.path().join("garage.toml");
    let at = folder.path().display();
    let text = format!(
        "metadata_dir = \"{at}/meta\"\ndata_dir = \"{at}/data\"\ndb_engine = \"lmdb\"\n\
         replication_factor = 1\nmetadata_fsync = false\ndata_fsync = false\n\
         rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\n\
         rpc_secret = \"{}\"\n[s3_api]\ns3_region = \"garage\"\n\
         api_bind_addr = \"127.0.0.1:{api}\"\nroot_domain = \".s3.localhost\"\n",
        "1f".repeat(32)
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new(tools::garage())
        .arg("-c")
        .arg(&config)
        .arg("server")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let reach = Reach {
        endpoint: format!("http://127.0.0.1:{api}"),
        access_key: format!("GK{}", "ab".repeat(12)),
        secret_key: "cd".repeat(32),
        region: "garage".to_owned(),
    };
    let server = External { reach, child, folder };
    wait_for("Garage to listen", || is_listening(api) && is_listening(rpc));
    let garage = |args: &[&str]| {
        let output =
            Command::new(tools::garage()).arg("-c").arg(&config).args(args).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut node = String::new();
    wait_for("Garage to know itself", || {
        let (good, id) = garage(&["node", "id", "-q"]);
        node = id.split('@').next().unwrap_or("").trim().to_owned();
        good && !node.is_empty()
    });
    let must = |args: &[&str]| assert!(garage(args).0, "garage {args:?}");
    wait_for("Garage's layout", || {
        garage(&["layout", "assign", "-z", "dc1", "-c", "10G", &node]).0
    });
    must(&["layout", "apply", "--version", "1"]);
    let (key, secret) = (&server.reach.access_key, &server.reach.secret_key);
    must(&["key", "import", "--yes", key, secret, "-n", "test"]);
    must(&["key", "allow", "--create-bucket", key]);
    server
}
