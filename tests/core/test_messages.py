"""Templates of messages in the source, their Korean texts, and how web/lib/messages.js uses both."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import message_texts
import messages_js
import pytest
import torch
from error_messages import Messages
from python_source import read

from lowvram_core.checks.meshes import check_mesh
from lowvram_core.checks.packages import missing_package
from lowvram_core.checks.pictures import check_cutout, check_size, named
from lowvram_core.errors import LowVramError
from lowvram_core.files.load_meshes import from_trimesh, load_mesh
from lowvram_core.files.pictures import find_pictures
from lowvram_core.files.store import ModelStore
from lowvram_core.fitting.budget import plain_need
from lowvram_core.fitting.fallbacks import refusal
from lowvram_core.lending.device import full_device_is_named
from lowvram_core.presets import PRESETS, get
from lowvram_core.types import Cutout, Mesh

KOREAN = message_texts.translations()
HANGUL = re.compile("[가-힣]")


def found(*modules: str) -> Messages:
    """The messages of small modules: `a` is the first, `b` the second."""
    names = ["lowvram_core.a", "lowvram_core.b"]
    return Messages({name: read(name, text, package=False) for name, text in zip(names, modules, strict=False)})


IMPORT = "from .errors import BadInput\n"


@pytest.mark.parametrize(
    ("source", "whole", "parts"),
    [
        ("raise BadInput(f'load: {name!r} is {size:.2f} px; wanted more. Use {LIMIT}.')",
         {"load: {0} is {1} px; wanted more. Use {2}."}, set()),
        ("SHORTER = 'Scale it down.'\ndef f(n): raise BadInput(f'load: {n} is far too large here. {SHORTER}')",
         {"load: {0} is far too large here. Scale it down."}, set()),
        ("def f(x):\n  met = 'the RAM' if x else x\n  raise BadInput(f'{x}: {met} is full while it ran here')",
         {"{0}: {1} is full while it ran here"}, {"the RAM"}),
        ("def refuse(s, met, wanted): raise BadInput(f'{s}: {met}; wanted {wanted}.')\n"
         "def g(s, n): refuse(s, f'{n} faces', 'one')\ndef h(): refuse('load', 'no UVs', wanted='UVs')",
         {"{0}: {1} faces; wanted one.", "{0}: no UVs; wanted UVs."}, {"load"}),
        ("def f(n, more):\n  tail = f' and {more} more' if more else ''\n"
         "  raise BadInput(f'load: it lacks {n}{tail}; x')",
         {"load: it lacks {0}; x", "load: it lacks {0} and {1} more; x"}, set()),
        ("def f(n): raise BadInput(f'load: {n} is missing in every folder.\\nFiles:\\n{n} of the list')",
         {"load: {0} is missing in every folder."}, set()),
        ("class A:\n  def no(self, why): return BadInput(f'models: it is nowhere here ({why})')\n"
         "  def f(self): raise self.no('downloads are off')",
         {"models: it is nowhere here ({0})"}, {"downloads are off"}),
        ("T = (Advice('paint fewer views', 'views'),)\ndef advice(n):\n  texts = ['close other programs']\n"
         "  texts += [entry.text for entry in T]\n  return 'In this order: ' + '; '.join(texts) + '.'\n"
         "def f(n): raise BadInput(f'{n} {advice(n)}')",
         {"{0} In this order: {1}."}, {"close other programs", "paint fewer views"}),
    ],
)  # fmt: skip
def test_templates_are_found(source: str, whole: set[str], parts: set[str]) -> None:
    messages = found(IMPORT + source)
    assert messages.whole == whole
    assert messages.parts - {"front", "left", "back", "right"} == parts


def test_templates_are_found_across_modules() -> None:
    helper = IMPORT + "def gone(stage, name):\n  return BadInput(f'{stage}: {name} is not there, as it should be.')"
    messages = found(helper, "from .a import gone\ndef f(): raise gone('load', 'a texture')")
    assert messages.whole == {"{0}: {1} is not there, as it should be."} and {"load", "a texture"} <= messages.parts


def test_every_message_has_a_korean_text() -> None:
    """`make texts` writes nothing before each has one. What is missing stands here, to be pasted."""
    problems = message_texts.problems(message_texts.wanted(), KOREAN)
    assert not problems, "\n".join(problems)


def test_missing_stale_and_damaged_texts_are_named() -> None:
    english = {"messages": {"load: {0} is new.", "load: {0} of {1}."}, "parts": set()}
    korean = {"messages": {"load: {0} of {1}.": "{0}", "load: old.": "옛것"}, "parts": {}}
    assert message_texts.problems(english, korean) == [
        '[[messages]]\nen = "load: {0} is new."\nko = ""\n',
        "stale, under [[messages]]: load: old.",
        "other holes than the English text, under [[messages]]: load: {0} of {1}.",
    ]


def test_korean_texts_are_korean() -> None:
    """A message that says nothing in Korean was left out. Parts may be names."""
    assert all(HANGUL.search(text) for text in KOREAN["messages"].values())


FIRST_PART = "(text, translate, {firstPart}) => [firstPart(text), translate(firstPart(text))]"


def shown(*messages: str) -> list[list[str]]:
    """The first part of each message in English and Korean, by web/lib/messages.js."""
    return messages_js.each(messages, "ko.json", FIRST_PART)


def message(act: Callable[[], object]) -> str:
    """What an error says."""
    with pytest.raises(LowVramError) as caught:
        act()
    return str(caught.value)


def full() -> None:
    """A device that is full."""
    with full_device_is_named(torch.device("cuda:0"), "paint", " while the paint UNet is on it"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried")


def raised(error: Exception) -> None:
    """Raises an error."""
    raise error


def errors(folder: Path) -> dict[str, str]:
    """A real message of each construction in the source, and a Korean piece of it."""
    preset = PRESETS["8 GB Balanced"].with_(allow_lossy=False)
    mask = torch.zeros(32, 32)
    empty = Cutout(torch.zeros(32, 32, 3), mask)
    need = plain_need("renderer of the maps", 2**30, {"render_px", "views"})
    mesh = folder / "a.glb"
    mesh.write_bytes(b"glTF" + bytes(40))
    return {
        message(lambda: check_cutout(empty, named("paint", 1, 3))): "채색, 사진 2: 오려 낸 그림에 물체가 없습니다(",
        message(lambda: check_cutout(empty, "delight, left")): "조명 제거, 왼쪽: 오려 낸",
        message(lambda: check_size((3, 4000), "the texture 0 of a.glb")): "사진: a.glb의 텍스처 0의 크기가 3x4000 px",
        message(lambda: find_pictures([folder / "none"])): f"사진: {folder / 'none'}이(가) 없습니다",
        message(lambda: get("7 GB")): "'7 GB'은(는) 알 수 없는 프리셋",
        message(lambda: preset.with_(octree=5)): "프리셋: octree 값이 5입니다",
        message(lambda: preset.with_(octree="x")): "의 정수여야 합니다",
        message(lambda: load_mesh(folder / "a.txt")): "불러오기: 파일 이름이 '.txt'(으)로 끝납니다",
        message(lambda: load_mesh(mesh)): "불러오기: a.glb 파일",
        message(lambda: from_trimesh(None)): "trimesh: 연결된 것이 없습니다.",
        message(lambda: ModelStore([folder], offline=True).folder("paint")): "(내려받기가 꺼져 있습니다)",
        message(lambda: raised(refusal("paint", preset, [need], 2**28))): "2. 품질 낮추기를 허용하기(",
        message(full): "채색: 채색 UNet이(가) 올라가 있는 동안 cuda:0 메모리가 가득 찼습니다(CUDA out of memory)",
        message(lambda: raised(missing_package("unwrap", ["xatlas"], otherwise="Or choose the other unwrapper."))):
            "실행하세요: python -m pip install xatlas. 또는 다른 UV 펼치기",
        message(lambda: check_mesh(empty_mesh(), "bake")): "텍스처 굽기: 메시가 비어 있습니다",
    }  # fmt: skip


def empty_mesh() -> Mesh:
    """A mesh without faces."""
    return Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.long))


def test_real_messages_become_korean(tmp_path: Path) -> None:
    known = errors(tmp_path)
    for (english, korean), wanted in zip(shown(*known), known.values(), strict=True):
        assert wanted in korean, f"{english}\n{korean}"
        left = re.findall(r"[a-z]{3,} [a-z]{2,} [a-z]{2,}", re.sub(r"\(.*?\)|python -m pip \S+ \S+", "", korean))
        assert not left, f"{english}\n{korean}"


def test_the_first_part_is_short() -> None:
    """Lists on further lines are left out, long ones in the line are cut, and so is another library's long message."""
    listed = ", ".join(f".a{index}" for index in range(12))
    told = f"load: it is x ({'long ' * 60}); wanted one of {listed}. Convert it.\nFiles:\n  a"
    [[english, _]] = shown(told)
    assert (
        english.startswith("load: it is x (long long") and " …); wanted one of .a0, .a1, .a2, .a3, … (+8)." in english
    )
    assert english.endswith("Convert it.") and len(english) < 300


def test_another_librarys_lines_are_cut_and_not_the_advice() -> None:
    """torch's refusal of a pickle has several lines, colours, and parentheses of its own."""
    told = "Weights only load failed, \x1b[1mdo those steps\x1b[0m:\n\t(1) In PyTorch 2.6 " + "we changed (it) " * 20
    advice = "; wanted a whole PyTorch file of tensors. Delete it and download it again."
    [[english, korean]] = shown(f"models: a.bin cannot be read as weights ({told}){advice}\nFiles:\n  a")
    assert english.startswith("models: a.bin cannot be read as weights (Weights only load failed, do those steps: ")
    assert english.endswith(f" …){advice}") and len(english) < 320
    assert korean.endswith("PyTorch 파일이 필요합니다. 파일을 지우고 다시 내려받으세요.")


def test_what_has_no_template_stays_english() -> None:
    """Also where it holds what a regular expression or a replacement would take for its own."""
    unknown = "load: $& (a+b) is {0} unknown here"
    assert shown(unknown) == [[unknown, unknown]]
