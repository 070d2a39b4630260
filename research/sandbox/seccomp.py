"""The system-call filter of the sandbox, as a classic BPF program.

A second wall behind the namespaces: the calls that reach other processes, sockets, new
namespaces, kernel keys, or memory that no resource limit counts fail with EPERM."""

import errno
import struct

# Call: number on x86_64, number on aarch64.
_DENIED = {
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "syslog": (103, 116),  # the kernel's messages tell of the host
    # Memory and queues that outlive a mapping, so that RLIMIT_AS does not see them.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag of clone
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in seccomp_data


def deny_filter(machine: str) -> bytes | None:
    """The filter for `os.uname().machine`, 8 bytes an instruction; None if unknown."""
    if machine not in _MACHINES:
        return None
    column, architecture = _MACHINES[machine]

    def step(code, value, yes=0, no=0):
        return struct.pack("=HBBI", code, yes, no, value)

    deny = step(_RETURN, _ERRNO | errno.EPERM)
    program = [
        step(_LOAD, _ARCHITECTURE),
        step(_EQUAL, architecture, yes=1),
        step(_RETURN, _KILL),
        step(_LOAD, _NUMBER),
        # Numbers from 2^30 are x86_64's second calling convention (x32).
        step(_GREATER_EQUAL, 1 << 30, no=1),
        step(_RETURN, _KILL),
        # libc falls back from clone3, whose flags a filter cannot see, to clone.
        step(_EQUAL, _CLONE3[column], no=1),
        step(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for numbers in _DENIED.values():
        program += [step(_EQUAL, numbers[column], no=1), deny]
    program += [
        step(_EQUAL, _CLONE[column], no=3),
        step(_LOAD, _FIRST_ARGUMENT),
        step(_ANY_BIT, _NEW_NAMESPACES, no=1),
        deny,
        step(_RETURN, _ALLOW),
    ]
    return b"".join(program)
