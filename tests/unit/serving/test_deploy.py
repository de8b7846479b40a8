"""The files in deploy/: what the commands write, what the schemas allow, what fits together."""

import copy
import http.server
import pathlib
import subprocess
import threading

import jsonschema
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

import mptrec_cli
from mptrec_tf.serving.config.files import edit_models, read_models
from mptrec_tf.serving.local import LocalServer

DEPLOY = pathlib.Path(__file__).parents[3] / "deploy"
FILES = DEPLOY / "model-server"
KUBERNETES = DEPLOY / "kubernetes"
MANIFESTS = sorted(path.name for path in KUBERNETES.glob("*.yaml"))
MANIFESTS.remove("kustomization.yaml")
VERSIONS = ("1.31", "1.37")
"""Of Kubernetes: the manifests fit both."""

COMMANDS = {
    "models.config": "add-model {} --model census --base-path /models/census --versions 1 "
    "--label stable=1",
    "batching.config": "batching {} --max-batch-size 64 --num-batch-threads 4 "
    "--allowed-batch-sizes 8 16 32 64",
    "monitoring.config": "monitoring {}",
}


def load(*parts):
    return yaml.safe_load(DEPLOY.joinpath(*parts).read_text())


@pytest.fixture
def deployment():
    return load("kubernetes", "deployment.yaml")


@pytest.fixture
def container(deployment):
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return container


@pytest.fixture
def compose():
    return load("compose", "compose.yaml")


@pytest.fixture
def service(compose):
    return compose["services"]["model-server"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_servers_files_are_what_the_commands_write(name, tmp_path):
    path = tmp_path / name
    assert mptrec_cli.main(["serving", "config", *COMMANDS[name].format(path).split()]) == 0
    assert (FILES / name).read_text() == path.read_text()


def test_the_readme_has_these_commands():
    text = (DEPLOY / "README.md").read_text().replace("\\\n", " ")
    words = " ".join(text.split())
    for name, command in COMMANDS.items():
        assert f"mptrec serving config {command.format(name)}" in words


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_fit_the_schema(name, version):
    kubernetes_validate.validate(load("kubernetes", name), version, strict=True)


BREAK = {
    "an unknown field": lambda pod, c: c.update(readynessProbe=c["readinessProbe"]),
    "a text for a number": lambda pod, c: c["readinessProbe"].update(periodSeconds="5"),
    "a misspelled mount": lambda pod, c: c["volumeMounts"][0].update(mount_path="/models"),
    "no name": lambda pod, c: c.pop("name"),
    "a list for a map": lambda pod, c: pod.update(securityContext=[]),
}


@pytest.mark.parametrize("fault", BREAK)
def test_a_broken_manifest_is_refused(fault, deployment, container):
    BREAK[fault](deployment["spec"]["template"]["spec"], container)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


def test_kustomize_finds_each_file_once():
    kustomization = load("kubernetes", "kustomization.yaml")
    assert sorted(kustomization["resources"]) == sorted(["../model-server", *MANIFESTS])
    generators = load("model-server", "kustomization.yaml")["configMapGenerator"]
    generated = [file for generator in generators for file in generator["files"]]
    assert sorted(generated) == sorted(COMMANDS)


def test_what_is_polled_keeps_its_name_and_what_is_not_starts_new_pods():
    generators = load("model-server", "kustomization.yaml")["configMapGenerator"]
    for generator in generators:
        polled = generator.get("options", {}).get("disableNameSuffixHash", False)
        assert polled == (generator["files"] == ["models.config"])


def test_the_pod_mounts_what_kustomize_makes(deployment, container):
    generators = load("model-server", "kustomization.yaml")["configMapGenerator"]
    pod = deployment["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    sources = volumes["config"]["projected"]["sources"]
    assert {source["configMap"]["name"] for source in sources} == {
        generator["name"] for generator in generators
    }
    claim = load("kubernetes", "models.yaml")["metadata"]["name"]
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    # A file that is mounted alone never changes in the container.
    assert not any("subPath" in mount for mount in container["volumeMounts"])


def test_labels_and_ports_lead_from_one_to_the_other(deployment, container):
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        load("kubernetes", "service.yaml")["spec"]["selector"],
        load("kubernetes", "disruption.yaml")["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for port in load("kubernetes", "service.yaml")["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]
    target = load("kubernetes", "autoscaling.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    # The autoscaler alone decides, or each `kubectl apply` would undo it.
    assert "replicas" not in deployment["spec"]


def test_pods_run_without_privileges(deployment, container):
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/tmp"}  # noqa: S108


def test_a_pod_has_the_time_to_leave(deployment, container):
    [_, seconds] = container["lifecycle"]["preStop"]["exec"]["command"]
    spec = deployment["spec"]["template"]["spec"]
    assert int(seconds) < spec["terminationGracePeriodSeconds"]


def test_prometheus_scrapes_the_path_that_the_server_has(deployment):
    path = 'path: "{}"'.format(
        load("compose", "prometheus.yml")["scrape_configs"][0]["metrics_path"]
    )
    assert path in (FILES / "monitoring.config").read_text()
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert f'path: "{annotations["prometheus.io/path"]}"' == path
    assert annotations["prometheus.io/port"] == "8501"
    assert annotations["prometheus.io/scrape"] == "true"


def test_prometheus_scrapes_a_service_of_the_compose_file(compose):
    [job] = load("compose", "prometheus.yml")["scrape_configs"]
    [static] = job["static_configs"]
    [target] = static["targets"]
    name, _, port = target.partition(":")
    assert f"--rest_api_port={port}" in compose["services"][name]["command"]


def compose_errors(document):
    schema = get_builtin_schema("vendor.compose-spec")
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [error.message for error in validator.iter_errors(document)]


def test_the_compose_file_fits_the_schema(compose):
    assert compose_errors(compose) == []


@pytest.mark.parametrize(
    "change",
    [
        {"comand": []},
        {"healthcheck": {"test": 1}},
        {"volumes": [{"source": "a", "target": "/a"}]},
        {"read_only": ["yes"]},
        {"cap_drop": "ALL"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_broken_compose_file_is_refused(change, compose):
    compose = copy.deepcopy(compose)
    compose["services"]["model-server"].update(change)
    assert compose_errors(compose)


def test_compose_and_kubernetes_run_the_same_server(service, container):
    assert service["image"] == container["image"]
    assert service["entrypoint"] == container["command"]
    extra = {"--grpc_channel_arguments=grpc.max_connection_age_ms=300000"}
    assert set(container["args"]) - set(service["command"]) == extra
    assert set(service["command"]) <= set(container["args"])
    cores = int(container["resources"]["limits"]["cpu"])
    assert f"--tensorflow_session_parallelism={cores}" in container["args"]
    assert service["cpus"] == cores


def test_flags_name_files_that_are_mounted(container):
    files = [arg.partition("=/config/") for arg in container["args"] if "=/config/" in arg]
    assert sorted(name for _, _, name in files) == ["models.config", "monitoring.config"]
    for _, _, name in files:
        assert (FILES / name).is_file()


def test_compose_mounts_the_directory_of_the_files(service):
    sources = {mount["target"]: mount for mount in service["volumes"]}
    config = sources["/config"]
    assert (DEPLOY / "compose" / config["source"]).resolve() == FILES
    assert all(mount["read_only"] for mount in sources.values())


def test_probes_ask_for_a_label_that_the_file_has(service, container):
    models = read_models(FILES / "models.config")
    for name in models.names:
        assert "stable" in models.labels(name)
    path = "/v1/models/census/labels/stable/metadata"
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
    assert f"GET {path} HTTP" in service["healthcheck"]["test"][-1]


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers as TensorFlow Serving does for a label whose version is loaded, or is not."""

    loaded = True

    def do_GET(self):
        known = self.path == "/v1/models/census/labels/stable/metadata"
        self.send_response(200 if known and self.loaded else 404)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        """Nothing on stderr."""


def healthy(service, port):
    """What the health check of the compose file says of a server at a port."""
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD"
    command = [part.replace("$$", "$").replace("/8501 ", f"/{port} ") for part in command]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=10).returncode == 0


def test_the_health_check_is_about_the_version_behind_the_label(service, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    port = server.server_address[1]
    try:
        assert healthy(service, port)
        monkeypatch.setattr(Answer, "loaded", False)
        assert not healthy(service, port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert not healthy(service, port)


def test_the_health_check_against_the_local_server(service, exported, tmp_path):
    for label, expected in (("stable", True), ("canary", False)):
        path = tmp_path / f"{label}.config"
        with edit_models(path, create=True) as served:
            served.add_model("census", str(exported[0]), [1], {label: 1})
        with LocalServer(config_file=path) as server:
            port = server.rest_url.rpartition(":")[2]
            assert healthy(service, port) is expected


def test_the_image_of_the_pipelines_gets_every_package():
    lines = (DEPLOY / "pipelines" / "Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    root = DEPLOY.parent
    assert all((root / name).exists() for name in copied)
    packages = {path.parent.name for path in root.glob("*/py.typed")}
    assert {"mptrec_tf", "pipelines"} <= packages <= copied
