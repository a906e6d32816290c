#!/usr/bin/env bash
# Makes the image of EdgeMesh: its program, the programs of iptables and iproute2 that it runs, the
# libraries of both, root certificates, and nothing else, from packages of Debian that are unpacked
# and never installed. No root, no daemon.
#
#   image.sh fetch ARCH               the packages, into target/image
#   image.sh root PROGRAM FOLDER      the root file system for a program, from the packages fetched
#   image.sh archive FOLDER ARCH OUT  an OCI archive of such a folder
#   image.sh build PROGRAM            all of it: target/image/edgemesh-VERSION-ARCH.tar
set -euo pipefail
. "$(dirname "$0")/packages.sh"

# What a node calls it: `image` in a manifest. kubelet reads `edgemesh:1` as docker.io/library/edgemesh:1.
NAME=${IMAGE_NAME:-docker.io/library/edgemesh}
# An edge node fetches it over a bad uplink.
MOST_BYTES=$((40 * 1000 * 1000))
# Security fixes of a library are not older than this in a new image.
FRESH_MINUTES=1440

PACKAGES=(
  gcc-12-base iproute2 iptables libbpf1 libbsd0 libc6 libcap2 libelf1 libgcc-s1 libip4tc2 libip6tc2
  libmd0 libmnl0 libnetfilter-conntrack3 libnfnetlink0 libnftnl11 libxtables12 zlib1g
)
# The same for every architecture.
COMMON=(ca-certificates netbase)

fetch() {
  local folder="$target/image/packages-$1" list="${COMMON[*]} ${PACKAGES[*]/%/:$1}"
  triplet "$1" >/dev/null
  need flock
  mkdir -p "$target/image"
  # Tests that begin together fetch once.
  exec 9>"$target/image/lock"
  flock 9
  # Those of an earlier list are not what is wanted now.
  if [ "$(cat "$folder/list" 2>/dev/null)" != "$list" ]; then
    # shellcheck disable=SC2086 # one word a package
    download "$folder" "$1" $list
    echo "$list" >"$folder/list"
  fi
  exec 9>&-
}

# root PROGRAM FOLDER
root() {
  local program=$1 out=$2 arch stage="$work/packages" name
  need dpkg-deb readelf tar
  arch=$(machine "$program")
  [ -d "$target/image/packages-$arch" ] ||
    die "the packages for $arch are not there" "run: deploy/image.sh fetch $arch"
  [ ! -e "$out" ] || [ -z "$(ls -A "$out")" ] || die "$out is not empty" "name a new folder"
  unpack "$target/image/packages-$arch" "$stage"
  mkdir -p "$out"/{dev,proc,sys,run,tmp,etc/edgemesh,etc/ssl/certs,var/lib/edgemesh,var/lib/edgemesh-cloud}
  mkdir -p "$out"/usr/{bin,sbin,lib,lib64}
  chmod 1777 "$out/tmp"
  chmod 700 "$out"/var/lib/edgemesh{,-cloud}
  for name in bin sbin lib lib64; do ln -s "usr/$name" "$out/$name"; done
  install -m 755 "$program" "$out/usr/bin/edgemesh"
  programs "$stage" "$out" "$(triplet "$arch")"
  libraries "$stage" "$out" "$(triplet "$arch")"
  others "$stage" "$out"
}

# What src/capture runs, under each name that it uses.
programs() {
  local stage=$1 out=$2 plugins="usr/lib/$3/xtables" tables kind verb
  install -m 755 "$stage/usr/bin/ip" "$out/usr/bin/ip"
  for kind in nft legacy; do
    install -m 755 "$stage/usr/sbin/xtables-$kind-multi" "$out/usr/sbin/"
  done
  for tables in iptables ip6tables; do
    for verb in "" -restore -save; do
      for kind in nft legacy; do
        ln -s "xtables-$kind-multi" "$out/usr/sbin/$tables-$kind$verb"
      done
      # As Debian has it when nobody chose.
      ln -s xtables-nft-multi "$out/usr/sbin/$tables$verb"
    done
  done
  # All plugins of these programs: iptables-save fails at the first rule, whoever made it, whose
  # plugin is missing. Those of arptables and ebtables (libarpt_, libebt_) nobody here loads.
  mkdir -p "$out/$plugins"
  cp -P "$stage/$plugins"/lib{xt,ipt,ip6t}_*.so "$out/$plugins/"
}

# The libraries that the programs need, and those that these need, each under the name by which it is
# asked for.
libraries() {
  local stage=$1 out=$2 folder="usr/lib/$3" again=yes name loader
  while [ -n "$again" ]; do
    again=
    for name in $(needed "$out"); do
      [ ! -e "$out/$folder/$name" ] || continue
      [ -e "$stage/$folder/$name" ] ||
        die "no package that was fetched has $name" "add its package to PACKAGES in deploy/image.sh"
      install -m 644 "$stage/$folder/$name" "$out/$folder/$name"
      again=yes
    done
  done
  # The kernel starts a program by its loader, at the place that is written in it.
  loader=$(readelf -l "$out/usr/bin/edgemesh" | sed -n 's/.*interpreter: \/\(.*\)]$/\1/p')
  chmod 755 "$out/$folder/$(basename "$loader")"
  ln -s "../lib/$3/$(basename "$loader")" "$out/$loader"
}

# Names of the libraries that anything in a folder asks for.
needed() {
  find "$1/usr" -type f \( -path '*bin/*' -o -name '*.so*' \) -exec readelf -d {} + |
    sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p' | sort -u
}

# What is no program.
others() {
  local stage=$1 out=$2 copyright
  # For Rules that call URLs.
  find "$stage/usr/share/ca-certificates" -name '*.crt' | sort | xargs cat \
    >"$out/etc/ssl/certs/ca-certificates.crt"
  # Without it glibc asks the name servers before /etc/hosts, in which kubelet writes.
  echo 'hosts: files dns' >"$out/etc/nsswitch.conf"
  # `ip rule` knows tcp and udp from there.
  install -m 644 "$stage/etc/protocols" "$out/etc/protocols"
  # With a read-only root, a file can be mounted only where there is one.
  : >"$out/run/xtables.lock"
  # Their licences ask that they come along.
  for copyright in "$stage"/usr/share/doc/*/copyright; do
    install -D -m 644 "$copyright" "$out/${copyright#"$stage/"}"
  done
  install -D -m 644 "$root_of_project/LICENSE" "$out/usr/share/doc/edgemesh/copyright"
}

# archive FOLDER ARCH OUT
archive() {
  local root arch=$2 out=$3 date same
  need umoci tar
  root=$(realpath "$1")
  triplet "$arch" >/dev/null
  date=$(date -u -d "@$(epoch)" +%Y-%m-%dT%H:%M:%SZ)
  same=(--sort=name --mtime="@$(epoch)" --owner=0 --group=0 --numeric-owner)
  (
    cd "$work"
    tar "${same[@]}" -cf layer.tar -C "$root" .
    umoci init --layout layout
    umoci new --image layout:edgemesh
    umoci raw add-layer --image layout:edgemesh --history.created "$date" \
      --history.created_by "deploy/image.sh" layer.tar
    umoci config --image layout:edgemesh --no-history --created "$date" --os linux --architecture "$arch" \
      --author EdgeMesh --config.entrypoint /usr/bin/edgemesh --config.env PATH=/usr/sbin:/usr/bin \
      --config.workingdir / \
      --config.label org.opencontainers.image.title=edgemesh \
      --config.label "org.opencontainers.image.description=An edge service mesh: agent and cloud" \
      --config.label org.opencontainers.image.version="$(version)" \
      --config.label org.opencontainers.image.revision="$(git -C "$root_of_project" rev-parse HEAD 2>/dev/null || echo unknown)" \
      --config.label org.opencontainers.image.licenses=Apache-2.0
    umoci gc --layout layout
    # containerd takes the name from an annotation of its own; from the other one it would make
    # import-DATE.
    sed -i "s#\"org.opencontainers.image.ref.name\":\"edgemesh\"#\"io.containerd.image.name\":\"$NAME:$(version)\",\"org.opencontainers.image.ref.name\":\"$(version)\"#" layout/index.json
    tar "${same[@]}" --mode=u=rwX,go=rX -cf image.tar -C layout blobs index.json oci-layout
  ) >/dev/null
  grep -q "$NAME:$(version)" "$work/layout/index.json" ||
    die "the image has no name" "umoci writes index.json in another way: look at what umoci new and config leave there"
  mkdir -p "$(dirname "$out")"
  mv "$work/image.tar" "$out"
}

# build PROGRAM
build() {
  local arch folder out size
  [ -f "$1" ] || die "there is no program $1" "build it: cargo build --release -p edgemesh-daemon"
  need readelf umoci
  arch=$(machine "$1")
  find "$target/image" -maxdepth 1 -name "packages-$arch" -mmin +$FRESH_MINUTES -exec rm -rf {} + 2>/dev/null || true
  fetch "$arch"
  folder="$work/root"
  out="$target/image/edgemesh-$(version)-$arch.tar"
  root "$1" "$folder"
  archive "$folder" "$arch" "$out"
  size=$(stat -c %s "$out")
  [ "$size" -lt "$MOST_BYTES" ] ||
    die "$out has $size bytes, more than $MOST_BYTES" "is the program stripped, and built for release?"
  printf '%s: %s bytes, %s:%s\n' "$out" "$size" "$NAME" "$(version)"
  echo "containerd: ctr -n k8s.io images import $out"
  echo "k3s:        k3s ctr images import $out"
}

case ${1:-} in
  fetch) [ $# = 2 ] || die "fetch takes an architecture" "deploy/image.sh fetch $(native)" ;;
  root) [ $# = 3 ] || die "root takes a program and a folder" "see the head of deploy/image.sh" ;;
  archive) [ $# = 4 ] || die "archive takes a folder, an architecture and a file" "see the head of deploy/image.sh" ;;
  build) [ $# = 2 ] || die "build takes a program" "deploy/image.sh build target/release/edgemesh" ;;
  *) die "it takes fetch, root, archive or build" "see the head of deploy/image.sh" ;;
esac
"$@"
