"""What travels to a machine with a card: binaries without shared libraries of renga's, and golden
models, as one archive."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib

ARCHIVE = "build/gpu-check/pack.tar.gz"
MOST_BYTES = 48 << 20
BUILD = "build/static"
BINARIES = {"kernels_test": "worker/kernels", "engine_test": "worker/engine",
            "renga-card-bench": "bench"}
# As the C library's own: the driver is loaded into the process, which a static one cannot do.
SHARED = ("linux-vdso.so", "libc.so", "libm.so", "libdl.so", "libpthread.so", "librt.so", "ld-linux")
FAMILIES = ("llama", "qwen2", "qwen3", "gemma3")


def run(*command, **options):
    print("+", " ".join(map(str, command)), flush=True)
    return subprocess.run([str(c) for c in command], check=True, **options)


def build(source):
    """Builds the binaries; machine code for the cards that are at hand most, PTX for all newer."""
    build_folder = source / BUILD
    run("cmake", "--preset", "release", "-B", build_folder, "-DRENGA_NET=OFF", "-DRENGA_STATIC=ON",
        "-DRENGA_CUDA=ON", "-DRENGA_CUDA_ARCHITECTURES=75;86;90", cwd=source)
    run("cmake", "--build", build_folder, "--target", *BINARIES, cwd=source)
    return build_folder


def check_libraries(binary):
    """Ends the program when a binary needs a library that a bare machine may lack."""
    listed = subprocess.run(["ldd", str(binary)], check=True, capture_output=True, text=True).stdout
    names = [line.split()[0].rpartition("/")[2] for line in listed.splitlines() if line.split()]
    foreign = [name for name in names if not name.startswith(SHARED)]
    if foreign:
        sys.exit(f"deploy/gpu-check: {binary.name} needs {', '.join(foreign)}: not linked statically")


def shared_data(source):
    """The folder of the golden models, or None."""
    folder = pathlib.Path(os.environ.get("RENGA_SHARED_DATA", source / "../shared/data"))
    return folder if (folder / "models").is_dir() else None


def copy_models(data, to):
    """The golden models that renga knows, with their answers."""
    to.mkdir(parents=True)
    for golden in sorted((data / "models").glob("*.golden.json")):
        told = json.loads(golden.read_text())
        if told["arch"] not in FAMILIES:
            continue
        for name in (golden.name, told["file"], told["logits_file"]):
            shutil.copy(data / "models" / name, to / name)


def make(source):
    build_folder = build(source)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        (folder / "bin").mkdir()
        for name, where in BINARIES.items():
            binary = folder / "bin" / name
            run("strip", "-o", binary, build_folder / where / name)
            check_libraries(binary)
        data = shared_data(source)
        if data is None:
            print("no golden models here (RENGA_SHARED_DATA): that part will be skipped")
        else:
            copy_models(data, folder / "data" / "models")
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=source,
                                capture_output=True, text=True).stdout.strip()
        (folder / "origin.json").write_text(json.dumps({"commit": commit}))
        archive = source / ARCHIVE
        archive.parent.mkdir(parents=True, exist_ok=True)
        unfinished = archive.with_suffix(".part")
        with tarfile.open(unfinished, "w:gz") as tar:
            for entry in sorted(folder.iterdir()):
                tar.add(entry, arcname=entry.name)
        unfinished.replace(archive)
    size = archive.stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"deploy/gpu-check: {archive} has {size} bytes, more than {MOST_BYTES}")
    print(f"{archive}: {size / 1e6:.1f} MB; copy it with the rest of the folder, and run "
          "deploy/gpu-check there")


def unpack(archive, folder):
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder)
    except (EOFError, OSError, zlib.error, tarfile.TarError) as error:
        sys.exit(f"deploy/gpu-check: {archive} cannot be unpacked ({error}): copy it again")


def origin(folder):
    """Which sources the binaries were built from; empty when unknown."""
    path = pathlib.Path(folder) / "origin.json"
    return json.loads(path.read_text()) if path.exists() else {}
