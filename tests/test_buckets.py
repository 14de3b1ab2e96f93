"""Buckets: what is wrong with one is a line that says what to do."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from amd_jax import buckets, probe
from amd_jax.errors import ConfigError
from amd_jax.train import setup
from amd_jax.workdir import is_run, load_config
from tests.gcs import Storage
from tests.runs import ROOT, tiny


def test_a_path_of_this_machine_is_pathlibs(tmp_path: Path) -> None:
    assert type(buckets.place(str(tmp_path))) is type(tmp_path)
    assert buckets.absolute(buckets.place("here")) == Path.cwd() / "here"


@pytest.mark.parametrize("url", ["s3://bucket/run", "gs://", "file:///tmp/run"])
def test_what_is_no_bucket_of_google_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"only Google's buckets, gs://BUCKET/PATH"):
        buckets.place(url)


def test_a_bucket_that_is_not_there_is_named_before_anything_is_read(
    storage: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup.sources, "make_source", None)  # calling it would be a TypeError
    with pytest.raises(ConfigError, match=r"^gs://nosuch/run: there is no such bucket"):
        setup.prepare(tiny(), "gs://nosuch/run")
    assert probe.main(["gs://nosuch/run"]) == 2
    assert capsys.readouterr().err.startswith("error: gs://nosuch/run: there is no such bucket")


def test_where_nothing_can_be_written_no_run_starts_but_one_is_scored(
    bucket: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup.sources, "make_source", None)
    folder = buckets.place(f"{bucket}/run")
    buckets.check_writable(folder)
    assert buckets.listing(buckets.place(bucket)) == {}
    with storage.without(bucket):
        with pytest.raises(ConfigError, match=f"^{bucket}/run: "):
            setup.prepare(tiny(), f"{bucket}/run")
        with pytest.raises(TypeError):
            setup.prepare(tiny(eval__only=True, student__weights=__file__), f"{bucket}/run")


def test_a_file_that_is_not_there_is_no_missing_bucket(bucket: str) -> None:
    assert not is_run(f"{bucket}/none")
    with pytest.raises(ValueError, match="cannot read the config of a run there"):
        load_config(f"{bucket}/none")


def test_without_gcsfs_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    buckets.filesystem.cache_clear()
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"pip install -r requirements-gcs\.txt"):
        buckets.place("gs://other/run")


def test_an_installed_tensorflow_is_not_asked_even_if_a_disk_was_read_first(
    bucket: str, tmp_path: Path
) -> None:
    """Orbax's paths would go through TensorFlow, with its own errors; they decide it at the first one."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise AssertionError")
    script = f"""
from etils import epath
import amd_jax.train.checkpoint
epath.Path("/tmp").exists()
from amd_jax import buckets
assert not (buckets.place("{bucket}") / "none").exists()
"""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    environment.pop("EPATH_USE_TF", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=[401, 403])
def refusing(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """A code, and a server that answers everything with it, as Google does to whoever has no rights."""
    error = {"error": {"code": request.param, "message": "A does not have storage.objects.list access."}}

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param)
            self.end_headers()
            self.wfile.write(json.dumps(error).encode())

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield request.param, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_who_may_not_read_is_told_what_is_missing(
    refusing: tuple[int, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, url = refusing
    gcsfs = pytest.importorskip("gcsfs")
    files = gcsfs.GCSFileSystem(token="anon", endpoint_url=url)
    monkeypatch.setattr(buckets, "filesystem", lambda: files)
    with pytest.raises(ConfigError) as caught:
        buckets.place(f"gs://bucket/of{code}")
    said = {401: "not logged in", 403: "roles/storage.objectUser"}[code]
    assert str(caught.value).startswith(f"gs://bucket/of{code}: ")
    assert said in str(caught.value)
    assert "A does not have storage.objects.list access" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in "".join(capfd.readouterr())
