"""The command ``gem-external``: RELION's External job, its exit markers and exit codes.

Everything heavy is imported where it is used, so that ``--help`` answers at once and an abort is heard while the
numerical libraries load.
"""

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gem_plugin import __version__
from gem_plugin.errors import GemError, JobAborted, OptionError, OutputError
from relion_external import file_names
from relion_external.caches import prepare_caches
from relion_external.guardian import Guardian
from relion_external.lock import LOCK_NAME, DirectoryInUseError, DirectoryLock
from relion_external.markers import AbortSwitch, ExitMarkers, Outcome
from relion_external.members import Membership, assist_job, find_membership, membership_of, team_of
from relion_external.messages import explain, say, warnings_of_libraries_in
from relion_external.ownership import (
    ForeignDirectoryError,
    is_own_directory,
    require_inputs_elsewhere,
    require_own_directory,
)
from relion_external.partial import (
    choose_partial_folder,
    partial_results,
    remove_abandoned_results,
    remove_partial_results,
)
from relion_external.progress_file import BothMonitors, ProgressFile
from relion_external.streams import forget_closed_streams, make_streams_safe

if TYPE_CHECKING:
    from relion_external.options import JobOptions

_USAGE = f"""gem-external {__version__}: better maps from a finished RELION refinement

usage: gem-external --o DIRECTORY --in_parts run_data.star [options]   reconstruct; run it in the project directory
       gem-external check --in_parts run_data.star [options]           say what would be run and what it would take
       gem-external demo [--help]                                      make a small data set to try it on
       gem-external --help | --version

In RELION: External job, 'External executable' gem-external, 'Input particles' a run_data.star."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 success, 1 failure, 2 aborted."""
    words = list(sys.argv[1:] if argv is None else argv)
    make_streams_safe()
    first = words[0] if words else ""
    if first == "demo":
        from relion_external.demo import main as demo

        return demo(words[1:])
    if first == "check":
        return _check(words[1:])
    if not words or first in ("--help", "-h", "help"):
        from relion_external.options import help_text

        _print(help_text(_USAGE))
        return 0 if words else 1
    if first == "--version":
        _print(f"gem-external {__version__}")
        return 0
    try:
        membership = find_membership(os.environ)
    except OptionError as error:
        say(f"error: {error}")
        return 1
    if membership is not None and membership.rank > 0:
        return assist_job(words, membership)
    return run_job(words, membership)


def run_job(argv: Sequence[str], membership: Membership | None = None) -> int:
    """Run the job that the options ask for; whatever happens, exactly one exit marker stands in ``--o`` at the end.

    The exceptions are a directory that is not ours and one in which another run is at work: nothing changes there.

    Parameters
    ----------
    membership : of this process, the first of several; None for one that runs alone
    """
    markers = None
    outcome = Outcome.FAILURE
    verbose = False
    reason = ""
    log = ProgressFile()
    switch = AbortSwitch()
    with switch.hearing_signals(), warnings.catch_warnings(), DirectoryLock() as lock, Guardian() as guardian:
        try:
            # Not before the signals are heard: this takes a while.
            from relion_external.options import find_output_directory, parse_command_line

            directory = find_output_directory(argv)
            if directory is not None:
                markers = _claim(directory, lock, switch)
                require_own_directory(directory)
            options = parse_command_line(argv)
            verbose = options.verbose
            if not verbose:  # what is wrong with the data is told in one clear line
                warnings.simplefilter("ignore", RuntimeWarning)
            markers = _claim(options.directory, lock, switch)
            _require_safe_directory(options)
            with membership_of(options, argv, membership) as first:
                outcome = _run_and_watch(options, argv, markers, lock, guardian, switch, first, log)
        except (JobAborted, KeyboardInterrupt) as error:
            outcome = Outcome.ABORTED
            reason = f"aborted: {error}"
            say(reason)
        except (ForeignDirectoryError, DirectoryInUseError) as error:
            markers = None
            reason = f"error: {error}"
            say(reason)
        except BaseException as error:
            # The one boundary: every error of any kind becomes a sentence, a marker and an exit code.
            if switch.reason is not None and isinstance(error, GemError):  # what was asked to end may end so
                outcome, error = Outcome.ABORTED, JobAborted(f"{switch.reason} ({error})")
            reason = explain(error, show_origin=verbose)
        if markers is not None:
            outcome = _leave_marker(markers, outcome)
            if not log.is_open:  # the story of an earlier run, if there is one, is not this one's
                log.open(markers.directory, argv)
        log.end(outcome, reason)
    forget_closed_streams()
    return outcome.exit_code


def _claim(directory: Path, lock: DirectoryLock, switch: AbortSwitch) -> ExitMarkers:
    """Make sure that markers may be written to the directory: it is not another job's, and no other run is in it."""
    if not is_own_directory(directory):
        require_own_directory(directory)  # before anything else: not even a lock may be left in another's
    lock.take(directory, switch.check)
    return ExitMarkers(directory, lock.turn_into)


def _require_safe_directory(options: "JobOptions") -> None:
    require_own_directory(options.directory)
    require_inputs_elsewhere(options)


def _run_and_watch(
    options: "JobOptions",
    argv: Sequence[str],
    markers: ExitMarkers,
    lock: DirectoryLock,
    guardian: Guardian,
    switch: AbortSwitch,
    membership: Membership | None,
    log: ProgressFile,
) -> Outcome:
    """Prepare the job directory, then run while listening for the wish to abort."""
    directory = options.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        markers.clear_stale()
    except OSError as error:
        raise OutputError(
            f"the job directory {directory} cannot be written: {error.strerror or error}. Check the path given as --o "
            "and that you may write there"
        ) from error
    if lock.is_held:
        remove_abandoned_results(directory)
    folder = choose_partial_folder(directory)
    guardian.guard(directory / LOCK_NAME, folder)
    log.open(directory, argv)

    def when_stuck(reason: str) -> None:
        remove_partial_results(folder)
        lock.release()
        say(f"aborted: {reason}")
        log.end(Outcome.ABORTED, f"aborted: {reason}")

    switch.attend(markers, when_stuck)
    with switch.watching():
        switch.check()
        return _run(options, argv, markers, switch, folder, membership, log)


def _run(
    options: "JobOptions",
    argv: Sequence[str],
    markers: ExitMarkers,
    switch: AbortSwitch,
    folder: Path,
    membership: Membership | None,
    log: ProgressFile,
) -> Outcome:
    """Read, reconstruct, write; returns with the results in place and the marker of success written."""
    from relion_external.progress import duration, make_progress
    from relion_external.startup import announce, command_line, limit_threads, settings_record, within_processors

    started = time.monotonic()
    options, note = within_processors(options)
    if membership is not None:
        options = options.model_copy(update={"n_threads": membership.threads_of(options.n_threads)})
    limit_threads(options.n_threads)
    shown = make_progress(verbose=options.verbose, check_abort=switch.check)
    monitor = BothMonitors([log, shown])
    log.settings(options.effective_settings())
    announce(options, argv, monitor)
    if note:
        monitor.note(note)
    switch.check()

    from gem_plugin.reconstruct import reconstruct
    from relion_external import outputs
    from relion_external.check import look_ahead
    from relion_external.checkpoint_folder import CheckpointFolder, made_from
    from relion_external.inputs import read_inputs
    from relion_external.nodes import relion_version
    from relion_external.optimiser import resolve_optimiser

    with (
        contextlib.closing(shown),
        warnings_of_libraries_in(monitor),
        partial_results(folder),
        team_of(membership, monitor) as team,
    ):
        options, refinement_files, told = resolve_optimiser(options)
        for line in told:
            monitor.note(line)
        _require_safe_directory(options)
        inputs = read_inputs(options, refinement_files)
        planned, has_room_for_checkpoints = look_ahead(options, inputs)
        for line in planned:
            monitor.note(line)
        source = made_from(options.effective_settings(), options.particle_table, inputs.particles, team.size)
        checkpoints = CheckpointFolder(options.directory, source, monitor, switch, has_room_for_checkpoints)
        checkpoints.open(restart=options.restart)
        reconstruction = reconstruct(
            inputs.particles,
            options.reconstruction_config(),
            n_threads=options.n_threads,
            mask=inputs.mask,
            reference=inputs.reference,
            monitor=monitor,
            team=team,
            store=checkpoints,
        )
        switch.check()
        outputs.write_results(
            folder,
            options.directory,
            reconstruction,
            inputs.particles,
            version=relion_version(options.directory / "job.star"),
            settings=settings_record(options, argv, reconstruction),
            command=command_line(argv),
            mask_was_given=inputs.mask is not None,
        )
        switch.check()
        with markers.uninterrupted():
            outputs.move_into_place(folder, options.directory, mask_was_given=inputs.mask is not None)
            checkpoints.remove()
            monitor.note(reconstruction.curve.statement)
            monitor.note(f"Map: {options.directory / file_names.COMBINED_MAP}")
            monitor.note(f"Report: {options.directory / file_names.REPORT}")
            monitor.note(f"Done in {duration(time.monotonic() - started)}")
            return markers.finish(Outcome.SUCCESS)


def _check(argv: Sequence[str]) -> int:
    """Run ``gem-external check``: no job directory, no marker."""
    from relion_external.options import help_text, parse_command_line

    if "--help" in argv or "-h" in argv:
        _print(help_text(_USAGE))
        return 0
    options = None
    try:
        options = parse_command_line(argv)
        if options.output is not None:
            _require_safe_directory(options)
        prepare_caches()
        from relion_external.check import check

        _print("\n".join(check(options)))
    except (Exception, KeyboardInterrupt) as error:
        explain(error, show_origin=options is not None and options.verbose)
        return Outcome.FAILURE.exit_code
    return Outcome.SUCCESS.exit_code


def _leave_marker(markers: ExitMarkers, outcome: Outcome) -> Outcome:
    """Write the marker if it is not there yet; where the directory takes none, say so: RELION will not notice."""
    try:
        markers.directory.mkdir(parents=True, exist_ok=True)
        return markers.finish(outcome)
    except OSError as error:
        say(
            f"note: the marker {outcome.file_name} cannot be written to {markers.directory} "
            f"({error.strerror or error}), so RELION will show the job as running: mark it as failed there"
        )
        return outcome if outcome is not Outcome.SUCCESS else Outcome.FAILURE


def _print(text: str) -> None:
    """Write to standard output, whose reader may have seen enough."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)
    forget_closed_streams()


if __name__ == "__main__":
    sys.exit(main())
