//! Buckets.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration,
};

use super::{BUCKET, Rig, assert_refused, both, in_process, refusal};

fn names(answer: &aws_sdk_s3::operation::list_buckets::ListBucketsOutput) -> Vec<&str> {
    answer.buckets().iter().map(|bucket| bucket.name().unwrap()).collect()
}

#[tokio::test]
async fn buckets_are_made_listed_and_deleted() {
    both(async |rig| {
        for name in ["zebra", "my.bucket-2"] {
            rig.client.create_bucket().bucket(name).send().await.unwrap();
        }
        let all = rig.client.list_buckets().send().await.unwrap();
        assert_eq!(names(&all), [BUCKET, "my.bucket-2", "zebra"]);
        let page = rig.client.list_buckets().max_buckets(2).send().await.unwrap();
        assert_eq!(names(&page), [BUCKET, "my.bucket-2"]);
        let rest = rig
            .client
            .list_buckets()
            .set_continuation_token(page.continuation_token().map(str::to_owned));
        assert_eq!(names(&rest.send().await.unwrap()), ["zebra"]);
        let some = rig.client.list_buckets().prefix("my").send().await.unwrap();
        assert_eq!(names(&some), ["my.bucket-2"]);

        rig.client.delete_bucket().bucket("zebra").send().await.unwrap();
        assert!(!rig.path("zebra").exists());
        let gone = rig.client.head_bucket().bucket("zebra").send().await;
        assert_eq!(refusal(gone).0, 404);
        assert_refused(
            rig.client.delete_bucket().bucket("zebra").send().await,
            404,
            "NoSuchBucket",
        );
    })
    .await;
}

#[tokio::test]
async fn a_bucket_is_deleted_only_when_nothing_is_left_in_it() {
    let rig = Rig::new().await;
    rig.enable_versions().await;
    rig.put("a", b"1").await;
    let marker = rig.client.delete_object().bucket(BUCKET).key("a").send().await.unwrap();
    let delete = || rig.client.delete_bucket().bucket(BUCKET).send();
    assert_refused(delete().await, 409, "BucketNotEmpty");
    let versions = rig.client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    let object = versions.versions()[0].version_id().unwrap();
    for version in [object, marker.version_id().unwrap()] {
        assert_refused(delete().await, 409, "BucketNotEmpty");
        let request = rig.client.delete_object().bucket(BUCKET).key("a").version_id(version);
        request.send().await.unwrap();
    }
    // An upload that was never completed goes with the bucket.
    let upload = rig.client.create_multipart_upload().bucket(BUCKET).key("m").send().await;
    let upload = upload.unwrap();
    let part = rig.client.upload_part().bucket(BUCKET).key("m").part_number(1);
    part.upload_id(upload.upload_id().unwrap()).send().await.unwrap();
    delete().await.unwrap();
    assert_eq!(rig.on_their_way(), 0);
}

#[tokio::test]
async fn the_region_of_a_bucket_is_the_one_it_was_made_in() {
    let rig = Rig::bare();
    let client_in = |region: &'static str| {
        Client::from_conf(in_process(&rig.store).region(Region::new(region)).build())
    };
    let constraint = |name: &str| {
        let constraint = BucketLocationConstraint::from(name);
        CreateBucketConfiguration::builder().location_constraint(constraint).build()
    };
    let (virginia, frankfurt) = (client_in("us-east-1"), client_in("eu-central-1"));

    virginia.create_bucket().bucket("east").send().await.unwrap();
    let there = virginia.head_bucket().bucket("east").send().await.unwrap();
    assert_eq!(there.bucket_region(), Some("us-east-1"));
    let location = virginia.get_bucket_location().bucket("east").send().await.unwrap();
    assert_eq!(location.location_constraint().map(|c| c.as_str()).unwrap_or_default(), "");
    virginia.create_bucket().bucket("east").send().await.expect("us-east-1 forgives");

    let make = frankfurt.create_bucket().bucket("europe");
    assert_refused(make.clone().send().await, 400, "IllegalLocationConstraintException");
    let make = make.create_bucket_configuration(constraint("eu-central-1"));
    make.clone().send().await.unwrap();
    let there = virginia.head_bucket().bucket("europe").send().await.unwrap();
    assert_eq!(there.bucket_region(), Some("eu-central-1"));
    let location = virginia.get_bucket_location().bucket("europe").send().await.unwrap();
    assert_eq!(location.location_constraint().unwrap().as_str(), "eu-central-1");
    assert_refused(make.send().await, 409, "BucketAlreadyOwnedByYou");

    let wrong = frankfurt.create_bucket().bucket("elsewhere");
    let wrong = wrong.create_bucket_configuration(constraint("us-west-2"));
    assert_refused(wrong.send().await, 400, "IllegalLocationConstraintException");
}

#[tokio::test]
async fn names_that_s3_does_not_take_are_refused() {
    let rig = Rig::bare();
    for name in ["ab", "Bucket", "a_b", "a..b", "-a-", "192.168.1.1", "xn--abc", ".keepwatch-store"]
    {
        let result = rig.client.create_bucket().bucket(name).send().await;
        assert_refused(result, 400, "InvalidBucketName");
    }
}

#[tokio::test]
async fn a_folder_that_is_not_the_store_s_is_left_alone() {
    let rig = Rig::bare();
    std::fs::create_dir(rig.path("photos")).unwrap();
    rig.client.create_bucket().bucket("photos").send().await.expect("an empty folder is no harm");
    std::fs::create_dir(rig.path("letters")).unwrap();
    std::fs::write(rig.path("letters/mine"), "kept").unwrap();
    let result = rig.client.create_bucket().bucket("letters").send().await;
    assert_refused(result, 409, "BucketAlreadyExists");
    assert_eq!(std::fs::read(rig.path("letters/mine")).unwrap(), b"kept");
}

#[tokio::test]
async fn versioning_is_off_until_it_is_set_and_never_off_again() {
    both(async |rig| {
        let status = async || {
            let answer = rig.client.get_bucket_versioning().bucket(BUCKET).send().await.unwrap();
            answer.status().cloned()
        };
        assert_eq!(status().await, None);
        rig.enable_versions().await;
        assert_eq!(status().await, Some(BucketVersioningStatus::Enabled));
        rig.set_versioning(BucketVersioningStatus::Suspended).await;
        assert_eq!(status().await, Some(BucketVersioningStatus::Suspended));
    })
    .await;
    let rig = Rig::new().await;
    let result = rig.client.get_bucket_versioning().bucket("nothere").send().await;
    assert_refused(result, 404, "NoSuchBucket");
}
