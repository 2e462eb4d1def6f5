//! As on AWS: the number of an object's tags comes only where there are any, and only to whom it is
//! allowed to read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::{Response, StatusCode};
use keepwatch::ports::CopySource as _;

use super::*;

/// The embedded store, with the manners of AWS.
#[derive(Clone, Debug)]
struct Aws {
    store: InProcess,
    may_read_tags: Arc<AtomicBool>,
    questions: Arc<AtomicUsize>,
}

impl HttpClient for Aws {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Aws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        const COUNT: &str = "x-amz-tagging-count";
        let allowed = self.may_read_tags.load(Ordering::SeqCst);
        let asks = request.method() == "GET" && request.uri().contains("tagging");
        self.questions.fetch_add(usize::from(asks), Ordering::SeqCst);
        if asks && !allowed {
            let body = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
            let status = StatusCode::try_from(403).unwrap();
            return HttpConnectorFuture::ready(Ok(Response::new(status, SdkBody::from(body))));
        }
        let called = self.store.call(request);
        HttpConnectorFuture::new(async move {
            let mut reply = called.await?;
            if !allowed || reply.headers().get(COUNT) == Some("0") {
                reply.headers_mut().remove(COUNT);
            }
            Ok(reply)
        })
    }
}

impl Aws {
    fn over(folder: &std::path::Path) -> Self {
        let options = StoreOptions { sync: false, ..StoreOptions::default() };
        let store = Store::open(folder, options).unwrap();
        let keys = [("key".to_owned(), "secret".to_owned())];
        let text = "[default]\naws_access_key_id = key\naws_secret_access_key = secret\n";
        crate::support::write_secret(&folder.join("keys"), text);
        let store = InProcess::new(store.endpoint(&keys));
        Self { store, may_read_tags: Arc::default(), questions: Arc::default() }
    }

    /// A bucket with objects that have these tags.
    async fn fill(&self, objects: &[(&str, &str)]) {
        let reach = Reach {
            endpoint: "http://store.invalid".to_owned(),
            access_key: "key".to_owned(),
            secret_key: "secret".to_owned(),
            region: "us-east-1".to_owned(),
        };
        let http = SharedHttpClient::new(self.store.clone());
        let subject = Subject::new(ALL, &reach, Some(http)).await;
        subject.client.create_bucket().bucket(BUCKET).send().await.unwrap();
        for (name, tags) in objects {
            subject.put(name, b"x").tagging(*tags).send().await.unwrap();
        }
    }

    /// A client that knows nothing yet.
    async fn connect(&self, folder: &std::path::Path) -> S3Store {
        let endpoint = Endpoint {
            region: Some("us-east-1".to_owned()),
            path_style: true,
            credentials_file: Some(folder.join("keys")),
            ..Endpoint::default()
        };
        let http = Some(SharedHttpClient::new(self.clone()));
        let connection = Connection::open(endpoint, http).await.unwrap();
        assert!(connection.is_aws());
        S3Store::new(connection, S3Options { bucket: BUCKET.to_owned(), ..S3Options::default() })
    }
}

async fn tags_of(store: &S3Store, name: &str) -> Option<u32> {
    let id = current(name);
    let tags = found(ObjectReader::head(store, &id).await).tags;
    assert_eq!(found(outcome(store.read(&id, None).await)).tags, tags, "{name}");
    assert_eq!(found(store.look(&id).await).head.tags, tags, "{name}");
    tags
}

#[test]
fn where_tags_may_not_be_read_no_number_is_not_none() {
    let folder = tempfile::tempdir().unwrap();
    let aws = Aws::over(folder.path());
    in_runtime(async {
        aws.fill(&[("gone", "Deleted=True"), ("own", "a=1"), ("bare", "")]).await;
        let store = aws.connect(folder.path()).await;
        for name in ["gone", "own", "bare"] {
            assert_eq!(tags_of(&store, name).await, None, "{name}");
            let denied = store.deleted_at(&current(name)).await.unwrap_err();
            let StoreError::Failed(failure) = denied else { panic!("{denied:?}") };
            assert_eq!(failure.class, ErrorClass::Denied);
            assert!(failure.hint.unwrap().contains("s3:GetObjectTagging"));
        }
        // Who is refused for all is not asked for ever.
        let before = aws.questions.load(Ordering::SeqCst);
        for _ in 0..40 {
            assert!(store.deleted_at(&current("gone")).await.is_err());
        }
        assert!(aws.questions.load(Ordering::SeqCst) - before < 40);
    });
}

#[test]
fn where_tags_may_be_read_no_number_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let aws = Aws::over(folder.path());
    aws.may_read_tags.store(true, Ordering::SeqCst);
    in_runtime(async {
        aws.fill(&[("gone", "Deleted=True"), ("own", "a=1"), ("bare", "")]).await;
        let store = aws.connect(folder.path()).await;
        assert_eq!(tags_of(&store, "bare").await, None);
        assert_eq!(store.deleted_at(&current("bare")).await, Ok(None));
        for (name, tags) in [("bare", 0), ("gone", 1), ("own", 1)] {
            assert_eq!(tags_of(&store, name).await, Some(tags), "{name}");
        }
        // A number shows that it is told.
        let store = aws.connect(folder.path()).await;
        assert_eq!(tags_of(&store, "own").await, Some(1));
        assert_eq!(tags_of(&store, "bare").await, Some(0));
        assert_eq!(aws.questions.load(Ordering::SeqCst), 1);
    });
}
