"""Timestamps of every kind, on one timeline."""

from __future__ import annotations

from fractions import Fraction

import pytest

from realtime_sep.relay.timeline import JITTER, PAUSED, Placement, Timeline

RATE = 48000
BLOCK = 480
SPAN = Fraction(BLOCK, RATE)  # 10 ms

SOUND, PICTURE = 0, 1


def seconds(value: float) -> Fraction:
    return Fraction(value).limit_denominator(1_000_000)


class Player:
    """Feeds a timeline with blocks of 10 ms, each with its timestamp."""

    def __init__(self, live: bool = False, first: float = 0.0) -> None:
        self.timeline = Timeline(RATE, live)
        self.timeline.restart(seconds(first))
        self.placed: list[Placement] = []

    def play(self, start: float, end: float, now: float = 0.0, shift: float = 0.0) -> None:
        """Sound from `start` to `end`; the clock goes along from `now`."""
        for index in range(round((end - start) / float(SPAN))):
            at = seconds(start) + index * SPAN
            clock = now + index * float(SPAN)
            self.timeline.moment(SOUND, at, SPAN, clock)
            self.placed.append(self.timeline.place(at + seconds(shift), BLOCK, clock))

    def silence(self) -> int:
        return sum(placement.silence for placement in self.placed)

    def skipped(self) -> int:
        return sum(placement.skip for placement in self.placed)


def test_output_begins_where_the_source_says() -> None:
    """A stream that begins at 1000.5 s with its sound 0.25 s later: 0 and 0.25 s."""
    player = Player(first=1000.5)
    assert player.timeline.moment(PICTURE, seconds(1000.5), SPAN) == 0
    player.play(1000.75, 1001.0)
    assert player.timeline.begin == RATE // 4
    assert player.timeline.position == RATE // 2


def test_jitter_is_not_mended() -> None:
    player = Player()
    for index in range(500):
        at = index * SPAN
        wrong = seconds(0.03) * (-1) ** index
        player.timeline.moment(SOUND, at, SPAN)
        player.placed.append(player.timeline.place(at + (wrong if index else 0), BLOCK))
    assert player.placed == [Placement(0, 0)] * 500


def test_rounded_timestamps_do_not_add_up() -> None:
    """FLV says milliseconds."""
    timeline = Timeline(44100, live=False)
    timeline.restart(Fraction(0))
    for index in range(5000):
        at = Fraction(round(Fraction(index * 1024, 44100) * 1000), 1000)
        timeline.moment(SOUND, at, Fraction(1024, 44100))
        assert timeline.place(at, 1024) == Placement(0, 0)
    assert timeline.position == 5000 * 1024


@pytest.mark.parametrize("gap", [0.1, 3.0])
def test_gap_becomes_silence(gap: float) -> None:
    player = Player()
    player.play(0, 1)
    player.play(1 + gap, 2 + gap)
    assert player.silence() == round(gap * RATE)
    assert player.timeline.position == round((2 + gap) * RATE)


def test_overlap_is_left_out() -> None:
    player = Player()
    player.play(0, 1)
    player.play(0.9, 2)
    assert player.skipped() == round(0.1 * RATE)
    assert player.timeline.position == 2 * RATE


def test_lost_packet_is_mended_within_a_second_and_a_half() -> None:
    """21 ms are too little to be told from jitter at once, and too much to be kept."""
    player = Player()
    player.play(0, 1)
    player.play(1.021, 3.021)
    assert player.silence() == pytest.approx(0.021 * RATE, abs=1)
    mended = next(i for i, placement in enumerate(player.placed) if placement.silence)
    assert mended * float(SPAN) < 2.5


def test_sound_and_picture_keep_their_distance_over_a_restart() -> None:
    """A sender that was restarted counts from zero again; both go on with one offset."""
    player = Player(first=100)
    player.play(100, 105)
    player.timeline.moment(PICTURE, seconds(104.98), SPAN)
    player.play(0.25, 1.25)
    assert player.timeline.epochs == 2
    picture = player.timeline.moment(PICTURE, seconds(0.25), SPAN)
    assert picture == 5
    assert player.timeline.position == 6 * RATE


def test_a_straggler_does_not_start_an_epoch() -> None:
    """After a restart, the picture's last packet of before is still on its way."""
    player = Player(first=100)
    player.play(100, 105)
    player.play(0, 0.1)
    assert player.timeline.moment(PICTURE, seconds(104.96), SPAN) == seconds(4.96)
    assert player.timeline.moment(PICTURE, seconds(0.04), SPAN) == seconds(5.04)
    assert player.timeline.epochs == 2


def test_sound_that_begins_late_is_preceded_by_nothing_and_followed_in_time() -> None:
    """An hour of pictures before the first sound is no leap: the pictures lead there."""
    timeline = Timeline(RATE, live=False)
    timeline.restart(Fraction(0))
    for second in range(60):
        timeline.moment(PICTURE, Fraction(second), Fraction(1))
    timeline.moment(SOUND, Fraction(60), SPAN)
    timeline.place(Fraction(60), BLOCK)
    assert timeline.begin == 60 * RATE
    assert timeline.epochs == 1


# --- live ----------------------------------------------------------------------------------------


def test_silence_is_due_by_the_clock() -> None:
    player = Player(live=True)
    player.play(0, 2, now=100)
    timeline = player.timeline
    assert timeline.overdue(102.9) == 0
    assert timeline.overdue(103.5) == pytest.approx(0.51 * RATE, abs=2)
    assert timeline.overdue(103.5) == 0
    assert timeline.overdue(104.5) == pytest.approx(1 * RATE, abs=2)


def test_a_burst_at_the_beginning_may_be_used_up() -> None:
    """Radio servers send some seconds at once."""
    timeline = Timeline(RATE, live=True)
    timeline.restart(Fraction(0))
    for index in range(500):
        timeline.moment(SOUND, index * SPAN, SPAN, 100.0)
        timeline.place(index * SPAN, BLOCK, 100.0)
    assert timeline.overdue(105.9) == 0
    assert timeline.overdue(106.5) > 0


def test_late_sound_is_dropped_and_latency_stays() -> None:
    """A network that held 3 s back delivers them at once: they are late, what follows is not."""
    player = Player(live=True)
    player.play(0, 2, now=100)
    timeline = player.timeline
    silent = timeline.overdue(105.0)
    for index in range(300):
        timeline.moment(SOUND, 2 + index * SPAN, SPAN, 105.0)
        timeline.place(2 + index * SPAN, BLOCK, 105.0)
    assert timeline.late_frames == silent
    player.play(5, 6, now=105)
    assert timeline.position == 6 * RATE
    assert timeline.lateness(106.0) < 0.05


def test_a_source_that_pauses_goes_on_where_it_stopped() -> None:
    """Its timestamps stand still meanwhile: it would be late for ever."""
    player = Player(live=True)
    player.play(0, 2, now=100)
    timeline = player.timeline
    for tick in range(100):
        timeline.overdue(102 + tick * 0.05)
    before = timeline.position
    player.placed.clear()
    player.play(2, 6, now=107)
    assert timeline.late_frames <= (PAUSED + 2 * float(SPAN)) * RATE
    assert timeline.position > before + 2 * RATE
    assert player.placed[-1] == Placement(0, 0)


def test_a_connection_begins_exactly_even_within_the_jitter() -> None:
    """25 ms too early would not be mended midway; at a beginning they are."""
    player = Player(live=True)
    player.play(0, 2, now=100)
    player.timeline.restart(Fraction(0), 102.0)
    picture = player.timeline.moment(PICTURE, Fraction(0), SPAN, 102.0)
    player.play(0.025, 1.025, now=102.025)
    assert seconds(0.025) < JITTER
    assert player.timeline.position == round((picture + seconds(1.025)) * RATE)


def test_a_connection_goes_on_by_the_clock() -> None:
    """Ten seconds away are ten seconds of silence, in a file, too."""
    player = Player(live=True)
    player.play(0, 2, now=100)
    player.timeline.restart(seconds(500), 112.0)
    player.play(500, 501, now=112)
    assert player.timeline.position == pytest.approx(13 * RATE, abs=0.05 * RATE)
