"""cluster.yaml, runtime_env.yaml and the RayJob are what their readers accept, as far as can be known offline."""

import re
import tomllib
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv

from blitz.cli.train import read_settings

ROOT = Path(__file__).parents[1]


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return content


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file)["project"])


def dependencies() -> list[str]:
    """What `pip install 'blitz[all]'` brings, each once."""
    extras = project()["optional-dependencies"]
    (names,) = re.findall(r"^blitz\[(.*)\]$", extras["all"][0])
    return list(dict.fromkeys(sum((extras[name] for name in names.split(",")), project()["dependencies"])))


def test_the_cluster_is_valid_by_rays_own_schema() -> None:
    config = prepare_config(read("cluster.yaml"))
    validate_config(config)
    assert config["provider"]["type"] == "aws"
    workers = config["available_node_types"]["gpu"]
    assert 0 < workers["min_workers"] <= workers["max_workers"] <= config["max_workers"]
    assert config["head_node_type"] in config["available_node_types"]


def test_the_cluster_is_still_valid_with_what_is_offered_in_comments() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    offered, count = re.subn(r"# (IamInstanceProfile|InstanceMarketOptions):", r"\1:", text)
    assert count == 2
    config = prepare_config(yaml.safe_load(offered))
    validate_config(config)
    assert config["available_node_types"]["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_every_start_asks_for_the_token() -> None:
    config = read("cluster.yaml")
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)
    assert any(path.endswith(".ray/auth_token") for path in config["file_mounts"])


def test_images_have_a_ray_that_the_project_accepts() -> None:
    least = next(re.findall(r">=([\d.]+)", each)[0] for each in dependencies() if each.startswith("ray["))
    job = read("docs/kubernetes/rayjob.yaml")["spec"]["rayClusterSpec"]
    for version in (read("cluster.yaml")["docker"]["image"].split(":")[1].split("-")[0], job["rayVersion"]):
        assert tuple(map(int, version.split("."))) >= tuple(map(int, least.split(".")))
        # What these files were tried with.
        assert version.split(".")[:2] == ray.__version__.split(".")[:2]


def test_the_runtime_env_is_the_dependencies_of_every_extra_without_ray() -> None:
    environment = RuntimeEnv(**read("runtime_env.yaml"))
    assert environment["pip"]["packages"] == [each for each in dependencies() if not each.startswith("ray[")]


def test_the_ray_job_runs_a_command_that_is_understood() -> None:
    job = read("docs/kubernetes/rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    program, name, *words = spec["entrypoint"].replace("python -m jobs.", "blitz ").split()
    assert (program, name) == ("blitz", "train")
    settings = read_settings(words, prog="")
    assert settings.storage.startswith("s3://")
    RuntimeEnv(**yaml.safe_load(spec["runtimeEnvYAML"]))
    # One worker of the run a GPU, and no pod that Kubernetes may take from what Ray counts on.
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    head, worker = (each["template"]["spec"] for each in (spec["rayClusterSpec"]["headGroupSpec"], group))
    for pod in (head, worker):
        (container,) = pod["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted == {"shm": "/dev/shm"}
        assert [volume["name"] for volume in pod["volumes"]] == ["shm"]
    gpus = worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] * group["replicas"]
    assert settings.scale.num_workers == gpus
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
