#!/usr/bin/env bash
# Bootstrap action of every node: the environment that the stages run in, from a bundle (make wheel), with nothing from a
# package index. Run again it does nothing; what an earlier run left half done is done anew. docs/packaging.md
set -Eeuo pipefail
umask 022

# shellcheck disable=SC2016 # the names are meant
readonly usage='usage: install.sh BUNDLE_URI [--bank URI]... [--env NAME=VALUE]...

BUNDLE_URI  s3://… or a folder: what make wheel wrote to dist/bundle
--bank      a built source bank, s3://… or a folder: copied to this machine now, not by its first task
--env       a variable of the tasks, instead of the defaults below or beside them; written to $DHS_HOME/env.sh
            NUMBA_CACHE_DIR=$DHS_HOME/numba   NUMBA_CPU_NAME=generic   DHS_BANK_CACHE=$DHS_HOME/banks
            NUMBA_CPU_NAME=  (empty) compiles for the CPU of the machine: not the same bytes on all CPU models

From the environment: DHS_HOME (/opt/dhs), DHS_PYTHON (python3.11), DHS_RETRY_SECONDS (2, doubled each time).'

home=${DHS_HOME:-/opt/dhs}
python=${DHS_PYTHON:-python3.11}
readonly tries=5 # 2 + 4 + 8 + 16 s: what S3 asks for when many nodes start at once

say() { printf 'install.sh: %s\n' "$*"; }
die() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}
trap 'die "line $LINENO: \"$BASH_COMMAND\" ended with code $?; nothing was marked as installed, run it again"' ERR

bundle='' banks=()
declare -A variables=(
  [NUMBA_CACHE_DIR]=$home/numba
  [NUMBA_CPU_NAME]=generic
  [DHS_BANK_CACHE]=$home/banks
  [OMP_NUM_THREADS]=1 # one Python worker per core already
  [OPENBLAS_NUM_THREADS]=1
  [MKL_NUM_THREADS]=1
  [NUMBA_NUM_THREADS]=1
)

main() {
  read_arguments "$@"
  make_folder "$home"
  exec 9>>"$home/.lock"
  flock 9 # a second run on this machine waits
  fetch SHA256SUMS "$home/SHA256SUMS.new"
  write_environment "$home/env.sh.new"
  state=$(cat "$home/SHA256SUMS.new" "$home/env.sh.new" | sha256sum)
  if [[ -f $home/installed && $(<"$home/installed") == "$state" ]]; then
    say "$home holds this bundle already"
  else
    rm -rf "$home/installed" "$home/venv"
    fetch_bundle "$home/bundle"
    verify_bundle "$home/bundle"
    check_machine "$home/bundle/bundle.json"
    install_wheels "$home/bundle"
    mv "$home/env.sh.new" "$home/env.sh"
    compile_kernels
    rm -rf "$home/bundle/wheels" # the root volume is small; jobs/ stays
    printf '%s\n' "$state" >"$home/installed"
  fi
  rm -f "$home/SHA256SUMS.new" "$home/env.sh.new"
  stage_banks
  say "done: $home"
}

read_arguments() {
  while (($#)); do
    case $1 in
      -h | --help)
        printf '%s\n' "$usage"
        exit 0
        ;;
      --bank | --env)
        (($# > 1)) || die "$1 needs a value"
        if [[ $1 == --bank ]]; then
          banks+=("$2")
        else
          [[ $2 =~ ^[A-Z][A-Z0-9_]*= ]] || die "--env takes NAME=VALUE, got $2"
          variables[${2%%=*}]=${2#*=}
        fi
        shift 2
        ;;
      -*) die "unknown option $1 ($(head -n 1 <<<"$usage"))" ;;
      *)
        [[ -z $bundle ]] || die "one BUNDLE_URI is needed, got $bundle and $1"
        bundle=${1%/}
        shift
        ;;
    esac
  done
  [[ -n $bundle ]] || die "$(head -n 1 <<<"$usage")"
}

# Make a folder that this user can write, with sudo only where it is needed.
make_folder() {
  if mkdir -p "$1" 2>/dev/null && [[ -w $1 ]]; then return; fi
  sudo mkdir -p "$1"
  sudo chown "$(id -u):$(id -g)" "$1"
}

write_environment() {
  local name
  {
    printf '# Written by install.sh: what a process needs to run the stages on this machine.\n'
    printf 'export %s=%q\n' DHS_HOME "$home" PYSPARK_PYTHON "$home/venv/bin/python" \
      PYSPARK_DRIVER_PYTHON "$home/venv/bin/python"
    for name in $(printf '%s\n' "${!variables[@]}" | sort); do
      if [[ -n ${variables[$name]} ]]; then
        printf 'export %s=%q\n' "$name" "${variables[$name]}"
      else
        printf 'unset %s\n' "$name"
      fi
    done
    # shellcheck disable=SC2016 # expanded where it is read
    printf 'export PATH=%q:$PATH\n' "$home/venv/bin"
  } >"$1"
}

# --- the bundle ---------------------------------------------------------------------------------------------------

retry() {
  local attempt wait_s=${DHS_RETRY_SECONDS:-2}
  for ((attempt = 1; attempt <= tries; attempt++)); do
    if "$@"; then return 0; fi
    say "attempt $attempt of $tries failed: $*" >&2
    ((attempt == tries)) || sleep "$wait_s"
    wait_s=$((2 * wait_s))
  done
  return 1
}

fetch() {
  case $bundle in
    s3://*) retry aws s3 cp --only-show-errors "$bundle/$1" "$2" || die "$bundle/$1: cannot be fetched" ;;
    *) cp "$bundle/$1" "$2" || die "$bundle/$1: cannot be read" ;;
  esac
}

fetch_bundle() {
  say "fetching $bundle"
  case $bundle in
    s3://*) retry aws s3 sync --only-show-errors --delete "$bundle" "$1" || die "$bundle: cannot be fetched" ;;
    *)
      rm -rf "$1"
      cp -R "$bundle" "$1"
      ;;
  esac
}

# Every file that SHA256SUMS names is there and right, and what it does not name is removed: nothing unchecked is run.
verify_bundle() {
  local file
  cmp -s "$1/SHA256SUMS" "$home/SHA256SUMS.new" || die "$bundle: was replaced while it was fetched; run it again"
  (cd "$1" && sha256sum --check --strict --quiet SHA256SUMS >&2) ||
    die "$bundle: not what make wheel wrote (files above); upload the bundle again"
  for file in bundle.json requirements.txt; do
    cut -c 67- "$1/SHA256SUMS" | grep -qxF "$file" || die "$bundle: SHA256SUMS does not name $file; upload it again"
  done
  find "$1" -type f ! -name SHA256SUMS -printf '%P\n' | sort | comm -23 - <(cut -c 67- "$1/SHA256SUMS" | sort) |
    while IFS= read -r file; do rm "$1/$file"; done
}

# The bundle's wheels are for one Python and one architecture.
check_machine() {
  command -v "$python" >/dev/null ||
    die "$python is not on this machine: EMR 7.1 and later and emr-spark-8 have it; DHS_PYTHON names another"
  "$python" - "$1" <<'PYTHON' || die "$bundle cannot be used on this machine"
import json, os, sys

bundle = json.load(open(sys.argv[1]))
python, machine = "%d.%d" % sys.version_info[:2], os.uname().machine
if python != bundle["python"]:
    sys.exit("install.sh: the bundle is for Python %s, this is %s" % (bundle["python"], python))
if not bundle["platform"].endswith("_" + machine):
    sys.exit("install.sh: the bundle is for %s, this is %s: make wheel ARCH=%s" % (bundle["platform"], machine, machine))
PYTHON
}

# --- the environment ----------------------------------------------------------------------------------------------

install_wheels() {
  say "installing into $home/venv"
  "$python" -m venv "$home/venv"
  pip install --quiet --no-index -f "$1/wheels" --no-deps --require-hashes --no-cache-dir \
    --requirement "$1/requirements.txt"
  pip check >&2 # --no-deps above: the bundle holds all that is needed, or this says what is missing
  chmod -R a+rX "$home/venv"
}

# pip without the settings of the machine or its user: they could name an index.
pip() { PIP_CONFIG_FILE=/dev/null "$home/venv/bin/python" -m pip --isolated --disable-pip-version-check "$@"; }

# The users of YARN's containers are made after bootstrap actions have run, so both folders are for everybody: numba
# writes a file into its folder before it reads from there, and tasks may use a bank that was not staged.
compile_kernels() {
  local folder=${variables[NUMBA_CACHE_DIR]}
  say "compiling kernels into $folder"
  make_folder "$folder"
  # shellcheck source=/dev/null
  source "$home/env.sh"
  dhs warm
  dhs warm --check # a second process finds all of them
  find "$folder" -user "$(id -un)" -type f -exec chmod a+r {} +
  find "$folder" -user "$(id -un)" -type d -exec chmod a+rwx {} +
}

stage_banks() {
  local folder=${variables[DHS_BANK_CACHE]}
  make_folder "$folder"
  # shellcheck source=/dev/null
  source "$home/env.sh"
  ((${#banks[@]} == 0)) || dhs bank-stage "${banks[@]}"
  find "$folder" -user "$(id -un)" -exec chmod a+rX {} +
  find "$folder" -maxdepth 0 -user "$(id -un)" -exec chmod a+rwx {} +
}

main "$@"
