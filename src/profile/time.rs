//! Points in time and lengths of time as vendors write them.
//!
//! What is no time is `None`: junk in a time field does not cost the ticket.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// Seconds of a hundred years: no effort, and no `hh:mm`, is longer.
const LONGEST_SECONDS: f64 = 100.0 * 366.0 * 86_400.0;

/// In which zone and order a vendor's dates are to be read.
#[derive(Clone, Debug)]
pub struct Dates {
    /// The zone of times that name none.
    pub zone: TimeZone,
    /// Whether `3/4/2026` is the third of April; a number above 12 decides for itself.
    pub day_first: bool,
}

impl Dates {
    /// A point in time: ISO 8601 and what comes close to it, `D/M/YYYY HH:MM`, digits since 1970. With `exported`, also
    /// dates with names of months, which only exports meant for people have.
    pub fn parse(&self, text: &str, exported: bool) -> Option<Timestamp> {
        let text = text.trim();
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return epoch(text.parse().ok()?);
        }
        if text.as_bytes().get(4) == Some(&b'-') {
            let (local, zone) = iso(text)?;
            return self.at(local, zone);
        }
        let (date, clock) = text.split_once([' ', 'T']).unwrap_or((text, ""));
        let (year, month, day) = self.date(date, exported)?;
        let clock = Clock::parse(clock)?;
        self.at(clock.on(year, month, day)?, None)
    }

    fn at(&self, local: DateTime, offset: Option<Offset>) -> Option<Timestamp> {
        match offset {
            Some(offset) => offset.to_timestamp(local).ok(),
            None => self.zone.to_ambiguous_timestamp(local).compatible().ok(),
        }
    }

    /// `29/2/2016`, `29-02-2016`, `29.02.2016`, and in exports `29/Feb/16`.
    fn date(&self, text: &str, exported: bool) -> Option<(i16, i8, i8)> {
        let mut parts = text.split(['/', '-', '.']);
        let (first, second, year) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let first: i8 = first.parse().ok()?;
        let Ok(second) = second.parse::<i8>() else {
            return exported.then(|| Some((year_of(year)?, month_of(second)?, first))).flatten();
        };
        let year = if exported { year_of(year)? } else { full_year(year)? };
        let day_first = if first > 12 || second > 12 { first > 12 } else { self.day_first };
        Some(if day_first { (year, second, first) } else { (year, first, second) })
    }
}

fn full_year(text: &str) -> Option<i16> {
    if text.len() == 4 { text.parse().ok() } else { None }
}

fn year_of(text: &str) -> Option<i16> {
    match text.len() {
        2 => text.parse::<i16>().ok().map(|year| 2000 + year),
        _ => full_year(text),
    }
}

fn month_of(name: &str) -> Option<i8> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let name = name.to_lowercase();
    MONTHS.iter().zip(1..).find(|(month, _)| **month == name).map(|(_, number)| number)
}

/// A point in time from a number since 1970 in seconds, milli-, micro- or nanoseconds, told apart by size. Numbers
/// below a hundred million are counts or days, not times.
pub fn epoch(number: i64) -> Option<Timestamp> {
    match number {
        ..100_000_000 => None,
        100_000_000..100_000_000_000 => Timestamp::from_second(number).ok(),
        100_000_000_000..100_000_000_000_000 => Timestamp::from_millisecond(number).ok(),
        100_000_000_000_000..100_000_000_000_000_000 => Timestamp::from_microsecond(number).ok(),
        _ => Timestamp::from_nanosecond(number.into()).ok(),
    }
}

/// A time of day.
#[derive(Clone, Copy, Default)]
struct Clock {
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
}

impl Clock {
    /// `7:07`, `07:07:31`, `11:34 AM`; nothing is midnight.
    fn parse(text: &str) -> Option<Self> {
        let (clock, half) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if clock.is_empty() {
            return Some(Self::default());
        }
        let mut parts = clock.splitn(3, ':');
        let hour = parts.next()?.parse().ok()?;
        let minute = parts.next()?.parse().ok()?;
        let second = parts.next().map_or(Some(0), |second| second.parse().ok())?;
        Some(Self { hour: Self::of_half(hour, half)?, minute, second, nanosecond: 0 })
    }

    fn of_half(hour: i8, half: &str) -> Option<i8> {
        match half.to_ascii_lowercase().as_str() {
            "" => Some(hour),
            _ if !(1..=12).contains(&hour) => None,
            "am" => Some(hour % 12),
            "pm" => Some(hour % 12 + 12),
            _ => None,
        }
    }

    fn on(self, year: i16, month: i8, day: i8) -> Option<DateTime> {
        DateTime::new(year, month, day, self.hour, self.minute, self.second, self.nanosecond).ok()
    }
}

/// Takes digits off the front of a text.
struct Digits<'t>(&'t [u8]);

impl Digits<'_> {
    fn take(&mut self, count: usize) -> Option<i32> {
        let digits = self.0.get(..count)?;
        self.0 = &self.0[count..];
        digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i32::from(digit - b'0')))
    }

    fn two(&mut self) -> Option<i8> {
        self.take(2).and_then(|number| number.try_into().ok())
    }

    fn skip(&mut self, wanted: &[u8]) -> bool {
        let found = self.0.first().is_some_and(|b| wanted.contains(b));
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    /// Nanoseconds of a fraction of any length.
    fn fraction(&mut self) -> Option<i32> {
        let length = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let mut nanoseconds = 0;
        for place in 0..9 {
            let digit = if place < length { i32::from(self.0[place] - b'0') } else { 0 };
            nanoseconds = nanoseconds * 10 + digit;
        }
        self.0 = &self.0[length..];
        (length > 0).then_some(nanoseconds)
    }
}

/// `2016-12-14 02:46:44`, with `T`, fraction, and any form of offset.
fn iso(text: &str) -> Option<(DateTime, Option<Offset>)> {
    let mut digits = Digits(text.as_bytes());
    let year = digits.take(4)?.try_into().ok()?;
    digits.skip(b"-");
    let month = digits.two()?;
    if !digits.skip(b"-") {
        return None;
    }
    let day = digits.two()?;
    let clock = if digits.skip(b"T t") { iso_clock(&mut digits)? } else { Clock::default() };
    let offset = offset(&mut digits)?;
    digits.0.is_empty().then_some(())?;
    Some((clock.on(year, month, day)?, offset))
}

fn iso_clock(digits: &mut Digits<'_>) -> Option<Clock> {
    let hour = digits.two()?;
    if !digits.skip(b":") {
        return None;
    }
    let minute = digits.two()?;
    let second = if digits.skip(b":") { digits.two()? } else { 0 };
    let nanosecond = if digits.skip(b".,") { digits.fraction()? } else { 0 };
    Some(Clock { hour, minute, second: second.min(59), nanosecond })
}

/// Nothing, `Z`, `UTC`, `+02`, `+0200`, `+02:00`; the outer `None` is junk.
fn offset(digits: &mut Digits<'_>) -> Option<Option<Offset>> {
    digits.skip(b" ");
    if matches!(digits.0, b"UTC" | b"GMT" | b"Z" | b"z") {
        digits.0 = b"";
        return Some(Some(Offset::UTC));
    }
    let sign = match digits.0.first() {
        None => return Some(None),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return None,
    };
    digits.skip(b"+-");
    let hours = digits.take(2)?;
    digits.skip(b":");
    let minutes = if digits.0.is_empty() { 0 } else { digits.take(2)? };
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok().map(Some)
}

/// Seconds of a number that counts units of `unit` seconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie between 0 and a century")]
pub fn seconds(number: f64, unit: u32) -> Option<u64> {
    let seconds = number * f64::from(unit);
    (0.0..=LONGEST_SECONDS).contains(&seconds).then(|| seconds.round() as u64)
}

/// A length of time in seconds: a number of units, `hh:mm`, `hh:mm:ss`, a date since 1970 (`1970-01-02 04:23:17` is a
/// day and some hours), or words with hours, minutes and seconds. Days and weeks in words are not read, since they
/// mean working days of a length that only the site knows.
pub fn duration(text: &str, unit: u32) -> Option<u64> {
    let text = text.trim();
    if let Some(number) = decimal(text) {
        return seconds(number, unit);
    }
    if text.as_bytes().get(4) == Some(&b'-') {
        return since_1970(text);
    }
    clock_seconds(text).or_else(|| spoken_seconds(text)).and_then(|number| seconds(number, 1))
}

/// A decimal number, also with a comma.
fn decimal(text: &str) -> Option<f64> {
    text.parse().or_else(|_| text.replacen(',', ".", 1).parse()).ok().filter(|number: &f64| number.is_finite())
}

fn since_1970(text: &str) -> Option<u64> {
    let (local, _) = iso(text)?;
    let length: SignedDuration = local.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
    #[expect(clippy::cast_precision_loss, reason = "bounded by a century right after")]
    seconds(length.as_secs() as f64, 1)
}

fn clock_seconds(text: &str) -> Option<f64> {
    let parts: Vec<u32> = text.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    match parts[..] {
        [hours, minutes] if minutes < 60 => Some(f64::from(hours) * 3600.0 + f64::from(minutes * 60)),
        [hours, minutes, seconds] if minutes < 60 && seconds < 60 => {
            Some(f64::from(hours) * 3600.0 + f64::from(minutes * 60 + seconds))
        }
        _ => None,
    }
}

fn spoken_seconds(text: &str) -> Option<f64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut sum = None;
    for pair in words.chunks(2) {
        let [number, unit] = pair else { return None };
        let unit = match unit.trim_end_matches(',').to_ascii_lowercase().as_str() {
            "hour" | "hours" => 3600.0,
            "minute" | "minutes" => 60.0,
            "second" | "seconds" => 1.0,
            _ => return None,
        };
        sum = Some(sum.unwrap_or(0.0) + number.parse::<f64>().ok()? * unit);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Option<String> {
        let dates = Dates { zone: TimeZone::UTC, day_first: true };
        dates.parse(text, false).map(|time| time.to_string())
    }

    #[test]
    fn times_of_every_vendor() {
        for (text, time) in [
            ("2016-12-14 02:46:44", "2016-12-14T02:46:44Z"),
            ("10/24/2023 7:07:31", "2023-10-24T07:07:31Z"),
            ("29/2/2016 01:16", "2016-02-29T01:16:00Z"),
            ("29-02-2016 01:16", "2016-02-29T01:16:00Z"),
            ("05.03.2026 17:00", "2026-03-05T17:00:00Z"),
            ("2019-02-15T19:15:40.477-0800", "2019-02-16T03:15:40.477Z"),
            ("2022-06-21T11:08:05.000+0000", "2022-06-21T11:08:05Z"),
            ("2020-11-13T14:34:35.282Z", "2020-11-13T14:34:35.282Z"),
            ("2025-01-08T10:12:07.672717030Z", "2025-01-08T10:12:07.67271703Z"),
            ("2012-04-24T11:07:13+02:00", "2012-04-24T09:07:13Z"),
            ("2012-04-24T11:07:13+0530", "2012-04-24T05:37:13Z"),
            ("2012-04-24T11:07+02", "2012-04-24T09:07:00Z"),
            ("2012-04-24 11:07:13 UTC", "2012-04-24T11:07:13Z"),
            ("2012-04-24", "2012-04-24T00:00:00Z"),
            ("1550286940507", "2019-02-16T03:15:40.507Z"),
            ("1723660897", "2024-08-14T18:41:37Z"),
            ("1723660897000000", "2024-08-14T18:41:37Z"),
            ("03/02/2026 11:34:00 PM", "2026-02-03T23:34:00Z"),
        ] {
            assert_eq!(utc(text).as_deref(), Some(time), "{text}");
        }
    }

    #[test]
    fn junk_is_no_time() {
        for text in [
            "",
            "Today 12:51 AM",
            "01/Mar/23 11:34 AM",
            "tickets[0]_updated_at",
            "UNKNOWN",
            "2026-13-01 00:00:00",
            "2026-02-30",
            "2026-02-03 25:00",
            "99999999999999999999",
            "17",
            "-5",
            "2026-02-03T10:00:00+99:99",
            "1/2/3/4",
            "é026-01-01",
        ] {
            assert_eq!(utc(text), None, "{text}");
        }
    }

    #[test]
    fn exports_name_months_and_shorten_years() {
        let dates = Dates { zone: TimeZone::UTC, day_first: false };
        for (text, time) in [
            ("30/Jul/18 23:33", "2018-07-30T23:33:00Z"),
            ("02/Oct/26 11:12 AM", "2026-10-02T11:12:00Z"),
            ("6/21/2025 16:14", "2025-06-21T16:14:00Z"),
        ] {
            assert_eq!(dates.parse(text, true).unwrap().to_string(), time, "{text}");
        }
    }

    #[test]
    fn local_times_follow_the_zone() {
        let dates = Dates { zone: TimeZone::get("Europe/Berlin").unwrap(), day_first: true };
        for (text, time) in [
            ("2026-01-10 08:00:00", "2026-01-10T07:00:00Z"),
            ("2026-07-10 08:00:00", "2026-07-10T06:00:00Z"),
            ("2026-03-29 02:30:00", "2026-03-29T01:30:00Z"),
            ("2026-07-10T08:00:00Z", "2026-07-10T08:00:00Z"),
        ] {
            assert_eq!(dates.parse(text, false).unwrap().to_string(), time, "{text}");
        }
    }

    #[test]
    fn durations_of_every_vendor() {
        for (text, length) in [
            ("1970-01-01 08:00:00", Some(28_800)),
            ("1970-01-02 04:23:17", Some(102_197)),
            ("5400", Some(5400)),
            ("90.4", Some(90)),
            ("1,5", Some(2)),
            ("02:30", Some(9000)),
            ("30:00:01", Some(108_001)),
            ("1 Hour 30 Minutes", Some(5400)),
            ("1w", None),
            ("2 Days 1 Hour", None),
            ("-60", None),
            ("1e300", None),
            ("NaN", None),
            ("soon", None),
            ("1969-12-31 23:00:00", None),
        ] {
            assert_eq!(duration(text, 1), length, "{text}");
        }
        assert_eq!(duration("10.5", 60), Some(630));
    }
}
