"""`mptrec serving request`: what it asks a server."""

import json

from fake_serving import Model, serving_rest

import mptrec_cli


def test_the_server_is_asked_once_for_what_the_model_takes(tmp_path, capsys):
    path, model = tmp_path / "rows.csv", Model()
    path.write_text("age,city,tags\n31.5,Oslo,a+b\n,,\n")
    with serving_rest(model) as address:
        command = ["serving", "request", "--server", address, "--model", "census"]
        assert mptrec_cli.main([*command, "--input", str(path), "--separator", "+"]) == 0
    assert [api for api, _ in model.asked] == ["metadata", "predict"]
    printed = capsys.readouterr()
    assert [json.loads(line) for line in printed.out.splitlines()] == [
        {"click": 63, "kind": [4, 2, 3]},
        {"click": -1, "kind": [0, 0, 3]},
    ]
    assert "version 3 of 'census'" in printed.err
