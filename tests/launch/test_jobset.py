"""What launch/gke.sh gives to kubectl is a JobSet: fields, types and how its numbers belong together."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from amd_jax import exits
from tests.launchers import launch, program
from tests.runs import ROOT

jobset = pytest.importorskip("kubeflow_trainer_api.models.jobset_v1alpha2_job_set")

RUN = ["--config=configs/vitb_in1k.py", "--workdir=gs://bucket/run", '--config.data.path=a\\b "c" & $NAME: #']


def manifest(tmp_path: Path, *options: str) -> dict[str, Any]:
    """What kubectl reads."""
    program(tmp_path / "bin", "kubectl", f'echo "$@" > {tmp_path}/arguments; cat > {tmp_path}/manifest')
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    done = launch("gke", "apply", "--name=vitb", "--image=amd_jax:1", *options, "--", *RUN, PATH=path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "arguments").read_text() == "apply -f -\n"
    text = (tmp_path / "manifest").read_text()
    assert not set(placeholders()) & set(text.replace("$NAME: #", "").split())
    return dict(yaml.safe_load(text))


def placeholders() -> list[str]:
    """What launch/gke.sh has to fill in."""
    words = (ROOT / "launch" / "gke_jobset.yaml").read_text().split()
    found = [word for word in words if word.startswith("$")]
    assert len(found) > 8
    return found


def unknown(given: Any, read: Any, path: str = "") -> list[str]:
    """Fields that were given, but are not among those that were read."""
    if isinstance(given, dict):
        fields = [f"{path}.{name}" for name in given if name not in read]
        return fields + [
            x for name in given if name in read for x in unknown(given[name], read[name], f"{path}.{name}")
        ]
    if isinstance(given, list):
        return [
            x for i, (a, b) in enumerate(zip(given, read, strict=True)) for x in unknown(a, b, f"{path}[{i}]")
        ]
    return [] if given == read else [f"{path}: {read!r}"]


@pytest.mark.parametrize("options", [(), ("--spot", "--topology=2x2x4", "--accelerator=tpu-v5p-slice")])
def test_every_field_is_one_of_a_jobset(options: tuple[str, ...], tmp_path: Path) -> None:
    given = manifest(tmp_path, *options)
    assert unknown(given, jobset.JobsetV1alpha2JobSet.from_dict(given).to_dict()) == []
    given["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["restart"] = "Never"
    assert unknown(given, jobset.JobsetV1alpha2JobSet.from_dict(given).to_dict()) == [
        ".spec.replicatedJobs[0].template.spec.template.spec.restart"
    ]


def test_the_run_is_given_as_it_was_typed_with_a_pod_for_each_host(tmp_path: Path) -> None:
    given = manifest(tmp_path, "--spot", "--topology=4x8", "--restarts=7")
    job = given["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["--distributed", *RUN]
    assert (job["parallelism"], job["completions"], container["resources"]["limits"]["google.com/tpu"]) == (
        8,
        8,
        4,
    )
    assert given["spec"]["failurePolicy"]["maxRestarts"] == 7
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x8"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"


def test_a_run_that_ended_for_good_is_not_started_again(tmp_path: Path) -> None:
    """Every exit code of ours but those after which the same command goes on."""
    job = manifest(tmp_path)["spec"]["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    final = {exits.FAILED, exits.USAGE, exits.NON_FINITE, exits.UNSAVED}
    assert set(rule["onExitCodes"]["values"]) == final
    assert rule["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]


def test_quoted_words_are_those_of_a_shell(tmp_path: Path) -> None:
    done = launch("gke", "apply", "--dry_run", "--name=v", "--image=i", "--", *RUN)
    first, *rest = done.stdout.splitlines()
    assert shlex.split(first) == ["kubectl", "apply", "-f", "-", "<<END"]
    assert rest[-1] == "END"
    assert sys.executable not in done.stdout
