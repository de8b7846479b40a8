"""Runs a SavedModel through TensorFlow's C API: the library that TensorFlow Serving stands on.

No TensorFlow Python is imported, only the wheel's shared library is opened.
"""

import base64
import ctypes
import importlib.util
import json
import math
import pathlib
import sys
from typing import Any

FLOAT, INT32, STRING, INT64 = 1, 3, 7, 9
"""Numbers of `tensorflow.DataType`."""

NUMBERS: dict[int, tuple[str, Any]] = {
    FLOAT: ("float32", ctypes.c_float),
    INT32: ("int32", ctypes.c_int32),
    INT64: ("int64", ctypes.c_int64),
}
NAMES = {name: number for number, (name, _) in NUMBERS.items()} | {"string": STRING}
TSTRING_BYTES = 24


class Output(ctypes.Structure):
    """`TF_Output`."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class CSession:
    """A SavedModel loaded with the tag `serve`, its tables initialized.

    Args:
        path: The SavedModel.

    Raises:
        RuntimeError: If it cannot be loaded; the message is TensorFlow's.
    """

    def __init__(self, path: str) -> None:
        self._tf = _library()
        self._graph = self._tf.TF_NewGraph()
        self._status = self._tf.TF_NewStatus()
        tags = (ctypes.c_char_p * 1)(b"serve")
        self._session = self._tf.TF_LoadSessionFromSavedModel(
            self._tf.TF_NewSessionOptions(), None, path.encode(), tags, 1, self._graph, None,
            self._status,
        )  # fmt: skip
        self._check()

    def run(self, feeds: dict[str, dict], fetches: list[str]) -> list[dict]:
        """Runs the graph.

        Args:
            feeds: Values by tensor name.
            fetches: Tensor names.

        Returns:
            The values of the fetches.

        Raises:
            RuntimeError: With TensorFlow's message.
        """
        inputs = (Output * len(feeds))(*map(self._output, feeds))
        tensors = [self._tensor(value) for value in feeds.values()]
        values = (ctypes.c_void_p * len(feeds))(*tensors)
        outputs = (Output * len(fetches))(*map(self._output, fetches))
        results = (ctypes.c_void_p * len(fetches))()
        try:
            self._tf.TF_SessionRun(
                self._session, None, inputs, values, len(feeds), outputs, results, len(fetches),
                None, 0, None, self._status,
            )  # fmt: skip
            self._check()
            return [self._value(result or 0) for result in results]
        finally:
            for tensor in [*tensors, *filter(None, results)]:
                self._tf.TF_DeleteTensor(tensor)

    def _output(self, name: str) -> Output:
        operation, _, index = name.partition(":")
        pointer = self._tf.TF_GraphOperationByName(self._graph, operation.encode())
        if not pointer:
            raise RuntimeError(f"the graph has no operation {operation!r}")
        return Output(pointer, int(index))

    def _tensor(self, value: dict) -> int:
        number, shape, values = NAMES[value["dtype"]], value["shape"], value["values"]
        size = TSTRING_BYTES if number == STRING else ctypes.sizeof(NUMBERS[number][1])
        dimensions = (ctypes.c_int64 * len(shape))(*shape)
        tensor = self._tf.TF_AllocateTensor(number, dimensions, len(shape), size * len(values))
        data = self._tf.TF_TensorData(tensor)
        if number == STRING:
            for position, text in enumerate(map(base64.b64decode, values)):
                cell = data + position * TSTRING_BYTES
                self._tf.TF_StringInit(cell)
                self._tf.TF_StringCopy(cell, text, len(text))
        elif values:
            ctypes.memmove(data, (NUMBERS[number][1] * len(values))(*values), size * len(values))
        return tensor

    def _value(self, tensor: int) -> dict:
        number = self._tf.TF_TensorType(tensor)
        shape = [self._tf.TF_Dim(tensor, axis) for axis in range(self._tf.TF_NumDims(tensor))]
        data, count = self._tf.TF_TensorData(tensor), math.prod(shape)
        if number == STRING:
            cells = [data + position * TSTRING_BYTES for position in range(count)]
            texts = [
                ctypes.string_at(self._tf.TF_StringGetDataPointer(c), self._tf.TF_StringGetSize(c))
                for c in cells
            ]
            values = [base64.b64encode(text).decode() for text in texts]
            return {"dtype": "string", "shape": shape, "values": values}
        name, kind = NUMBERS[number]
        values = list((kind * count).from_address(data)) if count else []
        return {"dtype": name, "shape": shape, "values": values}

    def _check(self) -> None:
        if self._tf.TF_GetCode(self._status):
            message = self._tf.TF_Message(self._status).decode(errors="replace")
            raise RuntimeError(message)


def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise RuntimeError("TensorFlow is not installed")
    directory = pathlib.Path(spec.origin).parent
    framework, whole = (
        next(map(str, directory.glob(f"libtensorflow_{part}.*"))) for part in ("framework", "cc")
    )
    ctypes.CDLL(framework, ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(whole)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    signatures = {
        "TF_NewGraph": (pointer,),
        "TF_NewStatus": (pointer,),
        "TF_NewSessionOptions": (pointer,),
        "TF_GetCode": (ctypes.c_int, pointer),
        "TF_Message": (ctypes.c_char_p, pointer),
        "TF_LoadSessionFromSavedModel": (
            pointer, pointer, pointer, ctypes.c_char_p, pointer, ctypes.c_int, pointer, pointer,
            pointer,
        ),
        "TF_GraphOperationByName": (pointer, pointer, ctypes.c_char_p),
        "TF_SessionRun": (
            None, pointer, pointer, pointer, pointer, ctypes.c_int, pointer, pointer, ctypes.c_int,
            pointer, ctypes.c_int, pointer, pointer,
        ),
        "TF_AllocateTensor": (pointer, ctypes.c_int, pointer, ctypes.c_int, size),
        "TF_DeleteTensor": (None, pointer),
        "TF_TensorData": (pointer, pointer),
        "TF_TensorType": (ctypes.c_int, pointer),
        "TF_NumDims": (ctypes.c_int, pointer),
        "TF_Dim": (ctypes.c_int64, pointer, ctypes.c_int),
        "TF_StringInit": (None, pointer),
        "TF_StringCopy": (None, pointer, ctypes.c_char_p, size),
        "TF_StringGetDataPointer": (pointer, pointer),
        "TF_StringGetSize": (size, pointer),
    }  # fmt: skip
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def main() -> None:
    """Runs the job on standard input."""
    job = json.load(sys.stdin)
    session = CSession(job["path"])
    for run in job["runs"]:
        try:
            answer: dict[str, Any] = {"outputs": session.run(run["feeds"], run["fetches"])}
        except RuntimeError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
