"""Who a process is among several, by its environment, and how a team fares when a member fails."""

import datetime
import multiprocessing
import socket
from dataclasses import replace

import numpy as np
import pytest

from gem_plugin.errors import OptionError
from gem_plugin.team import SOLO, DistributedTeam, TeamError
from relion_external.members import find_membership, start_members

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "MASTER_ADDR": "first",
    "MASTER_PORT": "20001",
}


def test_torchrun_and_srun_say_who_a_process_is() -> None:
    by_torchrun, by_srun = find_membership(TORCHRUN), find_membership(SRUN)
    assert by_torchrun is not None
    assert (by_torchrun.rank, by_torchrun.size, by_torchrun.rank_on_machine) == (3, 8, 1)
    assert (by_torchrun.address, by_torchrun.port, by_torchrun.has_meeting_place) == ("first", 29500, False)
    assert find_membership(by_torchrun.environment()) == by_torchrun
    assert by_torchrun.threads_of(8) == 8  # of each process
    started = replace(by_torchrun, shares_threads=True)
    assert find_membership(started.environment()) == started
    assert (started.threads_of(17), started.threads_of(3)) == (2, 1)  # of all eight
    under_agent = find_membership(TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "True"})
    assert under_agent is not None
    assert under_agent.has_meeting_place
    assert by_srun is not None
    assert (by_srun.rank, by_srun.size, by_srun.rank_on_machine, by_srun.port) == (2, 4, 0, 20001)


def test_one_process_is_no_team() -> None:
    assert find_membership({}) is None
    assert find_membership(TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}) is None
    # in a batch script with several tasks, outside any srun
    assert find_membership({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) is None


def test_a_meeting_place_that_nobody_named_is_asked_for() -> None:
    with pytest.raises(OptionError, match="process 3 of 4, and the environment lacks MASTER_ADDR and MASTER_PORT"):
        find_membership({name: value for name, value in SRUN.items() if not name.startswith("MASTER")})


@pytest.mark.parametrize(
    ("name", "value"),
    [("WORLD_SIZE", "x"), ("MASTER_PORT", "abc"), ("RANK", "-1"), ("LOCAL_RANK", "1.5"), ("RANK", "8"), ("RANK", "")],
)
def test_what_is_no_place_in_a_team_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(OptionError, match=f"{name} is '?{value}"):
        find_membership(TORCHRUN | {name: value})


@pytest.mark.parametrize("size", [2, 3, 5])
def test_shares_are_disjoint_and_complete(size: int) -> None:
    indices = np.arange(7) * 3
    shares = []
    for rank in range(size):
        member = type("Member", (type(SOLO),), {"rank": rank, "size": size})()
        shares.append(member.share(indices))
        assert len(shares[-1]) in (7 // size, 7 // size + 1)
        assert member.owns(1) == (rank == 0)
        assert member.owns(2) == (rank == 1)
    assert np.concatenate(shares).tolist() == indices.tolist()


@pytest.mark.parametrize("is_hopeless", [False, True])
def test_who_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, is_hopeless: bool) -> None:
    """A process that died before it joined: the group itself would wait for days."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if not is_hopeless:
        monkeypatch.setattr("gem_plugin.team.LONGEST_JOINING", datetime.timedelta(seconds=2))
    words = "ended before it joined" if is_hopeless else "not all of them came within 2 s"
    with pytest.raises(TeamError, match=rf"process 1 of 2 cannot reach the others .*{words}"):
        DistributedTeam(0, 2, "127.0.0.1", port, rank_on_machine=0, hosts=True, may_wait=lambda: not is_hopeless)


def test_a_process_that_ends_before_it_joins_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.chdir("/")
    with start_members(["--no_such_option"], 2) as first:
        assert first.others[0].wait(60) == 1
        with pytest.raises(TeamError, match="ended before it joined"):
            first.join()


def _member(rank: int, port: int, fails: bool, answers: "multiprocessing.Queue[tuple[int, object]]") -> None:
    team = DistributedTeam(rank, 2, "127.0.0.1", port, rank_on_machine=rank, hosts=rank == 0)
    try:
        sums = np.arange(4.0) * (rank + 1), np.full(2, rank + 1, dtype=np.int64)
        team.sum_at(1, sums)
        told = team.told_by(1, "word" if rank == 1 else None)
        sent = team.sent(1, 0, ("half", 2) if rank == 1 else None)
        gathered = team.gathered(rank)
        answers.put((rank, (sums[0].tolist(), sums[1].tolist(), told, sent, gathered)))
        if fails and rank == 1:
            team.tell_error("image 7 is damaged")
            return
        if fails:
            team.gathered(0)
    except TeamError as error:
        answers.put((rank, str(error)))
    finally:
        team.close()


@pytest.mark.parametrize("fails", [False, True])
def test_two_members_add_and_tell(fails: bool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[tuple[int, object]] = context.Queue()
    members = [context.Process(target=_member, args=(rank, port, fails, answers)) for rank in range(2)]
    for member in members:
        member.start()
    found = [answers.get(timeout=120) for _ in range(3 if fails else 2)]
    for member in members:
        member.join(60)
        assert member.exitcode == 0
    said = {rank: answer for rank, answer in found if not isinstance(answer, str)}
    assert said[1][:2] == ([0, 3, 6, 9], [3, 3])  # type: ignore[index]
    assert [said[rank][2:] for rank in (0, 1)] == [("word", ("half", 2), [0, 1]), ("word", None, [0, 1])]  # type: ignore[index]
    errors = [answer for rank, answer in found if isinstance(answer, str)]
    assert errors == (["process 2 of 2 ended: image 7 is damaged"] if fails else [])
