//! When is a calendar busy? Spans of minutes, merged and counted.
//!
//! Some of the tests fail on purpose: there is one mistake in `merge.rs` for an agent to find.

mod merge;

pub use merge::merge;

/// The minutes from `start` up to, and without, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first minute.
    pub start: u32,
    /// The minute after the last.
    pub end: u32,
}

impl Span {
    /// A span; `None` if it would end before it starts, or be empty.
    pub fn new(start: u32, end: u32) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// Reads `HH:MM-HH:MM`.
    pub fn parse(text: &str) -> Option<Self> {
        let (start, end) = text.trim().split_once('-')?;
        Self::new(minute(start)?, minute(end)?)
    }

    /// How many minutes it has.
    pub fn minutes(self) -> u32 {
        self.end - self.start
    }
}

fn minute(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?);
    (hours <= 24 && minutes < 60).then_some(hours * 60 + minutes)
}

/// How many minutes are busy, each counted once.
pub fn busy_minutes(spans: &[Span]) -> u32 {
    merge(spans).into_iter().map(Span::minutes).sum()
}

/// What is free within `day`.
pub fn free(day: Span, spans: &[Span]) -> Vec<Span> {
    let mut free = Vec::new();
    let mut at = day.start;
    for busy in merge(spans) {
        free.extend(Span::new(at, busy.start.min(day.end)));
        at = at.max(busy.end);
    }
    free.extend(Span::new(at, day.end));
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(text: &str) -> Vec<Span> {
        text.split(',').map(|span| Span::parse(span).unwrap()).collect()
    }

    #[test]
    fn only_sound_spans_are_read() {
        assert_eq!(Span::parse("09:00-10:30").unwrap().minutes(), 90);
        for text in ["09:00", "10:00-09:00", "09:00-09:00", "9-10", "09:60-10:00"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }

    #[test]
    fn meetings_apart_stay_apart_whatever_their_order() {
        assert_eq!(merge(&spans("13:00-14:00, 09:00-10:00")), spans("09:00-10:00, 13:00-14:00"));
    }

    #[test]
    fn meetings_that_touch_become_one() {
        assert_eq!(merge(&spans("09:00-10:00, 10:00-11:00")), spans("09:00-11:00"));
    }

    #[test]
    fn a_short_meeting_within_a_long_one_changes_nothing() {
        assert_eq!(merge(&spans("09:00-12:00, 10:00-10:30")), spans("09:00-12:00"));
    }

    #[test]
    fn every_busy_minute_counts_once() {
        assert_eq!(busy_minutes(&spans("09:00-12:00, 09:30-10:00, 11:30-12:30")), 210);
    }

    #[test]
    fn free_is_what_no_meeting_covers() {
        let day = Span::parse("09:00-17:00").unwrap();
        let meetings = spans("09:00-12:00, 10:00-10:30, 13:00-16:00");
        assert_eq!(free(day, &meetings), spans("12:00-13:00, 16:00-17:00"));
    }
}
