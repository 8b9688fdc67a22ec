"""One clear message for everything that a user can get wrong."""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_DETECTRON2 = (
    "detectron2: is not installed; `pip install 'wpl_d2[detectron2]' "
    "'git+https://github.com/facebookresearch/detectron2.git@a59f0563'` builds it from its sources; without a compiler "
    "take its Python files from the wheel sal-detectron2, as docs/installation.md says"
)


def suggest(name: str, valid: Iterable[str], otherwise: str = "") -> str:
    """Propose the valid names closest to a wrong one, for an error message.

    Args:
        name: what was given.
        valid: what would have been accepted.
        otherwise: the proposal if nothing is close; by default all valid names.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    close = close or [known for known in names if known.lower() == name.lower()]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return otherwise or f"valid: {', '.join(names)}"


class InputError(ValueError):
    """Something the user gave is wrong; the message reads `file or key: what is wrong; how to mend it`.

    The command line tools print it without a traceback.
    """

    def __str__(self) -> str:
        """The message, without the traceback that a loader's worker puts before it."""
        return super().__str__().rpartition(f"{type(self).__module__}.{type(self).__qualname__}: ")[2].rstrip()


def check_name(key: str, name: str, valid: Iterable[str]) -> str:
    """Return `name` if it is one of `valid`.

    Args:
        key: what the user set, such as "WEIGHTING.WEIGHT_FORM", for the message.
        name: the value.
        valid: the accepted values.

    Raises:
        InputError: `name` is not among them; the message proposes the closest ones.
    """
    names = list(valid)
    if name not in names:
        raise InputError(f"{key}: {name!r} is not known; {suggest(str(name), names)}")
    return name


def one_line_message(error: BaseException | None) -> str:
    """The line that `clear_errors` prints for an error, or "" for one that needs a traceback."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return f"{error.filename or 'a file'}: cannot be written ({error.strerror}); make room on a disk for it"
    if isinstance(error, ModuleNotFoundError) and error.name == "detectron2":
        return _NO_DETECTRON2
    return ""


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print an `InputError` raised inside as one line and exit with status 2; for the main function of a tool.

    Full or read-only disks, where other code such as Detectron2's evaluators meets them, and a missing Detectron2 are
    treated alike; Ctrl-C prints one line and exits with status 130.
    """
    try:
        yield
    except (InputError, OSError, ModuleNotFoundError) as error:
        if not (message := one_line_message(error)):
            raise
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        print("stopped by SIGINT", file=sys.stderr)
        raise SystemExit(130) from error
