"""What a run has done so far, in the job directory: kept for a run that continues it, removed with success.

The folder holds arrays, sealed for the run that they belong to, and a list of what they were made from. It is not
hidden: RELION's *overwrite* removes what it sees.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import __version__
from gem_plugin.errors import InputError, OptionError, OutputError
from gem_plugin.io.atomic import replacing
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import Monitor
from relion_external.markers import AbortSwitch
from relion_external.options import in_words
from relion_external.sealed import BrokenSealError, read_sealed, write_sealed

FOLDER = "gem_checkpoint"
MADE_FROM = "made_from.json"
FORMAT = 1
INTERVAL_S = 120.0  # between two checkpoints within a stage
_LARGEST_LIST_BYTES = 256_000_000
# What may change when a run is continued: it changes nothing that is kept.
FREE_OPTIONS = frozenset(
    {"o", "j", "pipeline_control", "verbose", "restart", "in_mask", "in_3dref", "adhoc_bfac", "locres_radius"}
    | {"gpu", "scratch"}
)

_OF_PARTICLES = "what the refinement's files say of the particles"
OptionValue = str | int | float | bool | None
MadeFrom = dict[str, str]  # what, in words that a message can show -> its value or fingerprint


def made_from(options: Mapping[str, OptionValue], table: Path, particles: Particles, n_processes: int) -> MadeFrom:
    """What a run's results follow from: the program, its settings, the particles and the image stacks.

    Stacks, which are large, are known by size and time of change, as they were when the run began.

    Raises
    ------
    InputError
        If the table cannot be read any more.
    """
    found = {"the version of gem-external": __version__, "the number of processes": str(n_processes)}
    found |= {f"--{name}": in_words(name, value) for name, value in options.items() if name not in FREE_OPTIONS}
    try:
        found[f"the content of {table}"] = hashlib.sha256(table.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{table} cannot be read any more: {error.strerror or error}") from error
    found[_OF_PARTICLES] = _fingerprint(particles)
    for path, stamp in zip(particles.stack_paths, particles.stack_stamps, strict=True):
        found[f"the image stack {path}"] = str(stamp)
    return found


def _fingerprint(particles: Particles) -> str:
    """Of all numbers that were read of particles and optics groups."""
    digest = hashlib.sha256(repr(particles.optics_groups).encode())
    for field in dataclasses.fields(particles):
        value = getattr(particles, field.name)
        if isinstance(value, np.ndarray) and value.dtype != object:
            digest.update(f"{field.name} {value.dtype} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


class CheckpointFolder:
    """A run's checkpoints in its job directory; `gem_plugin.checkpoints.Store`.

    Parameters
    ----------
    directory : of the job
    source : what this run's results follow from
    monitor : is told what is found, and, once, if nothing can be kept
    switch : says when the run's end was announced, and hears that all is kept
    has_room : whether there is room for them; without it, what an earlier run kept is still used
    member : of several processes, 0 to n - 1; each keeps its own
    """

    def __init__(
        self,
        directory: Path,
        source: MadeFrom,
        monitor: Monitor,
        switch: AbortSwitch | None = None,
        has_room: bool = True,
        member: int = 0,
    ) -> None:
        self._folder = directory / FOLDER
        self._source = source
        self._owner = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()
        self._monitor = monitor
        self._switch = switch
        self._ending = f"_process{member}" if member else ""
        self._kept_at = time.monotonic()
        self._has_room = has_room
        self._is_refused = False

    def open(self, *, restart: bool) -> None:
        """Take over what an earlier run left, if it was made from the same; begin anew if that is asked for.

        Raises
        ------
        OptionError
            If it was made from something else, which is named.
        """
        if restart:
            self.remove()
        if not self._folder.is_dir():
            if os.path.lexists(self._folder):
                self._monitor.note(f"Checkpoints: none are kept, because {self._folder} is no folder; move it away")
                self._has_room = False
            return
        for part in self._folder.glob(".*"):
            with contextlib.suppress(OSError):
                part.unlink()
        before = self._listed()
        if before is None:
            self._monitor.note(f"Checkpoints: what is in {self._folder} cannot be read and is not used")
            self.remove()
            return
        different = [what for what in {**before, **self._source} if before.get(what) != self._source.get(what)]
        if len(different) > 1 and _OF_PARTICLES in different:  # what else has changed is the cause
            different.remove(_OF_PARTICLES)
        if different:
            raise OptionError(self._refusal(different, before))
        self._monitor.note(f"Checkpoints: continuing with what an earlier run left in {self._folder}")
        if self._switch is not None:
            self._switch.keep_state_first()

    def load(self, name: str) -> dict[str, NDArray[Any]] | None:
        """See `Store`; a file that is damaged is not used."""
        path = self._path(name)
        try:
            return read_sealed(path, self._owner_of(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, BrokenSealError) as error:
            self._monitor.note(f"Checkpoints: {path} is damaged or another's, and is not used ({error})")
            return None

    def keep(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """See `Store`. The file appears whole, on disk, or not at all."""
        if not self._has_room:
            return
        try:
            self._folder.mkdir(exist_ok=True)
            self._list()
            with replacing(self._path(name)) as temporary:
                write_sealed(temporary, arrays, self._owner_of(self._path(name)))
        except (OSError, OutputError) as error:
            if not self._is_refused:
                self._monitor.note(f"Checkpoints: none can be kept, a run that ends early will begin anew ({error})")
            self._is_refused = True
        self._kept_at = time.monotonic()
        if self._switch is not None:
            self._switch.keep_state_first()
            self._switch.state_was_kept()

    def drop(self, prefix: str) -> None:
        """See `Store`."""
        for path in self._folder.glob(f"{prefix}*{self._ending}.npz"):
            with contextlib.suppress(OSError):
                path.unlink()

    def is_due(self) -> bool:
        """See `Store`."""
        is_announced = self._switch is not None and self._switch.wants_state
        return is_announced or time.monotonic() - self._kept_at >= INTERVAL_S

    def remove(self) -> None:
        """Remove all that runs keep there: the run is complete, or begins anew. Files of others stay."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.suffix == ".npz" or path.name == MADE_FROM or path.name.startswith("."):
                    path.unlink()
            if not self._folder.is_symlink():
                self._folder.rmdir()

    def _owner_of(self, path: Path) -> str:
        """By which a file is known to be this one, of a run made from the same."""
        return f"{FORMAT} {self._owner} {path.name}"

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{self._ending}.npz"

    def _list(self) -> None:
        """Say in the folder what its files were made from; before the first of them."""
        path = self._folder / MADE_FROM
        if not self._ending and not path.exists():
            with replacing(path) as temporary:
                temporary.write_text(json.dumps({"format": FORMAT, "made_from": self._source}, indent=1), "utf-8")

    def _listed(self) -> MadeFrom | None:
        path = self._folder / MADE_FROM
        try:
            if not path.is_file() or path.stat().st_size > _LARGEST_LIST_BYTES:
                return None
            listed = json.loads(path.read_text("utf-8"))
            if listed["format"] != FORMAT:
                return None
            return {str(what): str(value) for what, value in listed["made_from"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _refusal(self, different: list[str], before: MadeFrom) -> str:
        shown = []
        for what in different[:3]:
            if what.startswith(("--", "the version", "the number")):
                was, now = (values.get(what, "not there") for values in (before, self._source))
                shown.append(f"{what} (was {was}, is {now})")
            else:
                shown.append(what)
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        return (
            f"{self._folder} holds what an earlier run of this job had done, and what that was made from has changed:"
            f" {', '.join(shown)}{more}. Put it back to continue that run, or add --restart to begin anew; nothing was"
            " changed"
        )
