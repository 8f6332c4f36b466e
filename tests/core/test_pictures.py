"""Pictures are read in every mode, refused with a clear message, and converted to tensors and back."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import profiles
import pytest
import torch
from PIL import Image

from lowvram_core.checks.pictures import MAX_SIDE_PX, check_cutout, has_real_transparency
from lowvram_core.errors import BadInput
from lowvram_core.files.pictures import find_pictures, load_picture
from lowvram_core.pictures.convert import (
    cutout_from_rgba,
    image_from_pil,
    limit_long_side,
    pil_from_image,
    rgba_from_cutout,
)
from lowvram_core.types import Cutout

SIZE = (40, 30)


def colours() -> Image.Image:
    """RGB. The pixels differ along both axes."""
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    return Image.fromarray(np.stack((x * 6, y * 8, 255 - x * 3), axis=-1).astype(np.uint8))


def half_transparent(mode: str) -> Image.Image:
    picture = colours().convert(mode)
    alpha = Image.new("L", SIZE, 255)
    alpha.paste(0, (0, 0, SIZE[0] // 2, SIZE[1]))
    picture.putalpha(alpha)
    return picture


def png_of_side(width: int, height: int) -> bytes:
    """A PNG with this size in its header, but without pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr"])
def test_opaque_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("picture.tif" if mode in {"CMYK", "YCbCr"} else "picture.png")
    original = colours().convert(mode)
    original.save(path)
    loaded = load_picture(path)
    assert loaded.mode == "RGB"
    assert np.array_equal(np.asarray(loaded), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_modes_become_rgba(tmp_path: Path, mode: str) -> None:
    half_transparent("RGB" if mode == "RGBA" else "L").save(tmp_path / "picture.png")
    loaded = load_picture(tmp_path / "picture.png")
    assert loaded.mode == "RGBA"
    assert has_real_transparency(loaded)
    assert loaded.getpixel((0, 0))[3] == 0 and loaded.getpixel((39, 0))[3] == 255


def test_palette_with_transparency(tmp_path: Path) -> None:
    picture = colours().quantize(16)
    picture.info["transparency"] = picture.getpixel((0, 0))
    picture.save(tmp_path / "picture.png", transparency=picture.getpixel((0, 0)))
    loaded = load_picture(tmp_path / "picture.png")
    assert loaded.mode == "RGBA"
    assert loaded.getpixel((0, 0))[3] == 0


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65_535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[1], SIZE[0])
    Image.fromarray(values).save(tmp_path / "grey.png")
    loaded = np.asarray(load_picture(tmp_path / "grey.png"))
    assert loaded.shape == (SIZE[1], SIZE[0], 3)
    assert np.array_equal(loaded[..., 0], np.rint(values / 257).astype(np.uint8))


def test_sixteen_bit_colour_is_scaled(tmp_path: Path) -> None:
    rows = np.zeros((SIZE[1], SIZE[0], 3), dtype=">u2")
    rows[..., 0], rows[..., 1] = 65_535, 32_896
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    png = png_of_side(*SIZE)
    header = struct.pack(">IIBBBBB", *SIZE, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    (tmp_path / "deep.png").write_bytes(png[:8] + body)
    assert load_picture(tmp_path / "deep.png").getpixel((5, 5)) == (255, 128, 0)


COLOURS = ((200, 100, 50), (30, 160, 90), (120, 120, 120), (240, 230, 20), (0, 0, 0), (255, 255, 255))


def plates(colours: tuple[tuple[int, ...], ...], mode: str = "RGB") -> Image.Image:
    """A plate of 16 px for each colour."""
    picture = Image.new(mode, (16 * len(colours), 16))
    for index, colour in enumerate(colours):
        picture.paste(colour, (16 * index, 0, 16 * index + 16, 16))
    return picture


def seen(picture: Image.Image) -> np.ndarray:
    """[N,3] the colour in the middle of each plate."""
    return np.asarray(picture.convert("RGB"))[8, 8::16].astype(int)


@pytest.mark.parametrize("name", ["Display P3", "Adobe RGB"])
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_colours_with_a_profile_become_srgb(tmp_path: Path, name: str, ending: str) -> None:
    lossless = {"lossless": True} if ending == "webp" else {}
    plates(COLOURS).save(tmp_path / f"a.{ending}", icc_profile=profiles.rgb_profile(name), **lossless)
    wanted = np.array([profiles.srgb_of(name, colour) for colour in COLOURS])
    assert np.abs(wanted - COLOURS).max() > 15
    assert np.abs(seen(load_picture(tmp_path / f"a.{ending}")) - wanted).max() <= 1.5


def test_a_profile_leaves_alpha_and_palettes_right(tmp_path: Path) -> None:
    rgba = plates(COLOURS).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    profile = profiles.rgb_profile("Display P3")
    rgba.save(tmp_path / "alpha.png", icc_profile=profile)
    loaded = load_picture(tmp_path / "alpha.png")
    assert loaded.getchannel("A").tobytes() == rgba.getchannel("A").tobytes()
    plates(COLOURS).quantize(8, dither=Image.Dither.NONE).save(tmp_path / "palette.png", icc_profile=profile)
    wanted = np.array([profiles.srgb_of("Display P3", colour) for colour in COLOURS])
    for picture in (loaded, load_picture(tmp_path / "palette.png")):
        assert np.abs(seen(picture) - wanted).max() <= 1.5


def test_cmyk_with_a_profile_becomes_srgb(tmp_path: Path) -> None:
    inks = ((255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255), (0, 0, 0, 0), (255, 255, 0, 0))
    plates(inks, "CMYK").save(tmp_path / "inks.tif", icc_profile=profiles.cmyk_profile())
    wanted = np.array([profiles.encoded(profiles.xyz_of_lab(*profiles.cmyk_lab(*np.array(ink) / 255))) for ink in inks])
    found = seen(load_picture(tmp_path / "inks.tif"))
    assert np.abs(found - wanted).max() <= 4
    assert np.abs(found - seen(plates(inks, "CMYK"))).max() > 50


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_a_profile_becomes_srgb(tmp_path: Path, bits: int) -> None:
    ramp = np.tile(np.linspace(0, 2**bits - 1, 64), (16, 1)).round().astype(np.uint8 if bits == 8 else np.uint16)
    Image.fromarray(ramp).save(tmp_path / "grey.png", icc_profile=profiles.grey_profile(1.8))
    wanted = np.array([profiles.encoded(np.array(profiles.D50) * (v / 255) ** 1.8) for v in ramp[0] >> (bits - 8)])
    found = np.asarray(load_picture(tmp_path / "grey.png"))[8].astype(int)
    assert np.abs(found - wanted)[4:].max() <= 2 and np.abs(wanted[:, 0] - (ramp[0] >> (bits - 8))).max() > 10


@pytest.mark.parametrize("profile", ["sRGB", "broken", "of CMYK"])
def test_a_profile_that_changes_nothing_or_cannot_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, profile: str
) -> None:
    given = {"sRGB": profiles.rgb_profile("sRGB"), "broken": b"no profile", "of CMYK": profiles.cmyk_profile()}[profile]
    colours().save(tmp_path / "a.png", icc_profile=given)
    assert np.array_equal(np.asarray(load_picture(tmp_path / "a.png")), np.asarray(colours()))
    assert ("a.png has a colour profile that cannot be used" in caplog.text) == (profile != "sRGB")


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    colours().save(tmp_path / "turned.png", exif=exif)
    loaded = load_picture(tmp_path / "turned.png")
    assert loaded.size == (SIZE[1], SIZE[0])
    assert np.array_equal(np.asarray(loaded), np.rot90(np.asarray(colours()), -1))


def test_korean_names_and_spaces(tmp_path: Path) -> None:
    path = tmp_path / "내 사진 폴더" / "고양이 그림.png"
    path.parent.mkdir()
    colours().save(path)
    assert load_picture(path).size == SIZE
    assert find_pictures([path.parent]) == [path]


def test_refused_pictures_say_why(tmp_path: Path) -> None:
    colours().save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    cases = {
        "dot.png": (None, "1x1 px; wanted at least 16"),
        "cut.png": (whole[: len(whole) // 2], "cannot be read"),
        "empty.png": (b"", "not a picture that can be read"),
        "words.jpg": (b"hello, I am no picture", "not a picture that can be read"),
        "wide.png": (png_of_side(20_000, 20), f"20000x20 px; wanted at most {MAX_SIDE_PX}"),
        "bomb.png": (png_of_side(60_000, 60_000), "far too large"),
        "large.png": (png_of_side(12_000, 12_000), "128 million pixels"),
        "missing.png": (None, "is not there"),
    }
    for name, (content, wanted) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=wanted) as caught:
            load_picture(tmp_path / name)
        assert str(caught.value).startswith("picture: ") and name in str(caught.value)


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load_picture(tmp_path)


def test_float_and_32_bit_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 0.5, dtype=np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((20, 20), 1_000_000, dtype=np.int32)).save(tmp_path / "deep.tif")
    for name in ("float.tif", "deep.tif"):
        with pytest.raises(BadInput, match="wanted 8 or 16"):
            load_picture(tmp_path / name)


def test_the_long_side_only_shrinks() -> None:
    assert limit_long_side(colours(), 20).size == (20, 15)
    assert limit_long_side(colours(), 40).size == SIZE
    assert limit_long_side(Image.new("RGB", (4000, 16)), 100).size == (100, 1)


def test_a_little_transparency_is_not_a_cutout() -> None:
    picture = colours().convert("RGBA")
    picture.putpixel((3, 3), (0, 0, 0, 0))
    assert not has_real_transparency(picture)
    for corner in ((0, 0), (39, 0), (0, 29), (39, 29)):
        picture.putpixel(corner, (0, 0, 0, 0))
    assert has_real_transparency(picture)
    assert not has_real_transparency(colours())
    assert has_real_transparency(half_transparent("RGB"))


def test_eight_bit_values_make_the_round_trip() -> None:
    values = np.arange(256 * 4, dtype=np.uint32).reshape(16, 16, 4).astype(np.uint8)
    values[..., 3] = np.arange(256).reshape(16, 16)
    picture = Image.fromarray(values)
    assert np.array_equal(np.asarray(rgba_from_cutout(cutout_from_rgba(picture))), values)
    assert np.array_equal(np.asarray(pil_from_image(image_from_pil(colours()))), np.asarray(colours()))


def good_cutout() -> Cutout:
    mask = torch.zeros(20, 30)
    mask[5:15, 5:15] = 1
    return Cutout(torch.full((20, 30, 3), 0.5), mask)


def test_a_good_cutout_passes() -> None:
    check_cutout(good_cutout(), "shape")


def test_bad_cutouts_say_why() -> None:
    good = good_cutout()
    nan, dot = good.image.clone(), torch.zeros(20, 30)
    nan[3, 3, 1] = torch.nan
    dot[4, 4] = 1
    cases = [
        (Cutout(good.image, good.mask[:10]), "wanted \\[H,W,3\\]"),
        (Cutout(good.image[..., :2], good.mask), "wanted \\[H,W,3\\]"),
        (Cutout(torch.zeros(0, 0, 3), torch.zeros(0, 0)), "wanted \\[H,W,3\\]"),
        (Cutout(nan, good.mask), "picture has NaN"),
        (Cutout(good.image, good.mask / 0), "mask has NaN"),
        (Cutout(good.image * 255, good.mask), "values 128 to 128; wanted 0 to 1"),
        (Cutout(good.image, good.mask * 0), "fully transparent"),
        (Cutout(good.image, good.mask * 0.3), "half opaque"),
        (Cutout(good.image, dot), "the object is 1x1 px"),
    ]
    for cutout, wanted in cases:
        with pytest.raises(BadInput, match=wanted) as caught:
            check_cutout(cutout, "shape")
        assert str(caught.value).startswith("shape: ")


def test_finding_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (folder / name).write_bytes(b"x")
    one, notes = tmp_path / "one.dat", []
    one.write_bytes(b"x")
    assert find_pictures([one, folder, folder / "a.jpg"]) == [one, folder / "a.jpg", folder / "b.PNG"]
    assert find_pictures([folder], notes.append) and notes == [
        "picture: skipped in folder, since only picture files are read: notes.txt."
    ]
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match="no picture in"):
        find_pictures([tmp_path / "none"])
    with pytest.raises(BadInput, match="is not there"):
        find_pictures([tmp_path / "nowhere.png"])


def test_what_lies_beside_pictures_is_skipped_and_named(tmp_path: Path) -> None:
    folder, notes = tmp_path / "set", []
    folder.mkdir()
    for name in ("a.png", "._a.png", "Thumbs.db", ".DS_Store", "desktop.ini", "z.txt", "y.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "more.png").mkdir()
    assert find_pictures([folder], notes.append) == [folder / "a.png"]
    (note,) = notes
    assert note == (
        "picture: skipped in set, since only picture files are read: .DS_Store, ._a.png, Thumbs.db, desktop.ini, "
        "more.png/ and 2 more."
    )
