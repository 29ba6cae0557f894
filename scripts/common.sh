# shellcheck shell=bash
# Shared by the scripts. Source it; it changes to the root of the repository.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

say() { printf '\n== %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Finds a Rust that is new enough, if there is one. rustup installs it where a running shell does
# not look yet, or where an older one of the system hides it.
use_cargo() {
    local bin="${CARGO_HOME:-$HOME/.cargo}/bin"
    if ! rust_is_new && [ -x "$bin/cargo" ]; then
        export PATH="$bin:$PATH"
    fi
    if ! rust_is_new && have rustup; then
        export RUSTUP_TOOLCHAIN=stable
    fi
}

# Whether `rustc` is at least the `rust-version` of Cargo.toml.
rust_is_new() {
    local want got
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    got=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p')
    have cargo && [ -n "$got" ] && [ "$(printf '%s\n%s\n' "$want" "$got" | sort -V | head -n 1)" = "$want" ]
}

# Whether the Rust in use has the standard library for wasm32-unknown-unknown.
wasm_target_is_there() {
    local lib
    lib=$(rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null) || return 1
    first_file "$lib"/libstd-*.rlib >/dev/null
}

# Whether Debian's Rust can build that library: it needs the sources and a linker.
debian_rustc_is_there() {
    [ -x /usr/bin/rustc ] && have wasm-ld \
        && [ -f "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]
}

# The first existing file that matches one of the patterns.
first_file() {
    local file
    for file in "$@"; do
        if [ -f "$file" ]; then
            printf '%s\n' "$file"
            return
        fi
    done
    return 1
}

# Vulkan manifests of the two software drivers, and of Mesa's driver for AMD GPUs.
lavapipe_icd() {
    first_file /usr/share/vulkan/icd.d/lvp_icd*.json /usr/local/share/vulkan/icd.d/lvp_icd*.json \
        /etc/vulkan/icd.d/lvp_icd*.json
}
radeon_icd() {
    first_file "${RADEON_ICD:-}" /etc/vulkan/icd.d/radeon_icd*.json \
        /usr/local/share/vulkan/icd.d/radeon_icd*.json /usr/share/vulkan/icd.d/radeon_icd*.json
}
swiftshader_icd() {
    first_file "${SWIFTSHADER_ICD:-}" \
        /usr/lib/chromium/vk_swiftshader_icd.json \
        /usr/lib/chromium-browser/vk_swiftshader_icd.json \
        /usr/lib64/chromium*/vk_swiftshader_icd.json \
        /opt/google/chrome*/vk_swiftshader_icd.json \
        /snap/chromium/current/usr/lib/chromium-browser/vk_swiftshader_icd.json \
        "$HOME"/.cache/ms-playwright/chromium*/chrome-*/vk_swiftshader_icd.json \
        "$HOME"/.cache/puppeteer/*/*/*/vk_swiftshader_icd.json \
        /usr/share/vulkan/icd.d/*swiftshader*.json
}

# Firefox, as web/tests/hosts/firefox.test.mjs looks for it. /usr/bin/firefox is left out: on Ubuntu it
# starts a snap, which does not run in containers and does not see the tests' folders.
firefox_program() {
    first_file "${FIREFOX:-}" /usr/bin/firefox-esr /usr/lib/firefox/firefox \
        /usr/lib64/firefox/firefox /opt/firefox/firefox \
        /Applications/Firefox.app/Contents/MacOS/firefox
}

# Cargo's target folder, relative to the root.
target_folder() {
    local target=${CARGO_TARGET_DIR:-target}
    case "$target" in /*) ;; *) target="$PWD/$target" ;; esac
    printf '%s\n' "$target"
}

# Whether Python can create virtual environments; Debian has a separate package for that.
python_is_there() {
    have python3 && python3 -c 'import ensurepip, venv' >/dev/null 2>&1
}

# python_packages NAME LOCK: installs PyPI's packages by a lock file with their digests, in a folder
# of that name in tools/ of the target folder.
python_packages() {
    local folder
    folder="$(target_folder)/tools/$1"
    if cmp -s "$2" "$folder/installed.txt"; then
        return
    fi
    say "installing packages of PyPI: $1"
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --require-hashes -r "$2"
    cp "$2" "$folder/installed.txt"
}

# Installs web/'s npm packages by its lock file.
web_packages() {
    if [ ! web/package-lock.json -nt web/node_modules/.package-lock.json ] \
        && [ -f web/node_modules/.package-lock.json ]; then
        return
    fi
    say "installing packages of npm"
    (cd web && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    touch web/node_modules/.package-lock.json
}

# Some Vulkan drivers warn if XDG_RUNTIME_DIR is not set.
if [ -z "${XDG_RUNTIME_DIR:-}" ]; then
    XDG_RUNTIME_DIR=$(mktemp -d)
    export XDG_RUNTIME_DIR
fi
