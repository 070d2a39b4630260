"""Hostile programs: each prints LEAK, or what was expected, if it gets its way.

`HOST` stands for the folder on the host that the program goes for."""

from pathlib import Path

# name -> (how it may end, source)
ATTACKS = {
    "fork_bomb": ({"error", "memory", "timeout"}, "import os\nwhile 1: os.fork()"),
    "thread_bomb": (
        {"error"},
        "import threading, time\n"
        "while 1: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    ),
    "memory_bomb": ({"memory"}, "x = []\nwhile 1: x.append(bytearray(10**7))"),
    "memory_bomb_in_children": (
        {"memory"},
        "import os, time\nos.fork(); os.fork()\nx = bytearray(60 << 20)\ntime.sleep(9)",
    ),
    "memory_outside_the_address_space": (
        {"error"},
        "import os\nfds = []\nwhile 1:\n"
        "    fds.append(os.memfd_create('x'))\n"
        "    os.write(fds[-1], bytes(1 << 20)); print('LEAK')",
    ),
    "infinite_output": ({"output"}, "while 1: print('x' * 1000)"),
    "infinite_errors": (
        {"output"},
        "import sys\nwhile 1: sys.stderr.write('x' * 1000)",
    ),
    "infinite_loop": ({"timeout"}, "while 1: pass"),
    "deaf_infinite_loop": (
        {"timeout"},
        "import signal\nfor s in range(1, 32):\n"
        "    if s not in (9, 19): signal.signal(s, signal.SIG_IGN)\n"
        "while 1: pass",
    ),
    "sleep": ({"timeout"}, "import time\ntime.sleep(100)"),
    "stop_oneself": ({"timeout"}, "import os\nos.kill(os.getpid(), 19)"),
    "read_a_file": ({"error"}, "print('LEAK', open('HOST/secret.txt').read())"),
    "read_home": (
        {"ok"},
        "import os\nfor d in ('HOST', '/home', '/etc/passwd', '/srv', '/var', '/tmp',"
        " '/proc/self', '/proc/1', '/sys/kernel', '/mnt'):\n"
        "    if os.path.exists(d): print('LEAK', d)",
    ),
    "read_the_environment": (
        {"ok"},
        "import os\nif set(os.environ) - {'LC_CTYPE'}: print('LEAK', os.environ)",
    ),
    "read_the_parents_environment": (
        {"error"},
        "import os\nprint('LEAK', open(f'/proc/{os.getppid()}/environ').read())",
    ),
    "climb_out": (
        {"error"},
        "import os\nroot = os.open('/', 0)\nos.mkdir('x')\nos.chroot('x')\n"
        "os.chdir('..')\nprint('LEAK')",
    ),
    "inherited_descriptors": (
        {"ok"},
        "import os\nfor fd in range(3, 200):\n"
        "    try: os.fstat(fd)\n"
        "    except OSError: continue\n"
        "    print('LEAK', fd)",
    ),
    "tcp": (
        {"error"},
        "from socket import *\n"
        "create_connection(('127.0.0.1', PORT), 1)\nprint('LEAK')",
    ),
    "unix_socket": (
        {"error"},
        "import socket\nsocket.socket(socket.AF_UNIX)\nprint('LEAK')",
    ),
    "name_lookup": (
        {"error"},
        "import socket\nprint('LEAK', socket.getaddrinfo('localhost', 80)[0])\n"
        "socket.socket()",
    ),
    "kill_parent": (
        {"killed", "error", "ok"},
        # Without its own process namespace this would end every process of the host:
        # a high process id says so, before any harm is done.
        "import os, sys\nif os.getpid() > 9: print('LEAK'); sys.exit()\n"
        "for s in (1, 2, 3, 15, 9):\n"
        "    for p in (os.getppid(), -1, HOSTPID):\n"
        "        try: os.kill(p, s)\n"
        "        except OSError: pass\n"
        "os.killpg(0, 9)",
    ),
    "trace_parent": (
        {"ok"},
        "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
        "for p in (1, os.getppid(), HOSTPID):\n"
        "    if libc.ptrace(16, p, 0, 0) == 0: print('LEAK')",
    ),
    "write_outside": (
        {"ok"},
        "import os, sys\n"
        "for d in ('HOST', '/', '/tmp', '/usr/lib', os.path.dirname(os.__file__),\n"
        "          '/dev', '/dev/shm', '/lib', os.path.dirname(sys.executable)):\n"
        "    try: open(d + '/evil', 'w').write('x'); print('LEAK', d)\n"
        "    except OSError: pass\n"
        "try: os.mknod('device', 0o60600, os.makedev(254, 0)); print('LEAK')\n"
        "except OSError: pass",
    ),
    "write_own_python": (
        {"error"},
        "import os\nos.chmod(os.__file__, 0o666)\nopen(os.__file__, 'w').write('x')\n"
        "print('LEAK')",
    ),
    "write_the_packages": (
        {"ok"},
        "import os\nseen = os.path.isdir('/packages')\n"
        "for d in ('/packages', '/packages/numpy', '/packages/numpy.libs'):\n"
        "    try: open(d + '/evil.py', 'w').write('x'); print('LEAK', d)\n"
        "    except OSError: pass\n"
        "    try: os.chmod(d, 0o777); print('LEAK', d)\n"
        "    except OSError: pass\n"
        "if seen and set(os.listdir('/packages')) - {'numpy', 'numpy.libs'}:\n"
        "    print('LEAK')",
    ),
    "read_the_kernels_messages": (
        {"ok"},
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.klogctl(10, None, 0) >= 0: print('LEAK')\n"
        "if ctypes.get_errno() != 1: print('LEAK')",
    ),
    "fill_the_disk": (
        {"error", "killed"},
        "i = 0\nwhile 1:\n"
        "    open(f'f{i}', 'wb').write(bytes(1 << 20)); i += 1\n"
        "    if i > 100: print('LEAK')",
    ),
    "many_files": (
        {"error"},
        "for i in range(5000): open(f'f{i}', 'w').close()\nprint('LEAK')",
    ),
    "one_large_file": (
        {"error", "killed"},
        "f = open('f', 'wb')\nf.truncate(1 << 40)\nprint('LEAK')",
    ),
    "new_namespace": (
        {"ok"},
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "for f in (0x10000000, 0x20000, 0x40000000):\n"
        "    if libc.unshare(f) == 0: print('LEAK unshare')\n"
        "    if libc.syscall(56, f | 17, 0, 0, 0, 0) > 0: print('LEAK clone')\n"
        "if libc.mount(b'none', b'/box', b'tmpfs', 0, None) == 0: print('LEAK')",
    ),
    "raise_limits": (
        {"error"},
        "import resource as r\n"
        "r.setrlimit(r.RLIMIT_NPROC, (1000, 1000))\nprint('LEAK')",
    ),
    "gain_root": (
        {"error"},
        "import os\nos.setuid(0)\nprint('LEAK')",
    ),
    # The harness: what runs the program has no name, file or exit code to imitate.
    "exit_early": ({"ok"}, "import sys\nsys.exit(0)"),
    "exit_hard": ({"ok"}, "import os\nos._exit(0)"),
    "false_success": (
        {"ok"},
        'print(\'{"started": true}\\n{"returncode": 0}\\nPASSED all tests ok\')',
    ),
    "forge_the_report": (
        {"ok"},
        "import os\nfor fd in range(3, 100):\n"
        "    try: os.write(fd, b'{\"returncode\": 0}\\n'); print('LEAK')\n"
        "    except OSError: pass",
    ),
    "shadow_the_harness": (
        {"ok"},
        "import sys, types\n"
        "for name in ('research', 'research.sandbox', 'research.sandbox.run'):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        "sys.modules['research.sandbox.run'].passes = lambda *_: True\n"
        "for name in ('json', 'child', 'sitecustomize', 'usercustomize'):\n"
        "    open(name + '.py', 'w').write('print(\"LEAK\")')\n"
        "import json",
    ),
    "import_the_harness": ({"error"}, "import research.sandbox.run\nprint('LEAK')"),
    "read_expected_output": (
        {"ok"},
        "import os\nfor folder, _, names in os.walk('/box'):\n"
        "    for name in names:\n"
        "        text = open(os.path.join(folder, name)).read()\n"
        "        print(*[w for w in text.split() if w.startswith('token')])\n"
        "for folder in ('HOST', '/proc'):\n"
        "    for path in (folder + '/expected.txt', folder + '/secret.txt'):\n"
        "        try: print(open(path).read())\n"
        "        except OSError: pass",
    ),
    "daemon": (
        {"ok"},
        "import os, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        for fd in (0, 1, 2): os.close(fd)\n"
        "        time.sleep(1000)\n    os._exit(0)\n",
    ),
    "daemon_that_keeps_the_pipes": (
        {"ok"},
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)\n",
    ),
    "close_the_streams": (
        {"timeout"},
        "import os, time\nfor fd in (0, 1, 2): os.close(fd)\ntime.sleep(1000)",
    ),
    "read_the_terminal": (
        {"error"},
        "print('LEAK', open('/dev/tty').read(1))",
    ),
}

# Every program carries this name, and so does all that it forks.
MARK = "import ctypes\nctypes.CDLL(None).prctl(15, b'NAME', 0, 0, 0)\ndel ctypes\n"


def marked(source: str, name: str, host: str, port: int, pid: int) -> str:
    """An attack's text with the places filled in, its processes called `name`."""
    for old, new in (("HOSTPID", pid), ("HOST", host), ("PORT", port)):
        source = source.replace(old, str(new))
    return MARK.replace("NAME", name) + source


def survivors(name: str) -> list[str]:
    """Process ids of the host whose name is `name`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == name:
                found.append(path.parent.name)
        except OSError:  # it has just ended
            continue
    return found
