# Runs inside the emulated machine (cargo xtask vm --systemd test/vm/runtime.sh): a Debian with systemd, cgroup v2, AppArmor
# and criu, and the runtime by itself.
set -u
failed=0
check() { # check NAME EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then echo "ok   $1"; else echo "FAIL $1: expected '$2', got '$3'"; failed=1; fi
}
until_is() { # until_is NAME EXPECTED COMMAND…
  name=$1 expected=$2; shift 2
  for i in $(seq 150); do got=$("$@" 2>/dev/null); [ "$got" = "$expected" ] && break; sleep 0.2; done
  check "$name" "$expected" "$got"
}
cgroup=/sys/fs/cgroup
mkdir -p /b/rootfs/bin /b/rootfs/etc /b/rootfs/tmp && cp /bin/busybox /b/rootfs/bin
for a in sh cat true sleep echo id grep mount ls ps mkdir rmdir awk; do ln -s busybox /b/rootfs/bin/$a; done
echo root:x:0:0:root:/root:/bin/sh >/b/rootfs/etc/passwd
cd /b && hull-runtime spec && cp config.json base.json
# config ARGS-AS-JSON SED…: a configuration from the base one.
config() {
  arguments=$1; shift
  sed -e 's/"terminal": true/"terminal": false/' -e "s#\"sh\"#$arguments#" base.json >config.json
  for change in "$@"; do sed -i "$change" config.json; done
}
limits() { echo "s/\"resources\": {/\"resources\": {$1,/"; }
status() { hull-runtime state "$1" 2>/dev/null | grep '"status"' | cut -d'"' -f4; }

# Limits on cgroup v2.
config '"sleep","1000"' "$(limits '"memory":{"limit":67108864,"swap":100663296,"reservation":33554432},"pids":{"limit":50},"cpu":{"shares":512,"quota":50000,"period":100000,"burst":10000},"unified":{"memory.high":"62914560"},"blockIO":{"throttleReadBpsDevice":[{"major":254,"minor":0,"rate":1048576}]}')"
hull-runtime run -d a </dev/null >/dev/null 2>/run/a.log || cat /run/a.log
check "v2: memory" "67108864 33554432 33554432 62914560" "$(echo $(cat $cgroup/a/memory.max $cgroup/a/memory.swap.max $cgroup/a/memory.low $cgroup/a/memory.high))"
check "v2: pids" 50 "$(cat $cgroup/a/pids.max)"
check "v2: cpu" "50000 100000 20 10000" "$(echo $(cat $cgroup/a/cpu.max $cgroup/a/cpu.weight $cgroup/a/cpu.max.burst))"
check "v2: io throttle" "254:0 rbps=1048576 wbps=max riops=max wiops=max" "$(cat $cgroup/a/io.max)"
hull-runtime update --cpu-quota 30000 --pids-limit 60 a
check "update: the period stays" "30000 100000" "$(cat $cgroup/a/cpu.max)"
check "update: pids" 60 "$(cat $cgroup/a/pids.max)"
echo '{"memory":{"limit":4096,"checkBeforeUpdate":true}}' >r.json
hull-runtime update -r r.json a 2>/run/check.log
check "update: checkBeforeUpdate refuses" "1 1" "$? $(grep -c 'memory.limit: 4096 is less than' /run/check.log)"
echo '{"memory":{"swappiness":10}}' >r.json
check "v2: what only v1 has is refused" 1 "$(hull-runtime update -r r.json a 2>&1 | grep -c 'memory.swappiness needs')"
mkdir $cgroup/a/sub
check "exec in a cgroup below" "0::/sub" "$(hull-runtime exec --cgroup sub a cat /proc/self/cgroup)"
check "exec in a cgroup that is not there" 255 "$(hull-runtime exec --cgroup none a true 2>/dev/null; echo $?)"
hull-runtime delete --force a
check "v2: gone" 0 "$(ls -d $cgroup/a 2>/dev/null | wc -l)"

# The cgroup belongs to the container's user where it is writable.
config '"sleep","1000"' 's/"uid": 0/"uid": 1000/'
tr -d '\n' <config.json | sed 's/"relatime", *"ro"/"relatime"/' >c2.json && mv c2.json config.json
hull-runtime run -d own </dev/null >/dev/null 2>/run/own.log || cat /run/own.log
check "cgroup ownership" "1000 1000 0" "$(echo $(stat -c %u $cgroup/own $cgroup/own/cgroup.procs $cgroup/own/memory.max))"
check "its user makes cgroups" ok "$(hull-runtime exec own sh -c 'mkdir /sys/fs/cgroup/x && rmdir /sys/fs/cgroup/x && echo ok')"
hull-runtime delete --force own

# Out of memory is told at once.
config '"sleep","1000"' "$(limits '"memory":{"limit":16777216,"swap":16777216}')"
hull-runtime run -d full </dev/null >/dev/null 2>&1
hull-runtime events --interval 1h full >/run/events.log & events=$!
until_is "events: statistics" 1 grep -c '"type":"stats"' /run/events.log
hull-runtime exec full sh -c 'x=a; while :; do x=$x$x; done' >/dev/null 2>&1
until_is "events: out of memory" 1 grep -c '"type":"oom"' /run/events.log
hull-runtime delete --force full
for i in $(seq 50); do kill -0 $events 2>/dev/null || break; sleep 0.1; done
check "events: end with the container" 1 "$(kill -0 $events 2>/dev/null; echo $?)"

# The systemd driver.
alias sd="hull-runtime --systemd-cgroup"
path='s#"linux": {#"linux": {"cgroupsPath": "hull-test.slice:hr:s",#'
unit=$cgroup/hull.slice/hull-test.slice/hr-s.scope
config '"sleep","1000"' "$path" "$(limits '"memory":{"limit":67108864},"pids":{"limit":50},"cpu":{"shares":512}')" 's#"hostname"#"annotations":{"org.systemd.property.TimeoutStopUSec":"uint64 7000000"},"hostname"#'
hull-runtime --systemd-cgroup create s </dev/null >/dev/null 2>/run/s.log || cat /run/s.log
check "systemd: created" created "$(status s)"
hull-runtime start s
show() { systemctl show -p "$1" --value hr-s.scope; }
check "systemd: the unit runs" "active running yes" "$(show ActiveState) $(show SubState) $(show Delegate)"
check "systemd: place" /hull.slice/hull-test.slice/hr-s.scope "$(show ControlGroup)"
check "systemd: properties" "67108864 50 20" "$(show MemoryMax) $(show TasksMax) $(show CPUWeight)"
check "systemd: property of an annotation" 7s "$(show TimeoutStopUSec)"
check "systemd: limits" "67108864 50" "$(echo $(cat $unit/memory.max $unit/pids.max))"
check "systemd: the process is in it" "$(hull-runtime state s | awk -F'[ ,]+' '/"pid"/{print $3}')" "$(cat $unit/cgroup.procs)"
check "systemd: own namespace" "0::/" "$(hull-runtime exec s cat /proc/self/cgroup)"
hull-runtime update --pids-limit 70 --memory 50331648 s
check "systemd: updated" "70 50331648" "$(show TasksMax) $(show MemoryMax)"
systemctl daemon-reload
check "systemd: a reload keeps limits" "70 50331648" "$(echo $(cat $unit/pids.max $unit/memory.max))"
hull-runtime pause s; check "systemd: paused" paused "$(status s)"; hull-runtime resume s
hull-runtime delete --force s
check "systemd: the unit is gone" "inactive 0" "$(show ActiveState) $(ls -d $unit 2>/dev/null | wc -l)"
config '"sh","-c","exit 9"' "$path"
check "systemd: run" 9 "$(hull-runtime --systemd-cgroup run s </dev/null 2>&1; echo $?)"
config '"true"' 's#"linux": {#"linux": {"cgroupsPath": "/plain/path",#'
check "systemd: a plain path is refused" 1 "$(hull-runtime --systemd-cgroup run s 2>&1 | grep -c 'linux.cgroupsPath')"

# Through the bus, as where the manager's own socket cannot be reached.
mv /run/systemd/private /run/systemd/private.away
config '"true"' "$path"
check "systemd: through the bus" 0 "$(hull-runtime --systemd-cgroup run s </dev/null 2>&1; echo $?)"
mv /run/systemd/private.away /run/systemd/private

# An ordinary user, with and without a manager of their own.
useradd -m -u 1000 ann
echo ann:200000:65536 >/etc/subuid; echo ann:200000:65536 >/etc/subgid
cp -a /b/rootfs /home/ann/rootfs; chown -R ann:ann /home/ann
loginctl enable-linger ann 2>/dev/null; systemctl start user@1000.service
until_is "the user's systemd" active systemctl is-active user@1000.service
as_ann() { setpriv --reuid 1000 --regid 1000 --init-groups env XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/ann PATH=$PATH sh -c "cd; $1"; }
as_ann 'hull-runtime spec --rootless; sed -i "s/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"sh\",\"-c\",\"id -u; cat \/proc\/self\/uid_map\"/" config.json'
check "user: run" "0 0 1000 1" "$(echo $(as_ann 'hull-runtime run r'))"
as_ann 'sed -i "s/\"sh\",\"-c\",.*\"/\"sleep\",\"1000\"/; s/\"size\": 1/\"size\": 1000/; s/\"hostID\": 1000/\"hostID\": 200000/" config.json; grep -q "\"args\"" config.json'
as_ann 'tr -d "\n" <config.json | sed "s/\"args\": \[[^]]*\]/\"args\": [\"sleep\",\"1000\"]/" >c && mv c config.json'
chown -R 200000:200000 /home/ann/rootfs
chmod 755 /home/ann
as_ann 'hull-runtime run -d m </dev/null >/dev/null 2>m.log || cat m.log'
check "user: many ids through newuidmap" "0 200000 1000" "$(echo $(as_ann 'hull-runtime exec m cat /proc/self/uid_map'))"
check "user: exec as another user" 7 "$(as_ann 'hull-runtime exec -u 7 m id -u')"
as_ann 'hull-runtime delete --force m'
as_ann 'sed -i "s#\"linux\": {#\"linux\": {\"resources\":{\"pids\":{\"limit\":33}},#" config.json; hull-runtime --systemd-cgroup run -d d </dev/null >/dev/null 2>d.log || cat d.log'
scope=$(find $cgroup/user.slice -name 'hull-d.scope')
check "user: delegated cgroup" "33 1" "$(cat $scope/pids.max) $(wc -l <$scope/cgroup.procs)"
as_ann 'hull-runtime pause d'; check "user: paused" 1 "$(cat $scope/cgroup.freeze)"
as_ann 'hull-runtime resume d; hull-runtime delete --force d'
check "user: the unit is gone" 0 "$(find $cgroup/user.slice -name 'hull-d.scope' | wc -l)"
check "user: nothing left" 0 "$(ls /run/user/1000/hull-runtime | wc -l)"

# AppArmor.
cd /b
printf '#include <tunables/global>\nprofile hull-test flags=(attach_disconnected,mediate_deleted) {\n  file,\n  deny /tmp/** w,\n  capability,\n}\n' >/run/profile
apparmor_parser -r /run/profile
config '"sh","-c","cat /proc/self/attr/current; echo x 2>/dev/null >/tmp/x || echo denied"' 's#"cwd"#"apparmorProfile": "hull-test", "cwd"#' 's#"readonly": true#"readonly": false#'
check "AppArmor: profile in force" "hull-test (enforce) denied" "$(echo $(hull-runtime run aa </dev/null 2>&1))"
config '"true"' 's#"cwd"#"apparmorProfile": "not-loaded", "cwd"#'
check "AppArmor: a profile that is not loaded is no excuse" 1 "$(hull-runtime run aa </dev/null 2>&1 | grep -c not-loaded)"
config '"sleep","1000"'
hull-runtime run -d aa </dev/null >/dev/null 2>&1
check "AppArmor: exec under a profile" "hull-test (enforce)" "$(hull-runtime exec --apparmor hull-test aa cat /proc/self/attr/current)"
hull-runtime delete --force aa

# Checkpoint and restore. Its output goes to pipes, which restore connects anew.
config '"sh","-c","i=0; while :; do i=$((i + 1)); echo $i; sleep 0.2; done"' 's#"readonly": true#"readonly": false#'
( hull-runtime run -d c </dev/null 2>/run/c.err | cat >/run/c.out ) &
until_is "checkpoint: it counts" 1 grep -c '^3$' /run/c.out
hull-runtime checkpoint --image-path /run/pre --pre-dump c 2>/run/c.log; check "checkpoint: pre-dump" "0 running" "$? $(status c)"
hull-runtime checkpoint --image-path /run/live --leave-running c 2>/run/c.log || cat /run/c.log; check "checkpoint: left running" running "$(status c)"
hull-runtime checkpoint --image-path /run/image --work-path /run/work --parent-path ../pre c 2>/run/c.log || cat /run/c.log
check "checkpoint: ended, and gone" "" "$(status c)"
[ -z "$(status c)" ] || hull-runtime delete --force c
last=$(tail -1 /run/c.out)
( hull-runtime restore -d --image-path /run/image --work-path /run/work --pid-file /run/c.pid c </dev/null 2>/run/c.log | cat >/run/c.out2 ) &
until_is "restore: running" running status c
[ "$(status c)" = running ] || { cat /run/c.log; tail -5 /run/work/restore.log; }
until_is "restore: goes on where it was" 1 grep -c "^$((last + 2))\$" /run/c.out2
check "restore: in its cgroup" "$(cat /run/c.pid)" "$(head -1 $cgroup/c/cgroup.procs)"
check "restore: exec" "0::/" "$(hull-runtime exec c cat /proc/self/cgroup)"
hull-runtime delete --force c
check "restore: no mount left" 0 "$(grep -c hull-runtime /proc/self/mountinfo)"
check "restore: without images" 1 "$(hull-runtime restore --image-path /run/none c 2>&1 | grep -c 'no images')"
hull-runtime --systemd-cgroup run -d cs </dev/null >/dev/null 2>&1
hull-runtime checkpoint --image-path /run/image2 cs 2>/run/cs.log || cat /run/cs.log
hull-runtime --systemd-cgroup restore -d --image-path /run/image2 cs </dev/null >/dev/null 2>/run/cs.log || { cat /run/cs.log; tail -5 /run/image2/restore.log; }
check "restore: into a unit" "running active" "$(status cs) $(systemctl is-active hull-cs.scope)"
hull-runtime delete --force cs

check "no record left" 0 "$(ls /run/hull-runtime | wc -l)"
exit $failed
