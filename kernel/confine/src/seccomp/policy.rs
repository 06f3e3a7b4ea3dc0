//! Docker's default policy: everything is refused with EPERM but what is listed here.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use crate::CapSet;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Allowed whatever the container is granted.
const ALWAYS: &str = "
_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod
chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat
dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl
fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid
geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid
getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64
io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat
llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create
memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr
mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep
newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6
pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom
recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send
sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid
setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority
setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid
setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd
signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx
symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64
ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice
wait4 waitid waitpid write writev
arch_prctl modify_ldt process_vm_readv process_vm_writev ptrace";

/// Allowed to those who hold the capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// Every CLONE_NEW* flag that clone(2) takes.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Personalities a process may take: Linux and Linux32, each also with UNAME26, and the question for the
/// present one.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// Docker's default seccomp policy for a container that is granted `granted`, for all ABIs of this machine.
///
/// On kernels before 4.8, where ptrace could go around a filter, docker refuses ptrace; Hull needs a newer one.
pub fn docker_default(granted: CapSet) -> LinuxSeccomp {
    let admin = holds(granted, "SYS_ADMIN");
    let mut rules = vec![allow(ALWAYS, None)];
    // Kernel crypto sockets and vsock, which no namespace contains.
    rules.push(allow("socket", Some(compare(0, Operator::ScmpCmpLt, AF_ALG))));
    rules.push(allow("socket", Some(compare(0, Operator::ScmpCmpEq, AF_ALG + 1))));
    rules.push(allow("socket", Some(compare(0, Operator::ScmpCmpGt, AF_VSOCK))));
    for personality in PERSONALITIES {
        rules.push(allow("personality", Some(compare(0, Operator::ScmpCmpEq, personality))));
    }
    for (capability, names) in BY_CAPABILITY {
        if holds(granted, capability) {
            rules.push(allow(names, None));
        }
    }
    if !admin {
        rules.push(allow("clone", Some(compare(0, Operator::ScmpCmpMaskedEq, CLONE_NAMESPACES))));
        // Its flags are in memory, out of a filter's sight; told that it does not exist, libc uses clone.
        rules.push(rule("clone3", Action::ScmpActErrno, Some(ENOSYS), None));
    }
    let mut seccomp = LinuxSeccomp::default();
    seccomp
        .set_default_action(Action::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]))
        .set_syscalls(Some(rules));
    seccomp
}

fn holds(granted: CapSet, name: &str) -> bool {
    name.parse().is_ok_and(|set: CapSet| granted.contains(set))
}

fn allow(names: &str, arg: Option<LinuxSeccompArg>) -> LinuxSyscall {
    rule(names, Action::ScmpActAllow, None, arg)
}

fn rule(names: &str, action: Action, errno: Option<u32>, arg: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split_ascii_whitespace().map(str::to_owned).collect())
        .set_action(action)
        .set_errno_ret(errno)
        .set_args(arg.map(|arg| vec![arg]));
    rule
}

fn compare(index: usize, op: Operator, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(op)
        .build()
        .expect("every field has a default")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(granted: CapSet) -> Vec<String> {
        docker_default(granted).syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn capabilities_open_what_they_stand_for() {
        let usual = names(CapSet::DOCKER_DEFAULT);
        for denied in ["mount", "bpf", "setns", "unshare", "reboot", "kexec_load", "keyctl", "io_uring_setup"]
        {
            assert!(!usual.iter().any(|name| name == denied), "{denied}");
        }
        assert!(usual.iter().any(|name| name == "chroot"));
        let admin = names("SYS_ADMIN".parse().unwrap());
        assert!(admin.iter().any(|name| name == "mount"));
        assert!(!admin.iter().any(|name| name == "chroot"));
    }

    #[test]
    fn every_name_is_one_the_table_knows() {
        for name in names(CapSet::ALL) {
            let known = super::super::syscalls::Syscall::named(&name).is_some()
                || super::super::syscalls::multiplexed(&name).is_some();
            assert!(known, "{name}");
        }
    }
}
