"""Data sets whose root is in a bucket: each machine keeps a copy, of which only what has changed is fetched again."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ...utils.buckets import Bucket
from ...utils.errors import InputError
from ...utils.files import write_text
from ..file_cache import cache_file, locked

_AT_ONCE = 256  # files after which what is there is written down


@lru_cache
def copy_of_bucket(url: str) -> Path:
    """The folder of this machine, in `$WPL_D2_CACHE`, with what is in one of a bucket; compared once in each process.

    Raises:
        InputError: there is nothing, or it cannot be reached; or the disk is full.
    """
    folder = cache_file(f"buckets/{hashlib.sha256(url.encode()).hexdigest()[:16]}").absolute()
    with locked(folder.with_suffix(".lock")):
        bucket, record = Bucket(url), folder.with_suffix(".json")
        wanted = {str(path): state for path, state in bucket.files().items()}
        if not wanted:
            raise InputError(f"{url}: nothing is there; give 'root' the folder of a data set")
        known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        for gone in known.keys() - wanted.keys():
            (folder / gone).unlink(missing_ok=True)
        known = {path: state for path, state in known.items() if wanted.get(path) == state}
        write_text(record, json.dumps(known))  # before anything else, since files are gone already
        missing = [path for path in wanted if path not in known]
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            bucket.fetch(map(PurePosixPath, part), folder)
            known |= {path: wanted[path] for path in part}
            write_text(record, json.dumps(known))
    return folder
