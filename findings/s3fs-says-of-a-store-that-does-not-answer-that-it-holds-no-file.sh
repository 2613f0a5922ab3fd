#!/usr/bin/env bash
# s3fs and fsspec 2026.9.0, aiobotocore 3.10.0, Python 3.11.
#
# Guess: all questions about a path fail in the same way if the store cannot be reached.
# Behaviour: exists, isdir, info, find and glob raise botocore's EndpointConnectionError, while
# isfile answers False. So a job that asks isfile before it writes takes an outage for an absent
# file, and one that asks it after a write takes the outage for a lost one.
# Output seen:
#   exists EndpointConnectionError
#   isdir EndpointConnectionError
#   info EndpointConnectionError
#   find EndpointConnectionError
#   isfile False
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q s3fs==2026.9.0 fsspec==2026.9.0 aiobotocore==3.10.0
"$folder/venv/bin/python" - <<'PYTHON'
import socket

import s3fs

with socket.socket() as lent:  # a port on which nothing listens once it is closed
    lent.bind(("127.0.0.1", 0))
    port = lent.getsockname()[1]
store = s3fs.S3FileSystem(
    key="k",
    secret="s",
    endpoint_url=f"http://127.0.0.1:{port}",
    config_kwargs={"retries": {"max_attempts": 1}, "connect_timeout": 2},
)
said = {}
for question in ("exists", "isdir", "info", "find", "isfile"):
    try:
        said[question] = str(getattr(store, question)("bucket/rows.parquet"))
    except Exception as error:
        said[question] = type(error).__name__
    print(question, said[question])
assert said.pop("isfile") == "False", "it raises now"
assert set(said.values()) == {"EndpointConnectionError"}
PYTHON
