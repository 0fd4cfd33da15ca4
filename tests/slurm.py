"""A Slurm of one node on this machine's loopback interface: real daemons, no cgroups, no accounting."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel"]

# Jobs of one CPU that run at once, however many CPUs there are: most of them wait for something.
JOBS = 8

# MB that Slurm believes a CPU to have. A job gets them that asks for none. Each second Slurm looks for
# jobs that take more, and kills them.
MEMORY = 100_000

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=task=1
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU={memory}
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=3
MinJobAge=3600
NodeName=localhost NodeAddr=127.0.0.1 CPUs={jobs} RealMemory={all_memory} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Return why no Slurm can be started here; None if one can."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]
    if absent:
        return f"Slurm is not installed: {', '.join(absent)} (Debian: slurm-wlm and munge)"
    return None if os.geteuid() == 0 else "the daemons of Slurm need root"


class Slurm:
    """A running Slurm, whose files lie in a folder. Programs find it by SLURM_CONF."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.file)}

    def __enter__(self) -> "Slurm":
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        controller, daemon = _free_ports(2)
        words = {
            "folder": self.folder,
            "controller": controller,
            "daemon": daemon,
            "jobs": JOBS,
            "memory": MEMORY,
            "all_memory": JOBS * MEMORY,
        }
        self.file.write_text(CONFIGURATION.format(**words))
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = {"key-file": key, "socket": self.folder / "munge.socket"}
        files |= {f"{name}-file": self.folder / f"munged.{name}" for name in ("pid", "log", "seed")}
        self._start("munged", "--force", *(f"--{option}={path}" for option, path in files.items()))
        self._start("slurmctld", "-c")
        self._start("slurmd", "-N", "localhost")
        deadline = time.monotonic() + 60
        while "idle" not in self.run("sinfo", "-h", "-o", "%T"):
            assert time.monotonic() < deadline, (self.folder / "slurmctld.log").read_text()
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.run("scancel", "--user=root")
        for name in ("slurmd", "slurmctld", "munged"):
            with suppress(OSError, ValueError):
                os.kill(int((self.folder / f"{name}.pid").read_text()), signal.SIGTERM)

    def run(self, *command: str) -> str:
        """Return what one of Slurm's programs prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout

    def queue(self) -> list[str]:
        """Return the ids of the jobs that wait or run, each task of an array by itself."""
        return self.run("squeue", "-h", "-r", "-o", "%i").split()

    def _start(self, *command: str) -> None:
        environment = {**self.environment, "PATH": _path()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def _path() -> str:
    """Return the path of programs, with those of the system's daemons."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_ports(number: int) -> list[int]:
    """Return ports that nothing listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
