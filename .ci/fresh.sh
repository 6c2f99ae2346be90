# Sourced by the scripts beside it: makes a new directory with the tree of the last commit, goes there, and removes it at
# the end. With --uncommitted, the tree as it is, without ignored files.
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
mkdir "$fresh/main"
tracked() { git -c safe.directory="$repository" -C "$repository" "$@"; }
if [ "${1:-}" = --uncommitted ]; then
  tracked ls-files -z --cached --others --exclude-standard --deduplicate |
    (cd "$repository" && xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh) |
    tar -C "$repository" --null -T - -cf - | tar -C "$fresh/main" -xf -
else
  tracked archive HEAD | tar -C "$fresh/main" -xf -
fi
# Tests that need real data look for them beside the repository.
if [ -d "$repository/../shared" ]; then ln -s "$(cd "$repository/../shared" && pwd)" "$fresh/shared"; fi
cd "$fresh/main"
export PIP_QUIET=2 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

step() { printf '\n== %s\n' "$*"; }
