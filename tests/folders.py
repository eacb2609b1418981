"""Folders of weights for the tests, changed and refused."""

import json

import pytest
from safetensors.torch import load_file, save_file

from auditor.errors import BadModel
from auditor.models.build import load_model
from auditor.models.weights import resolve


def edit(path, change):
    """Let `change` work on a JSON file's content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def renamed(folder, rename, extra=None):
    """The folder's tensors under the names that `rename` gives them (None: left out), and `extra` ones."""
    path = folder / "model.safetensors"
    tensors = {rename(name): value for name, value in load_file(path).items()}
    save_file({k: v for k, v in tensors.items() if k} | (extra or {}), path, {"format": "pt"})


def refused(folder, settings):
    with pytest.raises(BadModel) as caught:
        load_model(resolve(str(folder), settings), settings)
    said = str(caught.value)
    assert "\n" not in said
    assert str(folder) in said
    return said
