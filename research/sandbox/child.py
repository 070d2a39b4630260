"""The inside of the sandbox: a script of its own, on the standard library alone.

Started as `python -I -S child.py PLAN CONTROL` with two inherited descriptors: the plan
(JSON, see `launch`) and a pipe for what became of it (JSON lines: "started", then
"returncode" and "cpu", or "error"). Three processes: this one, outside; the first
process of a new PID namespace, whose end kills everything inside; and the program."""

import base64
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18
DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
PDEATHSIG, NO_NEW_PRIVS, SET_SECCOMP, SECCOMP_FILTER = 1, 38, 22, 2
MOUNT_SETATTR, ATTR_READ_ONLY = 442, 1 | NOSUID | NODEV
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
NOBODY = 65534
BOX = "/box"

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def prctl(option: int, value: int, pointer=None) -> None:
    rest = pointer or ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)
    check(libc.prctl(option, ctypes.c_ulong(value), *rest), f"prctl {option}")


def tell(control: int, **message) -> None:
    os.write(control, json.dumps(message).encode() + b"\n")


def mount(source: str, target: str, kind: str | None, flags: int, data="") -> None:
    kind = kind and kind.encode()
    arguments = source.encode(), target.encode(), kind, flags, data.encode()
    check(libc.mount(*arguments[:3], ctypes.c_ulong(flags), arguments[4]), target)


def read_only(path: str, recursive: bool) -> None:
    """Forbid writes, devices and set-user-id below a mount point."""
    attributes = (ctypes.c_uint64 * 4)(ATTR_READ_ONLY, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    call = ctypes.c_long(MOUNT_SETATTR), AT_FDCWD, path.encode(), flags
    check(libc.syscall(*call, ctypes.byref(attributes), 32), f"read-only {path}")


def new_namespaces(root: bool) -> None:
    """Own mounts, processes, network, queues; without root, first own user ids."""
    uid, gid = os.getuid(), os.getgid()
    flags = NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS | NEWCGROUP
    check(libc.unshare(flags if root else flags | NEWUSER), "new namespaces")
    if not root:
        # One id, mapped to itself: not 0, so that exec drops all capabilities.
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{uid or NOBODY} {uid} 1")
        write("/proc/self/gid_map", f"{gid or NOBODY} {gid} 1")


def write(path: str, text: str | bytes) -> None:
    with open(path, "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def change_root(plan: dict, root: bool) -> None:
    """A file system of the listed paths, read-only, and an empty scratch folder."""
    mount("none", "/", None, REC | PRIVATE)
    base = plan["base"]
    mount("tmpfs", base, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    paths = [*plan["read_only"], "/dev/null", "/dev/zero", "/dev/urandom"]
    for path, place in ({p: p for p in paths} | plan["packages"]).items():
        target = base + place
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
            continue
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        else:
            write(target, "")
        mount(path, target, None, BIND | REC)
        if not path.startswith("/dev/"):
            read_only(target, recursive=True)
    box, size = base + BOX, plan["limits"]["scratch_bytes"]
    os.mkdir(box)
    files = plan["limits"]["scratch_files"] + len(plan["files"])
    owner = f"uid={NOBODY},gid={NOBODY}," if root else ""
    options = f"{owner}size={size},nr_inodes={files},mode=700"
    mount("tmpfs", box, "tmpfs", NOSUID | NODEV, options)
    os.chdir(base)
    machine = os.uname().machine
    check(libc.syscall(ctypes.c_long(PIVOT_ROOT[machine]), b".", b"."), "new root")
    check(libc.umount2(b".", DETACH), "old root")
    os.chdir("/")
    read_only("/", recursive=False)
    os.chdir(BOX)


def fill_box(files: dict[str, str], folder: str) -> None:
    for name, data in files.items():
        target = os.path.join(folder, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        write(target, base64.b64decode(data))


def limit(limits: dict, beside: int) -> None:
    """Resource limits; `beside` processes of ours count as the program's own."""
    cpu, memory = limits["cpu_seconds"], limits["memory_bytes"]
    scratch, processes = limits["scratch_bytes"], limits["processes"] + beside
    for name, soft, hard in (
        ("CPU", cpu, cpu + 1),
        ("AS", memory, memory),
        ("FSIZE", scratch, scratch),
        ("NOFILE", limits["open_files"], limits["open_files"]),
        ("NPROC", processes, processes),
        ("CORE", 0, 0),
        ("MEMLOCK", 0, 0),
        ("MSGQUEUE", 0, 0),
    ):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (soft, hard))


def install(program: bytes) -> None:
    """No new privileges, and the system-call filter, for good."""
    prctl(NO_NEW_PRIVS, 1)
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    filled = Program(len(program) // 8, ctypes.addressof(code))
    prctl(SET_SECCOMP, SECCOMP_FILTER, ctypes.byref(filled))


def run(plan: dict, control: int, root: bool) -> None:
    """Become the program; never returns."""
    isolated = plan["mode"] == "isolated"
    try:
        if isolated:
            os.setsid()
        if isolated and root:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            # In a user namespace of its own the program's processes are counted
            # alone. A kernel without them counts all of nobody's: stricter, not looser.
            libc.unshare(NEWUSER)
        limit(plan["limits"], beside=2 if isolated and not root else 0)
        if plan["filter"]:
            install(base64.b64decode(plan["filter"]))
        os.umask(0o077)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Closed by exec, so that it can still carry the error of one that fails.
        os.set_inheritable(control, False)
        tell(control, started=True)
        os.execve(plan["argv"][0], plan["argv"], {})
    except BaseException as error:  # whatever it was, it must not go on in a fork
        tell(control, error=f"{type(error).__name__}: {error}")
    os._exit(127)


def supervise(plan: dict, control: int, root: bool) -> None:
    """Fork the program, reap what it leaves, tell how it ended; never returns."""
    program = os.fork()
    if program == 0:
        run(plan, control, root)
    for fd in (0, 1, 2):
        os.close(fd)
    while True:
        pid, status, usage = os.wait4(-1, 0)
        if pid == program:
            break
    code, cpu = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    tell(control, returncode=code, cpu=cpu)
    os._exit(0)


def main() -> None:
    control = int(sys.argv[2])
    prctl(PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with open(int(sys.argv[1]), encoding="utf-8") as file:
            plan = json.load(file)
        root = os.geteuid() == 0 and plan["as_root"]
        if plan["mode"] == "limits":
            fill_box(plan["files"], plan["base"])
            os.chdir(plan["base"])
            supervise(plan, control, root)
        new_namespaces(root)
        outside, inside = socket.socketpair()
        first = os.fork()
        if first == 0:
            outside.close()
            prctl(PDEATHSIG, signal.SIGKILL)
            # Died before the line above? Then its end of the pair is closed.
            if select.select([inside], [], [], 0)[0]:
                os._exit(1)
            # Outside a namespace of its own, kill(-1) would reach the whole machine.
            if os.getpid() != 1:
                raise OSError("not the first process of a namespace")
            change_root(plan, root)
            fill_box(plan["files"], BOX)
            supervise(plan, control, root)
        # The wait returns once nothing is left inside, and not before.
        signal.signal(signal.SIGTERM, lambda *_: os.kill(first, signal.SIGKILL))
        for fd in (0, 1, 2):
            os.close(fd)
        os.waitpid(first, 0)
    except Exception as error:  # whatever it is, the parent must hear of it
        tell(control, error=f"{type(error).__name__}: {error}")
    os._exit(0)


if __name__ == "__main__":
    main()
