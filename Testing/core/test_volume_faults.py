"""Broken files, wrong places, full disks: one sentence that names the file, and nothing half-written."""

from __future__ import annotations

import errno
import gzip
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from mri_deep_tools.errors import (
    GeometryError,
    InputError,
    MRIDeepToolsError,
    OutOfMemoryError,
    OutputError,
    RequestError,
)
from mri_deep_tools.geometry import SHEAR_TOLERANCE, check_affine
from mri_deep_tools.volume import (
    SUFFIXES,
    Volume,
    atomic_path,
    check_output_path,
    read_volume,
    remove_stale,
    write_volume,
)

SHAPE = (20, 21, 22)
COMPRESSED = [".nii.gz", ".mgz", ".nrrd", ".mha", ".npz"]
INCOMPLETE = r"is not complete \(truncated or damaged download\)"


def noise(dtype="float32") -> np.ndarray:
    return (np.random.default_rng(5).normal(size=SHAPE) * 1000).astype(dtype)


def scan(dtype="float32") -> Volume:
    return Volume(noise(dtype), np.diag([-1, 1, 1.5, 1]))


def refused(path: Path, pattern: str, error: type[MRIDeepToolsError] = InputError, **options) -> None:
    """Assert that reading fails with one line that begins with the file's name and does not name its folder."""
    with pytest.raises(error) as caught:
        read_volume(path, on_warning=lambda text: None, **options)
    text = str(caught.value)
    assert re.search(pattern, text), text
    assert text.startswith(path.name)
    assert "\n" not in text
    assert str(path.parent) not in text


# ------------------------------------------------------------------------------------------------------ broken files


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_truncated(tmp_path, capfd, suffix, share):
    path = write_volume(scan(), tmp_path / f"scan{suffix}")
    os.truncate(path, int(path.stat().st_size * share))
    refused(path, INCOMPLETE)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
@pytest.mark.parametrize("compress", [True, False])
def test_truncated_data_beside_the_header(tmp_path, suffix, compress):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(noise()), str(path), compress)
    (data,) = [other for other in tmp_path.iterdir() if other != path]
    os.truncate(data, data.stat().st_size - 50)
    refused(path, INCOMPLETE)
    data.unlink()
    refused(path, f"needs the data file {re.escape(data.name)}, which is not there")


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("place", [-6, -3, -2000])
def test_one_wrong_byte(tmp_path, suffix, place):
    """The checksum behind the data is compared, even when all values could be read."""
    if suffix == ".npz":
        np.savez_compressed(tmp_path / "scan.npz", vol_data=noise())
        path, place = tmp_path / "scan.npz", place - 200
    else:
        path = write_volume(scan(), tmp_path / f"scan{suffix}")
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0x55
    path.write_bytes(raw)
    refused(path, INCOMPLETE)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz"])
def test_not_gzip(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(b"this is no image" * 100)
    refused(path, "is not a gzip file")
    path.write_bytes(b"<!DOCTYPE html><html>please log in</html>")
    refused(path, "is not a gzip file; it looks like a web page")


def test_names_and_content_disagree(tmp_path):
    write_volume(scan(), tmp_path / "scan.nii.gz").rename(tmp_path / "scan.nii")
    refused(tmp_path / "scan.nii", r"is compressed but its name does not end in \.gz; rename it")
    write_volume(scan(), tmp_path / "a.mgz").rename(tmp_path / "a.nii.gz")
    refused(tmp_path / "a.nii.gz", "is not a NIfTI file")
    write_volume(scan(), tmp_path / "b.nii.gz").rename(tmp_path / "b.mgz")
    refused(tmp_path / "b.mgz", "is not an MGH file")
    write_volume(scan(), tmp_path / "c.mha").rename(tmp_path / "c.nrrd")
    refused(tmp_path / "c.nrrd", "is not an NRRD file")
    write_volume(scan(), tmp_path / "d.nrrd").rename(tmp_path / "d.mha")
    refused(tmp_path / "d.mha", "is not a MetaImage file")
    (tmp_path / "e.npz").write_bytes(b"PK\3\4 nothing")
    refused(tmp_path / "e.npz", INCOMPLETE)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_and_missing(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    refused(path, "does not exist")
    path.touch()
    refused(path, r"is empty \(0 bytes\)")


def test_names_that_are_no_images(tmp_path):
    for name, hint in (("scan.txt", "use a file that ends in"), ("scan.dcm", "name the folder")):
        (tmp_path / name).write_bytes(b"something")
        refused(tmp_path / name, hint)
    refused(tmp_path, "without a DICOM series")


# ----------------------------------------------------------------------------------------------------- wrong content


def nifti_with(path: Path, offset: int, kind: str, *numbers: float) -> Path:
    """Write a good file and then other numbers into its header."""
    nib.save(nib.Nifti1Image(noise(), np.diag([2, 2, 2, 1.0])), path)
    raw = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    new = np.array(numbers, dtype=kind).tobytes()
    raw[offset : offset + len(new)] = new
    path.write_bytes(gzip.compress(bytes(raw), 1) if path.suffix == ".gz" else bytes(raw))
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_header_that_announces_too_much(tmp_path, suffix):
    """Nothing is allocated: the sizes are those of petabytes."""
    path = nifti_with(tmp_path / f"scan{suffix}", 40, "<i2", 3, 32000, 32000, 32000)
    refused(path, f"{INCOMPLETE}: its header announces 32000 x 32000 x 32000")


def test_other_headers_that_announce_too_much(tmp_path):
    path = write_volume(scan(), tmp_path / "scan.mgz")
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[4:16] = np.array([2**31 - 1] * 3, ">i4").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))
    refused(path, INCOMPLETE)
    for suffix, pattern in ((".nrrd", rb"sizes: [0-9 ]+"), (".mha", rb"DimSize = [0-9 ]+")):
        path = write_volume(scan(), tmp_path / f"scan{suffix}")
        raw = re.sub(pattern, pattern.split(b"[")[0] + b"30000 30000 30000", path.read_bytes(), count=1)
        path.write_bytes(raw)
        refused(path, INCOMPLETE)
    np.savez(tmp_path / "scan.npz", vol_data=np.zeros((2, 2, 2)))
    raw = (tmp_path / "scan.npz").read_bytes().replace(b"(2, 2, 2)", b"(9,9,999)")
    (tmp_path / "scan.npz").write_bytes(raw)
    refused(tmp_path / "scan.npz", INCOMPLETE)


@pytest.mark.parametrize("numbers", [(0, 5, 5, 5), (8, 5, 5, 5), (3, -5, 5, 5), (3, 0, 5, 5)])
def test_impossible_sizes(tmp_path, numbers):
    refused(nifti_with(tmp_path / "scan.nii", 40, "<i2", *numbers), "damaged header|is empty|not a NIfTI")


@pytest.mark.parametrize(
    ("code", "what"),
    [(128, "RGB colours"), (2304, "RGBA colours"), (32, "complex"), (1792, "complex"), (1536, "128-bit"), (1, "1-bit"),
     (0, "no data type"), (77, "unknown data type 77")],
)  # fmt: skip
def test_data_types_that_cannot_be_used(tmp_path, code, what):
    refused(nifti_with(tmp_path / "scan.nii.gz", 70, "<i2", code), f"holds .*{what}")


def test_colour_and_complex_in_other_formats(tmp_path):
    for name in ("rgb.nrrd", "rgb.mha"):
        image = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
        sitk.WriteImage(image, str(tmp_path / name))
        refused(tmp_path / name, "RGB colours")
    with pytest.raises(InputError, match="cannot be used"):
        np.savez(tmp_path / "c.npz", vol_data=np.zeros((4, 5, 6), complex))
        read_volume(tmp_path / "c.npz")
    np.savez(tmp_path / "other.npz", something=np.zeros((4, 5, 6)))
    refused(tmp_path / "other.npz", "has no array named vol_data")
    np.savez(tmp_path / "objects.npz", vol_data=np.array([[[{}]]]))
    refused(tmp_path / "objects.npz", "plain NumPy arrays|cannot be used")


@pytest.mark.parametrize("shape", [(20, 21), (20, 21, 1), (1, 20, 21), (20, 21, 1, 5)])
def test_slices(tmp_path, shape):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    refused(tmp_path / "scan.nii.gz", "is one slice .*, not a volume")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((20, 21), np.float32)), str(tmp_path / "flat.mha"))
    refused(tmp_path / "flat.mha", "is one slice")


def test_five_axes(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 2, 3), np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    refused(tmp_path / "scan.nii.gz", r"has 5 axes \(4 x 5 x 6 x 2 x 3\)")
    refused(tmp_path / "scan.nii.gz", "has 5 axes", ndim=None)


def test_half_of_a_pair(tmp_path):
    nib.save(nib.Nifti1Pair(noise(), np.eye(4)), tmp_path / "scan.img")
    (tmp_path / "scan.hdr").rename(tmp_path / "scan.nii")
    refused(tmp_path / "scan.nii", "half of a .hdr/.img pair")
    nib.save(nib.AnalyzeImage(noise(), np.eye(4)), tmp_path / "old.img")
    (tmp_path / "old.hdr").rename(tmp_path / "old.nii")
    refused(tmp_path / "old.nii", "is not a NIfTI file")


# ------------------------------------------------------------------------------------------------- affines at fault


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "singular affine"),
        ([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], "singular affine"),
        ([[np.nan, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "NaN or infinite"),
        ([[1, 0, 0, np.inf], [0, 1, 0, 0], [0, 0, 1, 0]], "NaN or infinite"),
        ([[1e-6, 0, 0, 0], [0, 1e-6, 0, 0], [0, 0, 1e-6, 0]], "says its voxels measure 1e-06 x 1e-06 x 1e-06 mm"),
        ([[500, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "says its voxels measure 500 x 1 x 1 mm"),
        (
            [[1, 0.05, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]],
            r"not at right angles \(largest cosine 0.04994, allowed 0.01\)",
        ),
    ],
)
def test_affines_that_cannot_be_used(tmp_path, rows, what):
    path = nifti_with(tmp_path / "scan.nii", 280, "<f4", *np.ravel(rows))
    raw = bytearray(path.read_bytes())
    raw[252:256] = np.array([0, 2], "<i2").tobytes()
    path.write_bytes(raw)
    refused(path, what, GeometryError)


def test_broken_qform_alone(tmp_path):
    path = nifti_with(tmp_path / "scan.nii", 252, "<i2", 1, 0)
    raw = bytearray(path.read_bytes())
    raw[256:268] = np.array([3, 3, 3], "<f4").tobytes()  # a quaternion longer than 1
    path.write_bytes(raw)
    refused(path, "has a qform that cannot be used", GeometryError)


@pytest.mark.parametrize("shear", [1e-4, 1e-3, 0.009])
def test_small_shear_is_repaired(tmp_path, shear):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 1] = shear
    image = nib.Nifti1Image(noise(), None)
    image.set_sform(affine, 1)
    image.header.set_zooms((1, 1, 2))
    nib.save(image, tmp_path / "scan.nii")
    said = []
    volume = read_volume(tmp_path / "scan.nii", on_warning=said.append)
    assert len(said) == 1
    assert "not quite at right angles" in said[0]
    gram = volume.affine[:3, :3].T @ volume.affine[:3, :3]
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12)
    assert volume.spacing == pytest.approx((1, np.hypot(1, shear), 2))
    middle = np.array([9.5, 10, 10.5, 1])
    np.testing.assert_allclose((volume.affine @ middle), affine @ middle, atol=1e-5)
    path = write_volume(volume, tmp_path / "out.nii")
    sitk.ReadImage(str(path))  # ITK refuses sheared files
    assert int(nib.load(path).header["sform_code"]) == 1


def test_sheared_volumes_are_not_written(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 2 * SHEAR_TOLERANCE
    for suffix in SUFFIXES:
        with pytest.raises(GeometryError, match=f"out{suffix} has axes that are not at right angles"):
            write_volume(Volume(noise(), affine), tmp_path / f"out{suffix}")
    assert not list(tmp_path.iterdir())


def test_check_affine_by_itself():
    affine, notes = check_affine(np.diag([-1, 2, 3, 1]))
    assert notes == ()
    np.testing.assert_array_equal(affine, np.diag([-1, 2, 3, 1]))
    for wrong in (np.eye(3), np.diag([1, 1, 1, 2.0])):
        with pytest.raises(GeometryError):
            check_affine(wrong, "x.nii")


# ------------------------------------------------------------------------------------------------------------ memory


def test_memory_limit(tmp_path):
    """A volume that does not fit into the address space is an error of this package, and names its need."""
    data = np.zeros((700, 700, 700), np.uint8)
    path = write_volume(Volume(data, np.eye(4)), tmp_path / "big.nii.gz")
    code = """
        import resource, sys
        from mri_deep_tools.errors import OutOfMemoryError
        from mri_deep_tools.volume import read_volume
        import nibabel, psutil
        limit = psutil.Process().memory_info().vms + (200 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            read_volume(sys.argv[1])
        except OutOfMemoryError as error:
            print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("big.nii.gz needs ")
    assert "of memory but" in result.stdout


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".npz"])
def test_memory_is_checked_before_it_is_taken(tmp_path, monkeypatch, suffix):
    path = write_volume(Volume(np.zeros((512, 512, 300), np.uint8), np.eye(4)), tmp_path / f"big{suffix}")
    monkeypatch.setattr("mri_deep_tools._stream.available_memory", lambda: 1 << 20)
    refused(path, "needs .* of memory", OutOfMemoryError)


# ----------------------------------------------------------------------------------------------------------- writing


def test_existing_results(tmp_path):
    path = write_volume(scan(), tmp_path / "out.nii.gz")
    before = path.read_bytes()
    with pytest.raises(RequestError, match=r"^out\.nii\.gz exists already; choose another name or allow overwriting"):
        write_volume(scan("int16"), path, overwrite=False)
    with pytest.raises(RequestError, match="exists already"):
        check_output_path(path, overwrite=False)
    check_output_path(path, overwrite=True)
    assert path.read_bytes() == before
    remove_stale(path, tmp_path / "other.csv")
    assert not path.exists()


def test_output_names(tmp_path):
    for name in ("out", "out.jpg", "out.dcm"):
        with pytest.raises(RequestError, match="does not end in"):
            check_output_path(tmp_path / name, True)
        with pytest.raises(RequestError, match="does not end in an image suffix"):
            write_volume(scan(), tmp_path / name)
    for name in ("out.nii.gz", "deep/er/out.mgz", "table.csv", "page.html", "picture.png"):
        check_output_path(tmp_path / name, True)
    with pytest.raises(RequestError, match="suffix"):
        check_output_path(tmp_path / "table.csv", True, suffixes=SUFFIXES)
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(RequestError, match="is a folder"):
        check_output_path(tmp_path / "folder.nii", True)
    with pytest.raises(RequestError, match="intent"):
        write_volume(scan(), tmp_path / "out.nii", intent="vector")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.nii"]


def test_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"^out\.nii cannot be written: its folder is not a folder"):
        check_output_path(tmp_path / "file" / "out.nii", True)
    with pytest.raises(OutputError, match=r"^out\.nii cannot be written"):
        write_volume(scan(), tmp_path / "file" / "out.nii")
    with pytest.raises(OutputError, match="its name is too long"):
        write_volume(scan(), tmp_path / ("x" * 300 + ".nii"))
    with pytest.raises(OutputError, match="its name is too long"):
        check_output_path(tmp_path / ("x" * 300 + ".nii"), True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_read_only_folder():
    """As an ordinary user, in a folder that belongs to somebody else, with a file that may not be read."""
    folder = Path(tempfile.mkdtemp())
    secret = write_volume(scan(), folder / "scan.nii")
    try:
        secret.chmod(0)
        folder.chmod(0o555)
        status = in_child(lambda: _write_as_nobody(folder))
        assert status == 0
        assert list(folder.iterdir()) == [secret]
    finally:
        folder.chmod(0o700)
        secret.unlink()
        folder.rmdir()


def _write_as_nobody(folder: Path) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)
    refused(folder / "scan.nii", r"cannot be read \(Permission denied\)")
    with pytest.raises(OutputError, match=r"^scan\.nii cannot be replaced"):
        remove_stale(folder / "scan.nii")
    for attempt in (
        lambda: check_output_path(folder / "out.nii.gz", True),
        lambda: check_output_path(folder / "sub" / "out.nii.gz", True),
        lambda: write_volume(scan(), folder / "out.nii.gz"),
        lambda: write_volume(scan(), folder / "out.nrrd"),
        lambda: write_volume(scan(), folder / "sub" / "out.mha"),
    ):
        with pytest.raises(OutputError, match=r"^out\.[a-z.]+ cannot be written: permission denied"):
            attempt()


def in_child(work) -> int:
    """Run ``work`` in a forked process and return its exit status, 0 for no exception."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:  # noqa: BLE001
            os.write(2, repr(error).encode())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("missing", [1, 3000, 20000])
def test_full_disk(tmp_path, suffix, missing):
    """The system takes fewer bytes than there are; what was there before stays, and no temporary file is left."""
    path = write_volume(scan("int16"), tmp_path / f"out{suffix}")
    before = path.read_bytes()
    size = write_volume(scan(), tmp_path / f"size{suffix}").stat().st_size

    def work() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, size - missing))
        with pytest.raises(OutputError, match=rf"^out{re.escape(suffix)} cannot be written"):
            write_volume(scan(), path)

    assert in_child(work) == 0
    assert path.read_bytes() == before
    assert sorted(other.name for other in tmp_path.iterdir()) == [path.name, f"size{suffix}"]


# ------------------------------------------------------------------------------------------------------ atomic files


def test_atomic_path_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".csv"
        temporary.write_text("a,b\n")
        assert not path.exists()
    assert path.read_text() == "a,b\n"
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "a,b\n"
    assert [other.name for other in path.parent.iterdir()] == ["table.csv"]


def test_writers_in_several_threads(tmp_path):
    """One thread's temporary file is not taken for a leftover by another."""

    def work(number: int) -> None:
        for turn in range(10):
            with atomic_path(tmp_path / f"{number}.csv") as temporary:
                temporary.write_text(f"{number} {turn}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == [f"{number} 9" for number in range(8)]


def test_a_failure_leaves_no_empty_folder_behind(tmp_path):
    (tmp_path / "kept").mkdir()
    for folder in (tmp_path / "new" / "inner", tmp_path / "kept"):
        with pytest.raises(ZeroDivisionError), atomic_path(folder / "one.csv"):
            1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "new" / "two.csv"):
        (tmp_path / "new" / "other.csv").write_text("of another program")
        1 / 0  # noqa: B018
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["other.csv"]


def test_atomic_path_inside_another(tmp_path):
    """A set of results appears together: writers that are atomic themselves leave the renaming to the outer block."""
    path = tmp_path / "out.nhdr"
    with atomic_path(path) as temporary:
        assert write_volume(scan(), temporary) == temporary
        assert not path.exists()
        with pytest.raises(OutputError, match=r"^out\.nhdr cannot hold"):
            write_volume(Volume(np.full(SHAPE, 2**40), np.eye(4)), temporary)
    np.testing.assert_array_equal(read_volume(path).data, noise())
    assert [other.name for other in tmp_path.iterdir()] == ["out.nhdr"]


def test_errors_of_other_files_keep_their_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="input"), atomic_path(tmp_path / "out.csv"):
        (tmp_path / "input").read_text()
    with (
        pytest.raises(OutputError, match=r"^out\.csv cannot be written: the disk is full"),
        atomic_path(tmp_path / "out.csv"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_killed_while_writing(tmp_path):
    """A killed process leaves no result; its temporary file is removed by the next one that writes there."""
    code = f"""
        import time
        from pathlib import Path
        from mri_deep_tools.volume import atomic_path
        with atomic_path(Path({str(tmp_path)!r}) / "out.nii.gz") as temporary:
            temporary.write_bytes(b"half")
            print("ready", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    (leftover,) = tmp_path.iterdir()
    write_volume(scan(), tmp_path / "second.nii.gz")
    assert leftover.exists()  # its process is alive
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "out.nii.gz").exists()
    time.sleep(0.05)
    write_volume(scan(), tmp_path / "out.nii.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.nii.gz", "second.nii.gz"]
