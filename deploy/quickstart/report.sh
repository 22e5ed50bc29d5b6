#!/bin/sh
# The quickstart's job. Runs inside a sandbox: no network, no root, a read-only root file system. It clones a repository that the
# host's owner lists as a source, works through it, writes a report into the workspace and ends with a real exit code.
set -eu

source_dir=${1:?usage: report.sh /sources/NAME}
clone=/workspace/clone
report=/workspace/report.md
steps=6
step=0

# Progress is newline-delimited JSON on a descriptor that the shim names.
progress() {
    step=$((step + 1))
    echo "step $step of $steps: $1"
    if [ -n "${OUTHAUL_PROGRESS_FD:-}" ]; then
        printf '{"done":%d,"total":%d}\n' "$step" "$steps" >&"$OUTHAUL_PROGRESS_FD"
    fi
}

progress "clone $source_dir"
git clone --quiet --no-hardlinks "$source_dir" "$clone"
cd "$clone"
if ! git rev-parse --quiet --verify HEAD >/dev/null; then
    echo "the repository has no commit yet" >&2
    exit 3
fi

progress "read its history"
commits=$(git rev-list --count HEAD)
authors=$(git log --format=%ae | sort -u | wc -l)
newest=$(git log -1 --format='%h %s')

progress "measure its files"
files=$(git ls-files | wc -l)
bytes=$(git ls-tree -r -l HEAD | awk '$2 == "blob" { sum += $4 } END { print sum + 0 }')
largest=$(git ls-tree -r -l HEAD | sort -k4 -n -r | head -n 5 | awk '{ printf "| %s | %s |\n", $5, $4 }')

progress "check every object"
faults=0
if git fsck --full --strict >/workspace/fsck.log 2>&1; then
    objects="sound"
else
    objects="damaged"
    faults=$((faults + 1))
fi

progress "check every shell script"
scripts=0
broken=""
for script in $(git ls-files -- '*.sh'); do
    scripts=$((scripts + 1))
    # Scripts for bash are read by bash alone; this image has a POSIX shell.
    case $(head -n 1 "$script") in
        *bash*) continue ;;
    esac
    if ! sh -n "$script" 2>>/workspace/scripts.log; then
        broken="$broken $script"
        faults=$((faults + 1))
    fi
done

progress "write the report"
cat >"$report" <<EOF
# Report on ${source_dir##*/}

- $commits commits by $authors authors; the newest: $newest
- $files files, $bytes bytes
- objects: $objects
- $scripts shell scripts;${broken:- none} with errors of syntax

| largest files | bytes |
|---|---|
$largest
EOF
cat "$report"
[ "$faults" -eq 0 ] || exit 1
