"""A model that is served over gRPC or REST, and certificates."""

import subprocess

import pytest
from fake_serving import Model, serving_grpc, serving_rest


@pytest.fixture(name="model")
def served_model():
    return Model()


@pytest.fixture(params=["grpc", "rest"])
def serving(request):
    """Serves a model; each test runs over gRPC and over REST."""
    return {"grpc": serving_grpc, "rest": serving_rest}[request.param]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Makes a self-signed certificate for localhost; returns it and its key."""
    directory = tmp_path_factory.mktemp("certificates")

    def make(name):
        paths = directory / f"{name}.pem", directory / f"{name}.key"
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        )
        subprocess.run(
            [*command.split(), "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
            + ["-out", str(paths[0]), "-keyout", str(paths[1])],
            check=True,
            capture_output=True,
        )
        return paths

    return make
