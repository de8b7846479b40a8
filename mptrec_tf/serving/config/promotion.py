"""Moving a label from one version to another, without a moment at which it stands for none."""

import os

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.config.arguments import check_name
from mptrec_tf.serving.config.files import edit_models, naming, read_models
from mptrec_tf.serving.config.status import Servers

STABLE = "stable"
"""The label that clients ask for unless they take part in a trial."""


def promote(
    path: str | os.PathLike[str], model: str, version: int, servers: Servers, label: str = STABLE
) -> None:
    """Serves a version beside the others, waits until it is available, moves a label to it.

    The servers must read the file again and again (`--model_config_file_poll_wait_seconds`). The
    versions before go on being served until they are retired, so that a rollback is at once.

    Args:
        path: The model config file.
        model: Name of the model.
        version: The version; one that is served already is not added again.
        servers: All servers that read the file.
        label: The label; made if it is not there. Defaults to `"stable"`.

    Raises:
        ServingError: If the file does not allow it, or the version does not become available; the
            file then serves the version, and the label has not been moved.
    """
    check_name("label", label)
    with edit_models(path) as models:
        if version not in models.versions(model):
            models.add_version(model, version)
    move_label(path, model, label, version, servers)


def rollback(
    path: str | os.PathLike[str],
    model: str,
    version: int | None = None,
    servers: Servers | None = None,
    label: str = STABLE,
) -> None:
    """Moves a label back to a version that is still served.

    Args:
        path: The model config file.
        model: Name of the model.
        version: The version. Defaults to `None`: the highest one served below that for which the
            label stands.
        servers: As for `move_label`.
        label: The label. Defaults to `"stable"`.

    Raises:
        ServingError: If the file does not allow it, or the version does not become available.
    """
    if version is None:
        models = read_models(path)
        with naming(path):
            version = models.version_before(model, label)
    move_label(path, model, label, version, servers)


def move_label(
    path: str | os.PathLike[str],
    model: str,
    label: str,
    version: int,
    servers: Servers | None = None,
) -> None:
    """Lets a label stand for a version that is served and, where servers are given, available.

    Args:
        path: The model config file.
        model: Name of the model.
        label: The label; made if it is not there.
        version: The version.
        servers: All servers that read the file; each must have loaded the version. Defaults to
            `None`: they are not asked. A server that has not loaded it keeps its old labels, and
            refuses the file until it has.

    Raises:
        ServingError: If the file does not allow it, or the version does not become available.
    """
    models = read_models(path)
    with naming(path):
        models.set_label(model, label, version)
    if servers is not None:
        try:
            servers.wait_until_available(model, version)
        except ServingError as error:
            raise ServingError(
                f"{error}; {path} is left with the label {label!r} where it was"
            ) from error
    with edit_models(path) as models:
        models.set_label(model, label, version)
