"""Programs that load a SavedModel as a server does, in a process without mptrec_tf.

Each is run as a file. It reads a job as JSON from standard input, `{"path": the SavedModel, "runs":
[{"feeds": {tensor: value}, "fetches": [tensor]}]}`, and writes one JSON object for each run, a
line each: `{"outputs": [value]}` or `{"error": text}`. A value is `{"dtype", "shape", "values"}`,
strings in base64.
"""
