"""Docker, Kubernetes and Ray files agree with the code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PIPELINES = ROOT / "pipelines"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
RAY_ENVIRONMENT = yaml.safe_load((PIPELINES / "runtime_env.yaml").read_text())
*POLICIES, RAY_JOB = yaml.safe_load_all((PIPELINES / "kuberay.yaml").read_text())
SLURM = PIPELINES / "slurm.sh"

FOLDERS = {
    "SYNTHGEN_DATA": "/mnt/synthgen/data",
    "SYNTHGEN_STORE": "/mnt/synthgen/shards",
    "SYNTHGEN_WEIGHTS": "/mnt/synthgen/weights",
}


def patterns(name: str) -> list[str]:
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def sources(*folders: str) -> list[str]:
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert len(found) > len(folders)
    return found


#: One path that each line of .gitignore is about.
RESULTS = [line.strip("/").replace("*", "x") + "/file" for line in patterns(".gitignore")]


# --- Dockerfile --------------------------------------------------------------------------------------------------


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each target, as (keyword, the rest)."""
    found: dict[str, list[tuple[str, str]]] = {}
    code = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", "")
    for line in filter(None, code.splitlines()):
        keyword, rest = line.split(maxsplit=1)
        if keyword == "FROM":
            steps = found[rest.split(" AS ")[1]] = []
        steps.append((keyword, rest))
    return found


STAGES = stages()


def of(target: str, keyword: str) -> list[str]:
    return [rest for own, rest in STAGES[target] if own == keyword]


def sent(path: str) -> bool:
    """Whether .dockerignore lets a file through: the last line that is about it, or a folder above it, decides."""
    keep = True
    own = PurePosixPath(path)
    for line in patterns(".dockerignore"):
        pattern = line.removeprefix("!")
        for at in (own, *own.parents):
            anywhere = pattern.startswith("**/") and fnmatch(at.name, pattern[3:])
            if anywhere or (at.name and fnmatch(str(at), pattern)):
                keep = line.startswith("!")
    return keep


def test_the_targets_are_the_two_images_and_the_wheel():
    assert set(STAGES) == {"test", "wheel", "gpu"}


@pytest.mark.parametrize("target", STAGES)
def test_an_image_stands_on_a_version_and_runs_as_a_number_that_is_not_root(target):
    (base,) = of(target, "FROM")
    exact = r"\S+:\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})? AS "
    assert re.match(exact, base), "the base has no tag, or one that moves"
    assert int(of(target, "USER")[-1]) > 0


@pytest.mark.parametrize("target", STAGES)
def test_what_an_image_copies_is_there_and_is_sent(target):
    copies = [rest for rest in of(target, "COPY") if "--from=" not in rest]
    copied = [word for rest in copies for word in rest.split()[:-1] if not word.startswith("--")]
    assert "requirements" in copied
    for name in set(copied) - {"."}:
        assert (ROOT / name).exists(), name
        assert sent(name), name
        if (ROOT / name).is_dir():
            assert all(map(sent, sources(name)))


def test_the_test_image_has_what_the_tests_read_and_no_results():
    own = ["pyproject.toml", "README.md", "Makefile", "Dockerfile", ".dockerignore", ".gitignore"]
    assert all(map(sent, [*own, *sources("synthgen", "pipelines", "tests", "benchmarks")]))
    assert not any(map(sent, [*RESULTS, ".git/config", "other/file", "tests/__pycache__/x.pyc"]))


@pytest.mark.parametrize(
    ("target", "locks"),
    [("test", {"dev", "no-deps"}), ("wheel", {"build"}), ("gpu", {"torch", "train-ray", "no-deps"})],
)
def test_an_image_installs_from_the_lock_files(target, locks):
    installs = [line for run in of(target, "RUN") for line in run.split("&&") if "pip install" in line]
    hashed = [line for line in installs if "--require-hashes" in line]
    assert {Path(name).stem for line in hashed for name in re.findall(r"-r (\S+)", line)} == locks
    assert all((ROOT / "requirements" / f"{name}.txt").is_file() for name in locks)
    # What has no hash: the project itself, and PyTorch without CUDA, which is pinned by its version.
    others = [line for line in installs if line not in hashed]
    assert all("--no-deps" in line and ("$TORCH" in line or ".whl" in line or "-e" in line) for line in others)


def test_an_image_installs_dependencies_before_the_code():
    """Otherwise each change of the code downloads PyTorch again."""
    for steps in STAGES.values():
        lines = [f"{keyword} {rest}" for keyword, rest in steps]
        downloads = next(i for i, line in enumerate(lines) if "pip install" in line)
        before = " ".join(line for line in lines[:downloads] if line.startswith("COPY"))
        assert before.split() == ["COPY", "requirements", before.split()[-1]]


# --- the environment, alike in all of them -----------------------------------------------------------------------


def test_the_folders_are_the_same_everywhere():
    known = {name for path in sources("synthgen") if path.endswith(".py") for name in names_in(ROOT / path)}
    assert known == set(FOLDERS)
    image = {key: value.split()[0] for key, value in re.findall(r"(SYNTHGEN_\w+)=(.*)", DOCKERFILE)}
    in_job = yaml.safe_load(RAY_JOB["spec"]["runtimeEnvYAML"])["env_vars"]
    assert image == in_job == FOLDERS
    assert {key: value for key, value in RAY_ENVIRONMENT["env_vars"].items() if key in known} == FOLDERS
    assert names_in(SLURM) == known


def names_in(path: Path) -> set[str]:
    return set(re.findall(r"SYNTHGEN_[A-Z]+", path.read_text()))


@pytest.mark.parametrize(
    ("file", "before"),
    [
        ("Dockerfile", "synthgen:gpu masks"),
        ("pipelines/kuberay.yaml", "synthgen masks"),
        ("pipelines/slurm.sh", "sbatch pipelines/slurm.sh"),
    ],
)
def test_the_commands_are_known_to_the_command_line(file, before):
    (words,) = re.findall(rf"{re.escape(before)} (--.*)", (ROOT / file).read_text())
    # Unknown options are refused before --help is looked at.
    command = [sys.executable, "-m", "synthgen", "masks", *shlex.split(words), "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- Ray's runtime environment -----------------------------------------------------------------------------------


def goes_along(path: str) -> bool:
    """Whether `ray job submit --working-dir` sends a file; a pattern with a slash before it is about the top only."""
    parts = PurePosixPath(path).parts
    for pattern in RAY_ENVIRONMENT["excludes"]:
        name = pattern.strip("/")
        if any(fnmatch(part, name) for part in (parts[:1] if pattern.startswith("/") else parts)):
            return False
    return True


def test_ray_sends_the_code_and_no_results():
    assert all(map(goes_along, sources("synthgen", "pipelines")))
    assert not any(map(goes_along, [*RESULTS, ".git/config", "tests/cli/test_main.py", "weights/x.pth", "x.pth"]))
    assert set(patterns(".gitignore")) <= set(RAY_ENVIRONMENT["excludes"])


def test_ray_takes_environment_variables_as_words():
    assert all(isinstance(value, str) for value in RAY_ENVIRONMENT["env_vars"].values())
    assert set(RAY_ENVIRONMENT) == {"excludes", "env_vars"}


# --- KubeRay -----------------------------------------------------------------------------------------------------


def groups() -> Iterator[dict]:
    cluster = RAY_JOB["spec"]["rayClusterSpec"]
    yield cluster["headGroupSpec"]
    yield from cluster["workerGroupSpecs"]


def pod_templates() -> dict[str, dict]:
    """All pods of the job by name: the head, the workers, the one that submits the job."""
    head, *workers = groups()
    found = {"head": head["template"], "submitter": RAY_JOB["spec"]["submitterPodTemplate"]}
    return found | {group["groupName"]: group["template"] for group in workers}


def containers() -> dict[str, dict]:
    """All containers by name; the autoscaler's is made by KubeRay from its options."""
    found = {"autoscaler": RAY_JOB["spec"]["rayClusterSpec"]["autoscalerOptions"]}
    for template in pod_templates().values():
        assert "initContainers" not in template["spec"]
        found |= {container["name"]: container for container in template["spec"]["containers"]}
    return found


def test_the_ray_job_has_the_fields_of_its_kind():
    assert (RAY_JOB["apiVersion"], RAY_JOB["kind"]) == ("ray.io/v1", "RayJob")
    assert set(RAY_JOB["spec"]) == {
        *("entrypoint", "runtimeEnvYAML", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"),
        "submitterPodTemplate",
    }
    assert RAY_JOB["spec"]["shutdownAfterJobFinishes"] is True
    cluster = RAY_JOB["spec"]["rayClusterSpec"]
    assert set(cluster) == {"enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"}
    # The fields of KubeRay 1.1's AutoscalerOptions that are used here.
    assert set(cluster["autoscalerOptions"]) <= {"resources", "securityContext", "env", "volumeMounts"}
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    for workers in cluster["workerGroupSpecs"]:
        assert set(workers) == {*("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template")}
        assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


def test_all_pods_run_one_image_as_its_user_and_the_cluster_sees_one_volume():
    images = {container.get("image") for container in containers().values()} - {None}  # the autoscaler has the head's
    assert len(images) == 1
    assert {str(pod["spec"]["securityContext"]["runAsUser"]) for pod in pod_templates().values()} == {
        of("gpu", "USER")[-1]
    }
    for group in groups():
        (container,) = group["template"]["spec"]["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert all(folder.startswith(mounts["synthgen"] + "/") for folder in FOLDERS.values())


@pytest.mark.parametrize("name", containers())
def test_no_container_can_do_more_than_it_needs(name):
    """What the Pod Security Standard `restricted` asks of a container, a read-only root, and limits."""
    container = containers()[name]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for kind in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(container["resources"][kind])
    # With a read-only root, temporary files and caches need a volume.
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
    assert {"name": "HOME", "value": "/tmp"} in container["env"]


@pytest.mark.parametrize("name", pod_templates())
def test_no_pod_can_do_more_than_it_needs(name):
    pod = pod_templates()[name]["spec"]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True and min(context["runAsUser"], context["runAsGroup"]) > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is (name == "head")  # for the autoscaler
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    kinds = {kind for volume in pod["volumes"] for kind in volume} - {"name"}
    assert kinds <= {"persistentVolumeClaim", "emptyDir"}
    assert all(volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if "emptyDir" in volume)
    names = {volume["name"] for volume in pod["volumes"]}
    mounted = [mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]]
    assert set(mounted) == names


def test_a_kubernetes_job_may_run_the_submitter():
    """Its pods must not be restarted by the kubelet; without a command, KubeRay adds that of `ray job submit`."""
    pod = RAY_JOB["spec"]["submitterPodTemplate"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert not {"command", "args"} & set(container)


def selects(selector: dict, labels: dict[str, str]) -> bool:
    """Whether a label selector of Kubernetes (here always matchLabels, or nothing for all) fits these labels."""
    assert set(selector) <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def pod_labels() -> dict[str, dict[str, str]]:
    """Labels of the pods of the job, as KubeRay completes them, and of two pods that are not of it."""
    own = {name: template.get("metadata", {}).get("labels", {}) for name, template in pod_templates().items()}
    kinds = {"head": {"ray.io/node-type": "head"}, "gpu": {"ray.io/node-type": "worker"}}
    own = {name: labels | kinds.get(name, {}) for name, labels in own.items()}
    return own | {"another job's head": {"ray.io/node-type": "head", "ray.io/is-ray-node": "yes"}, "shell": {}}


def admitted(target: str, source: str, port: int) -> bool:
    """Whether the policies let a pod of this namespace reach a port of another one."""
    labels, found = pod_labels(), [True]
    for policy in POLICIES:
        if selects(policy["spec"]["podSelector"], labels[target]):
            found[0] = False  # a pod that any policy selects is closed but for what one of them allows
            for rule in policy["spec"]["ingress"]:
                ports = [one["port"] for one in rule.get("ports", [])]
                if not ports or port in ports:
                    peers = [peer for peer in rule["from"] if set(peer) == {"podSelector"}]
                    found += [selects(peer["podSelector"], labels[source]) for peer in peers]
    return any(found)


def test_policies_stand_before_the_pods_and_close_incoming_traffic():
    for policy in POLICIES:
        assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        assert policy["metadata"]["name"].startswith(RAY_JOB["metadata"]["name"])
    assert len(POLICIES) == 2


@pytest.mark.parametrize("port", [6379, 10001, 8265, 52365, 12345])
def test_only_pods_of_the_cluster_reach_rays_ports(port):
    for target in ("head", "gpu"):
        assert admitted(target, "head", port) and admitted(target, "gpu", port)
        for stranger in ("another job's head", "shell", "submitter"):
            assert admitted(target, stranger, port) is (target == "head" and port == 8265)
    assert admitted("shell", "gpu", port)  # pods that are not ours keep their own rules


def test_another_namespace_reaches_nothing_but_the_operator_the_dashboard():
    peers = [
        (peer, rule.get("ports"))
        for policy in POLICIES
        for rule in policy["spec"]["ingress"]
        for peer in rule["from"]
        if "namespaceSelector" in peer or "ipBlock" in peer
    ]
    assert peers == [
        (
            {
                "namespaceSelector": {},
                "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
            },
            [{"protocol": "TCP", "port": 8265}],
        )
    ]


def test_the_policies_are_those_of_this_job_alone():
    """Two jobs in a namespace must not reach each other, so the label that differs is the job's name."""
    name = RAY_JOB["metadata"]["name"]
    for policy in POLICIES:
        assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == name
    assert all(group["template"]["metadata"]["labels"]["app.kubernetes.io/instance"] == name for group in groups())


def test_ray_and_kubernetes_get_the_same_cpus_and_gpus():
    """KubeRay takes parameters as words only; GPUs cannot be requested and limited differently."""
    head, workers = groups()
    assert head["rayStartParams"] == {"num-cpus": "0"}
    resources = workers["template"]["spec"]["containers"][0]["resources"]
    assert workers["rayStartParams"] == {"num-cpus": resources["requests"]["cpu"]}
    assert resources["requests"]["cpu"] == resources["limits"]["cpu"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"]
    words = shlex.split(RAY_JOB["spec"]["entrypoint"])
    each = float(words[words.index("--gpus-per-worker") + 1])
    room = workers["maxReplicas"] * int(resources["limits"]["nvidia.com/gpu"]) / each
    assert int(words[words.index("--workers") + 1]) == room
