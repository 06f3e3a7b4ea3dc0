# Runs inside the emulated machine (cargo xtask vm): the engine on cgroup v2, on an older kernel, with AppArmor present.
set -u
failed=0
check() { # check NAME EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then echo "ok   $1"; else echo "FAIL $1: expected '$2', got '$3'"; failed=1; fi
}
mkdir -p /img/bin /img/etc /img/tmp
cp /bin/busybox /img/bin/busybox
for a in sh cat true sleep echo id grep wget nc httpd; do ln -s busybox /img/bin/$a; done
echo root:x:0:0:root:/root:/bin/sh > /img/etc/passwd
tar -C /img -cf /img.tar .

hulld >/run/hulld.log 2>&1 &
for i in $(seq 100); do hull version >/dev/null 2>&1 && break; sleep 0.1; done
hull version >/dev/null || { cat /run/hulld.log; exit 1; }
hull import /img.tar busybox >/dev/null || exit 1

check "exit status" 7 "$(hull run --rm busybox sh -c 'exit 7'; echo $?)"
check "cgroup version" 2 "$(hull info --format '{{.CgroupVersion}}')"
check "memory limit" 33554432 "$(hull run --rm -m 32m --network none busybox cat /sys/fs/cgroup/memory.max)"
check "pids limit" 20 "$(hull run --rm --pids-limit 20 --network none busybox cat /sys/fs/cgroup/pids.max)"
check "cpu limit" "50000 100000" "$(hull run --rm --cpus 0.5 --network none busybox cat /sys/fs/cgroup/cpu.max)"
check "no other cgroup is seen" "0::/" "$(hull run --rm --network none busybox cat /proc/self/cgroup)"
check "device refused" 1 "$(hull run --rm --cap-add MKNOD --network none busybox sh -c 'busybox mknod /tmp/mem c 1 1 && cat /tmp/mem >/dev/null 2>&1; echo $?')"
check "device allowed" ok "$(hull run --rm --network none busybox sh -c 'cat </dev/null >/dev/null && echo ok')"

hull run -d --name web -p 8080:80 -m 64m busybox sh -c 'echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null
for i in $(seq 50); do wget -q -O- http://127.0.0.1:8080/ >/dev/null 2>&1 && break; sleep 0.1; done
check "published port" hello "$(wget -q -O- http://127.0.0.1:8080/)"
check "exec" 3 "$(hull exec web sh -c 'exit 3'; echo $?)"
hull pause web; check "paused" true "$(hull inspect -f '{{.State.Paused}}' web)"
hull unpause web; check "runs again" running "$(hull inspect -f '{{.State.Status}}' web)"
hull update -m 48m --memory-swap 48m web >/dev/null
check "updated limit" 50331648 "$(hull exec web cat /sys/fs/cgroup/memory.max)"
check "stats" 1 "$(hull stats --no-stream --format '{{.Name}}' | grep -c web)"
check "killed for memory" "137 true" "$(hull run --name oom -m 16m --network none busybox sh -c 'x=a; while :; do x=$x$x; done' >/dev/null 2>&1; hull inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' oom)"
hull rm -f web oom >/dev/null
sleep 0.5
check "no cgroup left" 0 "$(find /sys/fs/cgroup -mindepth 2 -type d -path '*hull*' | grep -cE '[0-9a-f]{64}')"
[ $failed = 0 ] || { echo "--- hulld.log"; tail -50 /run/hulld.log; }
exit $failed
