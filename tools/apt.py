"""Debian packages without installing them: apt with folders of its own, and an unpacker."""

import glob
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from common import Fail, Skip, output


class Apt:
    """apt with a folder of its own, so that it needs no root and changes nothing.

    It reads the machine's sources, or only those of `suites` in Debian's archive; then nothing
    counts as installed, so a download brings everything that a package needs.
    """

    def __init__(self, folder, suites=()):
        if not shutil.which("apt-get"):
            raise Skip("it comes from Debian's packages, and this machine has no apt-get")
        sources = [debian_source(suite) for suite in suites]
        folder = Path(folder)
        self.archives = folder / "archives"
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True)
        settings = {
            "Dir::State::lists": folder / "lists", "Dir::Cache": folder,
            "Dir::Cache::archives": self.archives, "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        }
        if suites:
            (folder / "sources.list").write_text("".join(f"{line}\n" for line in sources))
            (folder / "status").write_text("")
            settings.update({"Dir::Etc::sourcelist": folder / "sources.list",
                             "Dir::Etc::sourceparts": "-", "Dir::State": folder,
                             "Dir::State::status": folder / "status"})
        # Without root it cannot lock what it only reads.
        self.options = ["-qq", "-o", "Debug::NoLocking=true"]
        for key, value in settings.items():
            self.options += ["-o", f"{key}={value}"]
        self.run("apt-get", "update")

    def run(self, program, *words):
        """Runs one of apt's programs and gives what it prints; its failure is a Fail."""
        try:
            return output([program, *self.options, *words], cwd=self.archives)
        except Fail as error:
            # Not the options above, which tell nobody anything.
            raise Fail(f"{program} {' '.join(words)}: {str(error).partition(': ')[2]}") from None

    def download(self, *packages):
        """Fetches these packages alone."""
        self.run("apt-get", "download", *packages)

    def download_closure(self, suite, package):
        """Fetches a package of a suite and everything it needs."""
        self.run("apt-get", "-t", suite, "-y", "--no-install-recommends", "--download-only",
                 "install", package)

    def unpack(self, folder, part=""):
        """Unpacks what was fetched: all of it, or only files whose names hold `part`."""
        # Since Python 3.12 it wants to be told that links may be absolute.
        safely = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
        for package in sorted(self.archives.glob("*.deb")):
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)],
                                  stdout=subprocess.PIPE) as dpkg:
                with tarfile.open(fileobj=dpkg.stdout, mode="r|") as tar:
                    for member in tar:
                        inside = member.name.startswith("./") and ".." not in member.name.split("/")
                        wanted = part in member.name.rpartition("/")[2] and not member.isdev()
                        if inside and wanted:
                            tar.extract(member, folder, **safely)
            if dpkg.returncode != 0:
                raise Fail(f"{package.name} cannot be unpacked")


def debian_source(suite):
    """The line of a sources.list for a suite, of the archive that this machine's apt uses."""
    keyring = next(iter(glob.glob("/usr/share/keyrings/debian-archive-keyring.*")), None)
    if keyring is None:
        raise Skip("it comes from Debian's packages, and this machine is no Debian")
    with tempfile.TemporaryDirectory(prefix="apt-") as temp:
        lines = Apt(temp).run("apt-get", "indextargets", "--format",
                              "$(ORIGIN) $(REPO_URI) $(RELEASE)", "Created-By: Packages")
    for words in map(str.split, lines.splitlines()):
        # Not an archive of updates, which has a hyphen and lies elsewhere.
        if len(words) == 3 and words[0] == "Debian" and "-" not in words[2]:
            return f"deb [signed-by={keyring}] {words[1]} {suite} main"
    raise Skip("this machine's apt knows no archive of Debian")
