"""Folders on every kind of filesystem."""

import uuid

import pytest
from s3_server import BUCKET, s3_server


@pytest.fixture(scope="module")
def server():
    with s3_server() as (_environment, faults):
        yield faults


@pytest.fixture(params=["local", "s3", "fsspec"])
def root(request, tmp_path) -> str:
    if request.param == "s3":
        request.getfixturevalue("server")
    roots = {"local": tmp_path / "run", "s3": f"s3://{BUCKET}", "fsspec": "memory://bucket"}
    return f"{roots[request.param]}/{uuid.uuid4().hex}"
