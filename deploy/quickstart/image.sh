#!/usr/bin/env bash
# Builds the quickstart's image from this machine's own packages: busybox, git and the libraries git needs. No registry is asked.
# usage: image.sh NAME[:TAG]
set -euo pipefail

name=${1:?usage: image.sh NAME[:TAG]}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

busybox=$(command -v busybox) || { echo "image.sh: busybox is missing: apt-get install busybox-static" >&2; exit 1; }
git=/usr/bin/git
[ -x "$git" ] || { echo "image.sh: $git is missing: apt-get install git" >&2; exit 1; }

# Copies a program and every library that it loads.
copy_program() {
    install -D -m 0755 "$1" "$root$2"
    { ldd "$1" 2>/dev/null || true; } | awk '/=> \// { print $3 } $1 ~ /^\// { print $1 }' | while read -r library; do
        install -D -m 0755 "$library" "$root$library"
    done
}

mkdir -p "$root"/{bin,etc,job,proc,sys,dev,run/outhaul/in,run/outhaul/out,sources,tmp,usr/bin,workspace}
chmod 0755 "$root"
copy_program "$busybox" /bin/busybox
for applet in sh awk cat cp date du echo env false find grep head id ls mkdir printf rm sed sleep sort stat tail test touch tr true uname uniq wc; do
    ln -s busybox "$root/bin/$applet"
done
copy_program "$git" /usr/bin/git
# A local clone runs these by name.
mkdir -p "$root/usr/lib/git-core" "$root/usr/share/git-core/templates"
for helper in git git-upload-pack; do
    ln -s /usr/bin/git "$root/usr/lib/git-core/$helper"
done
ln -s git "$root/usr/bin/git-upload-pack"

echo "sandbox:x:10001:10001::/workspace:/bin/sh" >"$root/etc/passwd"
echo "sandbox:x:10001:" >"$root/etc/group"
# A source belongs to whoever owns it on the host; git would refuse it otherwise.
printf '[safe]\n\tdirectory = *\n' >"$root/etc/gitconfig"
install -m 0755 "$here/report.sh" "$root/job/report.sh"

tar -C "$root" --owner=0 --group=0 --numeric-owner --mtime='2026-01-01' --sort=name -c . |
    docker import --change 'ENV PATH=/bin:/usr/bin' --change 'CMD ["/bin/sh"]' - "$name"
