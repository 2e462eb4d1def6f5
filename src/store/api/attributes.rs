//! GetObjectAttributes.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use super::checksums::{parsed, set_checksum, set_checksum_and_type};
use super::list;
use crate::store::fault::invalid_argument;
use crate::store::fetch::look;
use crate::store::rows::Version;
use crate::store::{Store, clock};

pub(super) async fn get_object_attributes(
    store: &Store,
    req: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let input = req.input;
    let wanted = Wanted::of_request(&input.object_attributes)?;
    let limit = list::limit(input.max_parts, "max-parts")?;
    let after = input.part_number_marker.unwrap_or(0);
    let bodies = store.bodies().clone();
    let found = store
        .read(move |conn| {
            look(conn, &bodies, (&input.bucket, &input.key, input.version_id.as_deref()))
        })
        .await?;
    let (version_id, damaged) = (found.version_id(), found.damaged);
    let version = found.version;
    let mut output = GetObjectAttributesOutput {
        last_modified: Some(clock::timestamp_of_s(version.modified_s)),
        version_id,
        ..GetObjectAttributesOutput::default()
    };
    if wanted.0.contains(&"ObjectParts") && !version.parts.is_empty() && !damaged {
        output.object_parts = Some(parts(&version, limit, after));
    }
    if wanted.0.contains(&"Checksum") && !damaged {
        let mut checksum = Checksum::default();
        set_checksum_and_type!(checksum, Some(&version.checksum));
        output.checksum = Some(checksum);
    }
    if wanted.0.contains(&"ETag") {
        output.e_tag = Some(ETag::Strong(version.etag));
    }
    if wanted.0.contains(&"ObjectSize") {
        output.object_size = i64::try_from(version.size_bytes).ok();
    }
    if wanted.0.contains(&"StorageClass") {
        output.storage_class = Some(version.class.into());
    }
    Ok(S3Response::new(output))
}

const KNOWN: [&str; 5] = ["ETag", "Checksum", "ObjectParts", "ObjectSize", "StorageClass"];

/// The attributes asked for.
struct Wanted(Vec<&'static str>);

impl Wanted {
    /// s3s gives each header as one element, and clients put several names into one header.
    fn of_request(attributes: &[ObjectAttributes]) -> S3Result<Self> {
        let names = attributes.iter().flat_map(|header| header.as_str().split(','));
        let known = |name: &str| {
            let name = name.trim();
            KNOWN.into_iter().find(|known| *known == name).ok_or_else(|| {
                invalid_argument(format!("Invalid attribute name specified: {name}"))
            })
        };
        names.map(known).collect::<S3Result<_>>().map(Self)
    }
}

fn parts(version: &Version, limit: usize, after: i32) -> GetObjectAttributesParts {
    let mut rest = version.parts.iter().filter(|part| part.number > after);
    let mut shown = Vec::new();
    for part in rest.by_ref().take(limit) {
        let mut object_part = ObjectPart {
            part_number: Some(part.number),
            size: i64::try_from(part.size_bytes).ok(),
            ..ObjectPart::default()
        };
        set_checksum!(object_part, parsed(&part.checksum));
        shown.push(object_part);
    }
    GetObjectAttributesParts {
        total_parts_count: i32::try_from(version.parts.len()).ok(),
        max_parts: i32::try_from(limit).ok(),
        part_number_marker: Some(after),
        next_part_number_marker: shown.last().and_then(|part| part.part_number),
        is_truncated: Some(rest.next().is_some()),
        parts: Some(shown),
    }
}
