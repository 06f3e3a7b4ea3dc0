# What each caller does with the runtime. Prints a line for each thing that was as it should be.
runtime=/opt/hull/hull-runtime
state=/var/lib/engines

fail() { echo "FAILED: $*"; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1: $2 instead of $3"; echo "ok $1"; }
has() { case $2 in *"$3"*) echo "ok $1";; *) fail "$1: $3 is not in: $2";; esac; }
until_it() { for try in $(seq 100); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; fail "never: $*"; }

# The same words serve podman and docker.
engine() {
    is run "$($cli run --rm --network none busy echo hello)" hello
    $cli run --rm --network none busy sh -c 'exit 7'; is "exit code" $? 7
    is "terminal" "$($cli run --rm -t --network none busy sh -c 'test -t 1 && echo yes' | tr -d '\r')" yes
    $cli run -d --name one --network none --memory 64m --pids-limit 50 busy sleep 1000 >/dev/null || fail "run --detach"
    is exec "$($cli exec one echo in)" in
    $cli exec one sh -c 'exit 9'; is "exec's code" $? 9
    is "exec's user" "$($cli exec -u 1 one id -u)" 1
    has stats "$($cli stats --no-stream one)" one
    has top "$($cli top one)" "sleep 1000"
    $cli pause one >/dev/null || fail pause
    is paused "$($cli inspect -f '{{.State.Status}}' one)" paused
    $cli unpause one >/dev/null || fail unpause
    $cli update --memory 128m --memory-swap 128m one >/dev/null || fail update
    is updated "$($cli exec one cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null ||
        $cli exec one cat /sys/fs/cgroup/memory.max)" 134217728
    $cli restart -t 0 one >/dev/null || fail restart
    is restarted "$($cli inspect -f '{{.State.Status}}' one)" running
    $cli kill one >/dev/null || fail kill
    is "killed" "$($cli wait one)" 137
    $cli rm -f one >/dev/null || fail rm
    has "missing command" "$($cli run --rm --network none busy nosuch 2>&1)" "executable file not found in \$PATH"
}

podman_calls() {
    cli="podman --root $state/podman --runroot /run/podman --storage-driver vfs --cgroup-manager cgroupfs --runtime $runtime"
    $cli import /opt/hull/root.tar busy >/dev/null 2>&1 || fail import
    engine
}

docker_calls() {
    dockerd --bridge none --iptables=false --ip6tables=false --storage-driver vfs --data-root $state/docker \
        --add-runtime hull=$runtime --default-runtime hull >/tmp/dockerd.log 2>&1 &
    daemon=$!
    cli=docker
    until_it docker version
    docker import /opt/hull/root.tar busy >/dev/null || fail import
    has "the runtime" "$(docker info -f '{{.DefaultRuntime}}')" hull
    engine
    kill $daemon; wait $daemon
}

containerd_calls() {
    printf 'version = 2\nroot = "%s"\nstate = "/run/ctrd"\n[grpc]\naddress = "/run/ctrd.sock"\n' $state/ctrd > /tmp/ctrd.toml
    containerd -c /tmp/ctrd.toml >/tmp/ctrd.log 2>&1 &
    daemon=$!
    ctr="ctr -a /run/ctrd.sock"
    until_it $ctr version
    mkdir /tmp/bundle /tmp/bundle/rootfs; tar -C /tmp/bundle/rootfs -xf /opt/hull/root.tar
    run="$ctr run --runc-binary $runtime --rootfs"
    $run --rm /tmp/bundle/rootfs a echo hello > /tmp/said || fail run
    is run "$(cat /tmp/said)" hello
    $run --rm /tmp/bundle/rootfs b sh -c 'exit 7'; is "exit code" $? 7
    $run -d /tmp/bundle/rootfs c sleep 1000 || fail "run --detach"
    is exec "$($ctr task exec --exec-id e c echo in)" in
    has metrics "$($ctr task metrics c)" "ID"
    has ps "$($ctr task ps c)" "PID"
    $ctr task pause c || fail pause
    has paused "$($ctr task ls)" PAUSED
    $ctr task resume c || fail resume
    $ctr task kill -s KILL c || fail kill
    until_it sh -c "$ctr task ls | grep STOPPED"
    $ctr task rm c >/dev/null 2>&1
    $ctr container rm c || fail rm
    echo "ok removed"
    kill $daemon; wait $daemon
}

command -v "$1" >/dev/null || { echo "SKIPPED: $1 is not there"; exit 0; }
"${1}_calls"
echo DONE
