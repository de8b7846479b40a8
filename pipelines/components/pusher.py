"""The executor of the Pusher: a blessed model becomes the next version, whole or not at all."""

import json
import os
import pathlib
from typing import Any

import tensorflow as tf
from tfx import types
from tfx.components.pusher import executor
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from mptrec_tf.errors import PipelineError
from mptrec_tf.serving import Manifest, publish_version
from mptrec_tf.serving.exporting.versions import check_target, versions

PUSHED_FILE = "pushed.json"
"""Where the model was pushed to, in the directory of the pushed model."""

BASE_IS_PINNED = "base_is_pinned"


class PusherExecutor(executor.Executor):
    """Publishes the model as the next version of the push destination, 1, 2, 3 and so on.

    A version appears by one rename when it is complete, and a push that was cut off can be
    repeated: it publishes one version. A model of stage 2 whose base is no longer the newest
    version is refused, for it lacks what was pushed meanwhile; `custom_config` with
    `base_is_pinned` allows it.

    The model is not copied a second time: the artifact `pushed_model` holds `pushed.json` with the
    version, and the properties that the stock Pusher writes.

    Raises:
        PipelineError: If another version was pushed since the run began.
        ServingError: If the model is not an export of this library, or the destination is remote.

    Example:

    ```python
    Pusher(
        model=trainer.outputs["model"],
        model_blessing=gate.outputs["blessing"],
        push_destination=PushDestination(
            filesystem=PushDestination.Filesystem(base_directory="serving/census")
        ),
        custom_config={"base_is_pinned": False},
        custom_executor_spec=executor_spec.ExecutorClassSpec(PusherExecutor),
    )
    ```
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model if it is blessed."""
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed_model = artifact_utils.get_single_instance(
            output_dict[standard_component_specs.PUSHED_MODEL_KEY]
        )
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed_model)
            return
        destination = proto_utils.json_to_proto(
            exec_properties[standard_component_specs.PUSH_DESTINATION_KEY],
            pusher_pb2.PushDestination(),
        )
        settings = json.loads(exec_properties.get("custom_config") or "null") or {}
        path = push(
            self.GetModelPath(input_dict),
            destination.filesystem.base_directory,
            base_is_pinned=settings.get(BASE_IS_PINNED, False),
        )
        with tf.io.gfile.GFile(os.path.join(pushed_model.uri, PUSHED_FILE), "w") as file:
            file.write(json.dumps({"version": int(path.name), "destination": str(path)}))
        self._MarkPushed(pushed_model, pushed_destination=str(path), pushed_version=path.name)


def push(directory: str, base_path: str, *, base_is_pinned: bool = False) -> pathlib.Path:
    """Publishes a written version, unless that would take tasks from what is served.

    Args:
        directory: What `mptrec_tf.serving.write_version` wrote.
        base_path: Directory of the served versions.
        base_is_pinned: Whether an older version was chosen as the base, so that the newest version
            need not be the base. Defaults to `False`.

    Returns:
        The directory of the version; that of an earlier push of this very export, if it is still
        the newest.

    Raises:
        PipelineError: If the model is of stage 2 and the newest version is not its base.
        ServingError: If the model is not an export of this library, or the destination is remote.
    """
    manifest = Manifest.read(directory)
    newest = max(versions(check_target(base_path, None)), default=None)
    if manifest.stage == 1 or base_is_pinned or newest is None:
        return publish_version(directory, base_path)
    path = pathlib.Path(base_path, str(newest))
    known = Manifest.read(path)
    if known.is_same_export(manifest):
        return path
    if known.fingerprint != manifest.frozen_fingerprint:
        raise PipelineError(
            f"version {newest} with the tasks {known.stage1_tasks + known.added_tasks} was pushed "
            f"to {base_path} meanwhile, and is not the base of this model with the tasks "
            f"{manifest.stage1_tasks + manifest.added_tasks}: build on that version, or say that "
            "an older one is meant (`run --base`, `compile --pin-base`)"
        )
    # With its number, because others who push at the same moment take the same one.
    return publish_version(directory, base_path, newest + 1)
