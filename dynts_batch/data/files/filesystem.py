"""From a path or a URI to a filesystem: local, s3:// and gs:// by pyarrow, the rest by fsspec.

Credentials come from the environment (AWS_ACCESS_KEY_ID, an instance's role, ...). config_rules.py
refuses URIs that hold any. Knows nothing about what is stored.
"""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit

import fsspec
import pyarrow as pa
from pyarrow import fs as pafs

from dynts_batch.data.files.fsspec_store import open_store

_CONNECT_TIMEOUT_S = 10
#: Stores may be slow. Only one that sends nothing for this long counts as dead.
_REQUEST_TIMEOUT_S = 120
_S3_OPTIONS = ("region", "scheme", "endpoint_override")
_REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of `path` (a local path or a URI) and the path on it.

    Raises:
        ValueError or OSError: unknown scheme, missing package, or the store cannot be reached.
    """
    scheme, separator, _ = path.partition("://")
    if not separator:
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(path))
    if scheme == "s3":
        return _open_s3(path)
    try:
        filesystem, inner = pafs.FileSystem.from_uri(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as unknown:
        if scheme not in {*fsspec.available_protocols(), *fsspec.registry}:
            raise ValueError(f"unknown scheme {scheme}://") from unknown
    else:
        if isinstance(filesystem, pafs.PyFileSystem):  # pyarrow opens hf:// by fsspec too
            filesystem = open_store(filesystem.handler.fs)
        return filesystem, inner
    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
    except ImportError as error:  # the scheme's own package, as s3fs or adlfs
        raise ValueError(str(error)) from error
    return open_store(filesystem), inner


def extended(path: str, ending: str) -> str:
    """`path` (a local path or a URI) with `ending` behind its folder: before a URI's options."""
    is_uri = "://" in path  # in a local path, a question mark is a letter like any other
    folder, mark, options = path.partition("?") if is_uri else (path, "", "")
    return f"{folder.rstrip('/')}{ending}{mark}{options}"


def _open_s3(uri: str) -> tuple[pafs.FileSystem, str]:
    """As FileSystem.from_uri, with timeouts and retries that suit a run of hours."""
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    if unknown := options.keys() - set(_S3_OPTIONS):
        raise ValueError(f"unknown option {min(unknown)!r}. Choices: {', '.join(_S3_OPTIONS)}")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_override" not in options:
        options["scheme"], _, options["endpoint_override"] = endpoint.partition("://")
    has_region = "region" in options or any(os.environ.get(name) for name in _REGION_VARIABLES)
    if not has_region and "endpoint_override" not in options:
        options["region"] = pafs.resolve_s3_region(parts.netloc)
    filesystem = pafs.S3FileSystem(
        **options,
        connect_timeout=_CONNECT_TIMEOUT_S,
        request_timeout=_REQUEST_TIMEOUT_S,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=3),
    )
    # An empty name between two slashes is a key to S3, and an error to pyarrow.
    return filesystem, re.sub("/+", "/", f"{parts.netloc}{parts.path}").rstrip("/")
