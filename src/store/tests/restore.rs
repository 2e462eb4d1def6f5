//! Archived objects: refused until they are thawed, and again when the copy has expired.

use aws_sdk_s3::types::{
    GlacierJobParameters, OptionalObjectAttributes, RestoreRequest, StorageClass, Tier,
};

use super::{BUCKET, Rig, assert_refused, both, refusal};

const HOUR_MS: u64 = 3_600_000;

fn request(days: i32, tier: Tier) -> RestoreRequest {
    let job = GlacierJobParameters::builder().tier(tier).build().unwrap();
    RestoreRequest::builder().days(days).glacier_job_parameters(job).build()
}

impl Rig {
    async fn archive(&self, key: &str, class: StorageClass) {
        let put = self.client.put_object().bucket(BUCKET).key(key).storage_class(class);
        put.body(b"cold".to_vec().into()).send().await.unwrap();
    }

    /// Asks for a restore; the status of the answer, by the access log.
    async fn restore(&self, key: &str, days: i32) -> u16 {
        self.accesses();
        let restore = self.client.restore_object().bucket(BUCKET).key(key);
        let _ = restore.restore_request(request(days, Tier::Standard)).send().await;
        self.accesses()[0].status
    }

    async fn restore_header(&self, key: &str) -> Option<String> {
        let head = self.client.head_object().bucket(BUCKET).key(key).send().await.unwrap();
        head.restore().map(str::to_owned)
    }
}

#[tokio::test]
async fn archives_thaw_by_the_clock_and_freeze_again() {
    both(async |rig| {
        rig.archive("k", StorageClass::DeepArchive).await;
        let get = || rig.client.get_object().bucket(BUCKET).key("k").send();
        let copy = || {
            let copy = rig.client.copy_object().bucket(BUCKET).key("copy");
            copy.copy_source(format!("{BUCKET}/k")).send()
        };
        assert_refused(get().await, 403, "InvalidObjectState");
        assert_refused(copy().await, 403, "InvalidObjectState");
        assert_eq!(rig.restore_header("k").await, None);

        assert_eq!(rig.restore("k", 2).await, 202);
        assert_eq!(rig.restore("k", 2).await, 409);
        let ongoing = Some("ongoing-request=\"true\"".to_owned());
        assert_eq!(rig.restore_header("k").await, ongoing);
        rig.pass_ms(HOUR_MS - 1);
        assert_eq!(rig.restore_header("k").await, ongoing);
        assert_refused(get().await, 403, "InvalidObjectState");

        rig.pass_ms(1);
        // Ready at 13:00 on the 21st, for two days, to the next midnight.
        let thawed = |date: &str| {
            Some(format!("ongoing-request=\"false\", expiry-date=\"{date} 00:00:00 GMT\""))
        };
        assert_eq!(rig.restore_header("k").await, thawed("Tue, 24 Nov 2026"));
        assert_eq!(rig.get("k").await, b"cold");
        copy().await.unwrap();
        assert_eq!(rig.restore("k", 4).await, 200, "prolongs");
        assert_eq!(rig.restore_header("k").await, thawed("Thu, 26 Nov 2026"));
        let head = rig.client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
        assert_eq!(head.storage_class(), Some(&StorageClass::DeepArchive));

        rig.pass_ms(5 * 24 * HOUR_MS);
        assert_eq!(rig.restore_header("k").await, None);
        assert_refused(get().await, 403, "InvalidObjectState");
        assert_eq!(rig.restore("k", 1).await, 202, "once more");
    })
    .await;
}

#[tokio::test]
async fn restores_are_checked() {
    let rig = Rig::new().await;
    rig.put("warm", b"x").await;
    rig.archive("g", StorageClass::Glacier).await;
    rig.archive("d", StorageClass::DeepArchive).await;
    let restore = |key: &str, request: RestoreRequest| {
        rig.client.restore_object().bucket(BUCKET).key(key).restore_request(request).send()
    };
    let warm = restore("warm", request(1, Tier::Bulk)).await;
    assert_eq!(refusal(warm), (403, "InvalidObjectState".to_owned()));
    assert_refused(restore("g", request(0, Tier::Bulk)).await, 400, "InvalidArgument");
    assert_refused(restore("d", request(1, Tier::Expedited)).await, 400, "InvalidArgument");
    assert_refused(restore("d", request(1, Tier::from("Instant"))).await, 400, "MalformedXML");
    assert_refused(restore("no", request(1, Tier::Bulk)).await, 404, "NoSuchKey");
    restore("g", request(1, Tier::Expedited)).await.unwrap();
    restore("d", request(1, Tier::Bulk)).await.unwrap();
}

#[tokio::test]
async fn listings_show_the_state_of_restores_on_request() {
    let rig = Rig::new().await;
    rig.archive("ongoing", StorageClass::Glacier).await;
    rig.archive("thawed", StorageClass::Glacier).await;
    rig.restore("thawed", 1).await;
    rig.pass_ms(HOUR_MS);
    rig.restore("ongoing", 1).await;
    let list = rig.client.list_objects_v2().bucket(BUCKET);
    let list = list.optional_object_attributes(OptionalObjectAttributes::RestoreStatus);
    let page = list.send().await.unwrap();
    let state = |index: usize| {
        let status = page.contents()[index].restore_status().unwrap();
        (status.is_restore_in_progress(), status.restore_expiry_date().is_some())
    };
    assert_eq!(state(0), (Some(true), false));
    assert_eq!(state(1), (Some(false), true));
}
