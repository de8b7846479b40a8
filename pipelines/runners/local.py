"""Runs a pipeline on this machine, component after component."""

import contextlib
import gc
import logging
import os
import sys
import time
from dataclasses import dataclass
from datetime import datetime

from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig
from tfx import v1 as tfx
from tfx.dsl.compiler.constants import PIPELINE_RUN_ID_PARAMETER_NAME
from tfx.orchestration.portable.runtime_parameter_utils import substitute_runtime_parameter
from tfx.proto.orchestration import pipeline_pb2

from pipelines.metadata import Execution, Store
from pipelines.runners.causes import explain
from pipelines.runners.lock import one_run
from pipelines.runners.progress import Progress, logs_to

RESULT = "__execution_result__"  # where TFX keeps the reason of a failure before the executor


@dataclass(frozen=True)
class RunResult:
    """What a run that succeeded has done.

    Args:
        run_id: The run in ML Metadata.
        seconds: How long it took.
        executions: What each component did, by its name, in the order in which they ran.
    """

    run_id: str
    seconds: float
    executions: dict[str, Execution]


def run(
    pipeline: tfx.dsl.Pipeline,
    *,
    log_file: str | os.PathLike[str],
    progress: bool = True,
    directory: str | os.PathLike[str] | None = None,
) -> RunResult:
    """Runs a pipeline, as `LocalDagRunner` does, for a person who looks on.

    Each component gets a line on stderr when it begins and when it ends; what it prints to stdout,
    such as the epochs of Keras, goes to stderr too. All that libraries log goes to a file.

    Args:
        pipeline: The pipeline, with its `metadata_connection_config`.
        log_file: File that logs are appended to; its directory is made if it is not there.
        progress: Whether to show the progress. Otherwise stdout goes to the log, too. Defaults to
            `True`.
        directory: The output directory, in which one run at a time is allowed. Defaults to `None`:
            where the SQLite file of ML Metadata is; needed where it has none.

    Returns:
        What was done.

    Raises:
        MPTRecError: If a component failed: of the class that the component raised, with its name
            before the message. A `PipelineError` for anything else, with the name of the log.
        PipelineError: If another run is at work, or the server of ML Metadata does not answer.
    """
    connection = pipeline.metadata_connection_config
    if not connection.HasField("sqlite"):
        Store(connection)
    elif directory is None:
        directory = os.path.dirname(connection.sqlite.filename_uri)
    if directory is None:
        raise ValueError("give directory: ML Metadata is not in a SQLite file here")
    log_directory = os.path.dirname(os.path.abspath(log_file))
    os.makedirs(log_directory, exist_ok=True)
    with one_run(directory, pipeline.pipeline_info.pipeline_name), logs_to(log_file) as terminal:
        stdout = terminal if progress else sys.stderr
        shown = Progress(terminal if progress else None, len(pipeline.components))
        runner = _Runner(connection, log_file, shown)
        begun = time.monotonic()
        with contextlib.redirect_stdout(stdout):
            runner.run(pipeline)
        return RunResult(runner.run_id, time.monotonic() - begun, runner.executions)


class _Runner(tfx.orchestration.LocalDagRunner):
    """Hands its base class one component at a time, all of one run.

    `LocalDagRunner` tells nobody how far it is, and goes on after a component whose inputs were not
    found. Pipelines of one component leave the launching to it, and need nothing private of TFX.
    """

    def __init__(
        self, connection: ConnectionConfig, log_file: str | os.PathLike[str], progress: Progress
    ):
        super().__init__()
        self._connection = connection
        self.run_id = datetime.now().isoformat()
        self.executions: dict[str, Execution] = {}
        self._log_file = log_file
        self._progress = progress

    def run_with_ir(
        self,
        pipeline: pipeline_pb2.Pipeline,
        run_options: pipeline_pb2.RunOptions | None = None,
    ) -> None:
        substitute_runtime_parameter(pipeline, {PIPELINE_RUN_ID_PARAMETER_NAME: self.run_id})
        one = pipeline_pb2.Pipeline()
        one.CopyFrom(pipeline)
        for node in pipeline.nodes:
            del one.nodes[:]
            one.nodes.append(node)
            self._run_one(node.pipeline_node.node_info.id, one)

    def _run_one(self, component: str, pipeline: pipeline_pb2.Pipeline) -> None:
        self._progress.begin(component)
        try:
            super().run_with_ir(pipeline)
            gc.collect()  # models and their rows hang in cycles, and the next one needs the memory
            execution = self._look_up(component)
        except KeyboardInterrupt:
            self._progress.fail(component, "interrupted")
            raise
        except Exception as error:
            logging.exception("%s failed", component)
            explained = explain(error, component, self._log_file)
            self._progress.fail(
                component, f"failed: {str(explained).removeprefix(f'{component}: ')}"
            )
            raise explained from error
        self._progress.end(component, execution)

    def _look_up(self, component: str) -> Execution | None:
        """What a component did; `None` where a condition of the pipeline left it out."""
        for execution in Store(self._connection).executions_of_run(self.run_id):
            if execution.component == component:
                if execution.state == "failed":  # nothing was raised: inputs were not found
                    raise RuntimeError(execution.properties[RESULT]["resultMessage"])
                self.executions[component] = execution
                return execution
        return None
