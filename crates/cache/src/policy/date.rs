//! Dates as caches read them: whatever their case (RFC 9111 §4.2), and with a day of the week that may be wrong, as it
//! tells nothing. Pure.

use std::time::SystemTime;

const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// Reads an HTTP date, in any of its three forms (RFC 9110 §5.6.7).
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let strict = |text: &str| httpdate::parse_http_date(text).ok();
    strict(text).or_else(|| {
        let end = text.find(|c: char| !c.is_ascii_alphabetic())?;
        let (day, rest) = text.split_at(end);
        let is_short = day.len() == 3;
        let name = |long: &'static str| if is_short { &long[..3] } else { long };
        DAYS.iter().find(|long| name(long).eq_ignore_ascii_case(day))?;
        let rest = capitalized(rest);
        DAYS.iter().find_map(|long| strict(&format!("{}{rest}", name(long))))
    })
}

/// Months and the zone as they are to be written.
fn capitalized(text: &str) -> String {
    let mut after_letter = false;
    let of_case = |c: char| {
        let begins = !std::mem::replace(&mut after_letter, c.is_ascii_alphabetic());
        if begins {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        }
    };
    text.chars().map(of_case).collect::<String>().replace("Gmt", "GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_any_case_and_no_others() {
        let expected = httpdate::parse_http_date("Thu, 18 Aug 2050 02:01:18 GMT").expect("a date");
        for text in [
            "Thu, 18 Aug 2050 02:01:18 GMT",
            "THU, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 AUG 2050 02:01:18 GMT",
            "thu, 18 aug 2050 02:01:18 gMT",
            "Mon, 18 Aug 2050 02:01:18 GMT",
            "Thursday, 18-Aug-50 02:01:18 GMT",
            "thursday, 18-aug-50 02:01:18 gmt",
            "Thu Aug 18 02:01:18 2050",
            "MON AUG 18 02:01:18 2050",
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "0",
            "18 Aug 2050 02:01:18 GMT",
            "Foo, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 31 Feb 2050 02:01:18 GMT",
            "Th\u{fc}, 18 Aug 2050 02:01:18 GMT",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
