"""The Korean texts that nodes show while they run, and how web/lib/messages.js uses them."""

from __future__ import annotations

import re

import messages_js
import progress_texts
from test_progress import Clock

from lowvram_core import plans
from lowvram_core.files.download_line import DownloadLine
from lowvram_core.presets import PRESETS
from lowvram_core.progress import Bar, Part, short_time
from lowvram_core.report import PhaseRecord, summary

NAMES = {"DiT", "UNet", "VAE", "DINOv", "GB", "MB", "GiB", "MB/s", "UV"}


def korean(*lines: str) -> list[str]:
    """The lines as a Korean user sees them."""
    return messages_js.each(
        lines, "ko_progress.json", "(line, translate, {translatedLine}) => translatedLine(line, translate)"
    )


def test_every_text_has_a_korean_one() -> None:
    """`make texts` writes nothing before each has one. What is missing stands here, to be pasted."""
    problems = progress_texts.problems(progress_texts.wanted(), progress_texts.translations())
    assert not problems, "\n".join(problems)


def test_missing_stale_and_damaged_texts_are_named() -> None:
    assert progress_texts.problems({"step {0} of {1}", "new {0}"}, {"step {0} of {1}": "{0}", "old": "옛것"}) == [
        '"new {0}" = ""',
        "stale: old",
        "other holes than the English text: step {0} of {1}",
    ]


def test_texts_come_from_plans_and_source() -> None:
    english = progress_texts.wanted()
    assert {"step {0} of {1}", "decoding {0} %", "about {0} left", "weights stream: {0} GiB free", "loading {0}",
            "downloading {0}: {1}", "getting ready", "shape DiT {0}", "{0} min {1} s"} <= english  # fmt: skip
    assert not english & {"{0}", "GB", "{0} GB", "{0} MB/s"}


def test_what_a_part_shows_is_korean() -> None:
    """Of every preset, with the time left. Only names and units stay as they are."""
    doing = {
        part.doing.format(done=2, total=9, percent=22)
        for preset in PRESETS.values() for part in plans.run_parts(preset, turntable_frames=4) if part.doing
    }  # fmt: skip
    loading = {f"loading {name} 2.1 GB" for name in plans.LOAD_S}
    lines = [f"{text}, weights stream: 1.8 GiB free, about 3 min 20 s left" for text in sorted(doing | loading)]
    for line, shown in zip(lines, korean(*lines), strict=True):
        assert not set(re.findall("[A-Za-z/]+", shown)) - NAMES, (line, shown)
        assert "약 3분 20초 남음" in shown and shown.count(", ") == 2


def test_the_line_of_a_bar() -> None:
    clock = Clock()
    bar = Bar([Part("shape DiT", 1.0, 50, doing="step {done} of {total}")], clock=clock)
    bar.enter("shape DiT")
    clock.now += 10
    bar.at(10, 50)
    assert bar.line() == "step 10 of 50, about 40 s left"
    assert korean(bar.line()) == ["50스텝 중 10스텝, 약 40초 남음"]


def test_the_lines_of_a_download() -> None:
    clock, told = Clock(), list[str]()
    line = DownloadLine(told.append, "paint v2-0", 0, 10**9, clock)
    line.file = "unet/a.bin"
    line.show(0)
    clock.now += 3
    line.show(0)
    clock.now += 1
    line.show(400_000_000)
    assert korean(*told) == [
        "paint v2-0 내려받는 중: unet/a.bin, 1.00 GB 중 0.00",
        "paint v2-0 내려받는 중: unet/a.bin, 1.00 GB 중 0.00, 서버를 기다리는 중",
        "paint v2-0 내려받는 중: unet/a.bin, 1.00 GB 중 0.40, 100.0 MB/s, 6초 남음",
    ]


def test_long_times() -> None:
    assert korean(*(f"about {short_time(seconds)} left" for seconds in (1500, 3600, 7500))) == [
        "약 25분 남음", "약 1시간 남음", "약 2시간 5분 남음",
    ]  # fmt: skip


def test_the_line_at_the_end() -> None:
    """Phases keep their names: Memory Report has the same."""
    records = [PhaseRecord(name, seconds, None, None, None, 0) for name, seconds in (("condition", 0.8), ("decode", 2))]
    assert korean(summary(records)) == ["2.8초: condition 0.8, decode 2.0"]
