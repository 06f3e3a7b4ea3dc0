//! Images go through docker, podman, skopeo and Hull in every direction and stay what they were: the same digests, and
//! files with the same owner, mode, times, attributes, links and bytes.
//!
//! The peers come from a Debian root (`HULL_BENCH_ROOT`, made by `cargo xtask bench`). Everything runs in mounts,
//! processes and a network of its own; nothing is left.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use hull_fixtures::{place, skip};

const CAPABILITY: &str = "SCHILY.xattr.security.capability";

/// What the test needs of that root.
const PROGRAMS: [&str; 5] =
    ["usr/bin/docker", "usr/sbin/dockerd", "usr/bin/podman", "usr/bin/skopeo", "usr/bin/docker-registry"];

/// Enters the root: mounts of its own, what the test brings and takes at `/mnt`.
const ENTER: &str = r#"set -e
mount --make-rprivate /
mount --bind "$1" "$1"; cd "$1"
mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev
mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp; mkdir -p tmp/root
mount -t tmpfs tmpfs mnt; mkdir mnt/place mnt/programs
mount --bind "$2" mnt/place; mount --bind "$3" mnt/programs
ip link set lo up
exec chroot . sh -c "$4""#;

/// The engines, and what each of them is called with.
const ENGINES: &str = r#"
set -e
cd /mnt/place; export PODMAN_IGNORE_CGROUPSV1_WARNING=1
export PATH=/mnt/programs:$PATH R=127.0.0.1:5000 HOME=/tmp/root
say() { echo "== $*" >&2; }
wait_for() { n=0; until "$@" >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 1200 ] || { cat *.log >&2; exit 1; }; sleep 0.1; done; }
cat > registry.yml <<Y
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: /mnt/place/registry}}
http: {addr: $R}
Y
docker-registry serve registry.yml > registry.log 2>&1 &
dockerd --bridge=none --iptables=false --ip6tables=false --ip-forward=false --storage-driver vfs \
    --data-root /mnt/place/d --exec-root /run/d --pidfile /run/d.pid -H unix:///run/d.sock > dockerd.log 2>&1 &
hulld -H unix:///run/h.sock --data-root /mnt/place/h --exec-root /run/h --pidfile /run/h.pid \
    --bridge=none --iptables=false > hulld.log 2>&1 &
h() { hull -H unix:///run/h.sock "$@"; }
d() { docker -H unix:///run/d.sock "$@"; }
p() { podman --root /mnt/place/p --runroot /run/p --storage-driver vfs --cgroup-manager cgroupfs "$@"; }
s() { skopeo --insecure-policy --override-arch amd64 "$@"; }
copy() { s copy -q --src-tls-verify=false --dest-tls-verify=false "$@"; }
id() { case $1 in
    h) h image inspect --format '{{.Id}}' "$2" ;;
    d) d image inspect --format '{{.Id}}' "$2" ;;
    p) echo sha256:$(p image inspect --format '{{.Id}}' "$2") ;;
    s) echo sha256:$(s inspect --tls-verify=false --raw "docker://$2" | sed 's/.*"config":{[^}]*"digest":"sha256:\([0-9a-f]*\)".*/\1/; t; d') ;;
esac; }
same() { got=$(id "$1" "$2"); [ "$got" = "$WANT" ] || { echo "$3: $2 is $got in $1, not $WANT" >&2; exit 1; }; }
pull() { say "$1 pulls $2"; case $1 in
    h) h pull -q "$2" ;; d) d pull -q "$2" ;; p) p pull -q --tls-verify=false "$2" ;; esac >/dev/null; }
push() { say "$1 pushes $2"; case $1 in
    h) h push -q "$2" ;; d) d push -q "$2" ;; p) p push -q --tls-verify=false "$2" ;; esac >/dev/null; }
tag() { case $1 in h) h tag "$2" "$3" ;; d) d tag "$2" "$3" ;; p) p tag "$2" "$3" ;; esac; }
# Whoever says that it does not know the name is there.
answers() { s list-tags --tls-verify=false docker://$R/none 2>&1 | grep -qi 'name unknown\|repository name not known'; }
wait_for d version; wait_for h version; wait_for answers
"#;

/// From each to each by way of the registry, then by archives; at last the files as each engine gives them out.
const JOURNEYS: &str = r#"
h load -i image.tar >&2
h tag round/trip:1 $R/h:1
WANT=$(id h round/trip:1)
# docker 26 and podman 5.4 cannot save what they stored of a sparse file ("could not verify layer data", "write too
# long"): what they save has none.
PLAIN=$(id h round/plain:1)
h tag round/plain:1 $R/plain:1; push h $R/plain:1; pull d $R/plain:1; pull p $R/plain:1
push h $R/h:1
for to in d p; do pull $to $R/h:1; same $to $R/h:1 registry; done
copy docker://$R/h:1 docker://$R/s:1
for from in d p; do tag $from $R/h:1 $R/$from:1; push $from $R/$from:1; done
for from in d p s; do
    for to in h d p; do
        [ $from = $to ] || { pull $to $R/$from:1; same $to $R/$from:1 registry; }
    done
done
s inspect --tls-verify=false --raw docker://$R/h:1 > manifest.h
s inspect --tls-verify=false --raw docker://$R/s:1 > manifest.s
cmp manifest.h manifest.s

say archives
h save -o h.tar $R/h:1
h save --compression gzip -o h.tar.gz $R/h:1
h save --compression zstd -o h.tar.zst $R/h:1
h save --format oci-dir -o h.dir $R/h:1
d save -o d.tar $R/plain:1
p save -q --format docker-archive -o p.tar $R/plain:1
p save -q --format oci-archive -o po.tar $R/plain:1
copy docker://$R/s:1 oci-archive:so.tar:$R/s:1
copy docker://$R/s:1 docker-archive:sd.tar:$R/s:1
copy docker://$R/s:1 oci:s.dir:1
for archive in h.tar h.tar.gz h.tar.zst h.dir d.tar p.tar po.tar so.tar sd.tar s.dir; do
    say "h loads $archive"
    h rmi -f $(h images -aq --no-trunc | sort -u) >/dev/null
    h load -q -i $archive >&2
    case $archive in d.tar | p.tar | po.tar) want=$PLAIN ;; *) want=$WANT ;; esac
    got=$(h images -aq --no-trunc | sort -u); [ "$got" = "$want" ] || { echo "$archive: $got, not $want" >&2; exit 1; }
done
d rmi -f $WANT >/dev/null; d load -q -i h.tar >&2; same d $R/h:1 archive
p rmi -f $WANT >/dev/null 2>&1; p load -q -i h.tar >&2; same p $R/h:1 archive
p rmi -f $WANT >/dev/null 2>&1; p pull -q oci:h.dir >/dev/null
copy docker-archive:h.tar docker://$R/a:1; same s $R/a:1 archive
copy oci:h.dir docker://$R/o:1; same s $R/o:1 layout
s inspect --tls-verify=false --raw docker://$R/o:1 > manifest.o
cmp manifest.h manifest.o

say files
pull h $R/p:1; pull d $R/h:1; pull p $R/d:1
h create --name trip --network none $R/p:1 /x >/dev/null; h export -o files.h trip
d create --name trip --network none $R/h:1 /x >/dev/null; d export -o files.d trip
p create --name trip --network none $R/d:1 /x >/dev/null; p export -o files.p trip
echo done
"#;

#[test]
fn images_stay_what_they_are() -> Result<()> {
    let root = place::peers();
    if !rustix::process::geteuid().is_root() {
        skip("round trips", "they need root");
        return Ok(());
    }
    if let Some(absent) = PROGRAMS.iter().find(|program| !root.join(program).exists()) {
        skip("round trips", &format!("there is no {absent} in {}", root.display()));
        return Ok(());
    }
    let folder = place::scratch()?;
    let (tree, sparse) = trees(folder.path())?;
    let layers = [tree, changes()?, sparse];
    archive(&folder.path().join("image.tar"), &layers)?;
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--net",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        ENTER,
        "sh",
    ]);
    command.arg(&root).arg(folder.path()).arg(place::programs()?).arg(format!("{ENGINES}{JOURNEYS}"));
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let ran = command.stdin(Stdio::null()).output()?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        ran.status.success() && said(&ran.stdout).ends_with("done\n"),
        "{}\n{}",
        said(&ran.stdout),
        said(&ran.stderr)
    );
    let hull = files(&folder.path().join("files.h"))?;
    for peer in ["files.d", "files.p"] {
        let mut ours = hull.clone();
        // docker gives out no other attributes.
        ours.values_mut().for_each(|facts| facts.attributes.retain(|name, _| name == CAPABILITY));
        for (name, mut theirs) in files(&folder.path().join(peer))? {
            theirs.attributes.retain(|name, _| name == CAPABILITY);
            let own = ours.remove(&name);
            let name = String::from_utf8_lossy(&name).into_owned();
            ensure!(own.as_ref() == Some(&theirs), "{peer}: {name}: {theirs:?}\nHull: {own:?}");
        }
        let more: Vec<_> = ours.keys().map(|name| String::from_utf8_lossy(name)).collect();
        ensure!(more.is_empty(), "{peer} lacks {more:?}");
    }
    expected(&hull)
}

/// What must be there however it travelled, so that a mistake all make alike is found, too.
fn expected(files: &BTreeMap<Vec<u8>, Facts>) -> Result<()> {
    let at = |name: &[u8]| {
        files.get(name).with_context(|| format!("{} is missing", String::from_utf8_lossy(name)))
    };
    ensure!(at(b"t/set")?.mode & 0o7777 == 0o6755, "{:?}", at(b"t/set")?);
    ensure!(at(b"t/owned")?.owner == (12345, 54321), "{:?}", at(b"t/owned")?);
    ensure!(at(b"t/old")?.mtime == 86_400, "{:?}", at(b"t/old")?);
    ensure!(at(b"t/char")?.device == Some((1, 3)), "{:?}", at(b"t/char")?);
    ensure!(at(b"t/sparse")?.size == (8 << 20) + 4, "{:?}", at(b"t/sparse")?);
    ensure!(at(b"t/capable")?.attributes.contains_key(CAPABILITY), "{:?}", at(b"t/capable")?);
    let note = at(b"t/hard")?.attributes.get("SCHILY.xattr.user.note");
    ensure!(note.is_some_and(|note| note == b"kept"), "{note:?}");
    let latin: &[u8] = b"t/latin-\xe9";
    at(latin)?;
    at(long_name().as_bytes())?;
    for gone in [&b"t/removed"[..], b"t/opaque/old"] {
        ensure!(!files.contains_key(gone), "{} is there", String::from_utf8_lossy(gone));
    }
    at(b"t/opaque/new").map(drop)
}

fn long_name() -> String {
    format!("t/{}/{}", "long".repeat(50), "name".repeat(60))
}

/// The first layer, made of real files so that GNU tar finds everything a file can have; and one with a sparse file.
fn trees(folder: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let tree = folder.join("tree");
    fs::create_dir(&tree)?;
    let long = long_name();
    let script = format!(
        r#"set -e; umask 022; mkdir t t/opaque t/empty; cd t
echo hello > plain; ln plain hard; ln -s ../t/plain soft; ln -s nowhere dangling
echo x > set; chmod 6755 set; echo x > owned; chown 12345:54321 owned
echo x > old; touch -d @86400 old; echo x > removed; echo x > opaque/old; echo x > replaced
mknod char c 1 3; mknod block b 7 200; mkfifo pipe; mkdir sticky; chmod 1777 sticky
truncate -s 8M sparse; printf tail >> sparse
echo x > "$(printf 'latin-\351')"; echo x > 'with space'; printf x > "$(printf 'new\nline')"
cd ..; mkdir -p "$(dirname {long})"; echo x > {long}
cp t/plain t/capable
python3 - <<'P' || setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 t/capable
import os
os.setxattr("t/capable", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
os.setxattr("t/plain", "user.note", b"kept")
P
find . -exec touch -h -d @1000000000 {{}} +; touch -d @86400 t/old
tar --format=pax --sort=name --xattrs --xattrs-include='*' --numeric-owner --exclude=t/sparse -cf ../tree.tar t
tar --format=pax --numeric-owner --sparse --no-recursion -cf ../sparse.tar t t/sparse"#
    );
    let made = Command::new("sh").args(["-c", &script]).current_dir(&tree).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::remove_dir_all(&tree)?;
    Ok((fs::read(folder.join("tree.tar"))?, fs::read(folder.join("sparse.tar"))?))
}

/// The second layer: what it removes, hides and replaces.
fn changes() -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    let file = |name: &str, content: &'static [u8], layer: &mut tar::Builder<Vec<u8>>| -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        Ok(layer.append_data(&mut header, name, content)?)
    };
    // Directories with their times: those of a layer that leaves them out are each engine's own.
    for name in ["t/", "t/opaque/"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        layer.append_data(&mut header, name, std::io::empty())?;
    }
    file("t/.wh.removed", b"", &mut layer)?;
    file("t/opaque/.wh..wh..opq", b"", &mut layer)?;
    file("t/opaque/new", b"new", &mut layer)?;
    file("t/replaced", b"other", &mut layer)?;
    Ok(layer.into_inner()?)
}

/// A docker archive of these layers.
fn archive(path: &Path, layers: &[Vec<u8>]) -> Result<()> {
    let mut archive = tar::Builder::new(File::create(path)?);
    let mut add = |name: &str, bytes: &[u8]| -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        Ok(archive.append_data(&mut header, name, bytes)?)
    };
    let names: Vec<String> = (0..layers.len()).map(|at| format!("layer{at}.tar")).collect();
    let mut diff_ids = Vec::new();
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer)?;
        let folder = path.parent().context("a folder")?;
        fs::write(folder.join(name), layer)?;
        let sum = Command::new("sha256sum").arg(folder.join(name)).output()?;
        let sum = String::from_utf8(sum.stdout)?;
        diff_ids.push(format!("sha256:{}", sum.split(' ').next().unwrap_or_default()));
        fs::remove_file(folder.join(name))?;
    }
    let mut table = Vec::new();
    for (name, count) in [("round/trip:1", layers.len()), ("round/plain:1", layers.len() - 1)] {
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "created": "2020-01-02T03:04:05.678901234Z",
            "config": { "Env": ["A=b"], "Labels": { "kept": "yes" }, "Cmd": ["/x"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids[..count] },
            "history": (0..count).map(|at| serde_json::json!({ "created_by": at.to_string() })).collect::<Vec<_>>(),
        });
        let file = format!("config{count}.json");
        add(&file, &serde_json::to_vec(&config)?)?;
        table.push(serde_json::json!({ "Config": file, "RepoTags": [name], "Layers": names[..count] }));
    }
    add("manifest.json", &serde_json::to_vec(&table)?)?;
    Ok(archive.finish()?)
}

/// What a file is.
#[derive(Debug, Clone, PartialEq)]
struct Facts {
    kind: u8,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    size: u64,
    /// Other names of the same file are told by their bytes: which of them comes first is the archiver's choice.
    content: u64,
    link: Vec<u8>,
    device: Option<(u32, u32)>,
    attributes: BTreeMap<String, Vec<u8>>,
}

/// The files below `t` of an exported container.
fn files(path: &Path) -> Result<BTreeMap<Vec<u8>, Facts>> {
    let mut found: BTreeMap<Vec<u8>, Facts> = BTreeMap::new();
    let mut links = Vec::new();
    let mut archive = tar::Archive::new(File::open(path)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path_bytes().into_owned();
        let name = name.strip_prefix(b"./").unwrap_or(&name).to_vec();
        let name = name.strip_suffix(b"/").map_or(name.clone(), <[u8]>::to_vec);
        if name != b"t" && !name.starts_with(b"t/") {
            continue;
        }
        let kind = entry.header().entry_type();
        if kind.is_hard_link() {
            let target = entry.link_name_bytes().context("a target")?.into_owned();
            links.push((name, target.strip_prefix(b"./").unwrap_or(&target).to_vec()));
            continue;
        }
        let mut attributes = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let key = extension.key().unwrap_or_default();
                if key.starts_with("SCHILY.xattr.") {
                    attributes.insert(key.to_owned(), extension.value_bytes().to_vec());
                }
            }
        }
        let header = entry.header().clone();
        let device = (kind.is_character_special() || kind.is_block_special())
            .then(|| anyhow::Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0))))
            .transpose()?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        let facts = Facts {
            kind: kind.as_byte(),
            mode: header.mode()? & 0o7777,
            owner: (header.uid()?, header.gid()?),
            mtime: header.mtime()?,
            size: bytes.len() as u64,
            content: checksum(&bytes),
            link: entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default(),
            device,
            attributes,
        };
        found.insert(name, facts);
    }
    for (name, target) in links {
        let first = found.get(&target).with_context(|| String::from_utf8_lossy(&target).into_owned())?;
        let same = Facts { link: first.link.clone(), attributes: first.attributes.clone(), ..*first };
        found.insert(name, same);
    }
    Ok(found)
}

/// FNV-1a: enough to tell files of a test apart.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
