#!/usr/bin/env python3
"""Tries the system call filters of this folder without Docker and without systemd.

    seccomp_run.py FILE COMMAND [ARGUMENT...]   run COMMAND under the filter in FILE
    seccomp_run.py --check FILE                 say what is wrong with a Docker profile, if anything

FILE is a Docker seccomp profile, or a systemd unit: then its SystemCallFilter lines count, and nothing else of it.
The filter is built with libseccomp (the library that container runtimes and systemd use) and holds for COMMAND and all
it starts. Needs Linux and libseccomp.so.2, for a unit systemd-analyze too, but no rights.
Exit code: COMMAND's; 1 if the profile has faults, 2 for wrong usage.
"""

import ctypes
import errno
import json
import os
import subprocess
import sys

# libseccomp's own numbers, from seccomp.h.
ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_KILL_PROCESS": 0x80000000}
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
ARCHITECTURES = {"SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_AARCH64": 0xC00000B7}
NO_SUCH_NAME = -1

# What corecast can't do without, and what no container should be given in passing.
NEEDED = {"io_uring_setup", "io_uring_enter", "io_uring_register", "sched_setaffinity", "prlimit64", "execve"}
REFUSED = set(
    """acct add_key bpf chroot clock_settime delete_module finit_module fsopen init_module ioperm iopl kexec_file_load
    kexec_load keyctl mount mount_setattr move_mount name_to_handle_at open_by_handle_at open_tree perf_event_open
    personality pidfd_getfd pivot_root process_vm_readv process_vm_writev ptrace quotactl reboot request_key
    setdomainname sethostname setns settimeofday swapoff swapon syslog umount2 unshare userfaultfd vhangup
    capset execveat setfsgid setfsuid setgid setgroups setregid setresgid setresuid setreuid setuid
    chmod chown fchmod fchmodat fchown fchownat lchown link linkat mkdir mkdirat mknod mknodat rename renameat renameat2
    rmdir symlink symlinkat unlink unlinkat""".split()
)

# Families of sockets that the server makes: AF_UNIX, AF_INET, AF_INET6.
FAMILIES = {1, 2, 10}

PROFILE_KEYS = {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
RULE_KEYS = {"comment", "names", "action", "errnoRet", "args"}
ARG_KEYS = {"index", "value", "valueTwo", "op"}


class ArgCmp(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def group(name):
    """The system calls of one of systemd's groups, and of the groups in it."""
    command = ["systemd-analyze", "--no-pager", "syscall-filter", name]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[1:]
    members = {line.strip() for line in lines} - {""}
    return {call for member in members if not member.startswith("#") for call in expand(member)}


def expand(word):
    return group(word) if word.startswith("@") else {word}


def profile_of_unit(path):
    """What a unit's SystemCallFilter lines allow, as a profile: calls are added, and taken away after `~`."""
    allowed = group("@default")
    with open(path, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.strip().partition("=")
            if key == "SystemCallFilter":
                calls = {call for word in value.lstrip("~").split() for call in expand(word)}
                allowed = allowed - calls if value.startswith("~") else allowed | calls
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [],
        "syscalls": [{"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"}],
    }


def library():
    lib = ctypes.CDLL("libseccomp.so.2")
    lib.seccomp_init.restype = ctypes.c_void_p
    lib.seccomp_init.argtypes = [ctypes.c_uint32]
    lib.seccomp_load.argtypes = [ctypes.c_void_p]
    lib.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    lib.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(ArgCmp),
    ]
    lib.seccomp_arch_exist.argtypes = lib.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    return lib


def faults(profile, lib):
    """What is wrong with the profile, one sentence each."""
    if not isinstance(profile, dict):
        yield "the profile is no JSON object"
        return
    for key in profile.keys() - PROFILE_KEYS:
        yield f"`{key}` is a key that is not used here; both Docker and Kubernetes must read this file"
    if profile.get("defaultAction") != "SCMP_ACT_ERRNO":
        yield "defaultAction must be SCMP_ACT_ERRNO: this is a list of what is allowed"
    for name in profile.get("architectures") or ["(none)"]:
        if name not in ARCHITECTURES:
            yield f"architecture {name} is unknown"
    rules = profile.get("syscalls")
    if not isinstance(rules, list) or not rules:
        yield "syscalls must be a list of rules"
        return
    allowed, seen = set(), set()
    for number, rule in enumerate(rules, 1):
        where = f"rule {number}"
        for key in rule.keys() - RULE_KEYS:
            yield f"{where}: `{key}` is no key of a rule"
        if rule.get("action") not in ACTIONS:
            yield f"{where}: action {rule.get('action')} is unknown"
        if not rule.get("names"):
            yield f"{where} has no names"
        for arg in rule.get("args", []):
            if arg.keys() - ARG_KEYS or arg.get("op") not in OPERATORS or not {"index", "value"} <= arg.keys():
                yield f"{where}: {arg} is no argument test"
        if "socket" in rule.get("names", []) and rule.get("action") == "SCMP_ACT_ALLOW":
            tests = [(arg.get("index"), arg.get("op"), arg.get("value")) for arg in rule.get("args", [])]
            if not any(index == 0 and op == "SCMP_CMP_EQ" and value in FAMILIES for index, op, value in tests):
                yield f"{where}: it allows sockets of families that the server doesn't make"
        for name in rule.get("names", []):
            if lib.seccomp_syscall_resolve_name(name.encode()) == NO_SUCH_NAME:
                yield f"{where}: libseccomp knows no system call {name}"
            if name in seen and not rule.get("args"):
                yield f"{where}: {name} stands in an earlier rule already"
            seen.add(name)
            if rule.get("action") == "SCMP_ACT_ALLOW":
                allowed.add(name)
    for name in sorted(NEEDED - allowed):
        yield f"{name} is not allowed, and the server needs it"
    for name in sorted(REFUSED & allowed):
        yield f"{name} is allowed, and no server needs it"


def load(profile, lib):
    """Puts this process under the filter."""

    def must(code, what):
        if code < 0:
            raise OSError(-code, f"{what}: {os.strerror(-code)}")

    def action(name, number):
        return ACTIONS[name] | (number & 0xFFFF if name == "SCMP_ACT_ERRNO" else 0)

    context = lib.seccomp_init(action(profile["defaultAction"], profile.get("defaultErrnoRet", errno.EPERM)))
    if not context:
        raise OSError("libseccomp made no filter")
    for name in profile["architectures"]:
        if lib.seccomp_arch_exist(context, ARCHITECTURES[name]) != 0:
            must(lib.seccomp_arch_add(context, ARCHITECTURES[name]), name)
    for rule in profile["syscalls"]:
        tests = [
            ArgCmp(arg["index"], OPERATORS[arg["op"]], arg["value"], arg.get("valueTwo", 0))
            for arg in rule.get("args", [])
        ]
        array = (ArgCmp * len(tests))(*tests)
        for name in rule["names"]:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            # Names from a newer kernel than this libseccomp: container runtimes leave them out as well.
            if number != NO_SUCH_NAME:
                verdict = action(rule["action"], rule.get("errnoRet", errno.EPERM))
                must(lib.seccomp_rule_add_array(context, verdict, number, len(tests), array), name)
    must(lib.seccomp_load(context), "the kernel refused the filter")


def main(arguments):
    check = arguments[:1] == ["--check"]
    if len(arguments) < 2 or (check and len(arguments) != 2):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    path = arguments[1] if check else arguments[0]
    if path.endswith(".service"):
        profile = profile_of_unit(path)
    else:
        with open(path, encoding="utf-8") as file:
            profile = json.load(file)
    lib = library()
    if check:
        found = list(faults(profile, lib))
        for fault in found:
            print(f"{path}: {fault}", file=sys.stderr)
        return 1 if found else 0
    load(profile, lib)
    os.execvp(arguments[1], arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
