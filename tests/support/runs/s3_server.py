"""A real S3 server on loopback (moto), that can be told to fail, to be slow and to hang up."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager

from pyarrow import fs as pafs
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "bucket"
_BUSY = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


class Faults:
    """Which share of the writes fails, and how long a write takes; deterministic in the seed."""

    def __init__(self) -> None:
        self.failing_share = 0.0
        self.delay_s = 0.0
        self.num_failed = self.num_writes = 0
        self._random = random.Random(0)
        self._lock = threading.Lock()

    def strike(self) -> bool:
        with self._lock:
            self.num_writes += 1
            fails = self._random.random() < self.failing_share
            self.num_failed += fails
        time.sleep(self.delay_s)
        return fails


class _Faulty:
    """A WSGI application around moto's: a write that fails is refused before moto sees it,
    or after."""

    def __init__(self, faults: Faults) -> None:
        # Here, since it takes a second, and every test process reads this file.
        from moto.server import DomainDispatcherApplication, create_backend_app

        self._app = DomainDispatcherApplication(create_backend_app)
        self._faults = faults

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("PUT", "POST") and self._faults.strike():
            if self._faults.num_failed % 2:  # it was stored, and the answer is lost
                list(self._app(environ, lambda status, headers, exc_info=None: None))
            else:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [_BUSY]
        return self._app(environ, start_response)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args: object) -> None:
        pass


@contextmanager
def s3_server():
    """Yields (environment variables that lead there, Faults); the bucket exists."""
    faults = Faults()
    server = make_server("127.0.0.1", 0, _Faulty(faults), threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "hush-hush-do-not-store-me",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    former = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        address = f"127.0.0.1:{server.server_port}"
        pafs.S3FileSystem(
            endpoint_override=address, scheme="http", allow_bucket_creation=True
        ).create_dir(BUCKET)
        yield environment, faults
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        server.shutdown()
        thread.join()
        server.server_close()
