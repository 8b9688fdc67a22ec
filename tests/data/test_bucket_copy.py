"""A data set whose root is in a bucket."""

import json
from pathlib import PurePath

import numpy as np
import pytest
import yaml

from wpl_d2.data import read_mask
from wpl_d2.data.datasets import load_description
from wpl_d2.data.datasets.bucket_copy import copy_of_bucket
from wpl_d2.utils.buckets import Bucket
from wpl_d2.utils.errors import InputError


def read(tree):
    copy_of_bucket.cache_clear()  # as in a process of its own
    root = load_description(tree.yaml).root
    return [read_mask(root / f"masks/val{number}.png") for number in range(2)]


def test_what_has_changed_in_the_bucket_is_fetched(bucket, tree, monkeypatch):
    url, local = f"{bucket}/{tree.name}", read(tree)
    files = [file.relative_to(tree.root) for file in tree.root.rglob("*") if file.is_file()]
    Bucket(url).put(tree.root, files)
    tree.yaml.write_text(yaml.safe_dump({**yaml.safe_load(tree.yaml.read_text()), "root": url}))
    fetched, fetch = [], Bucket.fetch

    def counted(self, paths, folder):
        paths = list(paths)
        fetched.extend(paths)
        fetch(self, paths, folder)

    monkeypatch.setattr(Bucket, "fetch", counted)
    assert all(map(np.array_equal, read(tree), local)) and len(fetched) == len(files)
    tree.write_mask("val1", np.ones((50, 60), dtype=np.uint8))
    Bucket(url).put(tree.root, [PurePath("masks/val1.png")])
    Bucket(url).remove([PurePath("images/labeled0.png")])
    assert (read(tree)[1] == 1).all()
    assert [str(path) for path in fetched[len(files) :]] == ["masks/val1.png"]
    assert not (copy_of_bucket(url) / "images/labeled0.png").exists()
    # What was not written down as fetched is fetched again, as after a process that was killed.
    record = copy_of_bucket(url).with_suffix(".json")
    known = json.loads(record.read_text())
    record.write_text(json.dumps({path: state for path, state in known.items() if "val0" not in path}))
    read(tree)
    assert sorted(map(str, fetched[len(files) + 1 :])) == ["images/val0.png", "masks/val0.png"]
    with pytest.raises(InputError, match="nothing is there"):
        copy_of_bucket(f"{bucket}/no/such/set")
