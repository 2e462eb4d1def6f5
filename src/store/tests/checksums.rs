//! Digests: what is claimed is verified before anything is seen, and what is stored is shown.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder as Config, RequestChecksumCalculation};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ObjectAttributes};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::BodyExt as _;

use super::{BUCKET, InProcess, Rig, assert_refused, both, in_process, key_pairs, noise};

/// The checksums of "123456789" in every algorithm, from their published check values.
const DIGITS: &[u8] = b"123456789";
const DIGITS_CRC64: u64 = 0xae8b_1486_0a79_9888;
const DIGITS_CRC32: u32 = 0xcbf4_3926;
const DIGITS_CRC32C: u32 = 0xe306_9283;

fn shown(head: &HeadObjectOutput) -> Vec<(&'static str, &str)> {
    let all = [
        ("CRC32", head.checksum_crc32()),
        ("CRC32C", head.checksum_crc32_c()),
        ("CRC64NVME", head.checksum_crc64_nvme()),
        ("SHA1", head.checksum_sha1()),
        ("SHA256", head.checksum_sha256()),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

impl Rig {
    async fn checksums_of(&self, key: &str) -> HeadObjectOutput {
        let head = self.client.head_object().bucket(BUCKET).key(key);
        head.checksum_mode(ChecksumMode::Enabled).send().await.unwrap()
    }

    fn assert_nothing_left(&self) {
        assert_eq!(self.on_their_way(), 0);
        assert!(!self.path("bkt/bad").exists());
    }
}

#[tokio::test]
async fn every_object_has_a_crc64() {
    both(async |rig| {
        rig.put("k", DIGITS).await;
        let expected = BASE64.encode(DIGITS_CRC64.to_be_bytes());
        let head = rig.checksums_of("k").await;
        assert_eq!(shown(&head), [("CRC64NVME", expected.as_str())]);
        assert_eq!(head.checksum_type().unwrap().as_str(), "FULL_OBJECT");
        let head = rig.client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
        assert!(shown(&head).is_empty(), "only when asked for");
        let get = rig.client.get_object().bucket(BUCKET).key("k").range("bytes=0-3");
        let get = get.checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
        assert_eq!(get.checksum_crc64_nvme(), None, "not of a range");
        let attributes = rig.client.get_object_attributes().bucket(BUCKET).key("k");
        let attributes = attributes.object_attributes(ObjectAttributes::Checksum);
        let attributes = attributes.object_attributes(ObjectAttributes::ObjectSize);
        let answer = attributes.send().await.unwrap();
        let checksum = answer.checksum().unwrap().checksum_crc64_nvme();
        assert_eq!(checksum, Some(expected.as_str()));
        assert_eq!((answer.object_size(), answer.e_tag()), (Some(9), None));
    })
    .await;
}

#[tokio::test]
async fn a_checksum_in_a_header_is_verified_and_kept() {
    both(async |rig| {
        let put = |key: &str| {
            let put = rig.client.put_object().bucket(BUCKET).key(key);
            put.body(ByteStream::from_static(DIGITS))
        };
        let sha256 = "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=";
        let sha1 = "98O8HYCOBHMq32eZZczDTKeuNEE=";
        let crc32 = BASE64.encode(DIGITS_CRC32.to_be_bytes());
        let crc32c = BASE64.encode(DIGITS_CRC32C.to_be_bytes());
        let crc64 = BASE64.encode(DIGITS_CRC64.to_be_bytes());
        put("CRC32").checksum_crc32(&crc32).send().await.unwrap();
        put("CRC32C").checksum_crc32_c(&crc32c).send().await.unwrap();
        put("CRC64NVME").checksum_crc64_nvme(&crc64).send().await.unwrap();
        put("SHA1").checksum_sha1(sha1).send().await.unwrap();
        put("SHA256").checksum_sha256(sha256).send().await.unwrap();
        for (name, value) in [
            ("CRC32", crc32.as_str()),
            ("CRC32C", &crc32c),
            ("CRC64NVME", &crc64),
            ("SHA1", sha1),
            ("SHA256", sha256),
        ] {
            assert_eq!(shown(&rig.checksums_of(name).await), [(name, value)]);
        }
        let zeros = |size_bytes: usize| BASE64.encode(vec![0; size_bytes]);
        for wrong in [
            put("bad").checksum_crc32(zeros(4)),
            put("bad").checksum_crc32_c(zeros(4)),
            put("bad").checksum_crc64_nvme(zeros(8)),
            put("bad").checksum_sha1(zeros(20)),
            put("bad").checksum_sha256(zeros(32)),
            put("bad").content_md5(zeros(16)),
        ] {
            assert_refused(wrong.send().await, 400, "BadDigest");
            rig.assert_nothing_left();
        }
        for malformed in [
            put("bad").checksum_crc32("nonsense"),
            put("bad").checksum_crc64_nvme(zeros(4)),
            put("bad").checksum_crc32(&crc32).checksum_crc32_c(&crc32c),
        ] {
            assert_refused(malformed.send().await, 400, "InvalidRequest");
            rig.assert_nothing_left();
        }
        assert_refused(put("bad").content_md5("nonsense").send().await, 400, "InvalidDigest");
        put("good").content_md5("JfnnlDI7RTiF9RgfG2JNCw==").send().await.unwrap();
        assert_refused(
            rig.client.get_object().bucket(BUCKET).key("bad").send().await,
            404,
            "NoSuchKey",
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_leaves_what_was_there() {
    let rig = Rig::new().await;
    rig.put("k", b"old").await;
    let put = rig.client.put_object().bucket(BUCKET).key("k").body(noise(1, 3 << 20).into());
    assert_refused(put.content_md5(BASE64.encode([0; 16])).send().await, 400, "BadDigest");
    assert_eq!(rig.get("k").await, b"old");
    assert_eq!(rig.on_their_way(), 0);
}

#[tokio::test]
async fn the_sdk_s_own_checksums_are_accepted() {
    let rig = Rig::new().await;
    let file = rig.path("source");
    std::fs::write(&file, noise(5, 2_500_000)).unwrap();
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        let name = algorithm.as_str().to_owned();
        // A body in memory has it in a header, one from a file in a trailer after aws-chunked.
        for body in [noise(5, 2_500_000).into(), ByteStream::from_path(&file).await.unwrap()] {
            let put = rig.hashing().put_object().bucket(BUCKET).key("k").body(body);
            put.checksum_algorithm(algorithm.clone()).send().await.unwrap();
            let head = rig.checksums_of("k").await;
            assert_eq!(shown(&head)[0].0, name);
            assert_eq!(head.content_length(), Some(2_500_000));
            assert_eq!(head.content_encoding(), None, "aws-chunked is not kept");
            assert!(rig.get("k").await == noise(5, 2_500_000), "and the SDK verifies what it gets");
        }
    }
}

/// Changes request bodies on their way, after they were signed.
#[derive(Clone, Debug)]
struct Meddler {
    inner: InProcess,
    meddle: fn(&mut Vec<u8>),
}

impl HttpClient for Meddler {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Meddler {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move {
            let body = std::mem::replace(request.body_mut(), SdkBody::empty());
            let mut bytes = body.collect().await.unwrap().to_bytes().to_vec();
            (this.meddle)(&mut bytes);
            *request.body_mut() = SdkBody::from(bytes);
            HttpConnector::call(&this.inner, request).await
        })
    }
}

fn meddling(rig: &Rig, meddle: fn(&mut Vec<u8>)) -> Config {
    let inner = InProcess::new(rig.store.endpoint(&key_pairs()));
    let config = in_process(&rig.store).http_client(Meddler { inner, meddle });
    config.request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
}

#[expect(clippy::ptr_arg, reason = "one of the meddlers, which can also shorten")]
fn flip(body: &mut Vec<u8>) {
    let middle = body.len() / 2;
    body[middle] ^= 1;
}

fn drop_trailer(body: &mut Vec<u8>) {
    let at = body.windows(14).position(|window| window == b"x-amz-checksum").unwrap();
    body.truncate(at);
    body.extend_from_slice(b"\r\n");
}

#[tokio::test]
async fn a_body_changed_on_its_way_is_refused() {
    let rig = Rig::new().await;
    let file = rig.path("source");
    std::fs::write(&file, noise(5, 50_000)).unwrap();
    let by_trailer = async |config: Config| {
        let body = ByteStream::from_path(&file).await.unwrap();
        let put = Client::from_conf(config.build()).put_object().bucket(BUCKET).key("bad");
        put.body(body).send().await
    };
    // Over plain HTTP the SDK signs every chunk, over TLS it leaves them to the trailer.
    let by_chunk = by_trailer(meddling(&rig, flip)).await;
    assert_refused(by_chunk, 403, "SignatureDoesNotMatch");
    rig.assert_nothing_left();
    let tls = |config: Config| config.endpoint_url("https://store.invalid");
    assert_refused(by_trailer(tls(meddling(&rig, flip))).await, 400, "BadDigest");
    rig.assert_nothing_left();
    let without = by_trailer(tls(meddling(&rig, drop_trailer))).await;
    assert_refused(without, 400, "MalformedTrailerError");
    rig.assert_nothing_left();

    let put = |meddle: fn(&mut Vec<u8>)| {
        let client = Client::from_conf(meddling(&rig, meddle).build());
        client.put_object().bucket(BUCKET).key("bad").body(noise(5, 50_000).into())
    };
    let signed = put(flip).send().await;
    assert_refused(signed, 400, "XAmzContentSHA256Mismatch");
    rig.assert_nothing_left();
    let short = put(|body| body.truncate(40_000)).customize().disable_payload_signing();
    assert_refused(short.send().await, 400, "IncompleteBody");
    rig.assert_nothing_left();
}

#[tokio::test]
async fn an_algorithm_that_is_named_must_come() {
    let rig = Rig::new().await;
    // With `WhenRequired` the SDK names the algorithm and computes nothing.
    let put = rig.client.put_object().bucket(BUCKET).key("bad").body(DIGITS.to_vec().into());
    let put = put.checksum_algorithm(ChecksumAlgorithm::Sha256);
    assert_refused(put.send().await, 400, "InvalidRequest");
    let put = rig.client.put_object().bucket(BUCKET).key("bad").body(DIGITS.to_vec().into());
    let unknown = put.customize().mutate_request(|request| {
        request.headers_mut().insert("x-amz-checksum-xxhash64", "AAAAAAAAAAA=");
    });
    assert_refused(unknown.send().await, 501, "NotImplemented");
    rig.assert_nothing_left();
}
