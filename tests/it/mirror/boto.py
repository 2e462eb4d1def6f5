"""Mirrors many objects, changes some, mirrors again, and compares both sides with boto3.

boto.py ENDPOINT KEEPWATCH COUNT: the environment has the keys, a home and a state of its own.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

endpoint, keepwatch, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
CHANGED, DELETED, ADDED, BACK = (
    min(100, count // 6), min(50, count // 8), min(30, count // 8), min(10, count // 8))
s3 = boto3.client("s3", endpoint_url=endpoint, config=Config(
    max_pool_connections=32, s3={"addressing_style": "path"}, retries={"max_attempts": 5}))
pool = ThreadPoolExecutor(16)
CLASSES = ["STANDARD", "STANDARD_IA", "ONEZONE_IA", "STANDARD", "GLACIER_IR"]
KEPT = ["ContentLength", "ContentType", "CacheControl", "ContentDisposition", "ContentEncoding",
        "ContentLanguage", "StorageClass", "Metadata", "ETag", "ChecksumType", "ChecksumCRC32",
        "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256"]
# Those that boto3 makes without further libraries.
CHECKSUMS = ["CRC32", "SHA1", "SHA256"]


def key(n):
    return f"folder {n % 97}/ü {n:06}+&.txt"


def put(n, word="first"):
    s3.put_object(
        Bucket="source", Key=key(n), Body=f"{word} {n}".encode(), ContentType="text/x-own",
        CacheControl=f"max-age={n}", ContentDisposition="inline", ContentEncoding="identity",
        ChecksumAlgorithm=CHECKSUMS[n % len(CHECKSUMS)], ContentLanguage="fr", StorageClass=CLASSES[n % 5], Tagging=f"team=a&n={n}",
        Metadata={"own": f"word {n}", "mtime": f"{n}.5"})


def each(work, things):
    return list(pool.map(work, things))


def delete(n):
    return s3.delete_object(Bucket="source", Key=key(n)).get("VersionId")


def mirror():
    words = [keepwatch, "mirror", "s3://source", "s3://copies", "--json", "--max-delete", "off",
             "--endpoint-url", endpoint, "-q"]
    said = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
    sums = json.loads(said.splitlines()[-1])
    return tuple(sums[name] for name in ("copied", "tagged", "untagged", "failed"))


def must(what, found, expected):
    assert found == expected, f"{what}: {found!r}, not {expected!r}"
    print(f"{what}: {found}", flush=True)


def listed(bucket):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {name for name in keys if not name.startswith(".keepwatch/")}


def whole(bucket, name):
    head = s3.head_object(Bucket=bucket, Key=name, ChecksumMode="ENABLED")
    tags = s3.get_object_tagging(Bucket=bucket, Key=name)["TagSet"]
    return {kept: head.get(kept) for kept in KEPT} | {t["Key"]: t["Value"] for t in tags}


def compare(name):
    source, copy = whole("source", name), whole("copies", name)
    return None if source == copy else (name, source, copy)


for bucket in ("source", "copies"):
    s3.create_bucket(Bucket=bucket)
s3.put_bucket_versioning(Bucket="source", VersioningConfiguration={"Status": "Enabled"})
each(put, range(count))
must("a first run", mirror(), (count, 0, 0, 0))

returning = range(BACK)
markers = each(delete, returning)
must("some are gone", mirror(), (0, BACK, 0, 0))

numbers = iter(range(BACK, count))
changed = [next(numbers) for _ in range(CHANGED)]
deleted = [next(numbers) for _ in range(DELETED)]
each(lambda n: put(n, "second"), changed)
each(delete, deleted)
each(put, range(count, count + ADDED))
again, undone = returning[: BACK // 2], returning[BACK // 2:]
each(lambda n: put(n, "again"), again)
each(lambda n: s3.delete_object(Bucket="source", Key=key(n), VersionId=markers[n]), undone)
copied = len(changed) + ADDED + len(again)
must("changed, deleted, added, back", mirror(), (copied, len(deleted), len(undone), 0))
must("a second run", mirror(), (0, 0, 0, 0))

names = listed("source")
must("objects", len(names), count + ADDED - len(deleted))
left = listed("copies") - names
must("only in the copies", len(left), len(deleted))
must("others than those deleted", left - {key(n) for n in deleted}, set())
must("differences", [found for found in each(compare, sorted(names)) if found], [])
for n in deleted:
    tags = whole("copies", key(n))
    assert tags["Deleted"] == "True" and len(tags["DeletedAt"]) == 16 and tags["team"] == "a", tags
print("all the same")
